"""Programs: how soon one starts, and how many a second."""

import os
import shutil
import tempfile
import time

import control_peers
import driver


def _report(case, unit, samples, **peer):
    driver.report("control", case, unit, samples, **peer)


def submit_to_first_instruction(options):
    """The program's own clock reading, first thing it does, against the moment of the submit."""
    count = 20 if options.quick else 100
    folder = tempfile.mkdtemp(prefix="tutti-bench-")
    cluster = driver.Cluster(options.bin, folder)
    try:
        times = []
        for number in range(count):
            path = os.path.join(folder, f"began-{number}")
            spec = f"name: bench\nkind: run\ncommand: [sh, -c, 'date +%s.%N > {path}.t; mv {path}.t {path}']\n"
            began = time.time()
            job = cluster.submit(spec)
            cluster.until("the program", lambda: os.path.exists(path))
            times.append((float(open(path).read()) - began) * 1e3)
            cluster.finish(job)
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
    peer = control_peers.hyperqueue(2, 1)
    median = driver.at(peer["latencies_ms"], 0.5) if peer else None
    _report("submit to first instruction of a program, idle", "ms", times,
            peer=f"HyperQueue p50 {median:.1f}" if peer else None,
            ratio=median / driver.at(times, 0.5) if peer else None)


def _resident_mib(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise KeyError("VmRSS")


def ran(options):
    """Memory of coordinator and worker while programs run by the 200,000: of arrays, some that print, and alone.

    Ends with an error where either is not flat over the second half: by then the history is full.
    """
    blocks = 4 if options.quick else 20
    silent, printing, alone = 7_500, 1_500, 1_000
    folder = tempfile.mkdtemp(prefix="tutti-bench-")
    cluster = driver.Cluster(options.bin, folder)
    parts = {part: cluster.pid(part) for part in ("coordinator", "worker")}
    memory = {part: [] for part in parts}
    try:
        began = time.monotonic()
        for _ in range(blocks):
            jobs = [cluster.submit(f"name: ran\nkind: run\ncommand: ['true']\narray: {{count: {silent}}}\n"),
                    cluster.submit("name: says\nkind: run\ncommand: [echo, 'task ${index} was here']\n"
                                   f"array: {{count: {printing}}}\n")]
            jobs += [cluster.submit("name: alone\nkind: run\ncommand: ['true']\n") for _ in range(alone)]
            for job in jobs:
                cluster.finish(job)
            for part, pid in parts.items():
                memory[part].append(_resident_mib(pid))
        rate = blocks * (silent + printing + alone) / (time.monotonic() - began)
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
    halves = {part: sizes[len(sizes) // 2:] for part, sizes in memory.items()}
    for part, sizes in memory.items():
        _report(f"{part}'s memory over {blocks * (silent + printing + alone):,} programs that ran, second half", "MiB",
                halves[part],
                peer=f"max/min {driver.flatness(halves[part]):.3f}; after the first {sizes[0]:.1f}, at the end {sizes[-1]:.1f}")
    _report("programs run a second, of arrays and alone", "1/s", [rate])
    if not options.quick:
        for part, half in halves.items():
            driver.require_flat(f"memory of the {part}", half)


def array(options):
    """One submit of an array of `true`; its end is asked for every 20 ms."""
    tasks, repeats = (1_000, 1) if options.quick else (10_000, 3)
    folder = tempfile.mkdtemp(prefix="tutti-bench-")
    cluster = driver.Cluster(options.bin, folder)
    try:
        rates = []
        for _ in range(repeats):
            began = time.monotonic()
            job = cluster.submit(f"name: bench\nkind: run\ncommand: ['true']\narray: {{count: {tasks}}}\n")
            while cluster.job(job)["state"] not in ("done", "failed", "cancelled"):
                time.sleep(0.02)
            cluster.finish(job)
            rates.append(tasks / (time.monotonic() - began))
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
    peer = control_peers.hyperqueue(tasks, repeats)
    median = driver.at(peer["rates"], 0.5) if peer else None
    _report(f"array of {tasks} times `true`", "programs/s", rates,
            peer=f"HyperQueue p50 {median:.0f}" if peer else None,
            ratio=driver.at(rates, 0.5) / median if peer else None)
