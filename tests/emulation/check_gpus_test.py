#!/usr/bin/env python3
"""`tutti check --gpu` with the rank binary whose GPUs are emulated and a driver that is made up: what it says of two that are
well, of one that is hot, one that fails, one that hangs, of links that hang, and where there is none.

    tests/emulation/check_gpus_test.py BIN FAKE_NVML
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

BIN = pathlib.Path(sys.argv[1]).resolve()
FAKE_NVML = pathlib.Path(sys.argv[2]).resolve()
FIRST = "GPU-656d756c-6174-6564-2d30-000000000000"
SECOND = "GPU-656d756c-6174-6564-2d31-000000000000"
OF_ONE = ["fp32 product", "tf32 product", "bf16 product", "read, memory", "copy, memory", "from the host", "to the host"]


class Machine:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        # `tutti` runs the rank binary that lies beside it.
        shutil.copy(BIN / "tutti", self.folder / "tutti")
        (self.folder / "tutti-rank-cuda").symlink_to(BIN / "tutti-rank-emulation")
        (self.folder / "libnvidia-ml.so.1").symlink_to(FAKE_NVML)

    def check(self, *options, **more):
        # No speed is meant here: what a GPU reaches is no problem.
        environment = dict(os.environ, TUTTI_CHECK_SMALL="1", TUTTI_EMULATION_DEVICES="2", TUTTI_FAKE_EMULATED="1",
                           TUTTI_FAKE_COOL="1", LD_LIBRARY_PATH=str(self.folder))
        environment.update(more)
        for name in [name for name, value in environment.items() if value is None]:
            del environment[name]
        return subprocess.run([str(self.folder / "tutti"), "check", "--gpu", "--below", "0", *options], env=environment,
                              text=True, capture_output=True, timeout=200, check=False)

    def answer(self, *options, **more):
        done = self.check("-o", "json", *options, **more)
        try:
            return done.returncode, json.loads(done.stdout)
        except json.JSONDecodeError:
            raise SystemExit(f"{more}: {done.returncode}: {done.stdout}{done.stderr}") from None

    def fault(self, words):
        file = self.folder / "fault"
        file.write_text(words)
        return {"TUTTI_EMULATION_FAULT_AT": str(file)}


def problems(answer):
    return [f"{one['subject']}: {one['found']}" for one in answer["findings"] if one["verdict"] == "problem"]


def valued(answer):
    return {(one["name"], one["gpu"], one["peer"]) for one in answer["measures"] if one["value"] is not None}


ALL = ({(name, gpu, None) for name in OF_ONE for gpu in (FIRST, SECOND)} | {("all to all", None, None)} |
       {("copy to a peer", FIRST, SECOND), ("copy to a peer", SECOND, FIRST)})
OF_SECOND = {(name, SECOND, None) for name in OF_ONE}


def main():
    failed = []

    def expect(what, said, wanted):
        if said != wanted:
            failed.append(f"{what}: {said}, and not {wanted}")

    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(folder)
        code, well = machine.answer()
        expect("two that are well", (code, problems(well), valued(well)), (0, [], ALL))
        expect("what the driver tells", [gpu["reading"]["clock_mhz"] for gpu in well["gpus"]], [1980, 1980])
        table = machine.check()
        expect("the table's end", (table.returncode, table.stdout.splitlines()[-1]), (0, "no problems"))
        expect("its rows", [name for name in OF_ONE if name not in table.stdout], [])

        code, hot = machine.answer(TUTTI_FAKE_COOL=None)
        expect("one that is hot", (code, problems(hot)), (3, ["GPU 1: slowed down (thermal, hardware) at 92 C"]))

        code, faulty = machine.answer(**machine.fault("read_words 2"))
        expect("one that fails", (code, valued(faulty)), (3, OF_SECOND | {(name, FIRST, None) for name in OF_ONE[:3]}))
        expect("its words", [one.split(": ")[:3] for one in problems(faulty)], [["GPU 0", "read, memory", "the GPU failed"]])

        code, silent = machine.answer("--deadline", "8", **machine.fault("fill_words 1 hangs"))
        expect("one that hangs", (code, problems(silent)), (3, ["GPU 0: fp32 product: it did not end in 8 s"]))
        expect("the others of it", valued(silent), OF_SECOND)

        code, apart = machine.answer("--deadline", "8", TUTTI_EMULATION_PEER_HANGS="1")
        expect("links that hang", (code, problems(apart)),
               (3, ["GPU 0 to 1: copy to a peer: it did not end in 8 s", "GPU 1 to 0: copy to a peer: it did not end in 8 s"]))

        code, group = machine.answer("--deadline", "8", TUTTI_EMULATION_NCCL="forming_hangs")
        expect("a group that hangs", (code, problems(group)), (3, ["all GPUs: all to all: it did not end in 8 s"]))

        none = machine.check(TUTTI_EMULATION_DEVICES="0", LD_LIBRARY_PATH=None)
        expect("where there is none", (none.returncode, none.stdout, none.stderr.count("\n")), (77, "", 1))
        old = machine.check(TUTTI_EMULATION_DRIVER="12040")
        expect("an old driver", (old.returncode, "the NVIDIA driver knows CUDA 12.4, this build needs 13.0" in old.stderr),
               (3, True))
        (machine.folder / "tutti-rank-cuda").unlink()
        bare = machine.check(LD_LIBRARY_PATH=None)
        expect("a build without GPUs", (bare.returncode, bare.stderr.count("\n")), (77, 1))
    print("\n".join(failed) if failed else "GPUs that are well, hot, fail or hang are told apart")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
