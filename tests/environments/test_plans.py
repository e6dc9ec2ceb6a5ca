"""What native and container ask of ``launch``: pure, so that it is seen here what differs between them."""

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from benchbox.environments import container, native, vm
from benchbox.environments.clients import client_cpu, client_plan
from benchbox.environments.container import KEPT_CAPABILITIES, PARTS, Options, Part, container_plan
from benchbox.environments.linked import linked_plan
from benchbox.environments.native import native_plan
from benchbox.environments.prepared import MASKED, READ_ONLY, Prepared
from benchbox.linux import links, users
from benchbox.linux.cgroups import CgroupPlan, Group
from benchbox.linux.launch import IdMap, LaunchPlan, MountStep, Root
from benchbox.model import Command, EnvironmentSpec, Link

COMMAND = Command(("/bin/ready", "-x"), {"A": "b"}, "/data", stays=True, signals_ready=True)
GROUPS = CgroupPlan((Group(Path("/cg/leaf"), 2),))
IMAGE, LAYERS, DEVICES = Path("/image"), Path("/layers"), Path("/devices")
MAPS = (IdMap(0, 100000, 65536), IdMap(0, 200000, 65536))


PREPARED = Prepared(IMAGE, LAYERS, Path("/launch"), DEVICES)


def in_container(prepared: Prepared = PREPARED, **options: Any) -> LaunchPlan:
    return container_plan(COMMAND, prepared, "s1", GROUPS, (1, 2), Options(**options))


def test_native_is_a_root_and_cgroups() -> None:
    """Nothing else stands between the command and the host."""
    assert native_plan(COMMAND, IMAGE, GROUPS, (1, 2)) == LaunchPlan(
        ("/bin/ready", "-x"), Root("chroot", IMAGE), GROUPS, (1, 2), env={"A": "b"}, cwd="/data", announce=True
    )


def test_a_container_differs_by_its_isolation_only() -> None:
    """Command, environment, folder, cgroups, CPUs and the way to say ready are native's."""
    plain, isolated = native_plan(COMMAND, IMAGE, GROUPS, (1, 2)), in_container()
    different = {
        field.name for field in fields(LaunchPlan) if getattr(plain, field.name) != getattr(isolated, field.name)
    }
    assert different == {
        "root", "namespaces", "mounts", "hostname", "loopback", "capabilities", "no_new_privs", "new_keyring",
        "no_core", "uid", "gid",
    }  # fmt: skip


def test_a_container_has_every_namespace_but_that_of_users() -> None:
    """And a loopback interface in its own network."""
    plan = in_container()
    assert set(plan.namespaces) == {"pid", "mount", "uts", "ipc", "net", "cgroup"}
    assert plan.loopback


def test_without_a_network_of_its_own_nothing_is_brought_up() -> None:
    """The host's loopback is not benchbox's to touch."""
    plan = in_container(network=False)
    assert "net" not in plan.namespaces
    assert not plan.loopback


def test_its_root_is_a_layer_over_the_image_or_the_image_read_only() -> None:
    """Never the image itself, writable."""
    assert in_container().root == Root("root-overlay", IMAGE, LAYERS / "s1")
    assert in_container(root="bind").root == Root("root-ro-bind", IMAGE)


def test_the_kernel_s_files_are_mounted_before_they_are_masked() -> None:
    """A mask below a mount that comes later would be covered; it needs /dev/null."""
    steps = list(in_container().mounts)
    before = [MountStep("dev-bind", "/dev", DEVICES), MountStep("proc", "/proc"), MountStep("sys", "/sys")]
    hiding = [step for step in steps if step.kind in ("mask", "ro")]
    assert {step.path for step in hiding} == {*MASKED, *READ_ONLY}
    assert max(map(steps.index, before)) < min(map(steps.index, hiding))


#: Part -> the fields of a plan that are others without it, and the namespace that is missing then.
LEFT_OUT: dict[Part, set[str]] = {
    "pid": {"namespaces"},
    "uts": {"namespaces", "hostname"},
    "ipc": {"namespaces"},
    "cgroup": {"namespaces"},
    "limits": set(),  # they are in the cgroups that the plan is given
    "masks": {"mounts"},
    "capabilities": {"capabilities"},
}


def changed(plan: LaunchPlan) -> set[str]:
    """Return the fields in which ``plan`` differs from that of the whole container."""
    return {
        field.name for field in fields(LaunchPlan) if getattr(plan, field.name) != getattr(in_container(), field.name)
    }


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_left_out_alone(part: Part) -> None:
    """Nothing else of the plan changes; a namespace is the one that is named."""
    plan = in_container(without=(part,))
    assert changed(plan) == LEFT_OUT[part]
    missing = set(in_container().namespaces) - set(plan.namespaces)
    assert missing == ({part} if "namespaces" in LEFT_OUT[part] else set())


