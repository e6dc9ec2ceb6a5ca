"""The lines that ``native/micro.c`` and our Python loop print: one first, one for each batch, one last."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from benchbox.units import NS_PER_S

#: ``micro`` in the image; /bin leads to /usr/bin where the distribution has it so.
MICRO: Final = "/bin/micro"
_SHOWN_BYTES: Final = 200
_FIRST: Final = re.compile(rb"micro operation=([a-z_]{1,40}) page_bytes=\d{1,9} bytes=\d{1,18}")
_BATCH: Final = re.compile(rb"batch=(\d{1,4}) count=(\d{1,18}) ns=(\d{1,18})")
_LAST: Final = re.compile(
    rb"done batches=(\d{1,4}) count=(\d{1,18}) checks=(\d{1,18}) faults=(\d{1,18}) pages=(\d{1,18})"
)


@dataclass(frozen=True)
class Batches:
    """What was printed: ``counts`` operations took ``durations_ns``, batch by batch.

    ``faults`` page faults were taken by ``pages`` pages of 4 KiB (0 and 0 for what touches no memory).
    """

    counts: tuple[int, ...]
    durations_ns: tuple[int, ...]
    faults: int
    pages: int

    @property
    def seconds_each(self) -> tuple[float, ...]:
        """How long one operation took, in s, by batch."""
        return tuple(ns / count / NS_PER_S for count, ns in zip(self.counts, self.durations_ns, strict=True))

    @property
    def rates(self) -> tuple[float, ...]:
        """How many operations a second, by batch."""
        return tuple(count * NS_PER_S / ns for count, ns in zip(self.counts, self.durations_ns, strict=True))

    @property
    def total(self) -> int:
        return sum(self.counts)


def arguments(operation: str, options: Mapping[str, object]) -> tuple[str, ...]:
    """Return the command line of ``micro``."""
    words = ((f"--{name}", str(value)) for name, value in options.items())
    return (MICRO, operation, *(word for pair in words for word in pair))


def read(output: bytes, operation: str, batches: int) -> Batches:
    """Return what ``output`` says. Raises ValueError unless it is whole: all batches of this operation, nothing else,
    the sum right, every operation proved."""
    lines = output.splitlines()
    first = _FIRST.fullmatch(lines[0]) if lines else None
    last = _LAST.fullmatch(lines[-1]) if lines else None
    found = [_BATCH.fullmatch(line) for line in lines[1:-1]]
    if first is None or last is None or first[1].decode() != operation:
        raise ValueError(f"no whole output of {operation}; the end is {output[-_SHOWN_BYTES:]!r}")
    numbers = [(int(match[1]), int(match[2]), int(match[3])) for match in found if match]
    if len(numbers) != len(found) or [number for number, _, _ in numbers] != list(range(1, batches + 1)):
        raise ValueError(f"expected {batches} batches; the end is {output[-_SHOWN_BYTES:]!r}")
    counts, durations_ns = tuple(count for _, count, _ in numbers), tuple(ns for _, _, ns in numbers)
    if not all(counts) or not all(durations_ns):
        raise ValueError("a batch without an operation, or without a duration")
    if int(last[2]) != sum(counts) or not int(last[3]):
        raise ValueError(
            f"{last[2].decode()} operations in all, {sum(counts)} in the batches, {last[3].decode()} proved"
        )
    return Batches(counts, durations_ns, int(last[4]), int(last[5]))
