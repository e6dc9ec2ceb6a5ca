"""/data with real kernels: there, writable, fresh, gone afterwards; and the guards on what reached the device.

The guards are tried on a file system of the tests' own on a loop device, so that nobody else's writes are in its count.
"""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from benchbox.environments import container, environment, native, vm
from benchbox.environments.disk import room
from benchbox.linux import mounts
from benchbox.model import Availability, Command, DataSpec, EnvironmentSpec, Image, NotDone, Outcome, Resources, Session
from benchbox.workloads import reached, workload
from tests.integration import fio_image, guests, runs, sessions

pytestmark = pytest.mark.integration

MIB: Final = 1 << 20
KINDS: Final = ("native", "container", "vm")
FIO_MEMORY: Final = Resources(memory_bytes=768 * MIB)


@pytest.fixture(autouse=True)
def reaped(request: pytest.FixtureRequest) -> Iterator[None]:
    if "vm" not in str(request.node.callspec.params.get("kind", "vm") if hasattr(request.node, "callspec") else "vm"):
        yield
        return
    with guests.reaping():
        yield


@pytest.fixture
def offered(need: Callable[[str, Availability], None]) -> Callable[[str], None]:
    """Return what skips a test where this host does not offer an environment."""

    def check(kind: str) -> None:
        asked = {"native": native, "container": container, "vm": vm}[kind].ENVIRONMENT
        need(kind, asked.check(EnvironmentSpec(kind, kind, {"accelerator": "tcg"} if kind == "vm" else {})))

    return check


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Yield the mount point of an ext4 of its own, 400 MiB (or what the test asks for), on a loop device."""
    mounts.enter_private()
    size_mib = getattr(request, "param", 400)
    file, folder = tmp_path / "loop.img", tmp_path / "loop"
    folder.mkdir()
    with file.open("xb") as stream:
        stream.truncate(size_mib * MIB)
    if not shutil.which("mke2fs") or subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", file]).returncode:
        pytest.skip("mke2fs is not installed")
    if subprocess.run(["mount", "-o", "loop", file, folder], capture_output=True).returncode:
        pytest.skip("this host has no loop devices")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@contextlib.contextmanager
def opened(kind: str, folder: Path, image: Image | None = None, **options: Any) -> Iterator[Session]:
    """Yield a session whose scratch folder is below ``folder``; in the end nothing may be in it."""
    if kind != "vm":
        with sessions.session(kind, folder, FIO_MEMORY if image else None, image, **options) as session:
            yield session
        return
    ledger = guests.Ledger()
    with (
        tempfile.TemporaryDirectory(prefix="bb-") as short,
        guests.session(Path(short), ledger, image, FIO_MEMORY if image else None, folder, **options) as session,
    ):
        yield session
    assert ledger.open == []
    assert list(folder.glob("data-*")) == []


def shell(script: str, data: DataSpec | None = None) -> Command:
    return sessions.shell(script, data=data or DataSpec(16 * MIB), timeout_s=60.0)


def printed(session: Session, command: Command) -> str:
    outcome = sessions.run(session, command)
    assert outcome.status == "ok", (outcome.reason, outcome.output_tail, outcome.console_tail)
    return outcome.output_tail.decode()


# --- there, and gone -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_data_is_writable_fresh_and_gone_afterwards(
    kind: str, tmp_path: Path, offered: Callable[[str], None], small_disk: Path
) -> None:
    """Each sample finds it empty, whatever the one before left; its account says what the device wrote."""
    offered(kind)
    script = (
        "busybox ls -A /data | busybox grep -v lost+found; echo x >/data/left && busybox cat /data/left; busybox sync"
    )
    with opened(kind, small_disk) as session:
        for _ in range(2):
            outcome = sessions.run(session, shell(script))
            assert (outcome.status, outcome.output_tail) == ("ok", b"x\n"), (outcome.reason, outcome.output_tail)
            assert outcome.applied["data"].endswith(", loop0") or "loop" in outcome.applied["data"]
            written = {counter.name: counter.value for counter in outcome.counters}["device.written"]
            assert written is not None and written >= 4096
        assert "Read-only" in printed(session, sessions.shell("echo x >/data/left; true")) or kind == "container"


@pytest.mark.parametrize("kind", KINDS)
def test_no_stage_has_a_part_in_making_data(
    kind: str, tmp_path: Path, offered: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sabotage: making and removing it takes a second more each; the request comes after, ``cleaned`` before."""
    offered(kind)
    from benchbox.linux import blockdev

    script = "sleep 1"
    monkeypatch.setattr(blockdev, "settle", lambda folder: subprocess.run(script.split(), check=True))
    with opened(kind, tmp_path) as session:
        outcome = sessions.run(session, shell("true"))
    limit_s = 1.0 if kind != "vm" else 30.0
    assert outcome.status == "ok", outcome.reason
    assert sessions.offset_s(outcome, "cleaned") < limit_s
    assert sessions.offset_s(outcome, "cgroups") < 0.5


