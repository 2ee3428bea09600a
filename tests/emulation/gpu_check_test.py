#!/usr/bin/env python3
"""ops/gpu/check with a driver and programs that are made up: what it prints and how it ends when all of them pass, when
one fails, when one hangs, when a tool is missing and when a filter names no case.

    tests/emulation/gpu_check_test.py ROOT
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

SYSTEM_PATH = "/usr/bin:/bin"
ROOT = pathlib.Path(sys.argv[1]).resolve()

# What a program of the tree does, unless a test says otherwise. $0.hangs, $0.waits and $0.fails are files beside it.
PROGRAM = """#!/bin/sh
[ -e "$0.hangs" ] && exec sleep 600
while [ -e "$0.waits" ]; do sleep 0.05; done
[ -e "$0.fails" ] && { echo "it broke here"; exit 3; }
"""
PARITY = PROGRAM + """
[ -e "$0.skips" ] && { echo "parity_gpu: skipped: no memory here (some call)" >&2; exit 77; }
if [ "$1" = --list-test-names-only ]; then
  case "$2" in "$(cat "$0.lacks" 2>/dev/null)") exit 0 ;; esac
  echo "a case for $2"
  exit 1
fi
echo "All tests passed"
"""
BENCH = PROGRAM + """
[ -e "$0.slow" ] && { echo '{"case": "the first", "p50": 1}'; exec sleep 600; }
echo "a line for people"
[ -e "$0$2.hangs" ] && { echo '{"case": "first of '"$2"'", "p50": 1}'; exec sleep 600; }
[ "$1" = --json ] && echo '{"case": "'"$2"'", "p50": 1}' && echo '{"case": "norm", "p50": 2}' && printf '{"case": "cut o'
exit 0
"""
# A cluster whose steps have one hash in each run, or one that changes.
TUTTI = PROGRAM + """
case "$1" in
  up) exec sleep 600 ;;
  check) echo '{"gpus": [], "problems": false}' ;;
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
case "$*" in
  *"--tool memcheck --report-api-errors no --"* | *"--tool racecheck --error"*) ;;
  *) echo "wrong words: $*"; exit 1 ;;
esac
while [ "$1" != --error-exitcode ]; do shift; done
shift 2
exec "$@"
"""
# One that the tool cannot look into: its words go before the failure of the program.
BLIND = """#!/bin/sh
echo "========= Error: Target application terminated before first instrumented API call"
echo "========= Error: Device not supported. Please refer to the documentation"
exit 1
"""
SMI = """#!/bin/sh
case "$1" in
  -L) echo "GPU 0: made up" ;;
  --query-gpu=driver_version) echo 580.1 ;;
  --query-gpu=uuid) cat "$0.uuids" 2>/dev/null || echo GPU-1 ;;
  *) echo 'A "made up" card' ;;
