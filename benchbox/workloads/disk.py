"""Reading and writing of a file by fio: bandwidth, operations, latency; and whether the bytes reached the device.

The file is laid out and brought to the device by fio itself before it measures, so that no run pays for making it.
``sync: direct`` leaves out the page cache of whoever runs it (O_DIRECT); ``fsync`` writes through the page cache and
flushes after each write, as a database does.

Source: https://fio.readthedocs.io/en/latest/fio_doc.html (options and the JSON output).
"""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from benchbox.foreign import DOCUMENTS
from benchbox.model import Command, DataSpec, Direction, Metric, NotDone, Outcome
from benchbox.units import NS_PER_S, parse_size
from benchbox.workloads import reached

FIO: Final = "/usr/bin/fio"
FILE: Final = "/data/disk.fio"

#: fio's name of what is done -> what it is in the names of metrics.
_WAYS: Final[Mapping[str, Literal["read", "write"]]] = {
    "read": "read", "write": "write", "randread": "read", "randwrite": "write",
}  # fmt: skip
#: Name in metrics -> fio's name of it, and how many operations it needs: a far one wants ten beyond it.
_PERCENTILES: Final = {
    "latency_p50": ("50.000000", 0), "latency_p90": ("90.000000", 0), "latency_p99": ("99.000000", 0),
    "latency_p99.9": ("99.900000", 10_000),
}  # fmt: skip
_REQUIRED: Final = ("50.000000", "99.000000")
_BEGIN: Final = re.compile(rb"^\{", re.MULTILINE)
_SHOWN_BYTES: Final = 200


class Params(BaseModel):
    """``rw`` is what is done, in fio's words; ``block`` the bytes of one operation, ``depth`` how many are under way.

    ``where: layer`` writes to a container's own writable layer; what has none writes to /data as with ``data``.
    ``size_mib`` is the size of the file, ``seconds`` how long it is measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rw: Literal["read", "write", "randread", "randwrite"]
    block: Literal["4k", "16k", "64k", "1m"] = "4k"
    depth: int = Field(default=1, ge=1, le=256)
    sync: Literal["direct", "fsync"] = "direct"
    where: Literal["data", "layer"] = "data"
    size_mib: int = Field(default=64, ge=1, le=1 << 20)
    seconds: int = Field(default=2, ge=1, le=3600)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.sync == "fsync" and _WAYS[self.rw] == "read":
            raise ValueError("expected sync: direct beside a read, which flushes nothing")
        if self.sync == "fsync" and self.depth > 1:
            raise ValueError("expected depth: 1 beside sync: fsync, which waits for each write")
        return self


class Disk:
    """One fio job on one file."""

    def command(self, params: Mapping[str, Any]) -> Command:
        """Return fio with the job of ``params``; raises ValueError (pydantic's) for what ``Params`` refuses."""
        asked = Params.model_validate(params)
        data = DataSpec(asked.size_mib << 20, asked.where)
        return Command(words(asked), signals_ready=False, data=data)

    def parse(self, outcome: Outcome) -> tuple[Metric, ...]:
        """Return bandwidth, operations, latencies and the share that reached the device.

        Raises ValueError for what is not fio's whole JSON, NotDone where the bytes did not reach the device or did not
        come from it.
        """
        job = _job(outcome.output_tail)
        way = _WAYS[job["job options"]["rw"]]
        done = job[way]
        share = _check(job, way, done["io_bytes"], outcome)
        return (*_metrics(way, done, job["sync"]), *_reached(way, share))


def words(asked: Params) -> tuple[str, ...]:
    """Return the fio command line of a job. Pure."""
    how = ("--direct=1", "--ioengine=libaio", f"--iodepth={asked.depth}")
    if asked.sync == "fsync":
        how = ("--direct=0", "--ioengine=psync", "--fsync=1")
    return (
        FIO, "--name=disk", f"--filename={FILE}", f"--size={asked.size_mib}m", f"--rw={asked.rw}",
        f"--bs={asked.block}", *how, "--overwrite=1", f"--runtime={asked.seconds}", "--time_based", "--thread",
        "--percentile_list=50:90:99:99.9", "--eta=never", "--output-format=json",
    )  # fmt: skip


def _job(output: bytes) -> dict[str, Any]:
    """Return the one job of fio's JSON, which other lines may come before. Raises ValueError."""
    begin = _BEGIN.search(output)
    try:
        found = DOCUMENTS.raw_decode(output[begin.start() :].decode(errors="replace"))[0] if begin else {}
        (job,) = found["jobs"]
        rw, way = job["job options"]["rw"], _WAYS[job["job options"]["rw"]]
        numbers = [job["error"], *(job[way][name] for name in ("io_bytes", "bw_bytes", "iops", "total_ios", "runtime"))]
        numbers += [job[way]["clat_ns"]["percentile"][name] for name in _REQUIRED]
        whole = isinstance(job["sync"], dict) and all(_is_number(number) for number in numbers)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"no JSON of one fio job, the end is {output[-_SHOWN_BYTES:]!r} ({error!r})") from error
    if not whole or job["error"]:
        raise ValueError(f"fio's job {rw} ended with error {job['error']!r}")
    if not (job[way]["total_ios"] and job[way]["io_bytes"] and job[way]["runtime"]):
        raise NotDone(f"fio did no {rw} at all")
    return dict(job)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _check(job: Mapping[str, Any], way: str, moved_bytes: int, outcome: Outcome) -> float | None:
    if way == "read":
        return reached.check(outcome.counters, "read", moved_bytes)
    return reached.check(outcome.counters, "written", moved_bytes, parse_size(job["job options"]["size"]))


def _metrics(way: str, done: Mapping[str, Any], sync: Mapping[str, Any]) -> list[Metric]:
    found = [
        _metric(f"disk.{way}.bandwidth", done["bw_bytes"], "B/s", "higher"),
        _metric(f"disk.{way}.iops", done["iops"], "1/s", "higher"),
    ]
    return [*found, *_times(f"disk.{way}.", done["clat_ns"]), *_times(f"disk.{way}.flush_", sync.get("lat_ns"))]


def _times(prefix: str, told: Any) -> list[Metric]:
    """Return the percentiles and the longest of one of fio's distributions, as far as it has them.

    fio says the middle of a bin as percentile, which may lie above the longest.
    """
    if not isinstance(told, Mapping) or not isinstance(told.get("percentile"), Mapping):
        return []
    count, longest = (told[key] if _is_number(told.get(key)) else None for key in ("N", "max"))
    times = {name: told["percentile"].get(key) for name, (key, least) in _PERCENTILES.items() if (count or 0) >= least}
    known = {name: time_ns for name, time_ns in {**times, "latency_max": longest}.items() if _is_number(time_ns)}
    return [
        _metric(f"{prefix}{name}", (time_ns if longest is None else min(time_ns, longest)) / NS_PER_S, "s", "lower")
        for name, time_ns in known.items()
    ]


def _metric(name: str, value: float, unit: str, direction: Direction) -> Metric:
    return Metric(name, float(value), unit, direction)


def _reached(way: str, share: float | None) -> list[Metric]:
    return [] if share is None else [Metric(f"disk.{way}.on_device", share, "1", "higher")]


WORKLOAD: Final = Disk()
