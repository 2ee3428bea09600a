#!/usr/bin/env python3
"""kill -9, SIGSTOP and partitions at random moments of real processes on three hosts, and what must be true at the end.

    tests/cluster/hosts/chaos_test.py [--seconds N] [--seed S] [BIN]

Training, program and array-like submits go on all the time with repeated keys; faults strike coordinator, workers and
ranks; the journal is copied at random moments. Then the faults stop and: every accepted job ends done; weights at every
step equal the undisturbed run's; step records and log lines are whole; a repeated key gave one job; a coordinator on each
copy of the journal starts and knows every job that was accepted before the copy; nothing is left running.
Moments are drawn from the seed, but real processes make no run the same as another; the simulator is for replays.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import jobs
import net
from cluster import ENVIRONMENT, Failed, ended, eventually, tell

STEPS = 150
LINES = 20
SUBMITS_MAX = 12


class Chaos:
    def __init__(self, cluster, draw):
        self.cluster = cluster
        self.draw = draw
        self.keys, self.copies = {}, []
        self.counts = {}
        self.stopped = []  # (until, what continues it)
        self.text = jobs.write_prose(cluster.folder / "prose.txt")
        self.expected = {}

    def undisturbed(self):
        job = self.cluster.submit("undisturbed", jobs.training(self.text, 2, STEPS))
        if self.cluster.tutti("wait", str(job)).returncode != 0:
            raise Failed("the undisturbed run did not end done")
        self.expected = self.cluster.hashes(job)

    def submit(self):
        """A submit with a key, sent twice whether it was answered or not: one job in the end."""
        if len(self.keys) >= SUBMITS_MAX:
            return
        key = f"key-{len(self.keys)}"
        training = self.draw.random() < 0.5
        spec = jobs.training(self.text, self.draw.choice([1, 2, 3]), STEPS) if training else jobs.program(LINES)
        self.keys[key] = (training, spec, set())
        for _ in range(2):
            self.try_submit(key)

    def try_submit(self, key):
        training, spec, found = self.keys[key]
        path = self.cluster.folder / f"{key}.yaml"
        path.write_text(spec)
        try:
            done = self.cluster.tutti("submit", str(path), "--key", key, deadline=20)
        except subprocess.TimeoutExpired:
            return
        if done.returncode == 0:
            found.add(int(done.stdout.split()[0]))

    def count(self, name):
        self.counts[name] = self.counts.get(name, 0) + 1

    def strike(self):
        fault = self.draw.choice(["kill coordinator", "kill worker", "kill rank", "kill rank", "stop coordinator",
                                  "stop worker", "stop rank", "cut", "copy journal"])
        getattr(self, fault.replace(" ", "_"))()
        self.count(fault)

    def some_worker(self):
        return "worker-" + self.draw.choice(self.cluster.hosts.names)

    def some_rank(self):
        running = [pid for job in self.trainings_running() for pid in self.cluster.ranks(job)]
        return self.draw.choice(running) if running else None

    def trainings_running(self):
        return [job for training, _, found in self.keys.values() if training for job in found]

    def kill_coordinator(self):
        self.cluster.signal("coordinator", signal.SIGKILL)

    def kill_worker(self):
        self.cluster.signal(self.some_worker(), signal.SIGKILL)

    def kill_rank(self):
        self.signal_rank(signal.SIGKILL)

    def signal_rank(self, number):
        rank = self.some_rank()
        if rank is None:
            return None
        try:
            os.kill(rank, number)
        except ProcessLookupError:
            return None
        return rank

    def stop_rank(self):
        rank = self.signal_rank(signal.SIGSTOP)
        if rank is not None:
            self.later(lambda: os.kill(rank, signal.SIGCONT))

    def stop_coordinator(self):
        self.stop_part("coordinator")

    def stop_worker(self):
        self.stop_part(self.some_worker())

    def stop_part(self, part):
        process = self.cluster.parts[part]
        process.send_signal(signal.SIGSTOP)
        self.later(lambda: process.send_signal(signal.SIGCONT))

    def cut(self):
        if not self.cluster.hosts.isolated:
            return
        one, other = self.draw.sample(self.cluster.hosts.names, 2)
        (self.cluster.hosts.cut if self.draw.random() < 0.4 else self.cluster.hosts.cut_both)(one, other)
        self.later(self.cluster.hosts.heal)

    def copy_journal(self):
        """As a backup tool that knows nothing of the journal would copy it: file by file, while it is written."""
        known = sorted(job for _, _, found in self.keys.values() for job in found)
        target = self.cluster.folder / f"copy-{len(self.copies)}"
        shutil.copytree(self.cluster.state, target, ignore=shutil.ignore_patterns("jobs", "lock", "*.sock"))
        self.copies.append((target, known))

    def later(self, act):
        self.stopped.append((time.monotonic() + self.draw.choice([0.3, 1.0, 4.0]), act))

    def release(self, everything=False):
        now = time.monotonic()
        due = [each for each in self.stopped if everything or each[0] <= now]
        self.stopped = [each for each in self.stopped if each not in due]
        for _, act in due:
            try:
                act()
            except ProcessLookupError:
                pass

    def rage(self, seconds):
        until = time.monotonic() + seconds
        next_submit = 0.0
        while time.monotonic() < until:
            self.release()
            if time.monotonic() >= next_submit:
                self.submit()
                next_submit = time.monotonic() + seconds / SUBMITS_MAX
            self.strike()
            pause = time.monotonic() + self.draw.choice([0.05, 0.5, 1.5, 3.0])
            while time.monotonic() < min(pause, until):
                self.release()
                due = min([pause, until, *(each[0] for each in self.stopped)])
                self.cluster.pause(due - time.monotonic())
        self.release(everything=True)
        self.cluster.hosts.heal()

    def settle(self):
        for key in self.keys:
            self.cluster.eventually(f"{key} is accepted",
                                    lambda key=key: (self.try_submit(key), self.keys[key][2])[1])
        for key, (training, _, found) in self.keys.items():
            if len(found) != 1:
                raise Failed(f"{key} gave the jobs {sorted(found)}")
            job = next(iter(found))
            self.cluster.eventually(f"job {job} ends", lambda job=job: self.cluster.job(job).get("state") in
                                    ("done", "failed", "cancelled"), deadline=300)
            if self.cluster.job(job)["state"] != "done":
                raise Failed(f"job {job} of {key} ended {self.cluster.job(job)['state']}: "
                             + self.cluster.tutti("events", str(job)).stdout)
            (self.check_training if training else self.check_program)(job)
        self.check_events()

    def check_training(self, job):
        hashes = self.cluster.hashes(job)
        if hashes != self.expected:
            wrong = [step for step in self.expected if hashes.get(step) != self.expected[step]]
            raise Failed(f"job {job}: {len(wrong)} steps differ or are missing, the first is {wrong[:1]}")

    def check_program(self, job):
        """Its last run printed every line, in order; earlier ones a beginning of it."""
        lines = [line.split("line ")[-1] for line in self.cluster.tutti("logs", str(job)).stdout.splitlines()
                 if "line " in line]
        last = lines[len(lines) - LINES:]
        if last != [str(i) for i in range(1, LINES + 1)]:
            raise Failed(f"job {job}: the log ends with {last}")

    def check_events(self):
        done = self.cluster.tutti("events", "-o", "json")
        text = done.stdout if done.returncode == 0 else self.cluster.ask("/api/v1/events")[1]
        numbers = [event["seq"] for event in _records(text)]
        if not numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            raise Failed("the numbers of events have gaps")

    def check_copies(self):
        for target, known in self.copies:
            config = target.with_suffix(".yaml")
            config.write_text(f"state: {target}\n")
            log = open(target.with_suffix(".log"), "wb")
            process = subprocess.Popen([*self.cluster.hosts.prefix("a"), self.cluster.binaries / "tutti",
                                        "coordinator", "--config", config], stdout=log, stderr=log,
                                       preexec_fn=net.die_with_parent)
            try:
                def answers():
                    if process.poll() is not None:
                        raise Failed(f"{target.name} does not start: " + target.with_suffix(".log").read_text())
                    done = subprocess.run([*self.cluster.hosts.prefix("a"), self.cluster.binaries / "tutti", "jobs",
                                           "-o", "json"], capture_output=True, text=True, check=False,
                                          env=ENVIRONMENT | {"TUTTI_STATE": str(target)})
                    return done.stdout if done.returncode == 0 else None
                pidfd = os.pidfd_open(process.pid)
                listed = eventually(f"a coordinator on {target.name} answers", answers, 30,
                                    lambda seconds: ended([pidfd], seconds))
                os.close(pidfd)
                ids = {record["id"] for record in _records(listed)}
                if not set(known) <= ids:
                    raise Failed(f"{target.name} lost the jobs {sorted(set(known) - ids)}")
            finally:
                process.kill()
                process.wait()


def _records(text):
    try:
        whole = json.loads(text)
        if isinstance(whole, dict):
            whole = next((value for value in whole.values() if isinstance(value, list)), [])
        return whole
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]


def main():
    net.enter()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    parser.add_argument("binaries", nargs="?", default=os.environ.get("TUTTI_BIN"))
    options = parser.parse_args()
    hosts = net.Hosts(["a", "b", "c"])
    print(f"seed {options.seed}; " + ("three network namespaces" if hosts.isolated else
                                      f"loopback addresses, nothing is cut: {hosts.refusal}"), flush=True)

    def story(cluster):
        chaos = Chaos(cluster, random.Random(options.seed))
        chaos.undisturbed()
        chaos.rage(options.seconds)
        print("faults: " + ", ".join(f"{name} {count}" for name, count in sorted(chaos.counts.items())), flush=True)
        chaos.settle()
        cluster.stop()
        chaos.check_copies()
        print(f"{len(chaos.keys)} jobs done, {len(chaos.copies)} copies of the journal restored")

    return tell(story, hosts, options.binaries, f" (seed {options.seed})", supervised=True)


if __name__ == "__main__":
    sys.exit(main())
