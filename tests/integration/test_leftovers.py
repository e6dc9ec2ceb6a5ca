"""The comparison that every integration test ends with sees each kind of thing that could be left."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchbox.linux import cgroups, mounts, processes
from benchbox.model import Availability
from tests.integration.leftovers import nothing_left

pytestmark = pytest.mark.integration


@contextlib.contextmanager
def a_mount(folder: Path) -> Iterator[None]:
    mounts.enter_private()
    mounts.tmpfs(folder, 1 << 20, mode="700")
    try:
        yield
    finally:
        mounts.detach(folder)


@contextlib.contextmanager
def a_cgroup(folder: Path) -> Iterator[None]:
    group = cgroups.detect().roots()[-1] / f"benchbox-test-{os.getpid()}"
    group.mkdir()
    try:
        yield
    finally:
        group.rmdir()


@contextlib.contextmanager
def an_orphan(folder: Path) -> Iterator[None]:
    told = subprocess.run(["sh", "-c", "sleep 60 > /dev/null & echo $!"], stdout=subprocess.PIPE, check=True)
    try:
        yield
    finally:
        processes.end(int(told.stdout))


@contextlib.contextmanager
def a_zombie(folder: Path) -> Iterator[None]:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    try:
        yield
    finally:
        process.wait()


@contextlib.contextmanager
def a_descriptor(folder: Path) -> Iterator[None]:
    with (folder.parent / f"{folder.name}.txt").open("w"):
        yield


@contextlib.contextmanager
def a_folder(folder: Path) -> Iterator[None]:
    (folder / "run").mkdir()
    try:
        yield
    finally:
        (folder / "run").rmdir()


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (a_mount, "mount"),
        (a_cgroup, "cgroup"),
        (an_orphan, "process"),
        (a_zombie, "process"),
        (a_descriptor, "descriptor"),
        (a_folder, "folder"),
    ],
)
def test_what_is_left_is_named(
    make: Callable[[Path], contextlib.AbstractContextManager[None]],
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    need: Callable[[str, Availability], None],
) -> None:
    """A thing of each kind that is still there fails the test, and nothing else is named."""
    need("container", Availability(os.geteuid() == 0, "mounts and cgroups need root", "run as root"))
    monkeypatch.setenv("BENCHBOX_STATE", str(tmp_path))
    with contextlib.ExitStack() as stack:
        with pytest.raises(AssertionError) as failure, nothing_left(within_s=0.05):
            stack.enter_context(make(tmp_path))
        _, *left = str(failure.value).splitlines()
        assert [line.partition(":")[0] for line in left] == [f"{kind} left"]


def test_a_quiet_block_passes() -> None:
    """Where nothing happens nothing is found."""
    with nothing_left(within_s=0.0):
        pass


def test_an_orphan_that_has_ended_is_reaped() -> None:
    """As the supervisor of a run does: it is not left."""
    with nothing_left():
        subprocess.run(["sh", "-c", "sleep 0.05 & exit 0"], check=True)
