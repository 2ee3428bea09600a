#!/usr/bin/env python3
"""`tutti check --gpu` with the rank binary whose GPUs are emulated and a driver that is made up: what it says of two that are
well, of one that is hot, one that fails, one that hangs, of links that hang, and where there is none; and how what it kept of
links reaches the coordinator by a worker.

    tests/emulation/check_gpus_test.py BIN FAKE_NVML
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

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
        (self.folder / "worker").mkdir()

    def environment(self, **more):
        environment = dict(os.environ, TUTTI_CHECK_SMALL="1", TUTTI_EMULATION_DEVICES="2", TUTTI_FAKE_EMULATED="1",
                           TUTTI_FAKE_COOL="1", LD_LIBRARY_PATH=str(self.folder), TUTTI_STATE=str(self.folder))
        environment.update(more)
        for name in [name for name, value in environment.items() if value is None]:
            del environment[name]
        return environment

    def check(self, *options, **more):
        # No speed is meant here: what a GPU reaches is no problem.
        return subprocess.run([str(self.folder / "tutti"), "check", "--gpu", "--below", "0", *options],
                              env=self.environment(**more), text=True, capture_output=True, timeout=200, check=False)

    def told_by_a_worker(self):
        """Of each GPU of a cluster here, whether its links have the speeds that a check measures while it runs."""
        state = self.folder / "cluster"
        more = {"TUTTI_DEVICE": "gpu", "TUTTI_STATE": str(state)}
        (self.folder / "tutti-rank").symlink_to(BIN / "tutti-rank-emulation")
        with subprocess.Popen([str(self.folder / "tutti"), "up", "--slots", "2"], env=self.environment(**more),
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as cluster:
            try:
                self.links_when(cluster, lambda links: len(links) == 2 and all(links), more)
                self.check(**more)
                links = self.links_when(cluster, lambda links: all(one["mb_per_s"] for of_gpu in links for one in of_gpu), more)
                return [[one["mb_per_s"] > 1 for one in of_gpu] for of_gpu in links]
            finally:
                cluster.send_signal(signal.SIGINT)
                try:
                    cluster.wait(timeout=60)
                finally:
                    cluster.kill()

    def links_when(self, cluster, holds, more):
        """Links of each GPU as the coordinator shows them, once they are so; the last ones after a minute, or when the cluster ended."""
        links = []
        until = time.monotonic() + 60
        while time.monotonic() < until:
            said = subprocess.run([str(self.folder / "tutti"), "nodes", "-o", "json"], env=self.environment(**more), text=True,
                                  capture_output=True, timeout=60, check=False)
            nodes = json.loads(said.stdout)["nodes"] if said.returncode == 0 else []
            links = [(gpu["reading"] or {}).get("links", []) for node in nodes for gpu in node["devices"]]
            if links and holds(links):
                break
            try:
                cluster.wait(timeout=0.2)  # between two questions
                break
            except subprocess.TimeoutExpired:
                pass
        return links

    def answer(self, *options, **more):
        done = self.check("-o", "json", *options, **more)
        try:
            return done.returncode, json.loads(done.stdout)
        except json.JSONDecodeError:
            raise SystemExit(f"{more}: {done.returncode}: {done.stdout}{done.stderr}") from None

    def kept(self):
        """Of each pair, by the file that the worker reads: whether it is faster than one that failed."""
        links = json.loads((self.folder / "worker" / "gpu-links.json").read_text())["links"]
        return {(one["from"], one["to"]): one["mb_per_s"] > 1 for one in links}

    def fault(self, words):
        file = self.folder / "fault"
        file.write_text(words)
        return {"TUTTI_EMULATION_FAULT_AT": str(file)}


def problems(answer):
    return [f"{one['subject']}: {one['found']}" for one in answer["findings"] if one["verdict"] == "problem"]


def valued(answer):
    return {(one["name"], one["gpu"], one["peer"]) for one in answer["measures"] if one["value"] is not None}


ALL = ({(name, gpu, None) for name in OF_ONE for gpu in (FIRST, SECOND)} | {("all to all", None, None)} |
       {("copy to a peer", FIRST, SECOND), ("copy to a peer", SECOND, FIRST), ("copies both ways", FIRST, SECOND)})
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
        expect("what is kept of links", machine.kept(), {(FIRST, SECOND): True, (SECOND, FIRST): True})
        expect("where", [one["found"] for one in well["findings"] if one["subject"] == "links"],
               [f"kept in {machine.folder}/worker/gpu-links.json"])
        code, nowhere = machine.answer("--state", str(machine.folder / "none"))
        expect("what a worker tells of it", machine.told_by_a_worker(), [[True], [True]])
        expect("links that are kept nowhere", (code, [one["verdict"] for one in nowhere["findings"] if one["subject"] == "links"]),
               (0, ["note"]))
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
               (3, ["GPU 0 to 1: copy to a peer: it did not end in 8 s", "GPU 1 to 0: copy to a peer: it did not end in 8 s",
                    "GPUs 0 and 1: copies both ways: it did not end in 8 s"]))
        expect("what is kept of them", machine.kept(), {(FIRST, SECOND): False, (SECOND, FIRST): False})

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
