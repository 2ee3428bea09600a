#!/usr/bin/env python3
"""Partitions between real processes on three hosts: what is cut off is replaced, and no bit changes.

    tests/cluster/hosts/partition_test.py [BIN]       BIN: where tutti and tutti-rank are ($TUTTI_BIN)
"""

import json
import os
import sys
import time

import jobs
import net
from cluster import Failed, tell

STEPS = 500  # some seconds, so that a job still runs when a cut has come and gone


def check(holds, what):
    if not holds:
        raise Failed(what)


def undisturbed(cluster, text, ranks):
    job = cluster.submit("undisturbed", jobs.training(text, ranks, STEPS))
    check(cluster.tutti("wait", str(job)).returncode == 0, "the undisturbed run did not end done")
    hashes = cluster.hashes(job)
    check(len(hashes) == STEPS, f"{len(hashes)} step records instead of {STEPS}")
    return hashes


def begin(cluster, text, ranks):
    job = cluster.submit("disturbed", jobs.training(text, ranks, STEPS))
    cluster.await_step(job, 10)
    return job


def wait_for_drops(cluster, target, count):
    cluster.eventually(f"{count} packets to {target} are dropped", lambda: cluster.hosts.dropped(target) >= count)


def end(cluster, job, expected):
    check(cluster.tutti("wait", str(job)).returncode == 0, f"job {job} did not end done")
    check(cluster.hashes(job) == expected, "a weight hash differs from the undisturbed run's")


def a_host_that_is_cut_off_is_replaced(cluster, text, expected):
    """Both ways, longer than the lease: the node is lost, its ranks are replaced elsewhere; it comes back."""
    job = begin(cluster, text, 3)
    before = cluster.newest_event()
    for other in ("a", "b"):
        cluster.hosts.cut_both("c", other)
    lost = cluster.await_event(before, "worker_lost", node="c")[0]["seq"]
    cluster.await_event(lost, "recovered", job=job)  # without c
    cluster.hosts.heal()
    cluster.await_event(lost, "worker_joined", node="c")
    end(cluster, job, expected)


def a_host_hears_but_is_not_heard(cluster, text, expected):
    job = begin(cluster, text, 3)
    before = cluster.newest_event()
    cluster.hosts.cut("b", "a")
    lost = cluster.await_event(before, "worker_lost", node="b")[0]["seq"]
    cluster.hosts.heal()
    cluster.await_event(lost, "worker_joined", node="b")
    end(cluster, job, expected)


def a_cut_shorter_than_the_lease_costs_nothing(cluster, text, expected):
    job = begin(cluster, text, 3)
    generation = cluster.job(job)["generation"]
    cluster.hosts.cut_both("b", "a")
    wait_for_drops(cluster, "a", 2)  # heartbeats come ten times in a lease
    cluster.hosts.heal()
    end(cluster, job, expected)
    check(cluster.job(job)["generation"] == generation, "a short cut started a new generation")


def only_the_data_plane_is_cut(cluster, text, expected):
    """Both workers still reach the coordinator, their ranks do not reach each other; healed, the run goes on."""
    job = begin(cluster, text, 6)
    cluster.hosts.cut_both("b", "c")
    wait_for_drops(cluster, "b", 3)  # TCP sends again and again what is not acknowledged
    cluster.hosts.heal()
    end(cluster, job, expected)


def a_gang_of_a_program_meets_across_hosts(cluster):
    """Its ranks find each other as torch's do; a host that is cut off takes the gang along, which starts anew as a whole."""
    ranks = 4
    job = cluster.submit("gang", jobs.gang(ranks))

    def meetings():
        lines = [line for text in cluster.log_so_far(job).values() for line in text.splitlines()]
        return [json.loads(line.removeprefix("met ")) for line in lines if line.startswith("met ")]

    cluster.eventually("all ranks of the gang have met", lambda: len(meetings()) == ranks)
    before = cluster.newest_event()
    for other in ("a", "b"):
        cluster.hosts.cut_both("c", other)
    lost = cluster.await_event(before, "worker_lost", node="c")[0]["seq"]
    cluster.hosts.heal()
    cluster.await_event(lost, "worker_joined", node="c")
    check(cluster.tutti("wait", str(job)).returncode == 0, "the gang did not end done")
    met = meetings()
    check(len(met) == 2 * ranks, f"{len(met)} meetings instead of one of {ranks} ranks in each generation")
    for heard in (met[0], met[-1]):
        check([who[0] for who in heard] == list(range(ranks)), f"ranks {heard}")
        hosts = {who[3] for who in heard}
        check(hosts == set(range(heard[0][4])) and len(hosts) > 1, f"hosts {heard}")
        for host in hosts:
            local = sorted(who[1] for who in heard if who[3] == host)
            sizes = {who[2] for who in heard if who[3] == host}
            check(local == list(range(len(local))) and sizes == {len(local)}, f"local ranks {heard}")
    check({who[5] for who in met[0]} == {0} and {who[5] for who in met[-1]} == {1}, f"restarts {met}")


def main():
    net.enter()
    binaries = sys.argv[1] if len(sys.argv) > 1 else os.environ["TUTTI_BIN"]
    hosts = net.Hosts(["a", "b", "c"])
    if not hosts.isolated:
        net.say_skipped(f"{hosts.refusal}; partitions need network namespaces")
        return 77

    def story(cluster):
        text = jobs.write_prose(cluster.folder / "prose.txt")
        three = undisturbed(cluster, text, 3)
        for case in (a_host_that_is_cut_off_is_replaced, a_host_hears_but_is_not_heard,
                     a_cut_shorter_than_the_lease_costs_nothing, only_the_data_plane_is_cut):
            began = time.monotonic()
            case(cluster, text, three)
            print(f"passed: {case.__name__.replace('_', ' ')} ({time.monotonic() - began:.1f} s)", flush=True)
        began = time.monotonic()
        a_gang_of_a_program_meets_across_hosts(cluster)
        print(f"passed: a gang of a program meets across hosts ({time.monotonic() - began:.1f} s)", flush=True)
        cluster.stop()

    return tell(story, hosts, binaries)


if __name__ == "__main__":
    sys.exit(main())
