"""What a container is made of, seen from inside, and how native and container are held to their limits."""

import dataclasses
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchbox import images
from benchbox.environments import environment
from benchbox.environments.container import KEPT_CAPABILITIES
from benchbox.environments.prepared import MASKED, READ_ONLY
from benchbox.errors import EnvironmentFailure
from benchbox.images import tree
from benchbox.linux import cgroups, processes
from benchbox.model import Availability, Command, EnvironmentSpec, Outcome, Resources, Session
from tests.integration.launching import copy_of_image
from tests.integration.leftovers import descriptors, mounts
from tests.integration.sessions import output, run, session, shell

pytestmark = pytest.mark.integration

KINDS = ("native", "container")


@pytest.fixture(autouse=True)
def available(need: Callable[[str, Availability], None]) -> None:
    for kind in KINDS:
        need("container", environment(kind).check(EnvironmentSpec(kind, kind)))


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Session]:
    with session("container", tmp_path) as opened:
        yield opened


def counter(outcome: Outcome, name: str) -> float | None:
    return {item.name: item.value for item in outcome.counters}[name]


# --- namespaces ---


def test_the_workload_is_the_first_process_and_sees_no_other(container: Session) -> None:
    """Of its own pid namespace, with a /proc of its own."""
    assert output(container, "echo $$; cd /proc; echo [0-9]*") == "1\n1\n"


def test_every_namespace_is_its_own(container: Session) -> None:
    """None of the host's but the user's."""
    names = ("cgroup", "ipc", "mnt", "net", "pid", "uts", "user")
    inside = output(container, "; ".join(f"busybox readlink /proc/self/ns/{name}" for name in names)).split()
    ours = [str(Path("/proc/self/ns", name).readlink()) for name in names]
    shared = {name for name, link, own in zip(names, inside, ours, strict=True) if link == own}
    assert shared <= {"user"}


def test_the_host_name_is_the_given_one(tmp_path: Path) -> None:
    """And the host's stays."""
    before = os.uname().nodename
    with session("container", tmp_path, hostname="inside.example") as opened:
        assert output(opened, "busybox hostname") == "inside.example\n"
    assert os.uname().nodename == before


def test_there_is_a_loopback_interface_and_nothing_else(container: Session) -> None:
    """It is up."""
    assert output(container, "busybox ls /sys/class/net; busybox cat /sys/class/net/lo/operstate") == "lo\nunknown\n"
    assert "LOOPBACK,UP,LOWER_UP" in output(container, "busybox ip link show lo")
    assert "inet 127.0.0.1/8" in output(container, "busybox ip addr show lo")


def test_without_a_network_of_its_own_it_has_the_host_s(tmp_path: Path) -> None:
    """By option."""
    with session("container", tmp_path, network=False) as opened:
        assert output(opened, "busybox readlink /proc/self/ns/net").strip() == str(Path("/proc/self/ns/net").readlink())


def test_it_sees_its_own_cgroup_as_the_root(container: Session) -> None:
    """The namespace is made after it has joined."""
    assert {line.split(":", 2)[2] for line in output(container, "busybox cat /proc/self/cgroup").splitlines()} == {"/"}


@pytest.mark.parametrize("part", ["pid", "ipc", "uts", "cgroup"])
def test_a_namespace_that_is_left_out_is_the_host_s_and_no_other(part: str, tmp_path: Path) -> None:
    """Read inside; the record says so, and a process tree in the host's pid namespace ends with the command."""
    with session("container", tmp_path, without=[part]) as opened:
        script = "busybox sleep 1000 & for n in cgroup ipc mnt net pid uts; do busybox readlink /proc/self/ns/$n; done"
        outcome = run(opened, shell(script))
        assert opened.applied()["left_out"].keys() == {part}
    inside = outcome.output_tail.decode().split()
    assert len(inside) == 6
    ours = {str(link.readlink()) for link in Path("/proc/self/ns").iterdir()}
    assert {link.partition(":")[0] for link in inside if link in ours} == {part}
    assert set(outcome.applied["namespaces"]) == {"cgroup", "ipc", "mount", "net", "pid", "uts"} - {part}
    assert processes.with_argument("1000") == []


def test_a_container_without_limits_is_on_its_cpus_and_accounted(tmp_path: Path) -> None:
    """No limit is in force, which is what was asked for."""
    with session("container", tmp_path, without=["limits"]) as opened:
        outcome = run(opened, shell("exit 0"))
    assert outcome.status == "ok", outcome.reason
    assert (outcome.applied["memory_bytes"], outcome.applied["pids"]) == (None, None)
    assert outcome.applied["cpus"] == str(max(os.sched_getaffinity(0)))
    assert (counter(outcome, "cpu.usage") or 0) > 0


