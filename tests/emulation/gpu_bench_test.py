#!/usr/bin/env python3
"""The GPU's benchmark and PyTorch's cases beside it: every name of the peer's is one of ours, so that each of its times
finds its line; each of ours runs, in tiny shapes on the emulation, and says which algorithms its products have; and what is
printed where there is no PyTorch with a GPU is ours, whole.

    tests/emulation/gpu_bench_test.py ROOT GPU_BENCH
"""

import json
import pathlib
import subprocess
import sys
import tempfile

PEERS = pathlib.Path(sys.argv[1], "ops/bench/gpu/peers.py")
FIELDS = {"bench", "case", "unit", "min", "p50", "p99", "n", "peer", "ratio", "share", "machine", "commit"}


def lines_of(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=200).stdout.splitlines()


def main():
    failed = []
    ours = lines_of(sys.argv[2], "--names")
    done = subprocess.run([sys.argv[2], "--small"], capture_output=True, text=True, check=True, timeout=200)
    ran = done.stdout.splitlines()
    if "products nt of bf16 by a weight of" not in done.stderr or " offered" not in done.stderr:
        failed.append("it does not say which algorithms its products have")
    if ran != ours:
        failed.append(f"cases that did not run in tiny shapes: {[name for name in ours if name not in ran]}")
    theirs = lines_of(sys.executable, str(PEERS), "--names")
    parts = [lines_of(sys.argv[2], "--names", f"--only={part}") for part in ("kernels", "training", "serving")]
    if sum(parts, []) != ours or not all(parts):
        failed.append(f"the parts are not the whole: {parts}")
    if len(set(ours)) != len(ours):
        failed.append("two of our cases have one name")
    failed += [f"PyTorch's case is none of ours: {name}" for name in theirs if name not in ours]
    if not theirs:
        failed.append("PyTorch has no cases")
    # A peer's time goes into our line; a case without one stays as it is.
    sys.path.insert(0, str(PEERS.parent))
    import peers  # pylint: disable=import-outside-toplevel,import-error

    class NoCard:
        class cuda:
            empty_cache = staticmethod(lambda: None)

    peers.torch = NoCard
    line = {name: None for name in FIELDS} | {"case": "one", "p50": 0.5}
    said = peers.beside(json.dumps(line), {"one": (lambda seconds: [seconds] * 3, 0.75)}, "torch 9")
    if said != line | {"peer": "torch 9", "ratio": 1.5}:
        failed.append(f"a line with its peer: {said}")
    if peers.beside(json.dumps(line), {}, "torch 9") != line:
        failed.append("a line without a peer has changed")
    with tempfile.NamedTemporaryFile("w") as table:
        table.write(json.dumps(line) + "\n")
        table.flush()
        said = [json.loads(row) for row in lines_of(sys.executable, str(PEERS), "--beside", table.name)]
    if said != [line]:
        failed.append(f"without a GPU: {said}")
    print("\n".join(failed) if failed else f"{len(ours)} cases, {len(theirs)} of them with PyTorch beside them")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
