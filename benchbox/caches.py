"""Cold or warm: what a start finds in the host's page cache, brought about before each sample and proven after it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from benchbox.errors import EnvironmentFailure, UnavailableError
from benchbox.linux import mounts
from benchbox.linux.pagecache import Files, Resident, arrived_bytes
from benchbox.model import PROCESS_READ, Counter
from benchbox.scenario import CacheState
from benchbox.units import format_size

_WARM_INSTEAD: Final = "measure it with cache: warm"
#: So much of what came into memory the sample itself has to have had read; what it leaves running is not counted.
OWN_SHARE: Final = 0.5
#: File systems that read for a process in its own name and as many bytes as it gets: neither packed nor by a server.
_PLAIN: Final = ("ext2", "ext3", "ext4", "xfs")
_BEFORE: Final = "mincore, just before the request"
_ARRIVED: Final = "mincore, pages that came into memory from before the request until the end"


@dataclass(frozen=True)
class Seen:
    """What the page cache was seen to be around a sample; ``objection`` says why it was not what the scenario asks.

    ``own_bytes`` is how much a cold sample must have had read itself, None where that could not be told.
    """

    counters: tuple[Counter, ...] = ()
    flags: Mapping[str, str] = field(default_factory=dict)
    objection: str | None = None
    own_bytes: float | None = None


class _Files(Protocol):
    """What is asked of ``pagecache.Files``."""

    @property
    def count(self) -> int: ...

    @property
    def size_bytes(self) -> int: ...

    def resident(self) -> Resident: ...

    def load(self) -> None: ...

    def drop(self) -> Resident: ...

    def why(self, stayed: Resident) -> str: ...


class ColdCache:
    """Drops what a start reads before each sample. ``told`` says whether the kernel tells who had something read."""

    def __init__(self, files: _Files, *, told: bool = False) -> None:
        self._files, self._told = files, told

    def applied(self) -> dict[str, Any]:
        return _applied("cold", self._files)

    def watch(self) -> Callable[[], Seen]:
        """Drop; the returned function says after the sample what had stayed and what was read again."""
        before = self._files.drop()
        stayed = self._files.why(before) if before.total_bytes else ""
        return lambda: cold(before.total_bytes, stayed, arrived_bytes(before, self._files.resident()), told=self._told)


class WarmCache:
    """Reads before each sample what of its files is not in memory."""

    def __init__(self, files: _Files) -> None:
        self._files = files

    def applied(self) -> dict[str, Any]:
        return _applied("warm", self._files)

    def watch(self) -> Callable[[], Seen]:
        """Read; the returned function says after the sample what was in memory and what had to be read all the same."""
        self._files.load()
        before, size_bytes = self._files.resident(), self._files.size_bytes
        return lambda: warm(size_bytes, before.total_bytes, arrived_bytes(before, self._files.resident()))


class UnknownCache:
    """Stands for files of which nothing can be told: warm is then what benchbox does not disturb."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def applied(self) -> dict[str, Any]:
        return {"page_cache": {"state": "warm", "not_proven": self._reason}}

    def watch(self) -> Callable[[], Seen]:
        return lambda: Seen(
            tuple(Counter(name, None, "B", self._reason) for name in ("cache.resident_before", "cache.read"))
        )


Cache = ColdCache | WarmCache | UnknownCache


def open_cache(state: CacheState, reads: Sequence[Path]) -> Cache:
    """Return what holds the files ``reads`` of an environment in ``state``.

    Raises UnavailableError where ``cold`` could not be brought about or not be proven.
    """
    try:
        files = _opened(reads)
    except EnvironmentFailure as error:
        if state == "cold":
            raise UnavailableError(error.message, hint=error.hint or _WARM_INSTEAD) from error
        return UnknownCache(error.message)
    if state == "warm":
        return WarmCache(files)
    if own := files.own_cache():
        raise UnavailableError(
            f"{own} has a cache of its own, which cannot be dropped file by file", hint=_WARM_INSTEAD
        )
    return ColdCache(files, told=_is_told(reads))


def _is_told(reads: Sequence[Path]) -> bool:
    return Path("/proc/self/io").exists() and all(mounts.file_system(path) in _PLAIN for path in reads)


def _opened(reads: Sequence[Path]) -> Files:
    if not reads:
        raise EnvironmentFailure("this environment does not say which files a start reads")
    return Files(reads)


def _applied(state: str, files: _Files) -> dict[str, Any]:
    return {"page_cache": {"state": state, "files": files.count, "bytes": files.size_bytes}}


def cold(stayed_bytes: int, why: str, read_bytes: int, *, told: bool = False) -> Seen:
    """Return what is said of a cold sample. Pure."""
    own_bytes = read_bytes * OWN_SHARE if told else None
    objection = None
    if stayed_bytes:
        objection = f"not cold: {format_size(stayed_bytes)} stayed in the page cache ({why})"
    elif not read_bytes:
        objection = "not cold: nothing was read from the disk"
    return Seen(_counters(stayed_bytes, read_bytes), {"cache": "cold"}, objection, own_bytes)


def refilled(seen: Seen, counters: Iterable[Counter]) -> str | None:
    """Say that somebody else had put back, before the request, what a cold sample was to read. Pure.

    The page cache alone cannot tell: the pages were not there when it was looked at, and are there after the end.
    """
    own = [counter for counter in counters if counter.name in (PROCESS_READ, f"client.{PROCESS_READ}")]
    known = [counter.value for counter in own if counter.value is not None]
    if seen.own_bytes is None or not own or len(known) < len(own) or sum(known) >= seen.own_bytes:
        return None
    return (
        f"not cold: of {format_size(seen.own_bytes / OWN_SHARE)} that came into the page cache the sample itself had at"
        f" most {format_size(sum(known))} read ({own[0].source}): somebody else had put the rest back"
    )


def warm(size_bytes: int, resident_bytes: int, read_bytes: int) -> Seen:
    """Return what is said of a warm sample of files of ``size_bytes``. Pure."""
    objection = None
    if resident_bytes < size_bytes:
        missing = format_size(size_bytes - resident_bytes)
        objection = f"not warm: the page cache did not hold {missing} of {format_size(size_bytes)}"
    return Seen(_counters(resident_bytes, read_bytes), objection=objection)


def _counters(resident_bytes: int, read_bytes: int) -> tuple[Counter, ...]:
    return Counter("cache.resident_before", resident_bytes, "B", _BEFORE), Counter(
        "cache.read", read_bytes, "B", _ARRIVED
    )
