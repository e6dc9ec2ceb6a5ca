"""Clients: what puts load on a server, outside of its environment, from the same image.

They are started as ``native`` starts its workloads, by the same launcher, in a root of their own and a cgroup of their
own, on one CPU of benchbox's and in the network namespace at the other end of the environment's link. So nothing has to
be installed on the host, and client and server are the same build everywhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Final

from benchbox import native
from benchbox.environments.launched import LaunchedCommand, Requested
from benchbox.environments.native import bound_root, native_plan
from benchbox.linux import cgroups
from benchbox.model import Command, Image, Link, Running, Workspace

_LABEL: Final = "load-client"
_NO_LIMITS: Final = cgroups.Limits()


class ImageClients:
    """Starts clients in ``root``, each in a cgroup of the run; implements ``served.Clients``."""

    def __init__(self, root: Path, workspace: Workspace) -> None:
        self._root, self._base = root, workspace.cgroup_name
        self._cpus = (client_cpu(workspace.cpus, workspace.harness_cpus),)
        self._layout = cgroups.detect()
        self._mems = cgroups.prepare(self._layout, workspace.cgroup_name)
        self._numbers = count(1)
        self.shares_cpu = self._cpus[0] in workspace.cpus

    def start(self, command: Command, link: Link) -> Running:
        """Start ``command`` at the client's end of ``link``. Raises EnvironmentFailure."""
        leaf = f"{_LABEL}-{next(self._numbers)}"
        groups = cgroups.plan(self._layout, self._base, leaf, _NO_LIMITS, self._cpus, self._mems)
        plan = replace(native_plan(command, self._root, groups, self._cpus, link.client), signals_ready=False)
        requested = Requested.of(_NO_LIMITS, self._cpus)
        return LaunchedCommand(plan, native.program("launch"), requested, command.timeout_s)


def client_cpu(environments: tuple[int, ...], harness: tuple[int, ...]) -> int:
    """Return the CPU of the client: one of benchbox's that no environment uses, where there is one. Pure."""
    own = [cpu for cpu in harness if cpu not in environments]
    return (own or list(harness))[-1]


@contextmanager
def opened(image: Image, workspace: Workspace) -> Iterator[ImageClients]:
    """Yield what starts clients of ``image``. Raises EnvironmentFailure where its root cannot be bound."""
    with bound_root(image.root, workspace.scratch / f"root-{_LABEL}") as root:
        yield ImageClients(root, workspace)
