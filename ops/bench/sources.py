#!/usr/bin/env python3
"""Which sources a benchmark measures: a commit and a hash of their blobs, so that a commit elsewhere makes no other program.

    ops/bench/sources.py [PROGRAM]  prints `COMMIT HASH`; after changes that are not committed the commit ends in -dirty

Of a commit the hash is that of its list of files (git ls-tree), of a working tree that of the commit that `git stash create` makes of
it and puts nowhere.
"""

import functools
import hashlib
import pathlib
import re
import subprocess
import sys

# What a program of ops/bench is made of on a CPU; tables, texts and devices are no part of it.
FOLDERS = ["kernels", "protocol/base", "ops/bench"]
PART = re.compile(r"^(?!kernels/cuda/|ops/bench/gpu/).*(\.h|\.cc|/CMakeLists\.txt|/peer_torch\.py)$")


MORE = {"training": ("jobs",)}  # of the program ops/bench/training


def git(root, *arguments):
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


@functools.lru_cache(maxsize=None)
def hash_of(root, commit, more):
    """Of the sources as a commit has them; None where there is no such commit."""
    listed = git(root, "ls-tree", "-r", commit, "--", *FOLDERS, *more)
    if listed is None:
        return None
    files = [line for line in listed.splitlines() if PART.match(line.split("\t", 1)[1])]
    return hashlib.sha256("\n".join(files).encode()).hexdigest()[:12]


def state(root, more):
    """(commit, hash) of the working tree."""
    commit = git(root, "rev-parse", "--short=8", "HEAD")
    if commit is None:
        return "unknown", "unknown"
    changed = git(root, "stash", "create") or "HEAD"
    found = hash_of(root, changed, more)
    return commit + ("" if found == hash_of(root, "HEAD", more) else "-dirty"), found


@functools.lru_cache(maxsize=None)
def known(root, commit, found, program):
    """Whether the commit is one behind HEAD, or one of those has these sources. A copy without its history knows all."""
    if git(root, "rev-parse", "--is-shallow-repository") != "false":
        return True
    if git(root, "merge-base", "--is-ancestor", commit or "", "HEAD") is not None:
        return True
    more = MORE.get(program, ())
    behind = (git(root, "log", "--format=%h", "--", *FOLDERS, *more) or "").split()
    return found is not None and any(hash_of(root, each, more) == found for each in behind)


def main(arguments):
    root = pathlib.Path(__file__).resolve().parent.parent.parent
    print(*state(root, MORE.get(arguments[0] if arguments else "", ())))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
