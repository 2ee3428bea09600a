"""What the ledger costs: durable submits beside SQLite's own commits, a restart with a long queue, memory over many jobs."""

import json
import os
import pathlib
import selectors
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
import urllib.request

import control_peers
import driver

SPEC = "name: bench\nkind: run\ncommand: ['true']\n"


def _report(case, unit, samples, **peer):
    driver.report("control", case, unit, samples, **peer)


class Coordinator:
    """A coordinator alone: nothing is placed, so that only its ledger is measured."""

    def __init__(self, options, folder):
        self.binary = options.bin / "tutti"
        self.folder = pathlib.Path(folder)
        self.config = self.folder / "coordinator.yaml"
        self.config.write_text(f"state: {folder}\n")
        self.start()

    def start(self):
        self.log = open(self.folder / "coordinator.log", "ab")
        self.process = subprocess.Popen([self.binary, "coordinator", "--config", self.config], stdout=self.log,
                                        stderr=self.log)
        while True:
            try:
                self.get("/api/v1/whoami")
                return
            except OSError:
                time.sleep(0.002)

    def read(self, name):
        return (self.folder / name).read_text().strip()

    def get(self, target):
        request = urllib.request.Request(self.read("address") + target)
        request.add_header("Authorization", "Bearer " + self.read("token"))
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read().decode()

    def metric(self, name):
        for line in self.get("/metrics").splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
        raise KeyError(name)

    def memory_mib(self):
        return self.metric("tutti_process_resident_memory_bytes") / (1 << 20)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)
        self.log.close()


class Clients:
    """Connections of one thread, each with one request on its way: as many as wait for a sync at a time."""

    def __init__(self, coordinator, count):
        host, port = coordinator.read("address").removeprefix("http://").rsplit(":", 1)
        self.head = f"Host: x\r\nAuthorization: Bearer {coordinator.read('token')}\r\n"
        self.poll = selectors.DefaultSelector()
        self.sockets = []
        for _ in range(count):
            sock = socket.create_connection((host, int(port)))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.poll.register(sock, selectors.EVENT_READ)
            self.sockets.append(sock)

    def request(self, target, body):
        data = json.dumps(body).encode()
        return f"POST {target} HTTP/1.1\r\n{self.head}Content-Length: {len(data)}\r\n\r\n".encode() + data

    def run(self, requests):
        """Each request's seconds, in the order of answers, and the answers."""
        requests = iter(requests)
        begun = {}
        times, answers = [], []

        def send(sock):
            request = next(requests, None)
            if request is not None:
                begun[sock] = time.perf_counter()
                sock.sendall(request)

        for sock in self.sockets:
            send(sock)
        while begun:
            for key, _ in self.poll.select(timeout=60):
                sock = key.fileobj
                answer = sock.recv(65536)
                times.append(time.perf_counter() - begun.pop(sock))
                if not answer.startswith(b"HTTP/1.1 200"):
                    raise SystemExit(f"bench: {answer[:300]}")
                answers.append(answer)
                send(sock)
        return times, answers

    def submits(self, count):
        body = {"spec": SPEC, "file": "bench"}
        return (self.request("/api/v1/jobs", dict(body, key=os.urandom(8).hex())) for _ in range(count))

    def close(self):
        for sock in self.sockets:
            sock.close()


def _id(answer):
    return json.loads(answer.split(b"\r\n\r\n", 1)[1])["id"]


class Commits:
    """SQLite's own durable commits of a row like a submit's, in a file that stays open, as the ledger's does."""

    def __init__(self, folder):
        self.database = sqlite3.connect(os.path.join(folder, "peer.sqlite"), isolation_level=None)
        self.database.execute("pragma journal_mode = wal")
        self.database.execute("pragma synchronous = full")
        self.database.execute("create table rows (id integer primary key, body blob)")

    def run(self, count):
        """Milliseconds of each."""
        times = []
        for _ in range(count):
            begun = time.perf_counter()
            self.database.execute("insert into rows values (null, ?)", (b"x" * 1200,))
            times.append((time.perf_counter() - begun) * 1000)
        return times


