"""``/data``: the one place that a command may write to, fresh for each sample, and what of it reached a device.

A folder of the run's scratch folder where the host's kernel is used, a disk whose file lies there for a guest. All of
it is made before the sample's request and removed after everything else of the sample is gone, so that no stage has a
part in it; then the file system is brought to rest, so that the next sample does not pay for it.
"""

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from benchbox import remedies
from benchbox.errors import BenchboxError, EnvironmentFailure, UnavailableError
from benchbox.linux import blockdev, mounts, processes, removal
from benchbox.linux.blockdev import Backing
from benchbox.model import DEVICE_STAT, DataSpec, Outcome, Running, Workspace
from benchbox.units import format_size

#: Where it is inside.
FOLDER: Final = "/data"
#: What a guest's file system takes of its disk: journal, tables of inodes, maps.
_OVERHEAD_BYTES: Final = 64 << 20
_BLOCK_BYTES: Final = 4096
_MAKING_S: Final = 60.0
_FOLDERS: Final = ("/usr/sbin", "/sbin", "/usr/local/sbin")


class Data(Protocol):
    """Provides ``/data`` for a session, on the file system of the folder ``place``."""

    @property
    def place(self) -> Path: ...

    def held(self, spec: DataSpec, name: str) -> AbstractContextManager[Backing]:
        """Have what ``spec`` asks for there for the instance ``name``; it is empty in the end.

        The value is what is behind it. Raises BenchboxError, OSError."""

    def told(self, spec: DataSpec, where: Backing) -> str:
        """Say in words what it is, for the record."""


class DataFolders:
    """Folders below ``Workspace.scratch``, which environments bind.

    ``owner`` is who gets them (user, group). ``layer`` is where the writable layers of an environment lie, None where
    it has none. With ``shared_at`` those that run at once share one, bound there: they share their root.
    """

    def __init__(
        self,
        workspace: Workspace,
        label: str,
        image_root: Path,
        *,
        owner: tuple[int, int] | None = None,
        layer: Path | None = None,
        shared_at: Path | None = None,
    ) -> None:
        self._workspace, self._label, self._image_root = workspace, label, image_root
        self._owner, self._layer, self._shared_at = owner, layer, shared_at
        self._lock, self._sharing = threading.Lock(), 0

    @property
    def place(self) -> Path:
        return self._workspace.scratch

    def told(self, spec: DataSpec, where: Backing) -> str:
        return f"in its own layer on {where}" if self._in_layer(spec) else f"bind of a fresh folder on {where}"

    def source(self, spec: DataSpec | None, name: str) -> Path | None:
        """Return the folder to bind for the instance ``name``; None where none is. Pure."""
        if spec is None or self._in_layer(spec):
            return None
        return self._workspace.scratch / f"data-{self._label}{'' if self._shared_at else f'-{name}'}"

    @contextmanager
    def held(self, spec: DataSpec, name: str) -> Iterator[Backing]:
        folder = self.source(spec, name)
        if folder is None:
            yield blockdev.backing(self._layer or self._workspace.scratch)
        elif self._shared_at:
            with self._shared(folder, self._shared_at, spec):
                yield blockdev.backing(self._workspace.scratch)
        else:
            self._make(folder, spec)
            try:
                yield blockdev.backing(self._workspace.scratch)
            finally:
                self._remove(folder)

    def _in_layer(self, spec: DataSpec) -> bool:
        return spec.place == "layer" and self._layer is not None

    @contextmanager
    def _shared(self, folder: Path, target: Path, spec: DataSpec) -> Iterator[None]:
        with self._lock:
            if not self._sharing:
                self._make(folder, spec)
                mounts.bind(folder, target)
            self._sharing += 1
        try:
            yield
        finally:
            with self._lock:
                self._sharing -= 1
                if not self._sharing:
                    mounts.detach(target)
                    self._remove(folder)

    def _make(self, folder: Path, spec: DataSpec) -> None:
        self._workspace.ledger.record("folder", str(folder))
        folder.mkdir(mode=0o755)
        try:
            _copy(self._image_root, spec.copies, folder)
            for path in (folder, *folder.rglob("*")) if self._owner else ():
                os.chown(path, *self._owner or (-1, -1))
        except BaseException:
            self._remove(folder)
            raise

    def _remove(self, folder: Path) -> None:
        _remove(self._workspace, folder)


