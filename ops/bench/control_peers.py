"""The control plane's peers. HyperQueue for short programs (server, worker and client in one process) and torchrun for lost
ranks are of $PEERS_VENV's Python; etcd for durable writes is Debian's etcd-server."""

import base64
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

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


def _free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextlib.contextmanager
def _folder():
    folder = tempfile.mkdtemp(prefix="tutti-peer-", dir=os.environ.get("DURABLE_DIR"))
    try:
        yield pathlib.Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Etcd:
    """One etcd server and a client of its JSON gateway that keeps its connection."""

    def __init__(self, folder):
        client, peer = (f"http://127.0.0.1:{_free_port()}" for _ in range(2))
        self.process = subprocess.Popen(
            ["etcd", "--data-dir", folder / "data", "--listen-client-urls", client, "--advertise-client-urls", client,
             "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.http = http.client.HTTPConnection(client.removeprefix("http://"), timeout=10)
        end = time.monotonic() + 30
        while True:
            try:
                self.put(b"x")
                return
            except (OSError, http.client.HTTPException, RuntimeError):
                self.http.close()
                if time.monotonic() > end or self.process.poll() is not None:
                    self.stop()
                    raise
                time.sleep(0.05)

    def put(self, value):
        """Milliseconds of one durable write."""
        body = json.dumps({"key": "YmVuY2g=", "value": base64.b64encode(value).decode()})
        begun = time.perf_counter()
        self.http.request("POST", "/v3/kv/put", body)
        answer = self.http.getresponse()
        answer.read()
        took = (time.perf_counter() - begun) * 1000
        if answer.status != 200:
            raise RuntimeError(f"etcd answers {answer.status}")
        return took

    def stop(self):
        self.http.close()
        self.process.terminate()
        self.process.wait(timeout=30)


@contextlib.contextmanager
def etcd():
    """An Etcd, or nothing where it is not installed."""
    if shutil.which("etcd") is None:
        yield None
        return
    with _folder() as folder:
        server = Etcd(folder)
        try:
            yield server
        finally:
            server.stop()


# A rank of a small decoder under DDP: it writes a line for each step and, on rank 0, a checkpoint each tenth step, from which
# it starts.
_RANK = """
import os, sys, time, torch, torch.distributed as dist
from torch import nn
folder = sys.argv[1]
torch.set_num_threads(1); rank, of, restart = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE",
    "TORCHELASTIC_RESTART_COUNT"))
# A store for each start: in torchrun's own, restarted ranks at times find the addresses of those before (torch 2.15).
dist.init_process_group("gloo", init_method=f"file://{folder}/store.{restart}", rank=rank, world_size=of)
class Decoder(nn.Module):
    def __init__(self, width=192, heads=6, layers=4, vocabulary=2048):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary)
    def forward(self, tokens):
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        return self.head(self.layers(self.embedding(tokens), mask=mask, is_causal=True))
torch.manual_seed(1); model = nn.parallel.DistributedDataParallel(Decoder())
optimizer = torch.optim.AdamW(model.parameters(), 1e-4); step = 0; saved = folder + "/checkpoint"
if os.path.exists(saved):
    state = torch.load(saved); step = state["step"]
    model.load_state_dict(state["model"]); optimizer.load_state_dict(state["optimizer"])
open(f"{folder}/pid.{rank}", "w").write(str(os.getpid()))
log = open(f"{folder}/log.{rank}", "a", buffering=1)
while True:
    tokens = torch.randint(0, 2048, (4, 129))
    loss = nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    optimizer.zero_grad(); loss.backward(); optimizer.step(); step += 1
    log.write(f"{step} {time.time()} {os.getpid()}\\n")
    if rank == 0 and step % 10 == 0:
        torch.save({"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, saved + ".new")
        os.replace(saved + ".new", saved)
"""


def _steps(folder, rank):
    """[(step, unix seconds, pid)] of what a rank has written."""
    try:
        lines = (folder / f"log.{rank}").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [(int(step), float(at), int(pid)) for step, at, pid in (line.split() for line in lines if line.count(" ") == 2)]


def torchrun_death(kills, deadline=180.0):
    """SIGKILL to rank 1 of two under torchrun: {"next_ms": to the next step done, "lost": steps done again}, or nothing where
    torch is not installed."""
    program = os.path.join(os.environ.get("PEERS_VENV", ""), "bin/torchrun")
    if not os.path.exists(program):
        return None
    next_ms, lost = [], []
    with _folder() as folder:
        (folder / "rank.py").write_text(_RANK)
        process = subprocess.Popen(
            [program, "--standalone", "--nproc-per-node", "2", "--max-restarts", str(kills), folder / "rank.py", folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=dict(os.environ, OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME="lo"))

        def until(holds):
            end = time.monotonic() + deadline
            while not holds():
                if time.monotonic() > end or process.poll() is not None:
                    raise RuntimeError("torchrun makes no steps")
                time.sleep(0.02)

        try:
            for kill in range(kills):
                # Half-way between two checkpoints, as a failure comes.
                until(lambda: any(step > 10 and step % 10 == 5 for step, _, _ in _steps(folder, 0)[-1:]))
                done = _steps(folder, 0)[-1]
                killed = time.time()
                os.kill(int((folder / f"pid.1").read_text()), signal.SIGKILL)
                anew = lambda: [each for each in _steps(folder, 0) if each[2] != done[2]
                                and each[1] > killed]
                until(anew)
                next_ms.append((anew()[0][1] - killed) * 1000)
                lost.append(done[0] + 1 - anew()[0][0])
        finally:
            process.terminate()
            process.wait(timeout=60)
    return {"next_ms": next_ms, "lost": lost}
