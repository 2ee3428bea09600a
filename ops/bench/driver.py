"""A cluster of real processes for the benchmarks, spoken to over its HTTP API, and their one way to report."""

import json
import os
import pathlib
import random
import re
import signal
import struct
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DEADLINE = 120.0


def machine():
    """The CPU's name, family.model and physical cores, as samples.cc has them."""
    cpus = [dict(re.findall(r"^([^\t\n]+?)\s*: (.*)$", cpu, re.MULTILINE))
            for cpu in pathlib.Path("/proc/cpuinfo").read_text().split("\n\n") if cpu.strip()]
    first = cpus[0] if cpus else {}
    cores = {(cpu.get("physical id"), cpu.get("core id", cpu.get("processor"))) for cpu in cpus}
    return (f"{first.get('model name', 'unknown')} {first.get('cpu family', '?')}.{first.get('model', '?')},"
            f" {max(1, len(cores))} cores")


def commit():
    done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def at(samples, share):
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def report(bench, case, unit, samples, peer=None, ratio=None):
    """One JSON line. `ratio`: ours over the peer's, so that above 1 is better."""
    print(json.dumps({"bench": bench, "case": case, "unit": unit, "min": round(min(samples), 3),
                      "p50": round(at(samples, 0.5), 3), "p99": round(at(samples, 0.99), 3), "n": len(samples),
                      "peer": peer, "ratio": None if ratio is None else round(ratio, 2), "share": None,
                      "machine": machine(), "commit": commit()}), flush=True)


FLAT = 1.1  # the largest size over the smallest, of what is meant to stand still


def flatness(sizes):
    """Of sizes that were taken once all that may grow had grown."""
    return max(sizes) / min(sizes)


def require_flat(what, sizes):
    """Ends the benchmark where it is not."""
    if flatness(sizes) > FLAT:
        raise SystemExit(f"bench: {what} is not flat: {flatness(sizes):.3f} > {FLAT}")


def write_tokens(path, count, vocabulary):
    """A token file: one-dimensional .npy of uint16, as NumPy writes it."""
    header = f"{{'descr': '<u2', 'fortran_order': False, 'shape': ({count},), }}"
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    draw = random.Random(1)
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        file.write(struct.pack(f"<{count}H", *(draw.randrange(vocabulary) for _ in range(count))))


class Cluster:
    def __init__(self, binaries, folder):
        self.folder = pathlib.Path(folder)
        self.process = subprocess.Popen([binaries / "tutti", "up", "--slots", "2", "--faults", "--state", folder],
                                        stdout=subprocess.DEVNULL)
        self.until("a ready worker", lambda: any(n["state"] == "ready" for n in self.get("/api/v1/nodes")["nodes"]))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)

    def until(self, what, holds):
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            if self.process.poll() is not None:
                sys.exit("bench: tutti up ended")
            try:
                if holds():
                    return
            except OSError:
                pass
            time.sleep(0.005)
        sys.exit(f"bench: {what} did not come within {DEADLINE:.0f} s")

    def pid(self, part):
        """Of "coordinator" or "worker"."""
        return json.loads((self.folder / "up.json").read_text())[part]

    def call(self, method, target, body=None):
        url = (self.folder / "address").read_text().strip() + target
        request = urllib.request.Request(url, method=method, data=None if body is None else json.dumps(body).encode())
        request.add_header("Authorization", "Bearer " + (self.folder / "token").read_text().strip())
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def get(self, target):
        return self.call("GET", target)

    def submit(self, spec):
        return self.call("POST", "/api/v1/jobs", {"spec": spec, "file": "bench", "key": os.urandom(8).hex()})["id"]

    def job(self, job):
        return self.get(f"/api/v1/jobs/{job}")

    def finish(self, job):
        self.until(f"the end of job {job}", lambda: self.job(job)["state"] in ("done", "failed", "cancelled"))
        ended = self.job(job)
        if ended["state"] != "done":
            sys.exit(f"bench: job {job} ended {ended['state']}: {ended.get('failure')}")
        return ended


def resident_mib(pid):
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def train_spec(tokens, steps, ranks, layers=4, width=192, heads=6, sequence=128, batch=8):
    return f"""
name: bench
kind: train
model: {{family: llama, layers: {layers}, width: {width}, heads: {heads}, vocabulary: 2048}}
data: {{tokens: [{tokens}], sequence: {sequence}, shuffle: false}}
train: {{steps: {steps}, batch: {batch}}}
resources: {{ranks: {ranks}}}
checkpoint: {{every: 0, last: false}}
"""
