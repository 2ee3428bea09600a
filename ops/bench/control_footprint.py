"""What the service costs before it does anything: time to be there, and memory."""

import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

import control_peers
import driver


def _report(case, unit, samples, **peer):
    driver.report("control", case, unit, samples, **peer)


def up_to_first_instruction(options):
    """`tutti up` on a new folder to the first instruction of a program that is submitted as soon as the API answers."""
    times = []
    for _ in range(3 if options.quick else 10):
        folder = tempfile.mkdtemp(prefix="tutti-bench-")
        path = os.path.join(folder, "began")
        spec = os.path.join(folder, "first.yaml")
        pathlib.Path(spec).write_text(
            f"name: first\nkind: run\ncommand: [sh, -c, 'date +%s.%N > {path}.t; mv {path}.t {path}']\n")
        state = os.path.join(folder, "state")
        began = time.time()
        up = subprocess.Popen([options.bin / "tutti", "up", "--slots", "2", "--state", state],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not os.path.exists(os.path.join(state, "address")):
                time.sleep(0.001)
            environment = dict(os.environ, TUTTI_STATE=state)
            while subprocess.run([options.bin / "tutti", "submit", spec], env=environment, capture_output=True,
                                 check=False).returncode != 0:
                pass
            while not os.path.exists(path):
                time.sleep(0.001)
            times.append(float(open(path).read()) - began)
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait(timeout=30)
            shutil.rmtree(folder, ignore_errors=True)
    peer = control_peers.hyperqueue(1, 1)
    _report("`tutti up` to the first program's first instruction", "s", times,
            peer=f"HyperQueue {peer['up_s']:.2f}" if peer else None,
            ratio=peer["up_s"] / driver.at(times, 0.5) if peer else None)


def _memory_mib(pid):
    """Proportional set size: pages that processes share are counted once."""
    for line in open(f"/proc/{pid}/smaps_rollup"):
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"no Pss of {pid}")


def idle_memory(options):
    folder = tempfile.mkdtemp(prefix="tutti-bench-")
    cluster = driver.Cluster(options.bin, folder)
    try:
        job = cluster.submit("name: bench\nkind: run\ncommand: ['true']\n")
        cluster.finish(job)
        time.sleep(2)  # idle is what is measured
        _report("idle: coordinator and worker", "MiB",
                [_memory_mib(cluster.pid("coordinator")) + _memory_mib(cluster.pid("worker"))])
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
