#!/usr/bin/env python3
"""ops/gpu/train_again with real programs, whose ranks have the emulated GPU: what it says of runs that are alike, in each
precision, on one rank, on two and after a kill; and that it fails where a run is not like the first.

    tests/emulation/train_again_test.py ROOT BIN
"""

import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(sys.argv[1]).resolve()
BIN = pathlib.Path(sys.argv[2]).resolve()
# From the second start on, ranks compute by other algorithms, as a machine does whose library has changed.
DRIFTS = """#!/bin/sh
[ "$1" = devices ] || { echo >>'{folder}/starts'; [ "$(wc -l <'{folder}/starts')" -lt 2 ] || export TUTTI_EMULATION_BACKWARDS=1; }
exec '{rank}' "$@"
"""


def train(folder, precision, how, rank):
    environment = dict(os.environ, TUTTI_TRAIN_SMALL="1", TUTTI_TRAIN_RANK=str(rank))
    environment["TUTTI_CACHE"] = str(pathlib.Path(folder, "cache"))
    return subprocess.run([str(ROOT / "ops/gpu/train_again"), str(BIN), folder, precision, how], env=environment, text=True,
                          capture_output=True, timeout=100, check=False)


def main():
    rank = BIN / "tutti-rank-emulation"
    failed = []
    wanted = {("fp32", "twice"): "8 steps in fp32, equal hashes\n",
              ("bf16", "twice"): "8 steps in bf16, equal hashes\n",
              ("fp8", "twice"): "8 steps in fp8, equal hashes\n",
              ("fp32", "ranks"): "8 steps in fp32, equal hashes of one rank, of two, and after a kill\n"}
    for (precision, how), words in wanted.items():
        with tempfile.TemporaryDirectory() as folder:
            done = train(folder, precision, how, rank)
            if done.returncode != 0 or not done.stdout.endswith(words):
                log = pathlib.Path(folder, f"{precision}-{how}", "up.log")
                failed.append(f"{precision}, {how}: {done.returncode}: {done.stdout}{done.stderr}{log.read_text()[-2000:]}")
    with tempfile.TemporaryDirectory() as folder:
        other = pathlib.Path(folder, "rank")
        other.write_text(DRIFTS.replace("{folder}", folder).replace("{rank}", str(rank)))
        other.chmod(0o755)
        done = train(folder, "fp32", "twice", other)
        if done.returncode != 1 or "differ" not in done.stdout + done.stderr:
            failed.append(f"a run that drifts: {done.returncode}: {done.stdout}{done.stderr}")
    print("\n".join(failed) if failed else "real programs train alike, and one that drifts is found")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
