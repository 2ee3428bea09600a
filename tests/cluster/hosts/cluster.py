"""A coordinator and three workers as real processes, one worker a host, each started again when it dies.

The part that an init system has on real machines, supervising, is here: `tend()` starts again what has ended. All
processes carry one variable with a value of this run, by which `leftovers()` finds them.
"""

import json
import os
import pathlib
import select
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid

from net import die_with_parent

PATIENCE = max(1, int(os.environ.get("TUTTI_TEST_PATIENCE", "1")))  # as tests/support/patience.h
DEADLINE = 120.0
RANK = os.environ.get("TUTTI_TEST_RANK")  # as tests/support/cluster.cc
COORDINATOR_HOST = "a"
ENVIRONMENT = {name: value for name, value in os.environ.items()
               if name in ("PATH", "ASAN_OPTIONS", "TSAN_OPTIONS")}  # the latter of ops/sanitize


class Failed(Exception):
    pass


def ended(pidfds, seconds):
    """Waits until one of these processes has ended, at most so long; those that have."""
    return select.select(pidfds, [], [], max(0.0, seconds))[0]


def eventually(what, holds, deadline, pause):
    """The first true value of `holds`. `pause(seconds)` comes between two questions and may end early."""
    until = time.monotonic() + deadline * PATIENCE
    while True:
        value = holds()
        if value:
            return value
        if time.monotonic() >= until:
            raise Failed(f"not within {deadline * PATIENCE:.0f} s: {what}")
        pause(0.05)


