"""Losing ranks and workers: how soon it is seen, and how soon work goes on."""

import os
import select
import shutil
import signal
import tempfile
import time

import control_peers
import driver


def _report(case, unit, samples, **peer):
    driver.report("control", case, unit, samples, **peer)


def _rank_pid(cluster, job, rank):
    return next((process["pid"] for process in cluster.job(job)["processes"] if process["rank"] == rank), 0)


def _kill(pid):
    """When it was killed and when the kernel had taken it down and said so, in unix milliseconds."""
    descriptor = os.pidfd_open(pid)
    try:
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        killed = time.time() * 1e3
        os.kill(pid, signal.SIGKILL)
        if not ended.poll(driver.DEADLINE * 1e3):
            raise SystemExit(f"bench: process {pid} does not end")
        return killed, time.time() * 1e3
    finally:
        os.close(descriptor)


def _rank_deaths(options, kills, spec_of):
    """SIGKILL to alternating ranks of a two-rank training job. Wall clocks of one machine: ours at the kill, the
    coordinator's in its events and recoveries. Lists of samples, in milliseconds and steps."""
    folder = tempfile.mkdtemp(prefix="tutti-bench-")
    cluster = driver.Cluster(options.bin, folder)
    try:
        tokens = os.path.join(folder, "tokens.npy")
        driver.write_tokens(tokens, 200_000, 2048)
        job = cluster.submit(spec_of(tokens))
        cluster.until("the first steps", lambda: cluster.job(job)["step"] >= 3)
        times, memory = [], 0
        for kill in range(kills):
            pid = _rank_pid(cluster, job, kill % 2)
            memory = max(memory, driver.resident_mib(pid))
            times.append(_kill(pid))
            cluster.until("the recovery", lambda: sum((each["first_step_ms"] or -1) > 0 for each in
                                                      cluster.job(job)["recoveries"]) > kill)
            step = cluster.job(job)["step"]
            cluster.until("two more steps", lambda: cluster.job(job)["step"] >= step + 2)
        recoveries = cluster.job(job)["recoveries"]
        events = cluster.get(f"/api/v1/jobs/{job}/events?after=0")["events"]
        recovered = [event["unix_ms"] for event in events if event["kind"] == "recovered"]
        seen = [at - recovery["first_step_ms"] for at, recovery in zip(recovered, recoveries)]
        cluster.call("POST", f"/api/v1/jobs/{job}/cancel", {"reason": "measured"})
        return {"memory": memory,
                "seen": [at - killed for at, (killed, _) in zip(seen, times)],
                "after_kernel": [at - ended for at, (_, ended) in zip(seen, times)],
                "out": [each["aborted_ms"] for each in recoveries],
                "next": [at - killed for at, (killed, _) in zip(recovered, times)],
                "lost": [each["lost_steps"] for each in recoveries]}
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def rank_death(options):
    ours = _rank_deaths(options, 3 if options.quick else 20, lambda tokens: driver.train_spec(tokens, 100_000, 2))
    _report("rank killed: kill to seen by the coordinator", "ms", ours["seen"])
    _report("rank killed: seen to survivors out of the old group", "ms", ours["out"])
    peer = control_peers.torchrun_death(3)
    said = {} if peer is None else {
        "peer": f"torchrun {driver.at(peer['next_ms'], 0.5):.0f} ms, {driver.at(peer['lost'], 0.5)} steps lost",
        "ratio": driver.at(peer["next_ms"], 0.5) / driver.at(ours["next"], 0.5)}
    _report("rank killed: kill to next step done", "ms", ours["next"], **said)
    _report("rank killed: steps lost", "steps", ours["lost"])


def large_rank_death(options):
    """Ranks whose memory takes the kernel a while to take down."""
    spec_of = lambda tokens: driver.train_spec(tokens, 100_000, 2, layers=10, width=1024, heads=16, sequence=32, batch=2)
    ours = _rank_deaths(options, 2 if options.quick else 6, spec_of)
    said = f"{ours['memory'] / 1024:.1f} GiB resident"
    _report("large rank killed: kill to seen by the coordinator", "ms", ours["seen"], peer=said)
    _report("large rank killed: the kernel's word to seen by the coordinator", "ms", ours["after_kernel"], peer=said)
    _report("large rank killed: kill to next step done", "ms", ours["next"], peer=said)
    _report("large rank killed: steps lost", "steps", ours["lost"], peer=said)


CUT_MS = 20_000


def _silence(options, begin, end):
    """Seconds from the worker's silence to suspect and to lost, of a cluster each; its state is asked for every few
    milliseconds."""
    suspect, lost = [], []
    for _ in range(1 if options.quick else 3):
        folder = tempfile.mkdtemp(prefix="tutti-bench-")
        cluster = driver.Cluster(options.bin, folder)
        try:
            state = lambda: cluster.get("/api/v1/nodes")["nodes"][0]["state"]
            began = time.monotonic()
            begin(cluster)
            cluster.until("suspect", lambda: state() in ("suspect", "lost"))
            suspect.append(time.monotonic() - began)
            cluster.until("lost", lambda: state() == "lost")
            lost.append(time.monotonic() - began)
        finally:
            end(cluster)
            cluster.stop()
            shutil.rmtree(folder, ignore_errors=True)
    return suspect, lost


def _cut(cluster):
    worker = cluster.get("/api/v1/nodes")["nodes"][0]["name"]
    cluster.call("POST", "/api/v1/faults", {"action": "cut", "worker": worker, "lasts_ms": CUT_MS})


def silent_worker(options):
    """SIGSTOP to the worker, or its messages dropped both ways while its connection stays. The lease is 5 s."""
    ways = {"stopped": (lambda cluster: os.kill(cluster.pid("worker"), signal.SIGSTOP),
                        lambda cluster: os.kill(cluster.pid("worker"), signal.SIGCONT)),
            "cut off": (_cut,
                        lambda cluster: None)}  # it ends by itself: a lost worker is told nothing
    for name, (begin, end) in ways.items():
        suspect, lost = _silence(options, begin, end)
        _report(f"worker {name}: to suspect", "s", suspect)
        _report(f"worker {name}: to lost (lease 5 s)", "s", lost)
