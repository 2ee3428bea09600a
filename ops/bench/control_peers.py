"""HyperQueue, the peer for short programs: server, worker and client in one process of $PEERS_VENV's Python."""

import json
import os
import subprocess
import sys

# Run by the peer's interpreter, so that its packages are not needed here.
_HYPERQUEUE = """
import json, os, sys, tempfile, time
from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig
tasks, repeats = int(sys.argv[1]), int(sys.argv[2])
folder = tempfile.mkdtemp(); os.chdir(folder)
began = time.time()
def programs(args, count=1):
    job = Job(max_fails=None)
    for _ in range(count): job.program(args, stdout=None, stderr=None)
    return job
with LocalCluster() as cluster:
    cluster.start_worker(WorkerConfig(cores=2)); client = cluster.client()
    client.wait_for_jobs([client.submit(programs(["/bin/true"]))])
    up = time.time() - began
    rates = []
    for _ in range(repeats):
        at = time.time(); client.wait_for_jobs([client.submit(programs(["/bin/true"], tasks))])
        rates.append(tasks / (time.time() - at))
    latencies = []
    for number in range(20 if tasks > 1 else 0):
        path = f"{folder}/{number}"; at = time.time()
        client.submit(programs(["sh", "-c", f"date +%s.%N > {path}.t; mv {path}.t {path}"]))
        while not os.path.exists(path): time.sleep(.001)
        latencies.append((float(open(path).read()) - at) * 1e3)
print(json.dumps({"up_s": up, "rates": rates, "latencies_ms": latencies}))
"""


def hyperqueue(tasks, repeats):
    """{"up_s", "rates", "latencies_ms"}, or nothing where it is not installed."""
    interpreter = os.path.join(os.environ.get("PEERS_VENV", ""), "bin/python")
    if not os.path.exists(interpreter):
        return None
    done = subprocess.run([interpreter, "-c", _HYPERQUEUE, str(tasks), str(repeats)], capture_output=True, text=True,
                          timeout=600, check=False)
    if done.returncode != 0:
        print("bench: no HyperQueue: " + (done.stderr.strip().splitlines() or ["it failed"])[-1], file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])
