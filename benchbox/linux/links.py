"""Links between environments and the client that puts load on them, in network namespaces of benchbox's own.

::

    client's namespace          the bridge's namespace            an environment's end
    load0 198.18.0.1  ── veth ──  port1   bridge0   port2  ── veth ──  load0 198.18.0.2   (a namespace to join)
                                                    tap3   ── QEMU ──  eth0  198.18.0.3   (a guest)

Every path from the client has the same bridge and the same first half; what differs is the environment's end. Nothing
of it is in the host's own network, has a name there or is pinned to a file: the namespaces live by descriptors of the
measuring process (and by what runs in them), and the kernel removes them with all their links when those are closed,
SIGKILL included. So the ledger has nothing to say of them, as of mounts.

Sources: rtnetlink(7), netlink(7), veth(4), linux/if_link.h, Documentation/networking/tuntap.rst. The addresses are of
the network that is set aside for benchmarks (RFC 2544).
"""

import contextlib
import fcntl
import itertools
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Self, TypeVar

from benchbox.errors import EnvironmentFailure, UnavailableError
from benchbox.linux import syscalls
from benchbox.model import Availability, Link

NETWORK: Final = "198.18.0"
PREFIX_BITS: Final = 24
CLIENT_ADDRESS: Final = f"{NETWORK}.1"
LOOPBACK_ADDRESS: Final = "127.0.0.1"
#: The host's own network: named as what it is, never compared with a bridge.
HOST_LINK: Final = Link("host", "loopback", LOOPBACK_ADDRESS)

_BRIDGE: Final = "bridge0"
_END: Final = "load0"
_LAST_ADDRESS: Final = 254
_TUN: Final = Path("/dev/net/tun")
_T = TypeVar("_T")

_NEWLINK, _NEWADDR, _ERROR = 16, 20, 2
_REQUEST, _ACK, _CREATE_NEW = 1, 4, 0x600
_IFNAME, _MASTER, _LINKINFO, _NAMESPACE = 3, 10, 18, 28
_KIND, _DATA, _PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_UP: Final = 1
_TUNSETIFF, _TUNSETPERSIST = 0x400454CA, 0x400454CB
#: IFF_TAP, IFF_NO_PI, IFF_VNET_HDR: frames, without a header of the driver's, with virtio's.
_TAP_FLAGS: Final = 0x0002 | 0x1000 | 0x4000
#: Of TCP in every environment: the one that each kernel has and lets everybody use, whatever it chooses by default.
CONGESTION_CONTROL: Final = "reno"
#: In each namespace: no IPv6, whose own traffic nobody asked for; nothing of one connection is kept for the next.
_SETTINGS: Final = {
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv6/conf/default/disable_ipv6": "1",
    "ipv4/tcp_no_metrics_save": "1",
    "ipv4/tcp_congestion_control": CONGESTION_CONTROL,
}


def availability(*, tap: bool = False) -> Availability:
    """Say, changing nothing, whether this host can make links; with ``tap`` also those of guests."""
    if not Path("/proc/self/ns/net").exists():
        return Availability.no("this kernel has no network namespaces", "use a kernel that has them")
    if os.geteuid() != 0:
        return Availability.no("making network namespaces and links needs root", "run benchbox as root")
    if tap and not _TUN.exists():
        return Availability.no(f"there is no {_TUN}", "load it: modprobe tun")
    return Availability.yes()