def test_a_container_without_masks_and_capabilities_holds_less_and_says_so(tmp_path: Path) -> None:
    """Nothing is mounted over the kernel's files, no capability is missing."""
    with session("container", tmp_path, without=["masks", "capabilities"]) as opened:
        said, outcome = opened.applied(), run(opened, shell("busybox cat /proc/self/mountinfo"))
    mounted = {line.split()[4] for line in outcome.output_tail.decode().splitlines()}
    assert mounted == {"/", "/proc", "/dev", "/dev/shm", "/tmp", "/sys"}
    own = re.search(r"CapEff:\s+(\w+)", Path("/proc/self/status").read_text())
    assert own and int(outcome.applied["capabilities"], 16) == int(own[1], 16)
    assert (said["hidden_paths"], said["kept_capabilities"]) == ("none", "all")
    assert said["left_out"].keys() == {"masks", "capabilities"}


# --- mounts ---


def test_its_mounts_are_the_planned_ones(container: Session) -> None:
    """In a tree of their own, private, with nothing of the host's."""
    lines = output(container, "busybox cat /proc/self/mountinfo").splitlines()
    found = {line.split()[4]: line.split(" - ")[1].split()[0] for line in lines}
    assert {path: kind for path, kind in found.items() if path not in (*MASKED, *READ_ONLY)} == {
        "/": "overlay", "/proc": "proc", "/dev": "tmpfs", "/dev/shm": "tmpfs", "/tmp": "tmpfs", "/sys": "sysfs",
    }  # fmt: skip
    assert {path for path in (*MASKED, *READ_ONLY) if Path(path).exists()} <= found.keys()
    assert not any("shared:" in line or "master:" in line for line in lines)


def test_the_kernel_s_files_cannot_be_written(container: Session) -> None:
    """Not even by root: read-only, whatever the permissions say."""
    for path in ("/proc/sys/kernel/hostname", "/proc/sys/vm/drop_caches", "/sys/kernel/uevent_helper", "/sys/new"):
        assert "Read-only file system" in output(container, f"(echo 1 > {path}) 2>&1; exit 0"), path


@pytest.mark.parametrize("path", ["/proc/kcore", "/proc/keys", "/proc/timer_list"])
def test_what_is_masked_is_empty(path: str, container: Session) -> None:
    """If the kernel has it."""
    assert output(container, f"[ ! -e {path} ] || busybox head -c 100 {path}") == ""


def test_orders_to_the_kernel_go_nowhere(container: Session) -> None:
    """What is written to the masked trigger is swallowed."""
    assert output(container, "[ ! -e /proc/sysrq-trigger ] || busybox stat -c '%t:%T' /proc/sysrq-trigger") in (
        "",
        "1:3\n",
    )


def test_dev_has_the_planned_devices_only(container: Session) -> None:
    """And they work."""
    listed = output(container, "cd /dev; busybox ls; busybox stat -c '%n %F %t:%T' null zero full random urandom tty")
    names, _, devices = listed.partition("null character")
    assert names.split() == [
        "fd",
        "full",
        "null",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "tty",
        "urandom",
        "zero",
    ]
    assert re.findall(r"[0-9a-f]+:[0-9a-f]+", devices) == ["1:3", "1:5", "1:7", "1:8", "1:9", "5:0"]
    assert (
        output(container, "busybox head -c 3 /dev/urandom | busybox wc -c; echo x > /dev/null; echo x > /dev/shm/x")
        == "3\n"
    )


def test_no_device_can_be_made(container: Session) -> None:
    """A disk of the host least of all."""
    assert "not permitted" in output(container, "busybox mknod /tmp/disk b 8 0 2>&1; exit 0")


# --- privileges ---