def test_the_layer_of_a_container_takes_what_is_asked_of_it(tmp_path: Path, offered: Callable[[str], None]) -> None:
    """Nothing is bound: /data is that of the image, in the writable layer."""
    offered("container")
    with opened("container", tmp_path, layer="disk") as session:
        command = shell("busybox grep -c ' /data ' /proc/self/mountinfo; echo x >/data/f", DataSpec(MIB, "layer"))
        outcome = sessions.run(session, command)
        assert (outcome.status, outcome.output_tail) == ("ok", b"0\n")
        assert outcome.applied["data"].startswith("in its own layer on ")


def test_root_inside_may_write_whoever_that_is_outside(tmp_path: Path, offered: Callable[[str], None]) -> None:
    """With a user namespace the folder is given to who is root inside."""
    offered("container")
    with opened("container", tmp_path, user_namespace=True) as session:
        assert printed(session, shell("echo x >/data/f && busybox stat -c %u /data/f")) == "0\n"


def test_a_guest_has_its_disk_in_the_mode_that_was_asked_for(tmp_path: Path, offered: Callable[[str], None]) -> None:
    """Read back from the live domain; the agent finds it beside another disk."""
    offered("vm")
    with opened("vm", tmp_path, disk_cache="writeback", disk=8 * MIB) as session:
        outcome = sessions.run(session, shell("busybox grep ' /data ' /proc/self/mountinfo"))
        assert b" - ext4 " in outcome.output_tail, (outcome.reason, outcome.console_tail)
        assert outcome.applied["domain"]["data_disk"] == "virtio, raw, cache writeback, io threads"
        assert outcome.applied["domain"]["extra_disks"] == ["virtio, raw, cache writeback"]
        assert outcome.guest["data"] > 0
        plain = sessions.run(session, sessions.shell("busybox ls /sys/block", timeout_s=60.0))
        assert plain.applied["domain"]["data_disk"] is None and "data" not in plain.guest


# --- full ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("small_disk", [200], indirect=True)
@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_a_failed_sample_with_status_and_words(
    kind: str, small_disk: Path, offered: Callable[[str], None]
) -> None:
    """And the next one finds room again."""
    offered(kind)
    with opened(kind, small_disk) as session:
        outcome = sessions.run(session, shell("busybox dd if=/dev/zero of=/data/f bs=1M count=400"))
        assert outcome.status == "failed"
        # benchbox may have ended it just before that, for the host's sake.
        held = "are left on the file system" in str(outcome.reason)
        assert held or (outcome.exit_code == 1 and b"No space left on device" in outcome.output_tail)
        assert (
            printed(session, shell("busybox dd if=/dev/zero of=/data/f bs=1M count=4 2>/dev/null; echo done"))
            == "done\n"
        )


