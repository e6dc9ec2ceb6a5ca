"""Cold or warm: what a start finds in the host's page cache, brought about before each sample and proven after it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from benchbox.errors import EnvironmentFailure, UnavailableError
from benchbox.linux.pagecache import Files, Resident, arrived_bytes
from benchbox.model import Counter
from benchbox.scenario import CacheState
from benchbox.units import format_size

_WARM_INSTEAD: Final = "measure it with cache: warm"
_BEFORE: Final = "mincore, just before the request"
_ARRIVED: Final = "mincore, pages that came into memory from before the request until the end"


@dataclass(frozen=True)
class Seen:
    """What the page cache was seen to be around a sample; ``objection`` says why it was not what the scenario asks."""

    counters: tuple[Counter, ...] = ()
    flags: Mapping[str, str] = field(default_factory=dict)
    objection: str | None = None


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
    """Drops what a start reads before each sample."""

    def __init__(self, files: _Files) -> None:
        self._files = files

    def applied(self) -> dict[str, Any]:
        return _applied("cold", self._files)

    def watch(self) -> Callable[[], Seen]:
        """Drop; the returned function says after the sample what had stayed and what was read again."""
        before = self._files.drop()
        stayed = self._files.why(before) if before.total_bytes else ""
        return lambda: cold(before.total_bytes, stayed, arrived_bytes(before, self._files.resident()))


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
    return ColdCache(files)


def _opened(reads: Sequence[Path]) -> Files:
    if not reads:
        raise EnvironmentFailure("this environment does not say which files a start reads")
    return Files(reads)


def _applied(state: str, files: _Files) -> dict[str, Any]:
    return {"page_cache": {"state": state, "files": files.count, "bytes": files.size_bytes}}


def cold(stayed_bytes: int, why: str, read_bytes: int) -> Seen:
    """Return what is said of a cold sample. Pure."""
    objection = None
    if stayed_bytes:
        objection = f"not cold: {format_size(stayed_bytes)} stayed in the page cache ({why})"
    elif not read_bytes:
        objection = "not cold: nothing was read from the disk"
    return Seen(_counters(stayed_bytes, read_bytes), {"cache": "cold"}, objection)


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