def test_it_keeps_the_documented_capabilities_only(container: Session) -> None:
    """And can gain no others."""
    text = output(container, "busybox cat /proc/self/status")
    fields = dict(re.findall(r"^(\w+):\t(.*)$", text, re.M))
    mask = sum(1 << number for number in KEPT_CAPABILITIES.values())
    assert {fields[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {f"{mask:016x}"}
    assert {fields[name] for name in ("CapInh", "CapAmb")} == {"0" * 16}
    assert fields["NoNewPrivs"] == "1"
    outcome = run(container, Command(("/bin/ready",)))
    assert int(str(outcome.applied["capabilities"]), 16) == mask
    assert outcome.applied["no_new_privs"] is True


@pytest.mark.parametrize(
    "attempt", ["mount -t tmpfs x /etc", "umount /proc/sys", "hostname other", "dmesg", "chroot /proc/1/root sh"]
)
def test_what_only_the_host_s_root_may_is_refused(attempt: str, container: Session) -> None:
    """Each needs a capability that it has not."""
    assert run(container, shell(f"busybox {attempt}")).status == "failed"


# --- the root ---


@pytest.mark.parametrize(("kind", "options"), [("native", {}), ("container", {"root": "bind"})])
def test_a_root_without_a_layer_is_read_only(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Nothing can be written anywhere into it."""
    with session(kind, tmp_path, **options) as opened:
        for path in ("/new", "/etc/passwd", "/bin/ready"):
            assert "Read-only file system" in output(opened, f"(echo x > {path}) 2>&1; exit 0")
        assert run(opened, Command(("/bin/ready",))).status == "ok"


@pytest.mark.parametrize("layer", ["tmpfs", "disk"])
def test_a_layer_is_written_to_and_forgotten(layer: str, tmp_path: Path) -> None:
    """The next sample starts from the image again, and the image is what it was."""
    with session("container", tmp_path, layer=layer) as opened:
        for _ in range(2):
            script = "[ ! -e /new ] && echo x > /new && busybox rm /bin/ready && busybox ls /new"
            assert output(opened, script) == "/new\n"
        assert run(opened, Command(("/bin/ready",))).status == "ok"
    image = images.open_image("minimal")
    found = tree.scan(image.root)
    assert tree.digest(found, tree.file_sums(found)) == image.digest


@pytest.mark.parametrize("kind", KINDS)
def test_tmp_is_empty_at_the_start_of_each_sample(kind: str, tmp_path: Path) -> None:
    """What one sample left there the next one does not find."""
    with session(kind, tmp_path) as opened:
        assert [output(opened, "busybox ls /tmp; echo x > /tmp/left") for _ in range(2)] == ["", ""]


def test_an_image_that_wants_out_stays_in(tmp_path: Path) -> None:
    """Links in place of its folders lead its mounts nowhere: the host's folder is neither covered nor written to."""
    host = tmp_path / "host"
    host.mkdir()
    root = copy_of_image(tmp_path)
    for number, target in enumerate((f"..{host}", str(host), f"/proc/self/cwd{host}", "/proc/self/fd/3/../..")):
        (root / "tmp").rmdir() if number == 0 else (root / "tmp").unlink()
        (root / "tmp").symlink_to(target)
        image = dataclasses.replace(images.open_image("minimal"), root=root)
        (tmp_path / f"{number}").mkdir()
        with session("container", tmp_path / f"{number}", image=image) as opened:
            outcome = run(opened, shell("echo x > /tmp/new"))
        assert outcome.status == "failed"
        assert "/tmp" in (outcome.reason or "")
        assert list(host.iterdir()) == []


# --- limits ---


@pytest.mark.parametrize("kind", KINDS)
def test_running_out_of_memory_is_told_by_the_kernel_s_counters(kind: str, tmp_path: Path) -> None:
    """Not guessed from a status: a workload that is killed for memory in one of its processes may even exit 0."""
    with session(kind, tmp_path, Resources(memory_bytes=16 << 20)) as opened:
        grow = "a=xxxxxxxx; while :; do a=$a$a; done"
        for script in (grow, f"busybox sh -c '{grow}'; exit 0"):
            outcome = run(opened, shell(script))
            assert outcome.status == "failed"
            assert (outcome.reason or "").startswith("out of memory: the kernel killed 1 process")
            assert counter(outcome, "memory.oom_kills") == 1
            assert (counter(outcome, "memory.peak") or 0) > 8 << 20
        outcome = run(opened, shell("busybox sh -c 'kill -9 $$'; exit 137"))
        assert (outcome.reason, counter(outcome, "memory.oom_kills")) == ("exit status 137", 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_processes_is_limited(kind: str, tmp_path: Path) -> None:
    """The kernel refuses one more."""
    with session(kind, tmp_path, Resources(pids=5)) as opened:
        outcome = run(opened, shell("for i in 1 2 3 4 5 6 7 8; do busybox sleep 5 & done 2>&1; exit 3"))
        assert outcome.status == "failed"
        assert b"fork" in outcome.output_tail
        assert outcome.applied["pids"] == 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_share_of_cpu_time_is_kept_and_shows_in_the_account(kind: str, tmp_path: Path) -> None:
    """A quarter of a CPU: the work takes longer, and the time of its standing still is counted."""
    work = shell("i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done")
    with session(kind, tmp_path, Resources(cpu_quota=0.25)) as opened:
        outcome = run(opened, work)
    used_s, held_s = counter(outcome, "cpu.usage") or 0, counter(outcome, "cpu.throttled") or 0
    elapsed_s = (outcome.stages["exited"] - outcome.requested_ns) / 1e9
    assert outcome.applied["cpu_quota"] == 0.25
    assert held_s > 0
    assert used_s / elapsed_s < 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_it_runs_on_the_named_cpus_only(kind: str, tmp_path: Path) -> None:
    """By cpuset and by affinity, both read back."""
    named = str(max(os.sched_getaffinity(0)))
    with session(kind, tmp_path) as opened:
        outcome = run(opened, shell("busybox grep Cpus_allowed_list /proc/self/status"))
    assert outcome.output_tail.split()[-1].decode() == named
    assert (outcome.applied["cpus"], outcome.applied["affinity"]) == (named, named)


def test_native_and_container_are_limited_alike(tmp_path: Path) -> None:
    """Their difference is the isolation and nothing else."""
    found = {}
    for kind in KINDS:
        (tmp_path / kind).mkdir()
        with session(kind, tmp_path / kind, Resources(memory_bytes=32 << 20, pids=9, cpu_quota=0.5)) as opened:
            applied = run(opened, Command(("/bin/ready",))).applied
            found[kind] = {name: applied[name] for name in ("cpus", "memory_bytes", "pids", "cpu_quota", "affinity")}
    assert found["native"] == found["container"]
    assert found["native"]["memory_bytes"] == 32 << 20


#: Where a limit is, in v2 and in v1, and another value for it.
BEHIND = {
    "memory_bytes": ("memory.max", "memory.limit_in_bytes", 128 << 20),
    "pids": ("pids.max", "pids.max", 77),
}


@pytest.mark.parametrize("name", BEHIND)
@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_changed_behind_its_back_shows_and_spoils_the_sample(kind: str, name: str, tmp_path: Path) -> None:
    """What was in force is read back, and a sample under another limit is none."""
    v2_file, v1_file, value = BEHIND[name]
    with session(kind, tmp_path) as opened:
        running = opened.start(shell("busybox usleep 500000; exec /bin/ready", signals_ready=True))
        assert change_limit((v2_file, v1_file), value)
        outcome = running.wait()
        assert outcome.applied[name] == value
        assert outcome.status == "invalid"
        assert f"a limit is not the one asked for: {name}: asked for" in (outcome.reason or "")
        assert run(opened, Command(("/bin/ready",))).status == "ok"


def change_limit(files: tuple[str, ...], value: int) -> bool:
    """Write ``value`` into the limit of the one instance that runs, as soon as it is there."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        groups = [path for root in cgroups.detect().roots() for path in root.glob(f"benchbox-test-{os.getpid()}/*/")]
        for path in [group / file for group in groups for file in files if (group / file).exists()]:
            if (path.parent / "cgroup.procs").read_text():
                path.write_text(str(value))
                return True
        time.sleep(0.002)
    return False


# --- many ---


@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_samples_leave_no_more_than_one(kind: str, tmp_path: Path) -> None:
    """No descriptor, no mount is added by the way; that nothing is left in the end is true of every test."""
    with session(kind, tmp_path) as opened:
        standing = []
        for _ in range(100):
            assert run(opened, Command(("/bin/ready",))).status == "ok"
            standing.append((sum(1 for _ in descriptors()), sum(1 for _ in mounts())))
    assert standing[-1] == standing[0]


# --- what this host lacks ---


def test_an_image_that_is_not_there_is_said(tmp_path: Path) -> None:
    """By native when it is opened, by a container in each sample; nothing is left of the attempt."""
    image = dataclasses.replace(images.open_image("minimal"), root=tmp_path / "nowhere")
    for kind in KINDS:
        (tmp_path / kind).mkdir()
    with (
        pytest.raises(EnvironmentFailure, match="No such file"),
        session("native", tmp_path / "native", image=image),
    ):
        pass
    with session("container", tmp_path / "container", image=image) as opened:
        outcome = run(opened, Command(("/bin/ready",)))
    assert outcome.status == "failed"
    assert f"{tmp_path}/nowhere" in (outcome.reason or "")
