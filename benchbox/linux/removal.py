"""Removes folders that somebody else has filled.

Everything is reached by descriptors, so no path is ever too long and no link is followed. However deep folders are
nested, few are open at once: what lies too deep is moved up into the folder that is being removed and has its turn
there. ``remove_tree`` in ``native/launch.c`` does the same.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchbox.errors import EnvironmentFailure

#: As many folders are open at once.
_DEPTH: Final = 32
_SHOWN: Final = 3
_NOT_EMPTY: Final = (errno.ENOTEMPTY, errno.EEXIST)


def remove(path: Path) -> None:
    """Remove the folder ``path`` with all in it; one that is not there is gone already.

    What is no folder goes as what it is: of a link the link. A mount point stays, with all in it. Raises
    EnvironmentFailure that says what could not be removed and why, once everything else is.
    """
    removal = _Removal(path)
    removal.run()
    if removal.count:
        more = [f"{removal.count - _SHOWN} more"] if removal.count > _SHOWN else []
        raise EnvironmentFailure(f"could not be removed: {'; '.join([*removal.left, *more])}")


def try_remove(path: Path) -> bool:
    """Remove ``path`` as ``remove`` does and say whether all of it is gone.

    For what is cleaned up once more by somebody who then says why it stays.
    """
    try:
        remove(path)
    except EnvironmentFailure:
        return False
    return True


class _Removal:
    """One removal; ``left`` are the first of the ``count`` things that could not be removed, with the reason."""

    def __init__(self, path: Path) -> None:
        self.left: list[str] = []
        self.count = 0
        self._path = path
        self._moved: list[str] = []
        self._begin, self._moves = f".removed-{os.urandom(8).hex()}", 0

    def run(self) -> None:
        path = str(self._path)
        with self._kept(path), _full(None, path) as top:
            if top is not None:
                self._empty(top, top, path, 1)
                while self._moved:
                    name = self._moved.pop()
                    self._remove(top, top, name, f"{path}/{name}", 1)
                self._path.rmdir()

    def _empty(self, top: int, folder: int, path: str, depth: int) -> None:
        """Remove what is in the open ``folder``; ``path`` is for words alone."""
        for name, is_folder in _listed(folder):
            if is_folder:
                self._remove(top, folder, name, f"{path}/{name}", depth)
            else:
                with self._kept(f"{path}/{name}"):
                    os.unlink(name, dir_fd=folder)

    def _remove(self, top: int, above: int, name: str, path: str, depth: int) -> None:
        """Remove a folder, or move it up."""
        with self._kept(path), _full(above, name) as folder:
            if folder is None:
                return
            if depth < _DEPTH:
                self._empty(top, folder, path, depth + 1)
                os.rmdir(name, dir_fd=above)
            else:
                self._move(top, above, name)

    def _move(self, top: int, above: int, name: str) -> None:
        moved = f"{self._begin}-{self._moves}"
        os.rename(name, moved, src_dir_fd=above, dst_dir_fd=top)
        self._moves += 1
        self._moved.append(moved)

    @contextlib.contextmanager
    def _kept(self, path: str) -> Iterator[None]:
        """Note why ``path`` stays, where it does."""
        count = self.count
        try:
            yield
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno in _NOT_EMPTY and self.count > count:
                return  # what is in it is noted
            self.count += 1
            reason = "something is mounted there" if error.errno == errno.EBUSY else error.strerror
            self.left += [f"{repr(path)[1:-1]}: {reason}"] if self.count <= _SHOWN else []


@contextlib.contextmanager
def _full(above: int | None, name: str) -> Iterator[int | None]:
    """Remove what is empty or no folder; yield the descriptor of a folder that has something in it, else None.

    A mount point is busy, whatever is in it (rmdir(2)): none is entered, a bind of the same file system neither.
    """
    try:
        os.rmdir(name, dir_fd=above)
    except NotADirectoryError:
        os.unlink(name, dir_fd=above)
    except OSError as error:
        if error.errno not in _NOT_EMPTY:
            raise
        with _opened(above, name) as folder:
            yield folder
        return
    yield None


@contextlib.contextmanager
def _opened(above: int | None, name: str) -> Iterator[int]:
    """Yield the descriptor of a folder, no link, that whoever owns it may empty from now on."""
    place = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    try:
        if os.geteuid() != 0:
            with contextlib.suppress(OSError):  # somebody else's: then it says so when it is opened or emptied
                os.chmod(f"/proc/self/fd/{place}", 0o700)  # noqa: PTH101
        folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place)
    finally:
        os.close(place)
    try:
        yield folder
    finally:
        os.close(folder)


def _listed(folder: int) -> list[tuple[str, bool]]:
    """Return what is in the open ``folder``, and of each whether it is a folder."""
    with os.scandir(folder) as items:
        return [(item.name, item.is_dir(follow_symlinks=False)) for item in items]
