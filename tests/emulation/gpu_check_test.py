#!/usr/bin/env python3
"""ops/gpu/check with a driver and programs that are made up: what it prints and how it ends when all of them pass, when
one fails, when one hangs, when a tool is missing and when a filter names no case.

    tests/emulation/gpu_check_test.py ROOT
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

SYSTEM_PATH = "/usr/bin:/bin"
ROOT = pathlib.Path(sys.argv[1]).resolve()

# What a program of the tree does, unless a test says otherwise. $0.hangs and $0.fails are files beside it.
PROGRAM = """#!/bin/sh
[ -e "$0.hangs" ] && exec sleep 600
[ -e "$0.fails" ] && { echo "it broke here"; exit 3; }
"""
PARITY = PROGRAM + """
if [ "$1" = --list-test-names-only ]; then
  case "$2" in "$(cat "$0.lacks" 2>/dev/null)") exit 0 ;; esac
  echo "a case for $2"
  exit 1
fi
echo "All tests passed"
"""
BENCH = PROGRAM + """
echo "a line for people"
[ "$1" = --json ] && echo '{"case": "decode", "p50": 1}' && echo '{"case": "norm", "p50": 2}' && printf '{"case": "cut o'
exit 0
"""
# A cluster whose steps have one hash in each run, or one that changes.
TUTTI = PROGRAM + """
case "$1" in
  up) exec sleep 600 ;;
  nodes) echo "ready" ;;
  submit) echo 1 ;;
  wait) : ;;
  steps)
    turn=$(cat "$0.turn" 2>/dev/null || echo 0)
    [ -e "$0.drifts" ] && echo $((turn + 1)) >"$0.turn"
    for step in $(seq 20); do printf '{"step": %d, "weights": "ab%02d%d"}\\n' $step $step $turn; done ;;
esac
"""
SANITIZER = """#!/bin/sh
while [ "$1" != --error-exitcode ]; do shift; done
shift 2
exec "$@"
"""
SMI = """#!/bin/sh
echo 'A "made up" card'
"""


class Machine:
    """A folder of programs that are first in PATH, and a tree that was built elsewhere."""

    def __init__(self, folder, sanitizer):
        self.path = pathlib.Path(folder)
        self.bin = self.path / "tree" / "bin"
        self.bin.mkdir(parents=True)
        self.tools = self.path / "tools"
        self.tools.mkdir()
        self.write(self.tools / "nvidia-smi", SMI)
        if sanitizer:
            self.write(self.tools / "compute-sanitizer", SANITIZER)
        for name, text in {"parity_gpu": PARITY, "gpu_bench": BENCH, "tutti": TUTTI}.items():
            self.write(self.bin / name, text)

    @staticmethod
    def write(path, text):
        path.write_text(text)
        path.chmod(0o755)

    def mark(self, name, text=""):
        (self.bin / name).write_text(text)

    def check(self, seconds=60):
        environment = dict(os.environ, PATH=f"{self.tools}:{SYSTEM_PATH}", TUTTI_GPU_CHECK_SECONDS=str(seconds))
        done = subprocess.run([str(ROOT / "ops/gpu/check"), str(self.path / "tree")], env=environment, text=True,
                              capture_output=True, timeout=120, check=False)
        return done, json.loads(done.stdout)


def expect(found, wanted, what):
    if found != wanted:
        raise AssertionError(f"{what}: {found!r}, and not {wanted!r}")


STEPS = ["parity", "large", "memcheck", "racecheck", "streams", "training_fp32", "training_bf16", "bench"]


def passed_of(said):
    return {name: said[name]["passed"] for name in STEPS}


def all_pass(machine):
    done, said = machine.check()
    expect(done.returncode, 0, done.stderr)
    expect(passed_of(said), {name: True for name in STEPS}, "what passed")
    expect(said["card"], "A made up card", "the card")
    # The line that was cut off is no row.
    expect(said["table"], [{"case": "decode", "p50": 1}, {"case": "norm", "p50": 2}], "the table")


def one_fails(machine):
    machine.mark("parity_gpu.fails")
    done, said = machine.check()
    expect(done.returncode, 1, "the exit code")
    expect(said["parity"] | {"seconds": 0}, {"passed": False, "exit": 3, "seconds": 0}, "parity")
    expect(said["streams"]["passed"], True, "what does not need it")
    expect("it broke here" in done.stderr, True, "the end of its output is shown")


def one_hangs(machine):
    machine.mark("gpu_bench.hangs")
    done, said = machine.check(seconds=4)
    expect(done.returncode, 1, "the exit code")
    expect(said["parity"]["passed"], True, "what came before")
    expect(said["streams"]["exit"], 124, "the step that hung")
    expect(said["bench"]["exit"], 124, "what no time was left for")
    expect(said["table"], [], "the table")


def hashes_drift(machine):
    machine.mark("tutti.drifts")
    done, said = machine.check()
    expect(done.returncode, 1, "the exit code")
    expect([said["training_fp32"]["passed"], said["training_bf16"]["passed"]], [False, False], "training")


def filter_names_nothing(machine):
    machine.mark("parity_gpu.lacks", "attention: forward*")
    done, said = machine.check()
    expect(done.returncode, 1, "the exit code")
    expect([said["memcheck"]["passed"], said["racecheck"]["passed"]], [False, False], "what names the case")
    expect("no case is named: attention: forward*" in done.stderr, True, "the reason")
    expect(said["parity"]["passed"], True, "the whole suite")


def tool_is_missing(machine):
    done, said = machine.check()
    expect(done.returncode, 0, done.stderr)
    for name in ("memcheck", "racecheck"):
        expect(said[name], {"passed": None, "skipped": "compute-sanitizer is not installed"}, name)


def main():
    cases = [all_pass, one_fails, one_hangs, hashes_drift, filter_names_nothing]
    if shutil.which("compute-sanitizer", path=SYSTEM_PATH) is None:
        cases.append(tool_is_missing)
    failed = 0
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            try:
                case(Machine(folder, sanitizer=case is not tool_is_missing))
            except (AssertionError, ValueError, KeyError) as wrong:
                print(f"{case.__name__}: {wrong}")
                failed += 1
    print(f"{len(cases) - failed} of {len(cases)} pass")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