class DataDisks:
    """Files below ``Workspace.scratch`` that guests have as a disk, with an ext4 file system.

    The file's space is reserved, so that writing to the guest's disk never has to find it.
    """

    def __init__(self, workspace: Workspace, label: str, image_root: Path) -> None:
        self._workspace, self._label, self._image_root = workspace, label, image_root

    @property
    def place(self) -> Path:
        return self._workspace.scratch

    def source(self, name: str) -> Path:
        """Return the file of the instance ``name``. Pure."""
        return self._workspace.scratch / f"data-{self._label}-{name}" / "disk.raw"

    def told(self, spec: DataSpec, where: Backing) -> str:
        return f"ext4 on a disk whose file lies on {where}"

    @contextmanager
    def held(self, spec: DataSpec, name: str) -> Iterator[Backing]:
        disk = self.source(name)
        folder, staged = disk.parent, disk.parent / "staged"
        self._workspace.ledger.record("folder", str(folder))
        folder.mkdir(mode=0o700)
        try:
            staged.mkdir()
            _copy(self._image_root, spec.copies, staged)
            _make_disk(disk, disk_bytes(spec.size_bytes), staged)
            yield blockdev.backing(self._workspace.scratch)
        finally:
            _remove(self._workspace, folder)


def _remove(workspace: Workspace, folder: Path) -> None:
    """Remove ``folder``; what cannot be removed stays in the ledger, for the end of the run to try and to name."""
    if removal.try_remove(folder):
        workspace.ledger.release("folder", str(folder))


def disk_bytes(size_bytes: int) -> int:
    """Return how large the disk is whose file system has room for ``size_bytes``, in whole MiB. Pure."""
    return (size_bytes + size_bytes // 10 + _OVERHEAD_BYTES) >> 20 << 20


def make_words(disk: Path, staged: Path) -> list[str]:
    """Return the command that makes the file system on ``disk``, with what is in ``staged``. Pure.

    Its tables are written at once: a guest's kernel would do that while the workload is measured. Nothing is kept for
    root, who runs the workload.
    """
    return [
        "mke2fs", "-q", "-F", "-t", "ext4", "-b", str(_BLOCK_BYTES), "-m", "0",
        "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard,root_owner=0:0", "-d", str(staged), str(disk),
    ]  # fmt: skip


def _make_disk(disk: Path, size_bytes: int, staged: Path) -> None:
    program = shutil.which("mke2fs", path=os.pathsep.join((os.environ.get("PATH", ""), *_FOLDERS)))
    if program is None:
        raise UnavailableError("mke2fs is not installed", hint=remedies.lacking("", ["mke2fs"]).fix)
    descriptor = os.open(disk, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
        done = processes.run([program, *make_words(disk, staged)[1:]], timeout_s=_MAKING_S, check=False)
        if done.status != 0:
            said = done.stderr.strip() or processes.describe_status(done.status)
            raise EnvironmentFailure(f"mke2fs could not make a disk of {format_size(size_bytes)}: {said}")
    finally:
        os.close(descriptor)


def _copy(image_root: Path, names: tuple[str, ...], folder: Path) -> None:
    """Copy files of the image's /data. Raises EnvironmentFailure for one that is not there."""
    for name in names:
        source = image_root / FOLDER.lstrip("/") / name
        if not source.is_file() or source.is_symlink():
            raise EnvironmentFailure(f"the image has no file {FOLDER}/{name}", hint="choose another image")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)


def with_data(data: Data | None, spec: DataSpec | None, name: str, start: Callable[[], Running]) -> Running:
    """Return what ``start`` starts, with ``spec`` around it where it asks for something.

    Where that cannot be had nothing is started: the outcome says why.
    """
    if spec is None:
        return start()
    if data is None:
        return NotStarted("this environment offers no /data")
    try:
        return WithData(data, spec, name, start)
    except (BenchboxError, OSError) as error:
        return NotStarted(f"{FOLDER} could not be made: {error}")


class NotStarted:
    """A command that could not be started; implements ``model.Running``."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def ready(self) -> bool:
        return False

    def wait(self) -> Outcome:
        return Outcome("failed", self._reason)

    def kill(self) -> None:
        """It does not run."""


class WithData:
    """A command that has a ``/data``; implements ``model.Running``."""

    def __init__(self, data: Data, spec: DataSpec, name: str, start: Callable[[], Running]) -> None:
        self._outcome: Outcome | None = None
        self._data, self._spec = data, spec
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self._where = stack.enter_context(data.held(spec, name))
            blockdev.settle(data.place)
            self._before = blockdev.look(self._where)
            self._running = start()
            self._stack = stack.pop_all()

    def ready(self) -> bool:
        return self._running.ready()

    def kill(self) -> None:
        self._running.kill()

    def wait(self) -> Outcome:
        self._outcome = self._outcome or self._ended()
        return self._outcome

    def _ended(self) -> Outcome:
        with self._stack:
            found = self._running.wait()
            # Before anything is written for it that it did not have written itself.
            after = blockdev.look(self._where)
        blockdev.settle(self._data.place)
        applied = dict(found.applied)
        if stat := applied.pop(DEVICE_STAT, None):
            after = blockdev.parse(stat)
        return replace(
            found,
            counters=(*found.counters, *blockdev.counters(self._where, self._before, after)),
            applied={**applied, "data": self._data.told(self._spec, self._where)},
        )
