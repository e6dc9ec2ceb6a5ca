"""Operations on files by benchbox's own program ``files``: many small ones, and writing into one of a lower layer."""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from benchbox.model import Command, DataSpec, Metric, NotDone, Outcome
from benchbox.units import NS_PER_S, parse_size

PROGRAM: Final = "/bin/files"
#: Where the image ``copy-up`` has its files, below /data, by their size.
SIZES: Final = ("1KiB", "64KiB", "1MiB", "16MiB", "256MiB")

_LINE: Final = re.compile(rb"^([a-z_]{1,20})=(\d{1,18})$", re.MULTILINE)
_SHOWN_BYTES: Final = 200


class MetadataParams(BaseModel):
    """``files`` is how many; ``where`` as of ``disk``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: int = Field(default=2000, ge=1, le=100_000)
    where: Literal["data", "layer"] = "data"


class Metadata:
    """Makes, looks at and removes many empty files: what a name costs, without contents."""

    def command(self, params: Mapping[str, Any]) -> Command:
        """Return the program with the number of files; raises ValueError (pydantic's) for what is refused."""
        asked = MetadataParams.model_validate(params)
        argv = (PROGRAM, "metadata", "/data/metadata", str(asked.files))
        return Command(argv, signals_ready=False, data=DataSpec(256 << 20, asked.where))

    def parse(self, outcome: Outcome) -> tuple[Metric, ...]:
        """Return s per operation, and s for bringing all of it to the device. Raises ValueError."""
        found = numbers(outcome.output_tail, "count", "create_ns", "stat_ns", "unlink_ns", "sync_ns")
        if not found["count"]:
            raise NotDone("not one file was made")
        each = {name: found[f"{name}_ns"] / found["count"] / NS_PER_S for name in ("create", "stat", "unlink")}
        metrics = [Metric(f"metadata.{name}", value_s, "s") for name, value_s in each.items()]
        return (*metrics, Metric("metadata.sync", found["sync_ns"] / NS_PER_S, "s"))


class CopyUpParams(BaseModel):
    """``size`` is that of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Literal["1KiB", "64KiB", "1MiB", "16MiB", "256MiB"]


class CopyUp:
    """Writes one byte into a file of a container's lower layer, which copies the whole file first; and another byte.

    What has no layers writes into a copy that was made before.
    """

    def command(self, params: Mapping[str, Any]) -> Command:
        """Return the program with the file of that size; raises ValueError (pydantic's) for what is refused."""
        size = CopyUpParams.model_validate(params).size
        data = DataSpec(parse_size(size), "layer", (size,))
        return Command((PROGRAM, "copy-up", f"/data/{size}"), signals_ready=False, data=data)

    def parse(self, outcome: Outcome) -> tuple[Metric, ...]:
        """Return s for each of both writes, and how many bytes were copied up. Raises ValueError."""
        found = numbers(outcome.output_tail, "size_bytes", "first_ns", "second_ns", "copied")
        return (
            Metric("copy_up.first_write", found["first_ns"] / NS_PER_S, "s"),
            Metric("copy_up.second_write", found["second_ns"] / NS_PER_S, "s"),
            Metric("copy_up.size", float(found["size_bytes"] if found["copied"] else 0), "B"),
        )


def numbers(output: bytes, *names: str) -> dict[str, int]:
    """Return the numbers ``names`` of the lines ``name=number`` in ``output``. Raises ValueError for a missing one."""
    found = {match[1].decode(): int(match[2]) for match in _LINE.finditer(output)}
    for name in names:
        if name not in found:
            raise ValueError(f"no line {name}=..., the end is {output[-_SHOWN_BYTES:]!r}")
    return {name: found[name] for name in names}


METADATA: Final = Metadata()
COPY_UP: Final = CopyUp()