class Links:
    """The bridge of one run and the ends that are linked to it; implements ``model.LinkMaker``. Made when needed."""

    def __init__(self) -> None:
        self._open: list[int] = []
        self._bridge = self._client = -1
        self._numbers = itertools.count(2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Let go of everything; the kernel removes it, once nothing runs in it any more."""
        while self._open:
            os.close(self._open.pop())

    def veth(self, namespace: int | None = None) -> Link:
        """Return a namespace of its own for processes, linked to the bridge; or ``namespace``, set up like one.

        What is already in ``namespace`` stays; its descriptor is not kept, so the link goes when its last user does.
        Raises UnavailableError where this host cannot make namespaces or bridges, EnvironmentFailure for the rest.
        """
        self._prepare()
        number = self._next()
        address = f"{NETWORK}.{number}"
        if namespace is None:
            end = self._keep(_new_namespace())
        else:
            end = namespace
            _told(lambda: inside(end, _set_up), "set up a network namespace")
        self._wire(number, end, address)
        return Link("bridge", "veth", address, end, self._client)

    def tap(self) -> Link:
        """Return a tap on the bridge, for the network card of a guest; raises as ``veth``."""
        self._prepare()
        number = self._next()
        name = f"tap{number}"

        def make() -> None:
            _make_tap(name)
            with _Netlink() as netlink:
                netlink.join_bridge(name)

        _told(lambda: inside(self._bridge, make), f"make the tap {name}")
        mac = f"02:62:62:00:00:{number:02x}"
        return Link("bridge", "tap", f"{NETWORK}.{number}", self._bridge, self._client, name, mac)

    def _prepare(self) -> None:
        if self._open:
            return
        try:
            self._bridge = self._keep(_new_namespace())
            self._client = self._keep(_new_namespace())
            inside(self._bridge, _make_bridge)
        except OSError as error:
            self.__exit__()
            raise UnavailableError(
                f"cannot make a network of benchbox's own: {error.strerror}",
                hint="a kernel with network namespaces, veth and bridges is needed (modprobe veth bridge)",
            ) from error
        self._wire(1, self._client, CLIENT_ADDRESS)

    def _wire(self, number: int, end: int, address: str) -> None:
        def make() -> None:
            with _Netlink() as netlink:
                netlink.make_veth(f"port{number}", _END, end)
                netlink.join_bridge(f"port{number}")

        def raise_end() -> None:
            with _Netlink() as netlink:
                netlink.give_address(_END, address)

        _told(lambda: inside(self._bridge, make), f"link {address} to the bridge")
        _told(lambda: inside(end, raise_end), f"give an interface the address {address}")

    def _next(self) -> int:
        number = next(self._numbers)
        if number > _LAST_ADDRESS:
            raise EnvironmentFailure(f"more than {_LAST_ADDRESS - 1} environments with a link")
        return number

    def _keep(self, descriptor: int) -> int:
        self._open.append(descriptor)
        return descriptor


def inside(namespace: int, do: Callable[[], _T]) -> _T:
    """Return what ``do`` returns in a thread of its own that is in the network ``namespace``; raises what it raises."""

    def enter() -> _T:
        syscalls.setns(namespace, syscalls.CLONE_NEWNET)
        return do()

    return _in_thread(enter)


def _in_thread(do: Callable[[], _T]) -> _T:
    done: list[_T] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            done.append(do())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work, name="network")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return done[0]


def _told(do: Callable[[], None], what: str) -> None:
    try:
        do()
    except OSError as error:
        raise EnvironmentFailure(f"cannot {what}: {error.strerror}") from error


def _new_namespace() -> int:
    """Return a descriptor of a new network namespace, in which loopback is up. Raises OSError."""

    def make() -> int:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        _set_up()
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    return _in_thread(make)


def _set_up() -> None:
    """Give the network namespace of the calling thread its settings, and raise its loopback. Raises OSError."""
    for name, value in _SETTINGS.items():
        with contextlib.suppress(OSError):  # not every kernel has them
            Path("/proc/sys/net", name).write_text(value)
    with _Netlink() as netlink:
        netlink.raise_link("lo")


def _make_bridge() -> None:
    with _Netlink() as netlink:
        netlink.make_bridge(_BRIDGE)


def _make_tap(name: str) -> None:
    """Make a tap that stays until its namespace goes. Raises OSError."""
    descriptor = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP_FLAGS))
        fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
    finally:
        os.close(descriptor)


class _Netlink:
    """Asks the kernel to make and change links, in the network namespace of the thread that made it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def make_bridge(self, name: str) -> None:
        self._ask(_NEWLINK, _CREATE_NEW, link_message(up=True), [_name(name), info("bridge")])

    def make_veth(self, name: str, peer: str, peer_namespace: int) -> None:
        """Make a pair: ``name`` here, ``peer`` in the other namespace."""
        there = link_message() + _name(peer) + attribute(_NAMESPACE, struct.pack("=I", peer_namespace))
        self._ask(_NEWLINK, _CREATE_NEW, link_message(), [_name(name), info("veth", attribute(_PEER, there))])

    def join_bridge(self, name: str) -> None:
        master = attribute(_MASTER, struct.pack("=I", socket.if_nametoindex(_BRIDGE)))
        self._ask(_NEWLINK, 0, link_message(socket.if_nametoindex(name), up=True), [master])

    def raise_link(self, name: str) -> None:
        self._ask(_NEWLINK, 0, link_message(socket.if_nametoindex(name), up=True), [])

    def give_address(self, name: str, address: str) -> None:
        """Give ``name`` the address and raise it."""
        packed = socket.inet_aton(address)
        message = struct.pack("=BBBBI", socket.AF_INET, PREFIX_BITS, 0, 0, socket.if_nametoindex(name))
        both = [attribute(_IFA_LOCAL, packed), attribute(_IFA_ADDRESS, packed)]
        self._ask(_NEWADDR, _CREATE_NEW, message, both)
        self.raise_link(name)

    def _ask(self, kind: int, flags: int, message: bytes, attributes: Iterable[bytes]) -> None:
        body = message + b"".join(attributes)
        self._socket.send(struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | _ACK | flags, 1, 0) + body)
        check_answer(self._socket.recv(65536))


def check_answer(answer: bytes) -> None:
    """Raise OSError for an answer of the kernel that is an error, netlink(7): its number is 0 for what is done."""
    _, kind, _, _, _, error = struct.unpack_from("=IHHIIi", answer)
    if kind == _ERROR and error:
        raise OSError(-error, os.strerror(-error))


def link_message(index: int = 0, *, up: bool = False) -> bytes:
    """Return ``struct ifinfomsg`` of rtnetlink(7)."""
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, _UP if up else 0, _UP if up else 0)


def attribute(kind: int, value: bytes) -> bytes:
    """Return ``struct rtattr`` with its value, padded to 4 bytes: rtnetlink(7)."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def info(kind: str, data: bytes = b"") -> bytes:
    """Return the attribute that says which kind of link to make."""
    return attribute(_LINKINFO, attribute(_KIND, kind.encode()) + (attribute(_DATA, data) if data else b""))


def _name(name: str) -> bytes:
    return attribute(_IFNAME, name.encode() + b"\0")
