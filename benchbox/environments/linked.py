"""Links of environments that ``launch`` starts to the client that puts load on them."""

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


def open_link(choice: LinkChoice, workspace: Workspace) -> Link | None:
    """Return the link of one session, None where it is to have none. Raises BenchboxError, see ``model.LinkMaker``."""
    if choice == "host":
        return links.HOST_LINK
    return workspace.links.veth() if choice == "bridge" and workspace.links else None


def told_link(link: Link | None) -> dict[str, Any]:
    """Return what a session says of its link."""
    return {"link": link.applied()} if link else {}


def linked_plan(plan: LaunchPlan, link: Link | None) -> LaunchPlan:
    """Return ``plan`` of a container in the network namespace of ``link`` in place of a new one. Pure.

    The namespace is made once for all samples of a session, as the ones of guests and native are: a container's own
    would have to be linked while it starts.
    """
    if link is None or link.namespace is None:
        return plan
    own = tuple(name for name in plan.namespaces if name != "net")
    return replace(plan, namespaces=own, loopback=False, network_fd=link.namespace)
