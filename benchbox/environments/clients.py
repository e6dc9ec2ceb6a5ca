"""Clients: what puts load on a server, outside of its environment, from the same image.

They run as ``container`` runs its workloads, whatever the environment is that they ask, by the same plan and launcher:
a program of a user's image gets no nearer to the host as a client than as a workload. The root is the image,
read-only. What differs is where they run: in a cgroup of their own, on one CPU of benchbox's, in the network namespace
at the other end of the environment's link. So nothing has to be installed on the host, and client and server are the
same build everywhere.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import count
from typing import Final

from benchbox.environments import container
from benchbox.environments.container import container_plan
from benchbox.environments.launched import LaunchedCommand, Requested
from benchbox.environments.linked import linked_plan
from benchbox.environments.prepared import Prepared, prepare
from benchbox.errors import UnavailableError
from benchbox.linux import cgroups
from benchbox.linux.launch import LaunchPlan
from benchbox.model import Command, EnvironmentSpec, Image, Link, Running, Workspace

_LABEL: Final = "load-client"
_MEMORY_BYTES: Final = 1 << 30
#: So much that no load generator comes near it: it keeps the host, not the client, and no limit on its CPU time.
LIMITS: Final = cgroups.Limits(memory_bytes=_MEMORY_BYTES, pids=1024)


class ImageClients:
    """Starts clients in ``prepared``, each in a cgroup of the run; implements ``served.Clients``."""

    def __init__(self, prepared: Prepared, workspace: Workspace) -> None:
        self._prepared, self._base = prepared, workspace.cgroup_name
        self._cpus = (client_cpu(workspace.cpus, workspace.harness_cpus),)
        self._layout, unlimited = container.usable_cgroups()
        self._limits = cgroups.Limits() if unlimited else LIMITS
        self._mems = cgroups.prepare(self._layout, workspace.cgroup_name)
        self._numbers = count(1)
        self.shares_cpu = self._cpus[0] in workspace.cpus

    def start(self, command: Command, link: Link) -> Running:
        """Start ``command`` at the client's end of ``link``. Raises EnvironmentFailure."""
        leaf = f"{_LABEL}-{next(self._numbers)}"
        groups = cgroups.plan(self._layout, self._base, leaf, self._limits, self._cpus, self._mems)
        plan = client_plan(command, self._prepared, groups, self._cpus, link)
        requested = Requested.of(self._limits, self._cpus)
        return LaunchedCommand(plan, self._prepared.program, requested, command.timeout_s)


def client_plan(
    command: Command, prepared: Prepared, groups: cgroups.CgroupPlan, cpus: tuple[int, ...], link: Link
) -> LaunchPlan:
    """Return the start of ``command`` in a container at the client's end of ``link``. Pure.

    Where the link is the host's loopback, that is the one thing of the host's that it shares.
    """
    options = container.Options.model_validate({"root": "bind", "network": link.client is not None})
    found = container_plan(command, prepared, _LABEL, groups, cpus, options)
    return replace(linked_plan(found, replace(link, namespace=link.client)), signals_ready=False)


def client_cpu(environments: tuple[int, ...], harness: tuple[int, ...]) -> int:
    """Return the CPU of the client: one of benchbox's that no environment uses, where there is one. Pure."""
    own = [cpu for cpu in harness if cpu not in environments]
    return (own or list(harness))[-1]


@contextmanager
def opened(image: Image, workspace: Workspace) -> Iterator[ImageClients]:
    """Yield what starts clients of ``image``.

    Raises UnavailableError where this host can make no container for them, EnvironmentFailure where making what they
    share fails.
    """
    offer = container.ENVIRONMENT.check(EnvironmentSpec(container.KIND, _LABEL, {"root": "bind"}))
    if not offer.available:
        raise UnavailableError(f"clients run in a container, and {offer.reason}", hint=offer.fix)
    with ExitStack() as stack:
        prepared = prepare(
            image.root, workspace, _LABEL, layer="tmpfs", filtered=True, other_users=False,
            disk_bytes=_MEMORY_BYTES, stack=stack,
        )  # fmt: skip
        yield ImageClients(prepared, workspace)