def durable_submit(options):
    folder = tempfile.mkdtemp(prefix="tutti-bench-", dir=os.environ.get("DURABLE_DIR"))
    coordinator = Coordinator(options, folder)
    try:
        rounds, each = (3, 200) if options.quick else (8, 400)
        one = Clients(coordinator, 1)
        one.run(one.submits(50))
        ours, peer, puts, one_seconds = [], [], [], 0.0
        commits = Commits(folder)
        commits.run(50)
        with control_peers.etcd() as etcd:
            for _ in range(rounds):  # alternating: the disk is shared with others
                begun = time.perf_counter()
                ours += [seconds * 1000 for seconds in one.run(one.submits(each))[0]]
                one_seconds += time.perf_counter() - begun
                peer += commits.run(each)
                puts += [etcd.put(b"x" * 1200) for _ in range(each)] if etcd else []
        one.close()
        said = f"SQLite commit p50 {driver.at(peer, 0.5):.2f} p99 {driver.at(peer, 0.99):.2f}"
        if puts:
            said += f"; etcd put p50 {driver.at(puts, 0.5):.2f} p99 {driver.at(puts, 0.99):.2f}"
        _report("durable submit over HTTP, 1 client", "ms", ours, peer=said,
                ratio=driver.at(peer, 0.99) / driver.at(ours, 0.99))
        many = Clients(coordinator, 64)
        facts, syncs = (coordinator.metric(f"tutti_ledger_{name}_total") for name in ("facts", "syncs"))
        count = 3_000 if options.quick else 6_000
        begun = time.perf_counter()
        times, _ = many.run(many.submits(count))
        seconds = time.perf_counter() - begun
        many.close()
        rate, alone = count / seconds, rounds * each / one_seconds
        _report("durable submit over HTTP, 64 clients", "ms", [each * 1000 for each in times])
        _report("durable submits a second, 64 clients", "1/s", [rate], peer=f"one client {alone:.0f}",
                ratio=rate / alone)
        facts = coordinator.metric("tutti_ledger_facts_total") - facts
        syncs = coordinator.metric("tutti_ledger_syncs_total") - syncs
        _report("submits a sync, 64 clients", "submits", [facts / syncs])
    finally:
        coordinator.stop()
        shutil.rmtree(folder, ignore_errors=True)


def restart(options):
    """kill -9 of a coordinator with 10,000 jobs queued, to the first answer of its successor."""
    folder = tempfile.mkdtemp(prefix="tutti-bench-", dir=os.environ.get("DURABLE_DIR"))
    coordinator = Coordinator(options, folder)
    try:
        clients = Clients(coordinator, 64)
        _, answers = clients.run(clients.submits(10_000))
        clients.close()
        newest = max(_id(answer) for answer in answers)
        times = []
        for _ in range(3 if options.quick else 7):
            begun = time.perf_counter()
            coordinator.process.kill()
            coordinator.process.wait()
            coordinator.start()
            job = json.loads(coordinator.get(f"/api/v1/jobs/{newest}"))
            times.append(time.perf_counter() - begun)
            assert job["state"] == "queued"
        _report("coordinator kill -9 to serving again, 10,000 jobs", "s", times)
    finally:
        coordinator.stop()
        shutil.rmtree(folder, ignore_errors=True)


# 10,000 ended jobs are remembered, then 100,000 keys of older ones: from 110,000 on each new one takes the place of an
# old one.
HISTORIES_FULL = 120_000


def history(options):
    """Memory while jobs are submitted and ended. Ends with an error where it is not flat once the histories are full."""
    folder = tempfile.mkdtemp(prefix="tutti-bench-", dir=os.environ.get("DURABLE_DIR"))
    coordinator = Coordinator(options, folder)
    try:
        clients = Clients(coordinator, 64)
        total, block = (40_000, 10_000) if options.quick else (200_000, 10_000)
        begun = time.perf_counter()
        memory = {0: coordinator.memory_mib()}
        for ended in range(block, total + 1, block):
            for _ in range(block // 500):
                _, answers = clients.run(clients.submits(500))
                clients.run(clients.request(f"/api/v1/jobs/{_id(answer)}/cancel", {"reason": "bench"})
                            for answer in answers)
            memory[ended] = coordinator.memory_mib()
        clients.close()
        full = total // 2 if options.quick else HISTORIES_FULL
        sizes = [size for ended, size in memory.items() if ended >= full]
        said = ", ".join(f"{memory[ended]:.1f} at {ended:,}" for ended in (0, total // 4, total // 2, total))
        _report(f"coordinator's memory from {full:,} to {total:,} jobs submitted and ended", "MiB", sizes, peer=f"max/min {driver.flatness(sizes):.3f}; {said}")
        _report("jobs submitted and ended a second, 64 clients", "1/s", [total / (time.perf_counter() - begun)])
        _report("ledger on disk after them", "MiB", [coordinator.metric("tutti_ledger_size_bytes") / (1 << 20)])
        if not options.quick:
            driver.require_flat("memory of the coordinator", sizes)
    finally:
        coordinator.stop()
        shutil.rmtree(folder, ignore_errors=True)