def test_without_what_it_has_nothing_is_hidden_and_all_capabilities_stay() -> None:
    """The rest of the mounts stays as it is."""
    plan = in_container(without=("masks", "capabilities", "uts"))
    assert plan.mounts == tuple(step for step in in_container().mounts if step.kind not in ("mask", "ro"))
    assert plan.capabilities is None
    assert plan.hostname is None


def test_nothing_is_left_out_by_itself() -> None:
    """A container that holds less is asked for by name."""
    assert Options.model_validate({}).without == ()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"without": ("pid", "pid")}, "each part once"),
        ({"without": ("uts",), "hostname": "box"}, "the host's"),
        ({"without": ("pid",), "user_namespace": True}, "/proc"),
        ({"without": ("net",)}, "Input should be"),
        ({"without": ("mount",)}, "Input should be"),
    ],
)
def test_what_cannot_be_left_out_is_refused(options: dict[str, Any], said: str) -> None:
    """Parts twice, parts that others need, parts that are none."""
    with pytest.raises(ValidationError, match=said):
        Options(**options)


def test_the_filter_is_the_session_s() -> None:
    """Its descriptor is handed to each start; without it there is none."""
    assert in_container(Prepared(IMAGE, LAYERS, DEVICES, seccomp_fd=9)).seccomp_fd == 9
    assert in_container().seccomp_fd is None


def test_users_are_others_where_they_are_mapped() -> None:
    """Root inside is the root of its own namespace, all groups of the caller are left."""
    plan = in_container(Prepared(IMAGE, LAYERS, DEVICES, id_maps=MAPS))
    assert (plan.uid_map, plan.gid_map, plan.uid, plan.gid) == (*MAPS, 0, 0)
    assert "user" in plan.namespaces


def test_privileges_are_dropped_to_the_documented_ones() -> None:
    """No capability over the system, none for raw packets or device nodes, and none can be gained."""
    plan = in_container()
    assert plan.capabilities == tuple(KEPT_CAPABILITIES.values())
    assert plan.no_new_privs
    assert not {name for name in KEPT_CAPABILITIES if name.startswith("CAP_SYS_")}
    assert KEPT_CAPABILITIES.keys().isdisjoint({"CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_MKNOD", "CAP_DAC_READ_SEARCH"})


def test_the_numbers_of_capabilities_are_the_kernel_s() -> None:
    """linux/capability.h, where it is installed."""
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip("no kernel headers here")
    lines = [line.split() for line in header.read_text().splitlines() if line.startswith("#define CAP_")]
    numbers = {words[1]: words[2] for words in lines if len(words) == 3}
    assert {name: numbers[name] for name in KEPT_CAPABILITIES} == {
        name: str(n) for name, n in KEPT_CAPABILITIES.items()
    }


@pytest.mark.parametrize("name", ["a", "box-1.example", "x" * 63])
def test_a_host_name_may_be_chosen(name: str) -> None:
    """As hostname(7) allows."""
    assert in_container(hostname=name).hostname == name


@pytest.mark.parametrize("name", ["", "-x", "a b", "x" * 64, "a/b", "a\n"])
def test_what_is_no_host_name_is_refused(name: str) -> None:
    """Before anything is started."""
    with pytest.raises(ValidationError):
        in_container(hostname=name)


def test_an_ordinary_user_keeps_the_groups_and_gets_devices_at_each_start() -> None:
    """No other user is mapped, so there is nobody to become; nothing can be mounted before."""
    plan = in_container(replace(PREPARED, devices=None, id_maps=MAPS, rootless=True))
    assert (plan.uid, plan.gid) == (None, None)
    assert plan.mounts[0] == MountStep("dev", "/dev")


def test_native_without_root_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no way to enter a root without it that is not a container already."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    offer = native.ENVIRONMENT.check(EnvironmentSpec("native", "x"))
    assert (offer.available, offer.fix) == (False, "run benchbox as root")


def test_a_host_without_user_namespaces_for_everybody_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the launcher's own words, and the settings that may forbid it."""
    program = tmp_path / "launch"
    program.write_text("#!/bin/sh\necho 'launch: cannot clone: Operation not permitted' >&2; exit 125\n")
    program.chmod(0o755)
    offer = users.own_namespace_works(program)
    assert not offer.available
    assert "cannot clone: Operation not permitted" in (offer.reason or "")
    assert "unprivileged_userns" in (offer.fix or "")


