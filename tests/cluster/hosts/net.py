"""Three machines on one: network namespaces joined by a bridge, with partitions by nftables.

The caller's own network namespace becomes the switch, so `enter()` must come first: it starts the program again inside
a namespace of its own. A host is a process that only sleeps in a namespace; veth pairs join it to the bridge, nsenter
runs commands in it. When those processes end, the kernel removes everything: nothing is left even after kill -9.

Where the machine permits no namespaces (`Hosts.isolated` is false), the hosts are loopback addresses 127.0.0.2, .3, ...
and nothing can be cut; the caller says so.
"""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys

_INSIDE = "TUTTI_TEST_SWITCH"
_SUBNET = "10.89.0"
_PDEATHSIG = 1


def die_with_parent():
    ctypes.CDLL(None, use_errno=True).prctl(_PDEATHSIG, signal.SIGKILL)


def _run(*words):
    return subprocess.run(words, capture_output=True, text=True, check=False)


def _permitted():
    if not all(shutil.which(tool) for tool in ("unshare", "nsenter", "ip", "nft")):
        return "unshare, nsenter, ip and nft are not all installed"
    flags = ["--net"] if os.geteuid() == 0 else ["--net", "--user", "--map-root-user"]
    tried = _run("unshare", *flags, "sh", "-c",
                 "ip link add switch type bridge && ip link add one type veth peer name two && nft add table inet cuts")
    return "" if tried.returncode == 0 else "no network namespaces here: " + tried.stderr.strip()


def say_skipped(what):
    """As tests/support/skip.h has it."""
    line = f"skipped: {os.path.basename(sys.argv[0])}: {what}"
    print(line, flush=True)
    if "TUTTI_SKIPPED" in os.environ:
        with open(os.environ["TUTTI_SKIPPED"], "a", encoding="utf-8") as out:
            out.write(line + "\n")


def enter():
    """Starts this program again in a network namespace of its own; returns in there, or where that is refused, here."""
    if _INSIDE in os.environ:
        return
    refusal = _permitted()
    environment = dict(os.environ, **{_INSIDE: refusal or "yes"})
    words = [sys.executable, *sys.argv]
    if not refusal:
        words = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), *words]
    os.execvpe(words[0], words, environment)


class Hosts:
    def __init__(self, names):
        self.refusal = os.environ.get(_INSIDE, "yes")
        self.isolated = self.refusal == "yes"
        self.names = list(names)
        self.holders = {}
        self.addresses = {}
        if not self.isolated:
            for number, name in enumerate(self.names):
                self.addresses[name] = f"127.0.0.{number + 2}"
            return
        self._must("ip", "link", "set", "lo", "up")
        self._must("ip", "link", "add", "switch", "type", "bridge")
        self._must("ip", "addr", "add", f"{_SUBNET}.254/24", "dev", "switch")
        self._must("ip", "link", "set", "switch", "up")
        for number, name in enumerate(self.names):
            self._join(name, number + 1)

    def _must(self, *words):
        done = _run(*words)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def _join(self, name, number):
        # `echo` comes after unshare has made the namespace.
        holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep 86400"],
                                  stdout=subprocess.PIPE, preexec_fn=die_with_parent)
        holder.stdout.readline()
        self.holders[name] = holder
        self.addresses[name] = f"{_SUBNET}.{number}"
        self._must("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", f"of-{name}")
        self._must("ip", "link", "set", f"to-{name}", "master", "switch")
        self._must("ip", "link", "set", f"to-{name}", "up")
        self._must("ip", "link", "set", f"of-{name}", "netns", str(holder.pid))
        for words in (["ip", "link", "set", "lo", "up"], ["ip", "link", "set", f"of-{name}", "up"],
                      ["ip", "addr", "add", f"{self.addresses[name]}/24", "dev", f"of-{name}"],
                      ["nft", "add", "table", "inet", "cuts"],
                      ["nft", "add", "chain", "inet", "cuts", "input",
                       "{ type filter hook input priority 0 ; }"]):
            self._must(*self.prefix(name), *words)

    def prefix(self, name):
        """The words that run a command on that host."""
        if not self.isolated:
            return []
        return ["nsenter", "--net", "--target", str(self.holders[name].pid), "--"]

    def cut(self, source, target):
        """Drops what `source` sends to `target`; the other direction stays open."""
        self._must(*self.prefix(target), "nft", "add", "rule", "inet", "cuts", "input", "ip", "saddr",
                   self.addresses[source], "counter", "drop")

    def dropped(self, target):
        """Packets that the cuts have kept from `target` so far."""
        rules = self._must(*self.prefix(target), "nft", "list", "chain", "inet", "cuts", "input")
        return sum(int(count) for count in re.findall(r"packets (\d+)", rules))

    def cut_both(self, one, other):
        self.cut(one, other)
        self.cut(other, one)

    def heal(self):
        if not self.isolated:
            return
        for name in self.names:
            self._must(*self.prefix(name), "nft", "flush", "chain", "inet", "cuts", "input")

    def close(self):
        for holder in self.holders.values():
            holder.kill()
            holder.wait()
        self.holders.clear()