class Cluster:
    """`supervised`: parts that end are started again; else the end of one is a failure of the test."""

    def __init__(self, hosts, folder, binaries, supervised=False, slots=2, lease_ms=2000 * PATIENCE):
        self.hosts = hosts
        self.folder = pathlib.Path(folder)
        self.binaries = pathlib.Path(binaries)
        self.mark = "TUTTI_TEST_HOSTS=" + uuid.uuid4().hex
        self.supervised = supervised
        self.parts = {}
        self.pidfds = {}
        self.commands = {}
        self.state = self.folder / "coordinator"
        self._write("coordinator", {
            "state": self.state, "http_host": hosts.addresses[COORDINATOR_HOST],
            "control_host": hosts.addresses[COORDINATOR_HOST], "lease_ms": lease_ms, "heartbeat_ms": lease_ms // 10,
            "faults": "true"})
        self.commands["coordinator"] = (COORDINATOR_HOST, "coordinator")
        for name in hosts.names:
            self._write(f"worker-{name}", {
                "state": self.folder / f"worker-{name}", "join": self.state / "join.json", "name": name,
                "slots": slots, "threads": 1, "faults": "true",
                **({"rank_binary": RANK} if RANK else {})})
            self.commands[f"worker-{name}"] = (name, "worker")
        for part in self.commands:
            self.start(part)
        self.eventually("all workers are ready", lambda: self.count_nodes("ready") == len(hosts.names))

    def _write(self, part, values):
        text = "".join(f"{key}: {value}\n" for key, value in values.items())
        (self.folder / f"{part}.yaml").write_text(text)

    def start(self, part):
        host, verb = self.commands[part]
        name, value = self.mark.split("=")
        log = open(self.folder / f"{part}.log", "ab")
        self.parts[part] = subprocess.Popen(
            [*self.hosts.prefix(host), self.binaries / "tutti", verb, "--config", self.folder / f"{part}.yaml"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent,
            env=ENVIRONMENT | {"TUTTI_LOG": "info", name: value})
        log.close()
        if part in self.pidfds:
            os.close(self.pidfds[part])
        self.pidfds[part] = os.pidfd_open(self.parts[part].pid)

    def pause(self, seconds):
        """So long, or until a part ends; that one is seen to."""
        ended(list(self.pidfds.values()), seconds)
        for part, process in list(self.parts.items()):
            if process.poll() is None:
                continue
            if not self.supervised:
                raise Failed(f"{part} ended with {process.returncode}")
            self.start(part)

    def eventually(self, what, holds, deadline=DEADLINE):
        return eventually(what, holds, deadline, self.pause)

    def signal(self, part, number):
        self.parts[part].send_signal(number)

    def ask(self, target, body=None, deadline=10.0):
        """(status, text); status 0: nobody answered."""
        try:
            address = (self.state / "address").read_text().strip()
            token = (self.state / "token").read_text().strip()
            request = urllib.request.Request(address + target, headers={"Authorization": "Bearer " + token},
                                             data=None if body is None else json.dumps(body).encode())
            with urllib.request.urlopen(request, timeout=deadline * PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (OSError, ValueError):
            return 0, ""

    def get(self, target, deadline=10.0):
        status, text = self.ask(target, deadline=deadline)
        return json.loads(text) if status == 200 else None

    def newest_event(self):
        """Its number: events that are awaited come after it."""
        return self.get("/api/v1/events")["next"]

    def await_event(self, after, kind, **of):
        """Held by the coordinator until there is one of that kind (of job=ID or node=NAME) after that number."""
        target = f"/api/v1/jobs/{of['job']}/events" if "job" in of else "/api/v1/events"
        node = f"&node={of['node']}" if "node" in of else ""
        query = f"{target}?after={after}&kind={kind}{node}&wait_ms=30000"
        return self.eventually(f"event {kind} of {of}", lambda: (self.get(query, 40.0) or {}).get("events"))

    def await_step(self, job, step):
        query = f"/api/v1/jobs/{job}/steps?after={step - 1}&wait_ms=30000"
        return self.eventually(f"step {step} of job {job}", lambda: (self.get(query, 40.0) or {}).get("steps"))

    def tutti(self, *words, deadline=DEADLINE):
        return subprocess.run([*self.hosts.prefix(COORDINATOR_HOST), self.binaries / "tutti", *words],
                              capture_output=True, text=True, timeout=deadline * PATIENCE, check=False,
                              env=ENVIRONMENT | {"TUTTI_STATE": str(self.state)})

    def submit(self, name, spec, key=""):
        path = self.folder / f"{name}.yaml"
        path.write_text(spec)
        words = ["submit", str(path), *(["--key", key] if key else [])]
        done = self.tutti(*words)
        if done.returncode != 0:
            raise Failed(f"submit of {name}: {done.stderr}")
        return int(done.stdout.split()[0])

    def nodes(self):
        found = self.get("/api/v1/nodes")
        return {} if found is None else {node["name"]: node for node in (found["nodes"] if "nodes" in found else found)}

    def count_nodes(self, state):
        return sum(node["state"] == state for node in self.nodes().values())

    def job(self, job):
        return self.get(f"/api/v1/jobs/{job}") or {}

    def ranks(self, jobs):
        """Pids of these jobs' ranks (of programs: of what the worker started), on whatever host."""
        wanted = {f"TUTTI_JOB={job}" for job in jobs}
        marked = {pid for pid, environment in self._marked() if not wanted.isdisjoint(environment)}
        return [pid for pid in marked if _parent(pid) not in marked]

    def hashes(self, job):
        return {step: record["weights"] for step, record in self._steps(job).items()}

    def records(self, job):
        """By step all that does not depend on when and where it ran."""
        return {step: tuple(record[field] for field in ("weights", "loss", "grad_norm", "tokens"))
                for step, record in self._steps(job).items()}

    def logs(self, job):
        """By generation what the job's one rank wrote. A gap is a failure."""
        out, cursor = {}, 0
        until = time.monotonic() + DEADLINE * PATIENCE
        while time.monotonic() < until:
            page = self.get(f"/api/v1/jobs/{job}/logs?after={cursor}&wait_ms=1000", 40.0)
            if page is None:
                self.pause(0.1)
                continue
            for chunk in page["chunks"]:
                if "gap_bytes" in chunk:
                    raise Failed(f"the log of job {job} has a gap of {chunk['gap_bytes']} bytes")
                out[chunk["generation"]] = out.get(chunk["generation"], "") + chunk["text"]
            if page["end"]:
                return out
            cursor = page["next"]
        raise Failed(f"the log of job {job} has no end")

    def log_so_far(self, job):
        """By generation and rank what the job's ranks wrote until now."""
        out = {}
        for chunk in (self.get(f"/api/v1/jobs/{job}/logs") or {"chunks": []})["chunks"]:
            at = (chunk["generation"], chunk["rank"])
            out[at] = out.get(at, "") + chunk.get("text", "")
        return out

    def _steps(self, job):
        done = self.tutti("steps", str(job), "-o", "json")
        if done.returncode != 0:
            raise Failed(f"steps of {job}: {done.stderr}")
        out = {}
        for line in done.stdout.splitlines():
            record = json.loads(line)
            if record["step"] in out:
                raise Failed(f"step {record['step']} of job {job} is recorded twice")
            out[record["step"]] = record
        return out

    def _marked(self):
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                environment = pathlib.Path(f"/proc/{entry}/environ").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if self.mark in environment:
                yield int(entry), environment

    def leftovers(self):
        return [f"{pid} {_command(pid)}" for pid, _ in self._marked()]

    def stop(self):
        """SIGTERM to all, workers first; nothing may be left behind."""
        order = sorted(self.parts, key=lambda part: part == "coordinator")
        for part in order:
            process = self.parts[part]
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(timeout=30 * PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise Failed(f"{part} did not stop within {30 * PATIENCE} s of SIGTERM")
        left = self.leftovers()
        if left:
            raise Failed("left behind: " + "; ".join(left))

    def kill(self):
        for process in self.parts.values():
            process.kill()
            process.wait()
        for pid, _ in list(self._marked()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def tell(story, hosts, binaries, title="", supervised=False):
    """Runs `story(cluster)` on a cluster of its own; the exit code. On a failure, the ends of all logs are shown."""
    with tempfile.TemporaryDirectory() as folder:
        cluster = None
        try:
            cluster = Cluster(hosts, folder, binaries, supervised)
            story(cluster)
        except Failed as failure:
            print(f"FAILED{title}: {failure}")
            for log in sorted(pathlib.Path(folder).glob("*.log")):
                print(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-60:]))
            return 1
        finally:
            if cluster is not None:
                cluster.kill()
            hosts.close()
    return 0


def _command(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _parent(pid):
    try:
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except (OSError, IndexError, ValueError):
        return 0