esac
"""


RANK = """#!/bin/sh
echo '{"profiles":["sm_90-fp32-1","sm_90-fp8-e4m3_rows-1"],"stack":"CUDA 13.0, NCCL 2.27.3","devices":[]}'
"""


class Machine:
    """A folder of programs that are first in PATH, and a tree that was built elsewhere."""

    def __init__(self, folder, sanitizer=SANITIZER):
        self.path = pathlib.Path(folder)
        self.bin = self.path / "tree" / "bin"
        self.bin.mkdir(parents=True)
        self.tools = self.path / "tools"
        self.tools.mkdir()
        self.write(self.tools / "nvidia-smi", SMI)
        if sanitizer:
            self.write(self.tools / "compute-sanitizer", sanitizer)
        for name, text in {"parity_gpu": PARITY, "device_gpu": PARITY, "gpu_bench": BENCH, "tutti": TUTTI,
                           "tutti-rank-cuda": RANK}.items():
            self.write(self.bin / name, text)

    @staticmethod
    def write(path, text):
        path.write_text(text)
        path.chmod(0o755)

    def mark(self, name, text=""):
        (self.bin / name).write_text(text)

    def run(self, program, seconds=60, more=None):
        environment = dict(os.environ, PATH=f"{self.tools}:{SYSTEM_PATH}", TUTTI_GPU_CHECK_SECONDS=str(seconds),
                           TUTTI_GPU_BENCH_SECONDS=str(seconds), **(more or {}))
        return subprocess.run([str(ROOT / program), str(self.path / "tree")], env=environment, text=True,
                              capture_output=True, timeout=120, check=False)

    def check(self, seconds=60, more=None):
        done = self.run("ops/gpu/check", seconds, more)
        return done, json.loads(done.stdout) if done.stdout else None

    def bench(self, seconds=60, more=None):
        done = self.run("ops/bench/gpu/run", seconds, more)
        return done, [json.loads(line) for line in done.stdout.splitlines()]


def expect(found, wanted, what):
    if found != wanted:
        raise AssertionError(f"{what}: {found!r}, and not {wanted!r}")


STEPS = ["parity", "large", "streams", "graphs", "serving", "nccl", "machine", "training_fp32", "training_bf16",
         "training_fp8", "memcheck", "racecheck", "bench_kernels", "bench_training", "bench_serving"]


def passed_of(said):
    return {name: said[name]["passed"] for name in STEPS}


def all_pass(machine):
    done, said = machine.check()
    expect(done.returncode, 0, done.stderr)
    expect(passed_of(said), {name: True for name in STEPS}, "what passed")
    expect(said["card"], "A made up card", "the card")
    expect([said["driver"], said["stack"]], ["580.1", "CUDA 13.0, NCCL 2.27.3"], "what drives it")
    expect(said["ranks"], {"passed": None, "skipped": "one GPU"}, "what takes two GPUs")
    expect(said["machine_found"], {"gpus": [], "problems": False}, "what the machine's check said")
    # The line that was cut off is no row.
    parts = [{"case": f"--only={part}", "p50": 1} for part in ("kernels", "serving", "training")]
    expect([row for row in said["table"] if row["case"] != "norm"], parts, "the table")
    expect(len(said["table"]), 6, "its rows")


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
    expect([said[step]["skipped"].split(":")[0] for step in STEPS[-3:]], ["not all measured"] * 3, "what hung, too")
    expect(said["table"], [], "the table")


def bench_hangs(machine):
    machine.mark("gpu_bench--only=kernels.hangs")
    machine.mark("tutti.hangs")
    done, said = machine.check(seconds=12)
    expect(done.returncode, 1, "the exit code")
    expect([said["training_fp32"]["passed"], said["training_bf16"]["passed"]], [False, False], "what took all the time")
    expect(said["machine_found"], None, "what the machine's check did not say")
    expect([said[step]["passed"] for step in STEPS[-3:]], [None, True, True],
           "the benchmark has time of its own, and so each part")
    expect(said["table"][0], {"case": "first of --only=kernels", "p50": 1}, "what was measured before")
    expect(len(said["table"]), 5, "its rows")


def parity_is_skipped(machine):
    machine.mark("parity_gpu.skips")
    done, said = machine.check()
    expect(done.returncode, 0, done.stderr)
    for name in ("parity", "large", "memcheck", "racecheck"):
        expect(said[name], {"passed": None, "skipped": "no memory here (some call)"}, name)
    expect(said["streams"]["passed"], True, "what does not need it")


def bench_is_slow_or_fails(machine):
    machine.mark("gpu_bench--only=training.hangs")
    done, said = machine.check(seconds=12)
    expect(done.returncode, 0, done.stderr)
    expect([said["bench_training"]["passed"], said["bench_training"]["skipped"].split(":")[0]], [None, "not all measured"],
           "a part that took too long")
    expect(len(said["table"]), 5, "its rows")
    machine.mark("gpu_bench.fails")
    done, said = machine.check()
    expect([done.returncode, said["bench_training"]["passed"], said["bench_training"]["exit"]], [1, False, 3], "one that broke")


def says_as_it_goes(machine):
    """As where a machine is lent for a while: who ends the check has in OUT what was found by then."""
    out = machine.path / "out"
    out.mkdir()
    done, said = machine.check(more={"OUT": str(out)})
    expect([done.returncode, json.loads((out / "gpu_check.json").read_text())], [0, said], "what is printed is there too")
    expect(said["finished"], True, "that all steps were made")
    machine.mark("gpu_bench.waits")  # at "streams"
    (out / "gpu_check.json").unlink()
    environment = dict(os.environ, PATH=f"{machine.tools}:{SYSTEM_PATH}", OUT=str(out))
    with subprocess.Popen([str(ROOT / "ops/gpu/check"), str(machine.path / "tree")], env=environment, text=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as begun:
        found = {}
        while begun.poll() is None and "large" not in found:
            time.sleep(0.05)
            if (out / "gpu_check.json").exists():
                found = json.loads((out / "gpu_check.json").read_text())
        (machine.bin / "gpu_bench.waits").unlink()
        begun.wait(timeout=60)
    expect([found["finished"], found["parity"]["passed"], found["large"]["passed"], "streams" in found],
           [False, True, True, False], "what was found while it ran")


def bench_alone_hangs(machine):
    done, table = machine.bench()
    expect([done.returncode, len(table)], [0, 2], "the table")
    machine.mark("gpu_bench.slow")
    done, table = machine.bench(seconds=3)
    expect([done.returncode, [row["case"] for row in table]], [1, ["the first"]], "what was measured before")


def without_a_pack(machine):
    Machine.write(machine.tools / "cmake", "#!/bin/sh\necho 'Could NOT find Boost' >&2\nexit 1\n")
    environment = dict(os.environ, PATH=f"{machine.tools}:{SYSTEM_PATH}")
    done = subprocess.run([str(ROOT / "ops/gpu/check")], env=environment, text=True, capture_output=True, timeout=60,
                          check=False)
    expect(done.returncode, 1, "the exit code")
    expect("ops/gpu/pack" in done.stderr.splitlines()[0], True, "what would do without a build")


def sanitizer_of_cuda(machine):
    folder = machine.path / "cuda" / "bin"
    folder.mkdir(parents=True)
    os.rename(machine.tools / "compute-sanitizer", folder / "compute-sanitizer")
    _, said = machine.check(more={"CUDA_HOME": str(folder.parent)})
    expect([said["memcheck"]["passed"], said["racecheck"]["passed"]], [True, True], "what is in CUDA's folder")


def hashes_drift(machine):
    machine.mark("tutti.drifts")
    done, said = machine.check()
    expect(done.returncode, 1, "the exit code")
    expect([said["training_fp32"]["passed"], said["training_bf16"]["passed"]], [False, False], "training")


def no_fp8(machine):
    Machine.write(machine.bin / "tutti-rank-cuda", RANK.replace(',"sm_90-fp8-e4m3_rows-1"', ""))
    done, said = machine.check()
    expect(done.returncode, 0, done.stderr)
    expect(said["training_fp8"], {"passed": None, "skipped": "no profile in fp8"}, "what takes fp8")
    expect([said["stack"], said["training_bf16"]["passed"]], ["CUDA 13.0, NCCL 2.27.3", True], "what does not")


def filter_names_nothing(machine):
    machine.mark("parity_gpu.lacks", "attention: forward*")
    done, said = machine.check()
    expect(done.returncode, 1, "the exit code")
    expect([said["memcheck"]["passed"], said["racecheck"]["passed"]], [False, False], "what names the case")
    expect("no case is named: attention: forward*" in done.stderr, True, "the reason")
    expect(said["parity"]["passed"], True, "the whole suite")
    machine.mark("device_gpu.lacks", "graphs:*")
    _, said = machine.check()
    expect([said["graphs"]["passed"], said["serving"]["passed"]], [False, True], "what has no case left")


def sanitizer_is_blind(machine):
    done, said = machine.check()
    expect(done.returncode, 0, done.stderr)
    for name in ("memcheck", "racecheck"):
        expect(said[name], {"passed": None, "skipped": "compute-sanitizer says: Device not supported"}, name)


def sanitizer_finds(machine):
    Machine.write(machine.tools / "compute-sanitizer", "#!/bin/sh\necho '========= Invalid __global__ write'\nexit 1\n")
    done, said = machine.check()
    expect(done.returncode, 1, "the exit code")
    expect([said["memcheck"]["passed"], said["racecheck"]["passed"]], [False, False], "what it found")


def sanitizer_is_slow(machine):
    Machine.write(machine.tools / "compute-sanitizer", "#!/bin/sh\necho '========= COMPUTE-SANITIZER'\nexec sleep 600\n")
    done, said = machine.check(seconds=12)
    expect(done.returncode, 0, done.stderr)
    for name in ("memcheck", "racecheck"):
        expect([said[name]["passed"], said[name]["skipped"].split(":")[0]], [None, "too little time"], name)
    expect(said["bench_serving"]["passed"], True, "what comes behind")
    Machine.write(machine.tools / "compute-sanitizer",
                  "#!/bin/sh\necho '========= Invalid __global__ write of size 4 bytes'\nexec sleep 600\n")
    done, said = machine.check(seconds=12)
    expect([done.returncode, said["memcheck"]["passed"], said["memcheck"]["exit"]], [1, False, 124], "what it found before")


def library_is_missing(machine):
    # A program of this machine that asks for a library which is nowhere.
    source = machine.path / "asks.c"
    source.write_text("int main(void) { return 0; }\n")
    library = machine.path / "libtutti_nowhere.so.1"
    subprocess.run(["cc", "-shared", "-o", str(library), "-Wl,-soname,libtutti_nowhere.so.1", str(source)], check=True)
    subprocess.run(["cc", "-o", str(machine.bin / "device_gpu"), "-Wl,--no-as-needed", str(source), str(library)],
                   check=True)
    folder = machine.path / "cuda" / "lib64"
    folder.mkdir(parents=True)
    found = shutil.copy(library, folder)
    library.unlink()
    environment = {"CUDA_HOME": str(folder.parent)}
    done, _ = machine.check(more=environment)
    expect("not found" in done.stderr, False, "with the library in CUDA's folder")
    expect(machine.bench(more=environment)[0].returncode, 0, "the benchmark with it")
    os.unlink(found)
    done, table = machine.bench(more=environment)
    expect([done.returncode, table, "libtutti_nowhere.so.1" in done.stderr], [1, [], True], "the benchmark without it")
    done, said = machine.check(more=environment)
    expect([done.returncode, said], [1, None], "without it")
    expect([done.stderr.count("\n"), "libtutti_nowhere.so.1" in done.stderr], [1, True], "one line names it")


def c_library_is_older(machine):
    needs = machine.path / "tree" / "glibc"
    needs.write_text("2.4\n")  # is older than 2.36, whatever the digits
    expect(machine.bench()[0].returncode, 0, "with a C library that is newer")
    for has, wanted in (("glibc 2.31", "2.31"), ("", "another C library")):
        Machine.write(machine.tools / "getconf", f"#!/bin/sh\necho '{has}'\n")
        needs.write_text("2.36\n")
        machine.mark("parity_gpu.hangs")  # nothing is run
        done, said = machine.check()
        expect([done.returncode, said, done.stderr.count("\n")], [1, None, 1], "one line")
        expect(f"need glibc 2.36, this machine has {wanted}:" in done.stderr, True, done.stderr)
        done, table = machine.bench()
        expect([done.returncode, table, done.stderr.count("\n")], [1, [], 1], "the benchmark's")
    needs.write_text("2.31\n")
    Machine.write(machine.tools / "getconf", "#!/bin/sh\necho 'glibc 2.31'\n")
    (machine.bin / "parity_gpu.hangs").unlink()
    expect(machine.bench()[0].returncode, 0, "with the same one")


def filters_name_cases(_):
    """The made-up programs have a case for every filter; these are those of the real ones."""
    titles = []
    for source in (*ROOT.glob("tests/parity/**/*.cc"), *ROOT.glob("tests/emulation/**/*.cc")):
        for title in re.findall(r'TEST_CASE\(\s*((?:"[^"]*"\s*)+)', source.read_text()):
            titles.append("".join(re.findall(r'"([^"]*)"', title)))
    text = (ROOT / "ops/gpu/check").read_text()
    filters = re.findall(r'"([a-z][^"$\n]*\*)"', text)
    expect(len(filters) > 15, True, "that filters are found")
    lost = [one for one in filters if not any(title.startswith(one[:-1]) for title in titles)]
    expect(lost, [], "filters without a case")


def tool_is_missing(machine):
    done, said = machine.check()
    expect(done.returncode, 0, done.stderr)
    for name in ("memcheck", "racecheck"):
        expect(said[name], {"passed": None, "skipped": "compute-sanitizer is not installed"}, name)


def main():
    cases = [c_library_is_older, all_pass, one_fails, one_hangs, bench_hangs, parity_is_skipped, bench_is_slow_or_fails, says_as_it_goes, bench_alone_hangs, without_a_pack, hashes_drift, no_fp8, filter_names_nothing,
             sanitizer_is_blind, sanitizer_finds, sanitizer_is_slow, sanitizer_of_cuda, library_is_missing, filters_name_cases]
    if shutil.which("compute-sanitizer", path=SYSTEM_PATH) is None:
        cases.append(tool_is_missing)
    failed = 0
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            try:
                case(Machine(folder, {tool_is_missing: None, sanitizer_is_blind: BLIND}.get(case, SANITIZER)))
            except (AssertionError, ValueError, KeyError) as wrong:
                print(f"{case.__name__}: {wrong}")
                failed += 1
    print(f"{len(cases) - failed} of {len(cases)} pass")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
