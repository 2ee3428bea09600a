"""Losing ranks and workers: how soon it is seen, and how soon work goes on."""

import os
import shutil
import signal
import tempfile
import time

import driver


def _report(case, unit, samples):
    driver.report("control", case, unit, samples)


def _rank_pid(cluster, job, rank):
    return next((process["pid"] for process in cluster.job(job)["processes"] if process["rank"] == rank), 0)


def rank_death(options):
    """SIGKILL to alternating ranks of a two-rank training job. Wall clocks of one machine: ours at the kill, the
    coordinator's in its events and recoveries."""
    folder = tempfile.mkdtemp(prefix="tutti-bench-")
    cluster = driver.Cluster(options.bin, folder)
    try:
        tokens = os.path.join(folder, "tokens.npy")
        driver.write_tokens(tokens, 200_000, 2048)
        job = cluster.submit(driver.train_spec(tokens, 100_000, 2))
        cluster.until("the first steps", lambda: cluster.job(job)["step"] >= 3)
        killed = []
        for kill in range(3 if options.quick else 20):
            pid = _rank_pid(cluster, job, kill % 2)
            killed.append(time.time() * 1e3)
            os.kill(pid, signal.SIGKILL)
            cluster.until("the recovery", lambda: sum((each["first_step_ms"] or -1) > 0 for each in
                                                      cluster.job(job)["recoveries"]) > kill)
            step = cluster.job(job)["step"]
            cluster.until("two more steps", lambda: cluster.job(job)["step"] >= step + 2)
        recoveries = cluster.job(job)["recoveries"]
        events = cluster.get(f"/api/v1/jobs/{job}/events?after=0")["events"]
        of = lambda kind: [event["unix_ms"] for event in events if event["kind"] == kind]
        seen = [recovered - recovery["first_step_ms"] for recovered, recovery in zip(of("recovered"), recoveries)]
        _report("rank killed: kill to seen by the coordinator", "ms", [at - sent for at, sent in zip(seen, killed)])
        _report("rank killed: seen to survivors out of the old group", "ms", [each["aborted_ms"] for each in recoveries])
        _report("rank killed: kill to next step done", "ms",
                [at - sent for at, sent in zip(of("recovered"), killed)])
        _report("rank killed: steps lost", "steps", [each["lost_steps"] for each in recoveries])
        cluster.call("POST", f"/api/v1/jobs/{job}/cancel", {"reason": "measured"})
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def silent_worker(options):
    """SIGSTOP to the worker; its state is asked for every few milliseconds. The lease is 5 s."""
    suspect, lost = [], []
    for _ in range(1 if options.quick else 3):
        folder = tempfile.mkdtemp(prefix="tutti-bench-")
        cluster = driver.Cluster(options.bin, folder)
        pid = cluster.pid("worker")
        try:
            state = lambda: cluster.get("/api/v1/nodes")["nodes"][0]["state"]
            os.kill(pid, signal.SIGSTOP)
            began = time.monotonic()
            cluster.until("suspect", lambda: state() in ("suspect", "lost"))
            suspect.append(time.monotonic() - began)
            cluster.until("lost", lambda: state() == "lost")
            lost.append(time.monotonic() - began)
        finally:
            os.kill(pid, signal.SIGCONT)
            cluster.stop()
            shutil.rmtree(folder, ignore_errors=True)
    _report("worker stopped: to suspect", "s", suspect)
    _report("worker stopped: to lost (lease 5 s)", "s", lost)