@pytest.mark.parametrize("other_users", [True, False])
def test_the_host_s_network_and_other_users_do_not_go_together(
    other_users: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before anything is started: whether they are asked for or an ordinary user cannot do without."""
    monkeypatch.setattr(os, "geteuid", lambda: 0 if other_users else 1000)
    spec = EnvironmentSpec("container", "x", {"network": False, "user_namespace": other_users})
    offer = container.ENVIRONMENT.check(spec)
    assert not offer.available
    assert "network" in (offer.reason or "")


def test_an_ordinary_user_s_container_has_a_pid_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is root in a user namespace only may mount /proc of a pid namespace of it only."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    offer = container.ENVIRONMENT.check(EnvironmentSpec("container", "x", {"without": ["pid"]}))
    assert not offer.available
    assert "pid" in (offer.fix or "")


def test_a_guest_needs_its_kernel_and_three_times_its_image() -> None:
    """Seen with a kernel of 51 MiB and an image of 41: it boots in 192 MiB and not in 144; what is advised suffices."""
    needed_bytes = vm.least_memory_bytes(kernel_bytes=51 << 20, initramfs_bytes=41 << 20)
    assert 144 << 20 < needed_bytes <= 192 << 20
    assert vm.enough_memory_bytes(needed_bytes) == 192 << 20
    assert vm.least_memory_bytes(51 << 20, 2 << 20) <= 64 << 20


def test_the_data_of_a_container_is_bound_and_native_s_plan_knows_nothing_of_it() -> None:
    """One mount more; the session binds it into native's root, which has no mounts of its own."""
    plain = in_container()
    bound = container_plan(COMMAND, PREPARED, "s1", GROUPS, (1, 2), Options(**{}), Path("/scratch/data"))
    assert [step for step in bound.mounts if step not in plain.mounts] == [
        MountStep("bind", "/data", Path("/scratch/data"))
    ]
    assert replace(bound, mounts=plain.mounts) == plain


LINK = Link("bridge", "veth", "198.18.0.2", 8, 9)


def test_what_serves_a_client_joins_the_namespace_of_its_link() -> None:
    """Native as well: the way to the client is of the same kind everywhere."""
    plan = native_plan(COMMAND, IMAGE, GROUPS, (1, 2), 8)
    assert (plan.network_fd, plan.namespaces) == (8, ())
    linked = linked_plan(in_container(link="bridge"), LINK)
    assert (linked.network_fd, linked.loopback) == (8, False)
    assert set(linked.namespaces) == {"pid", "mount", "uts", "ipc", "cgroup"}


def test_a_container_without_a_link_is_as_ever() -> None:
    """And so is one in the host's network, whose client comes by loopback."""
    plan = in_container()
    assert linked_plan(plan, None) == plan
    host = in_container(link="host", network=False)
    assert linked_plan(host, links.HOST_LINK) == host


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"link": "bridge", "user_namespace": True}, "no user_namespace beside link: bridge"),
        ({"link": "bridge", "network": False}, "network: true beside link: bridge"),
        ({"link": "host"}, "network: false beside link: host"),
    ],
)
def test_a_link_that_cannot_be_is_refused(options: dict[str, Any], complaint: str) -> None:
    """Before anything starts."""
    with pytest.raises(ValidationError, match=complaint):
        Options(**options)


def test_the_client_has_a_cpu_that_no_environment_uses() -> None:
    """Where the host has one."""
    assert client_cpu((2, 3), (0, 1)) == 1
    assert client_cpu((1,), (0, 1)) == 0
    assert client_cpu((0,), (0,)) == 0


BRIDGE = Link("bridge", "veth", "198.18.0.2", namespace=9, client=10)


def test_what_lies_in_memory_is_as_large_as_the_session_says() -> None:
    """/tmp and /dev/shm alike."""
    steps = {step.path: step.size_bytes for step in in_container(replace(PREPARED, tmpfs_bytes=4096)).mounts}
    assert steps["/tmp"] == steps["/dev/shm"] == 4096
    assert "4096" not in {str(size) for path, size in steps.items() if path not in ("/tmp", "/dev/shm")}


def test_a_client_is_held_as_a_container_is() -> None:
    """Whatever it asks; its root is the image read-only, its network the client's end of the link."""
    prepared = replace(PREPARED, seccomp_fd=8)
    plan, held = client_plan(COMMAND, prepared, GROUPS, (3,), BRIDGE), in_container(prepared, root="bind")
    different = {field.name for field in fields(LaunchPlan) if getattr(plan, field.name) != getattr(held, field.name)}
    assert different == {"cpus", "namespaces", "loopback", "network_fd", "signals_ready"}
    assert set(held.namespaces) - set(plan.namespaces) == {"net"}
    assert plan.network_fd == BRIDGE.client


def test_a_client_beside_the_host_s_loopback_shares_nothing_else_of_it() -> None:
    """There is no namespace to join: all others are its own."""
    plan = client_plan(COMMAND, PREPARED, GROUPS, (3,), links.HOST_LINK)
    assert (plan.network_fd, plan.loopback) == (None, False)
    assert set(plan.namespaces) == {"pid", "mount", "uts", "ipc", "cgroup"}
    assert plan.capabilities == tuple(KEPT_CAPABILITIES.values())
