"""Does benchbox change what it measures? Redis natively by benchbox against the same two commands by hand.

    python benchmarks/compare_redis.py [PAIRS]

In turns, PAIRS times (10): one sample of ``redis-requests`` as a run makes it, and the same server and client started
by hand. By hand means without benchbox's launcher, cgroups and account: ``taskset`` on the same CPUs, ``chroot`` into
the same image, in the same two network namespaces; benchbox's client is in a container, as always. The median ratio has
to be within 2 % of 1. Prints each. Needs root, two CPUs and the image ``debian``.

Only on a quiet host: where others want the CPUs as well, benchbox's cgroups have a weight of their own there, what is
started by hand shares that of its shell, and the ratio says no more than that.
"""

import contextlib
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from benchbox import images, served
from benchbox.environments import clients, environment
from benchbox.environments.native import bound_root
from benchbox.linux import cgroups, links
from benchbox.linux.links import Links
from benchbox.model import EnvironmentSpec, Link, LinkedSession, Resources, Session, Workspace
from benchbox.workloads.applications import REDIS

PARAMS: Final = {"operation": "set", "connections": 50, "requests": 100_000, "size": 64}
TOLERANCE: Final = 0.02
_READY_S: Final = 10.0
#: Port 6379 of any address in state LISTEN, as proc_pid_net(5) writes it.
LISTENING: Final = b":18EB 00000000:0000 0A"


class NoLedger:
    """Everything is removed here."""

    def record(self, kind: str, ident: str) -> None: ...

    def release(self, kind: str, ident: str) -> None: ...


def by_benchbox(session: Session, asking: clients.ImageClients) -> float:
    """Return requests a second of one sample."""
    outcome = served.Served(
        session, REDIS.command(PARAMS), lambda address: REDIS.client(PARAMS, address), asking
    ).wait()
    if outcome.status != "ok":
        raise SystemExit(f"benchbox: {outcome.reason}")
    return REDIS.parse(outcome)[0].value


def by_hand(root: Path, link: Link, cpus: tuple[int, int]) -> float:
    """Return requests a second of the same server and client, without benchbox between them."""
    server_words = REDIS.command(PARAMS).argv
    server = start(server_words[server_words.index("--") + 1 :], root, link.namespace, cpus[1])
    try:
        wait_for(link)
        asking = start(REDIS.client(PARAMS, link.address).argv, root, link.client, cpus[0])
        output, _ = asking.communicate()
    finally:
        server.kill()
        server.communicate()
    rows = list(csv.DictReader(line for line in output.decode().splitlines() if line.startswith('"')))
    return float(rows[-1]["rps"])


def start(words: Sequence[str], root: Path, namespace: int | None, cpu: int) -> "subprocess.Popen[bytes]":
    assert namespace is not None
    argv = ["taskset", "-c", str(cpu), "chroot", str(root), *words]
    return links.inside(
        namespace,
        lambda: subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]}
        ),
    )


def wait_for(link: Link) -> None:
    """Wait until the server listens, without asking it."""
    assert link.namespace is not None
    deadline = time.monotonic() + _READY_S
    sockets = Path("/proc/thread-self/net/tcp")
    while LISTENING not in links.inside(link.namespace, sockets.read_bytes):
        if time.monotonic() > deadline:
            raise SystemExit("by hand: Redis does not listen")
        time.sleep(0.005)


@contextlib.contextmanager
def workspace(folder: Path, made: Links) -> Iterator[Workspace]:
    allowed = tuple(sorted(os.sched_getaffinity(0)))
    name = f"benchbox-compare-{os.getpid()}"
    try:
        yield Workspace("compare", folder, folder, name, allowed[-1:], allowed[:1], NoLedger(), made)
    finally:
        for root in cgroups.detect().roots():
            cgroups.remove_tree(root / name)


def main(pairs: int) -> int:
    image = images.open_image("debian")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        made = stack.enter_context(Links())
        place = stack.enter_context(workspace(Path(folder), made))
        spec = EnvironmentSpec("native", "native", {"link": "bridge"})
        resources = Resources(memory_bytes=512 << 20)
        session = stack.enter_context(environment("native").open(spec, image, resources, place))
        asking = stack.enter_context(clients.opened(image, place))
        root = stack.enter_context(bound_root(image.root, Path(folder) / "by-hand", 1 << 30))
        assert isinstance(session, LinkedSession) and session.link is not None
        link = session.link
        cpus = (place.harness_cpus[0], place.cpus[0])
        ratios = []
        for number in range(pairs + 1):
            ways = {"benchbox": lambda: by_benchbox(session, asking), "by hand": lambda: by_hand(root, link, cpus)}
            # Who comes first changes from pair to pair; the first pair only warms up.
            rates = {name: ways[name]() for name in sorted(ways, reverse=bool(number % 2))}
            if number:
                ratios.append(rates["benchbox"] / rates["by hand"])
                print(*(f"{name} {rate:.0f}/s," for name, rate in sorted(rates.items())), f"ratio {ratios[-1]:.3f}")
    middle = statistics.median(ratios)
    print(f"median ratio {middle:.3f}, allowed 1 ± {TOLERANCE:g}")
    return 0 if abs(middle - 1) <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
