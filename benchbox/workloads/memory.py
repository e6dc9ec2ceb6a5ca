"""What memory gives: bandwidth, latency by how much is used, and what a page costs when it is first touched.

Bandwidth is the triad of McCalpin's STREAM (a = b + s c, 24 bytes a step; take at least four times the last cache),
latency a walk through lines of 64 bytes in random order, as lmbench's lat_mem_rd, by ``native/micro.c``.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from benchbox.model import Command, Metric, Outcome
from benchbox.units import parse_size
from benchbox.workloads import batches
from benchbox.workloads.batches import Batches
from benchbox.workloads.steady import steady_metric

Operation = Literal["bandwidth", "latency", "touch"]
HugePages = Literal["default", "never", "madvise"]

_MIN_BYTES: Final = 4096
_MAX_BYTES: Final = 1 << 40
#: A huge page stands for 512 small ones; where one fault for four pages is taken, it was not huge pages that were had.
_HUGE_FAULT_SHARE: Final = 0.25
_SIZE_SCHEMA: Final = {"anyOf": [{"type": "integer", "minimum": _MIN_BYTES}, {"type": "string"}]}


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("expected a size such as 64MiB")
    found = parse_size(value)
    if not _MIN_BYTES <= found <= _MAX_BYTES:
        raise ValueError("expected a size from 4KiB to 1TiB")
    return found


class Params(BaseModel):
    """``working_set`` is how many bytes are used, ``huge_pages`` what the kernel is told about them (madvise)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    operation: Operation
    working_set: Annotated[int, BeforeValidator(_size), WithJsonSchema(_SIZE_SCHEMA)] = 64 << 20
    huge_pages: HugePages = "never"
    seconds: float = Field(default=0.5, gt=0, le=600, description="how long it is done, in s")
    batches: int = Field(default=20, ge=1, le=1000, description="into how many batches that is divided")


class Memory:
    """``memory.bandwidth`` in B/s, ``memory.latency`` of one load and ``memory.touch`` of one page of 4 KiB in s."""

    def command(self, params: Mapping[str, Any]) -> Command:
        """Return the call of ``micro``; raises ValueError (pydantic's) for what ``Params`` refuses."""
        p = Params.model_validate(params)
        options = {"seconds": p.seconds, "batches": p.batches, "bytes": p.working_set, "huge": p.huge_pages}
        return Command(batches.arguments(p.operation, options), signals_ready=False)

    def parse(self, outcome: Outcome, params: Mapping[str, Any]) -> tuple[Metric, ...]:
        """Return the metric of the operation, and how many of it were done.

        Raises ValueError for any other output, and where the pages were not of the size that was asked for.
        """
        checked = Params.model_validate(params)
        found = batches.read(outcome.output_tail, checked.operation, checked.batches)
        _check_pages(found, checked.huge_pages)
        name = f"memory.{checked.operation}"
        if checked.operation == "bandwidth":
            return (
                steady_metric(name, found.rates, "B/s", "higher"),
                Metric("memory.work", found.total, "B", "higher"),
            )
        return (steady_metric(name, found.seconds_each, "s"), Metric("memory.work", found.total, "1", "higher"))


def _check_pages(found: Batches, huge_pages: HugePages) -> None:
    """Raise ValueError where page faults do not fit: huge pages take few, pages of 4 KiB one each.

    A small working set may lie beside a huge page's borders, so it proves nothing.
    """
    if found.pages < 1024:
        return
    share = found.faults / found.pages
    if huge_pages == "madvise" and share > _HUGE_FAULT_SHARE:
        raise ValueError(
            f"huge pages were asked for, but {found.pages} pages took {found.faults} faults: see"
            " /sys/kernel/mm/transparent_hugepage/enabled, and whether memory is fragmented"
        )
    if huge_pages == "never" and share < 1 - _HUGE_FAULT_SHARE:
        raise ValueError(f"small pages were asked for, but {found.pages} pages took {found.faults} faults only")


WORKLOAD: Final = Memory()
