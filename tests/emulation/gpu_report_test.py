#!/usr/bin/env python3
"""ops/gpu/logged and ops/gpu/report: what a file took to compile is known whether a compiler cache answered or not, and too
much of it fails the report.

    tests/emulation/gpu_report_test.py ROOT
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(sys.argv[1]).resolve()
# A compiler behind a cache: `cache` beside it is what that answers with, else 1.2 s of a core's time make another object.
COMPILER = """#!/usr/bin/env python3
import os, pathlib, shutil, sys
own, made = pathlib.Path(__file__).parent, pathlib.Path(sys.argv[-1])
print("ptxas info: none", file=sys.stderr)
if (own / "fails").exists():
    sys.exit(3)
if "CCACHE_RECACHE" in os.environ or not (own / "cache").exists():
    while os.times().user < 1.2:
        sum(range(1_000_000))
    (own / "cache").write_bytes(os.urandom(8))
    (own / "runs").open("a").write("x")
shutil.copy(own / "cache", made)
"""


class Folder:
    def __init__(self, folder):
        self.path = pathlib.Path(folder)
        self.compiler = self.path / "compiler"
        self.compiler.write_text(COMPILER)
        self.compiler.chmod(0o755)

    def compile(self):
        """The seconds that the log says, and how often it was compiled so far."""
        log = self.path / "x.ptxas"
        done = subprocess.run([str(ROOT / "ops/gpu/logged"), str(log), str(self.compiler), "-o", str(self.path / "x.o")],
                              env=dict(os.environ, TUTTI_CACHE=str(self.path / "kept")), capture_output=True, text=True,
                              timeout=60, check=False)
        runs = (self.path / "runs").read_text() if (self.path / "runs").exists() else ""
        said = re.fullmatch(r"ptxas info: none\ncompiled in ([\d.]+) s\n", log.read_text())
        return done, float(said.group(1)) if said else None, len(runs)


def expect(found, wanted, what):
    if found != wanted:
        raise AssertionError(f"{what}: {found!r}, and not {wanted!r}")


def known_from_a_cache(folder):
    _, first, runs = folder.compile()
    expect([runs, first >= 1], [1, True], "compiled")
    expect(folder.compile()[1:], (first, 1), "from the cache: what it took then")
    for kept in (folder.path / "kept" / "nvcc").iterdir():
        kept.unlink()
    _, third, runs = folder.compile()
    expect([runs, third >= 1], [2, True], "from the cache, and nobody knows: compiled again")
    expect(folder.compile()[1:], (third, 2), "known from then on")
    (folder.path / "fails").touch()
    done = folder.compile()[0]
    expect([done.returncode, "ptxas info: none" in done.stderr], [3, True], "a compiler that fails")


def report(folder, times):
    """What ops/gpu/report says of files that took so long; None: it does not say."""
    files = []
    for number, seconds in enumerate(times):
        files.append(folder.path / f"{number}.ptxas")
        files[-1].write_text("" if seconds is None else f"compiled in {seconds} s\n")
    done = subprocess.run([sys.executable, str(ROOT / "ops/gpu/report.py"), "--check", *map(str, files)], capture_output=True,
                          text=True, timeout=60, check=False)
    return done.stdout.splitlines()[-1]


def too_much_fails(folder):
    expect(report(folder, [400.0, 500.0, 60.0]), "nvcc: 3 files, 960 s of a core's time, 500 of them the longest", "as much as may be")
    expect(report(folder, [400.0, 500.0, 61.0]), "nvcc took longer than 960 s of a core's time", "more")
    expect(report(folder, [2.0, None]), "1 files do not say what they took", "a file without a time")


def main():
    failed = 0
    for case in (known_from_a_cache, too_much_fails):
        with tempfile.TemporaryDirectory() as folder:
            try:
                case(Folder(folder))
            except (AssertionError, TypeError) as wrong:
                print(f"{case.__name__}: {wrong}")
                failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
