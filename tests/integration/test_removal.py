"""What a command has made is removed, however it was made, and a run goes on where something stays."""

import contextlib
import fcntl
import os
import shlex
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from benchbox.environments import container, native
from benchbox.errors import EnvironmentFailure
from benchbox.linux import mounts, removal
from benchbox.linux.state import cache_folder
from benchbox.model import Availability, DataSpec, EnvironmentSpec
from tests.integration import runs, sessions

pytestmark = pytest.mark.integration

#: Makes 12,000 folders, one in another, in the folder that it is run in; no path is longer than the kernel takes.
NESTING: Final = (
    "p=$(busybox printf 'd/%.0s' $(busybox seq 1000)); busybox mkdir x; "
    "for n in $(busybox seq 12); do busybox mkdir -p n/$p; echo x > n/$p/f; busybox mv x n/$p/x; busybox mv n x; done"
)
IMMUTABLE: Final = 0x10
_SET_FLAGS: Final = 0x40086602  # FS_IOC_SETFLAGS


@pytest.fixture
def offered(need: Callable[[str, Availability], None]) -> Callable[[str], None]:
    def check(kind: str) -> None:
        environment = {"native": native, "container": container}[kind].ENVIRONMENT
        need(kind, environment.check(EnvironmentSpec(kind, kind, {})))

    return check


@pytest.mark.parametrize(
    ("kind", "folder", "options"),
    [
        ("container", "/", {"layer": "tmpfs"}),
        ("container", "/", {"layer": "disk"}),
        ("container", "/", {"layer": "disk", "user_namespace": True}),
        ("container", "/data", {}),
        ("native", "/data", {}),
    ],
)
def test_a_tree_of_12000_folders_in_one_another_goes_with_its_sample(
    kind: str, folder: str, options: dict[str, Any], tmp_path: Path, offered: Callable[[str], None]
) -> None:
    """From the writable layer, which ``launch`` removes, and from /data; the session then goes on."""
    offered(kind)
    data = DataSpec(64 << 20) if folder == "/data" else None
    with sessions.session(kind, tmp_path, **options) as session:
        for script in (f"cd {folder}; {NESTING}", "true"):
            outcome = sessions.run(session, sessions.shell(script, data=data, timeout_s=60.0))
            assert outcome.status == "ok", (outcome.reason, outcome.output_tail)
            layers = tmp_path / "scratch" / f"layers-{kind}"
            assert not layers.exists() or list(layers.iterdir()) == []
            assert list((tmp_path / "scratch").glob("data-*")) == []


def test_a_run_of_what_nests_12000_folders_has_an_end_and_leaves_nothing(
    tmp_path: Path, offered: Callable[[str], None]
) -> None:
    """Its record is whole, and the next clean-up finds nothing to do."""
    offered("container")
    command = f"/bin/busybox sh -c {shlex.quote(f'{NESTING}; /bin/ready')}"
    scenario = runs.scenario(tmp_path, [{"kind": "container", "layer": "disk"}], command, rounds=2)
    status, out, err = runs.benchbox(tmp_path, "run", scenario)
    assert status == 0, (out, err)
    manifest, samples = runs.read(tmp_path)
    assert (manifest.exit_state, {sample.status for sample in samples}) == ("done", {"ok"})
    assert runs.benchbox(tmp_path, "clean")[1] == "nothing to clean\n"


@contextlib.contextmanager
def fixed(file: Path) -> Iterator[None]:
    """Make ``file`` one that not even root may remove, until the end."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CREAT)
    try:
        fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("l", IMMUTABLE))
    except OSError:
        os.close(descriptor)
        pytest.skip("no immutable files here")
    try:
        yield
    finally:
        fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("l", 0))
        os.close(descriptor)


@pytest.fixture
def immutable(tmp_path: Path) -> Iterator[Path]:
    """Yield a file that not even root may remove, until the end of the test."""
    file = tmp_path / "top" / "folder" / "file"
    file.parent.mkdir(parents=True)
    with fixed(file):
        yield file


def test_what_a_run_could_not_remove_goes_with_the_next_clean_up_that_can(tmp_path: Path) -> None:
    """The run keeps its record and its ledger and ends with 2; ``clean`` says what is in the way until it is not."""
    process = runs.start(tmp_path, "run", runs.scenario(tmp_path, ["native"], runs.STAYS))
    runs.eventually(lambda: runs.below(process, "sleep"))
    (scratch,) = cache_folder("scratch").glob("*")
    file = scratch / "file"
    with fixed(file):
        process.send_signal(signal.SIGINT)
        status, _, err = runs.finish(process)
        assert (status, f"{file}: Operation not permitted" in err) == (2, True), err
        assert runs.read(tmp_path)[0].exit_state == "interrupted"
        status, _, err = runs.benchbox(tmp_path, "clean")
        assert (status, f"could not remove folder {scratch}" in err) == (2, True), err
    status, out, _ = runs.benchbox(tmp_path, "clean")
    assert (status, f"removed folder {scratch}" in out) == (0, True), out
    assert runs.benchbox(tmp_path, "clean")[1] == "nothing to clean\n"


def test_what_may_not_be_removed_stays_and_is_named(immutable: Path, tmp_path: Path) -> None:
    """Immutable files: everything beside them goes."""
    (tmp_path / "top" / "other").mkdir()
    (tmp_path / "top" / "folder" / "other").touch()
    with pytest.raises(EnvironmentFailure, match=f"{immutable}: Operation not permitted"):
        removal.remove(tmp_path / "top")
    assert [list(path.iterdir()) for path in (tmp_path / "top", immutable.parent)] == [[immutable.parent], [immutable]]


def test_nothing_is_removed_of_what_is_mounted(tmp_path: Path) -> None:
    """Of another file system or of the same one, above or below: what is mounted there is named and stays."""
    mounts.enter_private()
    kept, top = tmp_path / "kept", tmp_path / "top"
    for place in ("bound", "tmpfs", "beside"):
        (top / "folder" / place).mkdir(parents=True)
    kept.mkdir()
    (kept / "file").touch()
    mounts.bind(kept, top / "folder" / "bound")
    mounts.tmpfs(top / "folder" / "tmpfs", 1 << 20)
    (top / "folder" / "tmpfs" / "file").touch()
    try:
        with pytest.raises(EnvironmentFailure) as caught:
            removal.remove(top)
        with pytest.raises(EnvironmentFailure, match="bound: something is mounted there"):
            removal.remove(top / "folder" / "bound")
        assert caught.value.message.count("something is mounted there") == 2
        assert (kept / "file").exists() and (top / "folder" / "tmpfs" / "file").exists()
        assert not (top / "folder" / "beside").exists()
    finally:
        mounts.detach(top / "folder" / "bound")
        mounts.detach(top / "folder" / "tmpfs")
    removal.remove(top)
    assert (kept / "file").exists()
