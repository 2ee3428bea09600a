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
