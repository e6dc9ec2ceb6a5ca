"""Links of environments that are no guests to the client that puts load on them."""

from dataclasses import replace
from typing import Any, Final, Literal

from benchbox.linux import links
from benchbox.linux.launch import LaunchPlan
from benchbox.model import Availability, Link, Workspace

LinkChoice = Literal["none", "bridge", "host"]
LINK_DESCRIPTION: Final = (
    "how a workload's client reaches it: over the bridge of the run, or by loopback in the host's own network"
)


def offered_link(choice: LinkChoice) -> Availability:
    """Say whether this host can make the link."""
    return links.availability() if choice == "bridge" else Availability.yes()


def require_network(choice: LinkChoice, network: bool | str, *, own: bool | str, host: bool | str) -> None:
    """Raise ValueError where the option ``network`` contradicts a link; ``own`` and ``host`` are what each needs."""
    if choice == "bridge" and network != own:
        raise ValueError(f"expected network: {_shown(own)} beside link: bridge")
    if choice == "host" and network != host:
        raise ValueError(f"expected network: {_shown(host)} beside link: host, which is the host's network")


def _shown(value: bool | str) -> str:
    return value if isinstance(value, str) else str(value).lower()


def open_link(choice: LinkChoice, workspace: Workspace, namespace: int | None = None) -> Link | None:
    """Return the link of one session, None where it is to have none; a bridge's in ``namespace`` if there is one.

    Raises BenchboxError, see ``model.LinkMaker``.
    """
    if choice == "host":
        return links.HOST_LINK
    return workspace.links.veth(namespace) if choice == "bridge" and workspace.links else None


def told_link(link: Link | None) -> dict[str, Any]:
    """Return what a session says of its link."""
    return {"link": link.applied()} if link else {}


def told_network(choice: LinkChoice, *, own: bool) -> str:
    """Return what a session says of its network, which is its ``own`` or the host's."""
    if not own:
        return "the host's"
    return f"namespace of its own, {'loopback only' if choice == 'none' else 'linked to a bridge'}"


def linked_plan(plan: LaunchPlan, link: Link | None) -> LaunchPlan:
    """Return ``plan`` of a container in the network namespace of ``link`` in place of a new one. Pure.

    The namespace is made once for all samples of a session, as the ones of guests and native are: a container's own
    would have to be linked while it starts.
    """
    if link is None or link.namespace is None:
        return plan
    own = tuple(name for name in plan.namespaces if name != "net")
    return replace(plan, namespaces=own, loopback=False, network_fd=link.namespace)