@pytest.mark.parametrize("small_disk", [24], indirect=True)
def test_a_host_without_room_for_a_guest_s_disk_says_so(small_disk: Path, offered: Callable[[str], None]) -> None:
    """The sample fails before any guest is started, and nothing is left."""
    offered("vm")
    with opened("vm", small_disk) as session:
        outcome = sessions.run(session, shell("true", DataSpec(64 * MIB)))
    assert outcome.status == "failed" and "No space left" in str(outcome.reason)
    assert str(outcome.reason).startswith("/data could not be made")


# --- the limit -------------------------------------------------------------------------------------------------------

LIMITED: Final = Resources(memory_bytes=64 << 20, disk_bytes=64 * MIB)
#: Where it writes without end -> environment, options, script. What has no name any more is found by what is missing.
ENDLESS: Final[dict[str, tuple[str, dict[str, Any], str]]] = {
    "data of native": ("native", {}, "exec busybox dd if=/dev/zero of=/data/f bs=1M"),
    "data": ("container", {}, "exec busybox dd if=/dev/zero of=/data/f bs=1M"),
    "layer": ("container", {"layer": "disk"}, "exec busybox dd if=/dev/zero of=/f bs=1M"),
    "layer of another user": (
        "container",
        {"layer": "disk", "user_namespace": True},
        "exec busybox dd if=/dev/zero of=/f bs=1M",
    ),
    "many files": (
        "container",
        {"layer": "disk"},
        "i=0; while :; do busybox dd if=/dev/zero of=/f$i bs=1M count=1 2>&-; i=$((i+1)); done",
    ),
    "no name": ("container", {}, "exec 5>/data/f; busybox rm /data/f; exec busybox dd if=/dev/zero bs=1M >&5"),
    "oci": ("oci", {"layer": "disk"}, "exec busybox dd if=/dev/zero of=/f bs=1M"),
}


@pytest.mark.parametrize("small_disk", [2000], indirect=True)
@pytest.mark.parametrize("where", ENDLESS)
def test_who_writes_without_end_is_ended_at_its_limit(where: str, small_disk: Path, need: Any) -> None:
    """With that reason; the disk is free again afterwards, and the next sample can write what it may."""
    kind, options, script = ENDLESS[where]
    need(kind, environment(kind).check(EnvironmentSpec(kind, kind, options)))
    before = room(small_disk)
    with sessions.session(kind, small_disk, LIMITED, **options) as session:
        outcome = sessions.run(session, shell(script))
        assert (outcome.status, outcome.exit_code) == ("failed", None)
        expected = (
            "that are in no file of its" if where == "no name" else "wrote more than 64 MiB into /data or its layer"
        )
        assert expected in str(outcome.reason) and "resources.disk" in str(outcome.reason)
        assert printed(session, shell("busybox dd if=/dev/zero of=/data/f bs=1M count=48 2>&-; sleep 1")) == ""
    runs.eventually(lambda: before.free_bytes - room(small_disk).free_bytes < MIB)


def test_what_lies_in_memory_has_a_size(tmp_path: Path, offered: Callable[[str], None]) -> None:
    """A layer, /tmp and /dev/shm: none takes more than the limit, whatever memory there is."""
    offered("container")
    resources = Resources(memory_bytes=512 * MIB, disk_bytes=32 * MIB)
    fill = "busybox dd if=/dev/zero of={}/f bs=1M count=100 2>&-; busybox stat -c %s {}/f; busybox rm {}/f;"
    script = "".join(fill.replace("{}", place) for place in ("", "/tmp", "/dev/shm"))
    with sessions.session("container", tmp_path, resources) as session:
        sizes = [int(line) for line in printed(session, sessions.shell(script)).split()]
    assert len(sizes) == 3 and all(30 * MIB < size <= 32 * MIB for size in sizes)


# --- the guards ------------------------------------------------------------------------------------------------------

#: Writes 16 MiB and waits until they are on the disk, as far as it is told the truth.
FLUSHED: Final = "busybox dd if=/dev/urandom of=/data/f bs=1M count=16 conv=fsync 2>/dev/null"


