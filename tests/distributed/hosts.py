"""Hosts that are network namespaces of this machine, joined by links of a given speed.

In: the number of hosts, the links' speed and loss. Out: a process per host, as on machines of their
own. Each host has one veth link to a router, a namespace, too; the kernel's token bucket filter
limits both directions of each link, and a BPF filter loses packets at random.

A script calls `enter` first, which starts it again in namespaces of its own, so that nothing stays
behind when it ends. It needs Linux and iproute2, and root or the right to make user namespaces.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_MARK = "GRAPHSCALE_HOSTS"
DEVICE = "eth0"
# Classic BPF: load a random number; drop the packet (2) if it is not above the threshold, else let
# it pass (0). The kernel's netem would do it, too, but not every kernel has it.
_LOSE = "4,32 0 0 4294963256,37 0 1 {threshold},6 0 0 0,6 0 0 2"


def enter() -> None:
    """Start this script again in namespaces of its own, unless it is there."""
    if _MARK in os.environ:
        return
    command = ["unshare", "--net", "--mount"]
    if os.geteuid() != 0:
        command += ["--user", "--map-root-user"]
    script = 'mount -t tmpfs tmpfs /run && ip link set lo up && exec "$@"'
    command += ["sh", "-c", script, "sh", sys.executable, *sys.argv]
    os.execvpe(command[0], command, {**os.environ, _MARK: "1"})


@dataclass
class Hosts:
    """A context with `count` hosts.

    Args:
        count: Number of hosts.
        rate: Of each link and direction, as tc writes it: '100mbit', '1gbit'; None for no limit.
        loss: Share of the packets that each end of a link loses, from 0 to 1.
        whole_packets: Whether the kernel may pass on packets larger than the link's 1500 bytes, as
            network cards let it. Counted bytes are exact without.
    """

    count: int
    rate: str | None = None
    loss: float = 0.0
    whole_packets: bool = True

    def __enter__(self) -> Hosts:
        _ip("netns add router")
        _inside("router", "sysctl -qw net.ipv4.ip_forward=1")
        for host in range(self.count):
            _ip(f"netns add {_name(host)}")
            _ip(f"link add {DEVICE} netns {_name(host)} type veth peer to{host} netns router")
            ends = ((_name(host), DEVICE, 2), ("router", f"to{host}", 1))
            for namespace, device, number in ends:
                _inside(namespace, "ip link set lo up")
                _inside(namespace, f"ip address add 10.0.{host}.{number}/24 dev {device}")
                if not self.whole_packets:
                    _inside(namespace, f"ip link set {device} gso_max_segs 1")
                _inside(namespace, f"ip link set {device} up")
                self._limit(namespace, device)
            _inside(_name(host), f"ip route add default via 10.0.{host}.1")
        return self

    def _limit(self, namespace: str, device: str) -> None:
        if self.rate is not None:
            bucket = f"tbf rate {self.rate} burst 256kb latency 100ms"
            _inside(namespace, f"tc qdisc add dev {device} root {bucket}")
        if self.loss:
            _inside(namespace, f"tc qdisc add dev {device} clsact")
            bytecode = _LOSE.format(threshold=int(self.loss * (2**32 - 1)))
            _inside(
                namespace, f"tc filter add dev {device} ingress bpf da bytecode", more=[bytecode]
            )

    def __exit__(self, *_: object) -> None:
        for namespace in ("router", *map(_name, range(self.count))):
            _ip(f"netns delete {namespace}")

    def address(self, host: int) -> str:
        """The address under which other hosts find a host."""
        return f"10.0.{host}.2"

    def start(self, host: int, command: Sequence[str], **options) -> subprocess.Popen:
        """Start a command on a host; `options` are those of Popen."""
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": DEVICE, **options.pop("env", {})}
        whole = ["ip", "netns", "exec", _name(host), *command]
        return subprocess.Popen(whole, env=environment, **options)

    def unplug(self, host: int) -> None:
        """Cut a host's link: no packet passes any more, and nobody is told."""
        _inside("router", f"ip link set to{host} down")


def bytes_sent() -> int:
    """Bytes that the host which calls it has put on its link, with all headers."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[9]) for line in lines if line.split()[0] == f"{DEVICE}:")


def congestion_control() -> str:
    """How TCP finds out how fast it may send: 'cubic', 'bbr' …"""
    return Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()


def _name(host: int) -> str:
    return f"host{host}"


def _ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


def _inside(namespace: str, command: str, more: Sequence[str] = ()) -> None:
    whole = ["ip", "netns", "exec", namespace, *command.split(), *more]
    subprocess.run(whole, check=True)
