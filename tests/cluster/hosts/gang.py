#!/usr/bin/env python3
"""A program for a gang of three or more ranks on several hosts: all meet at MASTER_ADDR, as torch's store would.

Rank 0 hears from every rank who it is and tells each one the whole list, which all print. In its first generation the
gang then waits to be broken; once restarted it ends.
"""

import json
import os
import signal
import socket
import sys
import time

RANK, SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
PLACE = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
WITHIN = 30.0
TO_BE_BROKEN_WITHIN = 120.0


# The worker's order to end, which is waited for: not before it has been asked for.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def me():
    names = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT")
    return [int(os.environ[name]) for name in names]


def lead():
    with socket.create_server(PLACE) as door:
        door.settimeout(WITHIN)
        peers = [door.accept()[0] for _ in range(SIZE - 1)]
    heard = sorted([me(), *(json.loads(peer.makefile().readline()) for peer in peers)])
    for peer in peers:
        peer.sendall((json.dumps(heard) + "\n").encode())
    return heard


def follow():
    until = time.monotonic() + WITHIN
    while True:
        try:
            peer = socket.create_connection(PLACE, timeout=WITHIN)
            break
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)  # no event tells that a port on another host is open: refused, one asks again
    peer.sendall((json.dumps(me()) + "\n").encode())
    return json.loads(peer.makefile().readline())


print("met", json.dumps(lead() if RANK == 0 else follow()), flush=True)
if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    signal.sigtimedwait({signal.SIGTERM}, TO_BE_BROKEN_WITHIN)
    sys.exit("the gang was broken, or nobody broke it in time")
