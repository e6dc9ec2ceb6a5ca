"""``native``: no isolation. The image's root, read-only, entered by chroot, in a cgroup of its own.

The root is bound once per session; per sample there is nothing but cgroups, clone, chroot and exec, by the same
launcher as the container's.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from benchbox.environments.data import DataFolders
from benchbox.environments.disk import DiskWatch
from benchbox.environments.launched import LaunchedSession, Requested, choose_cpus, instance_limits
from benchbox.environments.linked import LINK_DESCRIPTION, LinkChoice, offered_link, open_link, told_link
from benchbox.environments.stored import folder_of
from benchbox.images.programs import Programs
from benchbox.linux import cgroups, mounts
from benchbox.linux.launch import LaunchPlan, Root
from benchbox.model import Availability, Command, EnvironmentSpec, Image, Resources, Session, Workspace

KIND: Final = "native"


class Options(BaseModel):
    """Options of ``native``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    link: LinkChoice = Field("none", description=LINK_DESCRIPTION)


class Native:
    """See the module."""

    def check(self, spec: EnvironmentSpec) -> Availability:
        if os.geteuid() != 0:
            return Availability.no("entering the image's root needs root", "run benchbox as root")
        offer = offered_link(Options(**spec.options).link)
        if not offer.available:
            return offer
        return cgroups.availability(cgroups.detect(), cgroups.Limits(memory_bytes=1, pids=1))

    @contextmanager
    def open(
        self, spec: EnvironmentSpec, image: Image, resources: Resources, workspace: Workspace
    ) -> Iterator[Session]:
        layout = cgroups.detect()
        cpus = choose_cpus(resources, workspace)
        mems = cgroups.prepare(layout, workspace.cgroup_name)
        limits = instance_limits(resources)
        link = open_link(Options(**spec.options).link, workspace)
        tmp_bytes = mounts.tmpfs_bytes(resources.disk_bytes)
        with bound_root(image.root, workspace.scratch / f"root-{spec.label}", tmp_bytes) as root:

            def plan(command: Command, name: str) -> LaunchPlan:
                leaf = f"{spec.label}-{name}"
                groups = cgroups.plan(layout, workspace.cgroup_name, leaf, limits, cpus, mems)
                return native_plan(command, root, groups, cpus, link.namespace if link and command.serves else None)

            data = DataFolders(workspace, spec.label, image.root, shared_at=root / "data")
            applied = {"root": "read-only bind, chroot", "cgroups": layout.mode} | told_link(link)
            yield LaunchedSession(
                plan, Requested.of(limits, cpus), applied, cpus,
                reads=(image.root,), before_first=lambda: _renew_tmp(root, tmp_bytes), data=data, link=link,
                own=Programs(image), account=(folder_of(image),), disk=DiskWatch(resources.disk_bytes),
            )  # fmt: skip


def native_plan(
    command: Command,
    root: Path,
    groups: cgroups.CgroupPlan,
    cpus: tuple[int, ...],
    network_fd: int | None = None,
) -> LaunchPlan:
    """Return the start of ``command`` in ``root`` with nothing between it and the host but cgroups. Pure.

    With ``network_fd`` it is in that network namespace, where its link to a client ends.
    """
    return LaunchPlan(
        command.argv,
        Root("chroot", root),
        cgroups=groups,
        cpus=cpus,
        network_fd=network_fd,
        env=command.env,
        cwd=command.cwd,
        signals_ready=command.signals_ready,
        announce=command.stays,
    )


@contextmanager
def bound_root(image_root: Path, target: Path, tmp_bytes: int) -> Iterator[Path]:
    """Yield ``target``, a read-only way to the image with /proc, /sys, /dev of the host and an empty /tmp, which takes
    ``tmp_bytes`` at most."""
    mounts.enter_private()
    target.mkdir()
    try:
        mounts.bind(image_root, target, read_only=True)
        # Not what is mounted below them: every container that starts later has to copy each mount.
        for name in ("proc", "sys", "dev"):
            mounts.bind(Path("/", name), target / name, devices=True)
        mounts.tmpfs(target / "tmp", tmp_bytes)
        yield target
    finally:
        mounts.detach(target)
        target.rmdir()


def _renew_tmp(root: Path, tmp_bytes: int) -> None:
    """Give the next command an empty /tmp. Not while another runs: commands that run at once share it."""
    mounts.detach(root / "tmp")
    mounts.tmpfs(root / "tmp", tmp_bytes)


ENVIRONMENT: Final = Native()