def flushed(kind: str, folder: Path, **options: Any) -> Outcome:
    with opened(kind, folder, **options) as session:
        outcome = sessions.run(session, shell(FLUSHED, DataSpec(32 * MIB)))
    assert outcome.status == "ok", (outcome.reason, outcome.output_tail)
    return outcome


@pytest.mark.parametrize(
    ("kind", "options"), [("native", {}), ("container", {}), ("vm", {}), ("vm", {"disk_cache": "writeback"})]
)
def test_what_was_flushed_reached_the_device(
    kind: str, options: dict[str, Any], small_disk: Path, offered: Callable[[str], None]
) -> None:
    """In every environment, and with the host's cache where a guest's flushes are obeyed."""
    offered(kind)
    share = reached.check(flushed(kind, small_disk, **options).counters, "written", 16 * MIB)
    assert share is not None and share < 2


def test_a_dropped_flush_is_seen(small_disk: Path, offered: Callable[[str], None]) -> None:
    """Sabotage: cache unsafe. The guest believes that all is on the disk; the device has not seen it."""
    offered("vm")
    outcome = flushed("vm", small_disk, disk_cache="unsafe")
    assert "cache unsafe" in outcome.applied["domain"]["data_disk"]
    with pytest.raises(NotDone, match="flushes were dropped"):
        reached.check(outcome.counters, "written", 16 * MIB)


def measured(
    kind: str, folder: Path, params: dict[str, Any], **options: Any
) -> tuple[Outcome, Callable[[], dict[str, float]]]:
    """Run the workload ``disk`` and return what came of it, and what reads its metrics."""
    disk = workload("disk")
    command = replace(disk.command({"size_mib": 32, "seconds": 1, **params}), timeout_s=100.0)
    with opened(kind, folder, fio_image.image(), **options) as session:
        outcome = sessions.run(session, command)
    assert outcome.status == "ok", (outcome.reason, outcome.output_tail[-500:], outcome.console_tail[-500:])
    return outcome, lambda: {metric.name: metric.value for metric in disk.parse(outcome)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("params", [{"rw": "randwrite", "depth": 16}, {"rw": "read", "block": "1m"}])
def test_fio_measures_the_disk(
    kind: str, params: dict[str, Any], small_disk: Path, offered: Callable[[str], None]
) -> None:
    """All its bytes are found on the device again, no more than file system and layout explain."""
    offered(kind)
    _, metrics = measured(kind, small_disk, params)
    way = "read" if params["rw"] == "read" else "write"
    found = metrics()
    assert found[f"disk.{way}.bandwidth"] > 0 and found[f"disk.{way}.latency_p99"] > 0
    assert found[f"disk.{way}.on_device"] >= 0.95


def test_reads_out_of_the_host_s_cache_are_seen(small_disk: Path, offered: Callable[[str], None]) -> None:
    """Sabotage: cache writeback. The guest reads directly, the host's page cache answers."""
    offered("vm")
    _, metrics = measured("vm", small_disk, {"rw": "read", "block": "1m"}, disk_cache="writeback")
    with pytest.raises(NotDone, match="a cache had them"):
        metrics()


def test_writes_into_the_host_s_cache_are_seen(small_disk: Path, offered: Callable[[str], None]) -> None:
    """Sabotage: cache writeback. What QEMU flushes when it ends was not on the device when the guest had ended."""
    offered("vm")
    _, metrics = measured("vm", small_disk, {"rw": "write", "block": "1m"}, disk_cache="writeback")
    with pytest.raises(NotDone, match="a cache took them"):
        metrics()


def test_a_layer_in_memory_is_no_disk(small_disk: Path, offered: Callable[[str], None]) -> None:
    """Sabotage: the writable layer on tmpfs; its sample is invalid, whatever fio says."""
    offered("container")
    with pytest.raises(NotDone, match="memory"):
        measured("container", small_disk, {"rw": "write", "sync": "fsync", "where": "layer"}, layer="tmpfs")[1]()
