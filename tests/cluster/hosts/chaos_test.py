#!/usr/bin/env python3
"""kill -9, SIGSTOP, restarts in place and partitions at random moments of real processes on three hosts, and what must
be true at the end.

    tests/cluster/hosts/chaos_test.py [--seconds N] [--seed S] [BIN]

A server answers, an array runs, training and program submits go on all the time with repeated keys, and one training job
of a higher priority takes its slots from others; faults strike coordinator, workers, ranks and programs; the journal is
copied at random moments, file by file and by `tutti ledger backup`. Then the faults stop and: every accepted job ends done; weights, losses and counts of tokens at
every step equal the undisturbed run's, each step once; the last run of a program wrote all of its lines, every earlier
one a beginning of them; each task of the array is done; the server says what it said before; a repeated key gave one
job; each backup is restored, and a coordinator on each copy starts and knows every job that was accepted before the copy
(or, of files that were copied, says that the log began anew between the two); nothing is left running. Moments are drawn from the seed, but real processes make no run the same as another; the simulator is for
replays.
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
LONG = 900  # of the first training job, which others are to be more urgent than
LINES = 20
SUBMITS_MAX = 12
TASKS = 8
REFUSAL = "its parts are of different moments"  # the ledger's, of files that were copied while its log began anew


class Chaos:
    def __init__(self, cluster, draw):
        self.cluster = cluster
        self.draw = draw
        self.keys, self.copies, self.backups = {}, [], []
        self.counts = {}
        self.stopped = []  # (until, what continues it)
        self.text = jobs.write_prose(cluster.folder / "prose.txt")
        self.expected = {}
        self.server = self.array = 0
        self.said = ""
        self.met = {}

    def undisturbed(self):
        """What is to be compared with: a run, and what its last checkpoint says when it is served."""
        job = self.cluster.submit("undisturbed", self.training(2, LONG))
        if self.cluster.tutti("wait", str(job)).returncode != 0:
            raise Failed("the undisturbed run did not end done")
        self.expected = self.cluster.records(job)
        if sorted(self.expected) != list(range(1, LONG + 1)):
            raise Failed(f"the undisturbed run recorded the steps {sorted(self.expected)}")
        self.server = self.cluster.submit("server", jobs.server(self.cluster.job(job)["checkpoints"][-1]["folder"]))
        self.said = self.answer_of_server()
        self.array = self.cluster.submit("array", jobs.array(TASKS, LINES))

    def training(self, ranks, steps, more=""):
        """All of them are one run, which some leave sooner than others."""
        return jobs.training(self.text, ranks, f"1000000, stop: {steps}", more=more)

    def answer_of_server(self):
        def answer():
            status, text = self.cluster.ask("/v1/completions", {"model": "served", "prompt": "the ", "max_tokens": 12,
                                                                 "temperature": 0})
            return json.loads(text)["choices"][0]["text"] if status == 200 else None
        return self.cluster.eventually("the server answers", answer)

    def submit(self):
        """A submit with a key, sent twice whether it was answered or not: one job in the end."""
        if len(self.keys) >= SUBMITS_MAX:
            return
        key = f"key-{len(self.keys)}"
        training = self.draw.random() < 0.5
        spec = self.training(self.draw.choice([1, 2, 3]), STEPS) if training else jobs.program(LINES)
        if not self.keys:
            training, spec = True, self.training(3, LONG)
        self.keys[key] = (training, spec, set())
        for _ in range(2):
            self.try_submit(key)

    def press(self):
        """Once, while a training job runs: one of a higher priority, with as many ranks as there are slots beside the
        server's, so that others have to leave for it."""
        if "urgent" in self.keys or not self.a_training_runs():
            return
        self.keys["urgent"] = (True, self.training(5, STEPS, more="priority: 10\n"), set())
        self.try_submit("urgent")

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
        fault = self.draw.choice(["kill coordinator", "kill worker", "kill rank", "kill rank", "kill program",
                                  "kill server", "restart worker", "stop coordinator", "stop worker", "stop rank",
                                  "cut", "copy journal", "back up journal"])
        getattr(self, fault.replace(" ", "_"))()
        self.count(fault)

    def some_worker(self):
        return "worker-" + self.draw.choice(self.cluster.hosts.names)

    def trainings(self):
        return [job for training, _, found in self.keys.values() if training for job in found]

    def a_training_runs(self):
        return any((self.cluster.get(f"/api/v1/jobs/{job}", 1.0) or {}).get("state") == "running"
                   for job in self.trainings())

    def programs(self):
        return [job for training, _, found in self.keys.values() if not training for job in found] \
            + [self.array + 1 + index for index in range(TASKS)]

    def kill_coordinator(self):
        self.cluster.signal("coordinator", signal.SIGKILL)

    def kill_worker(self):
        self.cluster.signal(self.some_worker(), signal.SIGKILL)

    def restart_worker(self):
        """Another binary in the same process, which goes on with the ranks."""
        self.cluster.signal(self.some_worker(), signal.SIGHUP)

    def kill_rank(self):
        self.signal_rank(signal.SIGKILL)

    def kill_program(self):
        self.signal_rank(signal.SIGKILL, self.programs())

    def kill_server(self):
        self.signal_rank(signal.SIGKILL, [self.server])

    def signal_rank(self, number, of=None):
        living = self.cluster.ranks(self.trainings() if of is None else of)
        if not living:
            return None
        rank = self.draw.choice(living)
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
        known = self.known()
        target = self.cluster.folder / f"copy-{len(self.copies)}"
        shutil.copytree(self.cluster.state, target, ignore=shutil.ignore_patterns("jobs", "lock", "*.sock", "*-wal"))
        for log in self.cluster.state.glob("*-wal"):  # behind the file that it belongs to
            shutil.copy2(log, target)
        self.copies.append((target, known))

    def back_up_journal(self):
        """As an operator would; refused where no coordinator answers."""
        known = self.known()
        target = self.cluster.folder / f"backup-{len(self.backups)}"
        try:
            done = self.cluster.tutti("ledger", "backup", str(target), deadline=20)
        except subprocess.TimeoutExpired:
            return
        if done.returncode == 0:
            self.backups.append((target, known))

    def known(self):
        return sorted(job for _, _, found in self.keys.values() for job in found)

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
            self.press()
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
        self.check_array()
        if self.answer_of_server() != self.said:
            raise Failed("the server says something else than before")
        if self.cluster.tutti("cancel", str(self.server)).returncode != 0:
            raise Failed("the server cannot be cancelled")
        self.check_events()

    def check_training(self, job):
        records = self.cluster.records(job)
        steps = LONG if job == min(self.keys["key-0"][2]) else STEPS
        expected = {step: record for step, record in self.expected.items() if step <= steps}
        if records != expected:
            wrong = sorted(step for step in expected.keys() | records.keys()
                           if records.get(step) != expected.get(step))
            raise Failed(f"job {job}: {len(wrong)} steps differ, are missing or too many; the first is {wrong[0]}: "
                         f"{records.get(wrong[0])} is not {expected.get(wrong[0])}")

    def check_program(self, job):
        """The last run printed every line, in order; each earlier one a beginning of them."""
        whole = "".join(f"line {i}\n" for i in range(1, LINES + 1))
        runs = self.cluster.logs(job)
        if not runs or runs[max(runs)] != whole:
            raise Failed(f"job {job}: the log of its last run is {runs[max(runs)]!r}" if runs else f"job {job}: no log")
        for generation, text in runs.items():
            if not whole.startswith(text):
                raise Failed(f"job {job}: the log of generation {generation} is {text!r}")

    def check_array(self):
        self.cluster.eventually("the array ends", lambda: self.cluster.job(self.array).get("state") in
                                ("done", "failed", "cancelled"), deadline=300)
        if self.cluster.job(self.array)["state"] != "done":
            raise Failed("the array did not end done: " + self.cluster.tutti("events", str(self.array)).stdout)
        for index in range(TASKS):
            self.check_program(self.array + 1 + index)

    def check_events(self):
        done = self.cluster.tutti("events", "-o", "json")
        text = done.stdout if done.returncode == 0 else self.cluster.ask("/api/v1/events")[1]
        numbers = [event["seq"] for event in _records(text)]
        if not numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            raise Failed("the numbers of events have gaps")
        self.met = {kind: sum(event["kind"] == kind for event in _records(text))
                    for kind in ("rank_lost", "worker_lost", "releasing", "preempted", "hang", "recovered")}

    def check_copies(self):
        """How many copied files were of one moment."""
        for file, known in self.backups:
            target = file.with_suffix(".restored")
            target.mkdir()
            done = self.cluster.tutti("ledger", "restore", str(file), "--state", str(target))
            if done.returncode != 0:
                raise Failed(f"{file.name} is not restored: {done.stderr}")
            if not self.starts_on(target, known):
                raise Failed(f"{file.name} is refused")
        return sum(self.starts_on(target, known) for target, known in self.copies)

    def starts_on(self, target, known):
        """A coordinator, which knows these jobs; or it refuses a copy of two moments."""
        config = target.with_suffix(".yaml")
        config.write_text(f"state: {target}\n")
        said = target.with_suffix(".log")
        log = open(said, "wb")
        process = subprocess.Popen([*self.cluster.hosts.prefix("a"), self.cluster.binaries / "tutti",
                                    "coordinator", "--config", config], stdout=log, stderr=log,
                                   preexec_fn=net.die_with_parent)

        def answers():
            if process.poll() is not None:
                if REFUSAL in said.read_text():
                    return "refused"
                raise Failed(f"{target.name} does not start: " + said.read_text())
            done = subprocess.run([*self.cluster.hosts.prefix("a"), self.cluster.binaries / "tutti", "jobs",
                                   "-o", "json"], capture_output=True, text=True, check=False,
                                  env=ENVIRONMENT | {"TUTTI_STATE": str(target)})
            return done.stdout if done.returncode == 0 else None

        try:
            pidfd = os.pidfd_open(process.pid)
            listed = eventually(f"a coordinator on {target.name} answers", answers, 30,
                                lambda seconds: ended([pidfd], seconds))
            os.close(pidfd)
            if listed == "refused":
                return False
            ids = {record["id"] for record in _records(listed)}
            if not set(known) <= ids:
                raise Failed(f"{target.name} lost the jobs {sorted(set(known) - ids)}")
            return True
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
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    parser.add_argument("binaries", nargs="?", default=os.environ.get("TUTTI_BIN"))
    options = parser.parse_args()
    hosts = net.Hosts(["a", "b", "c"])
    print(f"seed {options.seed}; " + ("three network namespaces" if hosts.isolated else "loopback addresses"), flush=True)
    if not hosts.isolated:
        net.say_skipped(f"nothing is cut off: {hosts.refusal}")

    def story(cluster):
        chaos = Chaos(cluster, random.Random(options.seed))
        chaos.undisturbed()
        chaos.rage(options.seconds)
        print("faults: " + ", ".join(f"{name} {count}" for name, count in sorted(chaos.counts.items())), flush=True)
        chaos.settle()
        cluster.stop()
        whole = chaos.check_copies()
        print("events: " + ", ".join(f"{kind} {count}" for kind, count in chaos.met.items()))
        print(f"{len(chaos.keys)} jobs and {TASKS} tasks done, {len(chaos.backups)} backups of the journal restored, "
              f"{whole} of {len(chaos.copies)} copies of its files")

    return tell(story, hosts, options.binaries, f" (seed {options.seed})", supervised=True)


if __name__ == "__main__":
    sys.exit(main())
