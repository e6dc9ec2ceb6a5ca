"""fio's job and what is read out of its JSON, as fio 3.33 printed it."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from benchbox.model import Counter, DataSpec, Metric, NotDone, Outcome
from benchbox.workloads import disk, workload

DISK = workload("disk")
RECORDED = Path(__file__).parent / "recorded"
MIB = 1 << 20
#: What these jobs moved and laid out.
WRITTEN, FLUSHED, READ, LAID_OUT = 109117440, 170917888, 45993984, 64 * MIB


def recorded(name: str) -> bytes:
    return (RECORDED / f"fio-{name}.json").read_bytes()


def outcome(output: bytes, written: float | None = None, read: float | None = None) -> Outcome:
    counters = Counter("device.written", written, "B", "device"), Counter("device.read", read, "B", "device")
    return Outcome("ok", counters=counters, output_tail=output)


def parsed(output: bytes, **counted: float | None) -> dict[str, Metric]:
    return {metric.name: metric for metric in DISK.parse(outcome(output, **counted))}


def test_a_job_is_fio_s_own_words() -> None:
    """Direct: asynchronous with so many under way; with flushes: through the page cache, a flush after each."""
    direct = DISK.command({"rw": "randwrite", "depth": 32, "seconds": 3})
    assert direct.argv[0] == "/usr/bin/fio"
    for word in ("--direct=1", "--ioengine=libaio", "--iodepth=32", "--rw=randwrite", "--runtime=3", "--overwrite=1"):
        assert word in direct.argv
    flushing = DISK.command({"rw": "write", "block": "1m", "sync": "fsync"})
    assert {"--direct=0", "--fsync=1", "--bs=1m"} <= set(flushing.argv)
    assert not any(word.startswith("--iodepth") for word in flushing.argv)


def test_it_asks_for_a_place_to_write_to() -> None:
    """As large as its file, in /data or in the layer."""
    assert DISK.command({"rw": "read", "size_mib": 8}).data == DataSpec(8 * MIB)
    assert DISK.command({"rw": "read", "where": "layer"}).data == DataSpec(64 * MIB, "layer")


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"rw": "trim"},
        {"rw": "read", "sync": "fsync"},
        {"rw": "write", "sync": "fsync", "depth": 2},
        {"rw": "read", "depth": 0},
        {"rw": "read", "block": "3k"},
        {"rw": "read", "size_mib": 0},
        {"rw": "read", "file": "/etc/passwd"},
    ],
)
def test_parameters_that_mean_nothing_are_refused(params: dict[str, Any]) -> None:
    """Before anything is started."""
    with pytest.raises(ValidationError):
        DISK.command(params)


def test_writes_are_read_out() -> None:
    """Numbers in base units, by hand from the recorded JSON."""
    found = parsed(recorded("randwrite-direct"), written=WRITTEN + LAID_OUT)
    assert found["disk.write.bandwidth"] == Metric("disk.write.bandwidth", 105733953.0, "B/s", "higher")
    assert found["disk.write.iops"] == Metric("disk.write.iops", 25813.953488, "1/s", "higher")
    assert found["disk.write.latency_p50"].value == pytest.approx(232448e-9)
    assert found["disk.write.latency_p99"].value == pytest.approx(13697024e-9)
    assert found["disk.write.on_device"].value == 1.0
    assert {metric.direction for name, metric in found.items() if "latency" in name} == {"lower"}
    assert not any("flush" in name for name in found)


def test_percentiles_are_a_ladder_as_far_as_it_is_known() -> None:
    """The far one needs ten operations beyond it; what fio says above the longest is the longest."""
    found = parsed(recorded("randwrite-ladder"))
    times = {name.removeprefix("disk.write.latency_"): m.value for name, m in found.items() if "latency" in name}
    assert times == pytest.approx(
        {"p50": 292864e-9, "p90": 1548288e-9, "p99": 3588096e-9, "p99.9": 20840448e-9, "max": 22522390e-9}
    )
    document = json.loads(recorded("randwrite-ladder"))
    told = document["jobs"][0]["write"]["clat_ns"]
    told["N"], told["max"] = 9_999, told["percentile"]["99.000000"] - 1
    few = parsed(json.dumps(document, indent=2).encode())
    assert "disk.write.latency_p99.9" not in few
    assert few["disk.write.latency_p99"].value == few["disk.write.latency_max"].value


def test_flushes_are_read_out() -> None:
    """Beside the writes, which only go into the page cache."""
    found = parsed(recorded("write-fsync"), written=FLUSHED + LAID_OUT)
    assert found["disk.write.flush_latency_p50"].value == pytest.approx(4620288e-9)
    assert found["disk.write.flush_latency_p99"].value == pytest.approx(23724032e-9)


def test_reads_are_read_out() -> None:
    """By names of their own; what was laid out was written, not read."""
    found = parsed(recorded("randread-direct"), read=READ, written=0)
    assert found["disk.read.bandwidth"].value > 0
    assert found["disk.read.on_device"].value == 1.0
    assert all(name.startswith("disk.read.") for name in found)


def test_the_headline_is_the_bandwidth() -> None:
    """The first metric in every order that a table may take."""
    for name, way in (("randwrite-direct", "write"), ("randread-direct", "read")):
        metrics = DISK.parse(outcome(recorded(name)))
        assert metrics[0].name == min(metric.name for metric in metrics) == f"disk.{way}.bandwidth"


@pytest.mark.parametrize("written", [0, LAID_OUT, LAID_OUT + WRITTEN * 9 // 10, WRITTEN])
def test_writes_that_did_not_reach_the_device_are_not_done(written: int) -> None:
    """Sabotage: a cache that keeps all, all but the file as laid out, a tenth; the laid out file does not count."""
    with pytest.raises(NotDone, match=r"104.1 MiB were written after 64 MiB that were laid out.*dropped"):
        parsed(recorded("randwrite-direct"), written=written)


def test_reads_that_a_cache_served_are_not_done() -> None:
    """Sabotage: the host's page cache behind a guest that reads directly."""
    with pytest.raises(NotDone, match=r"43.86 MiB were read, at most 1 MiB in all came from the device"):
        parsed(recorded("randread-direct"), read=MIB)


def test_an_unknown_device_gives_no_share_and_no_objection() -> None:
    """It is told by the counter itself."""
    assert "disk.write.on_device" not in parsed(recorded("randwrite-direct"))


def test_lines_around_the_json_are_passed_over() -> None:
    """fio says before it what it lays out, and notes after it."""
    output = b"disk: Laying out IO file (1 file / 64MiB)\n" + recorded("randread-direct") + b"\nfio: note {x}\n"
    assert parsed(output, read=READ) == parsed(recorded("randread-direct"), read=READ)


@pytest.mark.parametrize("keep", [0, 1, 100, 2000, 5000])
def test_cut_output_is_said(keep: int) -> None:
    """With its end, whichever end was cut."""
    whole = recorded("randwrite-direct")
    for output in (whole[:keep], whole[-keep:] if keep else b""):
        with pytest.raises(ValueError, match="no JSON of one fio job, the end is"):
            DISK.parse(outcome(output))


def changed(**fields: Any) -> bytes:
    """Return the recorded write with ``fields`` of its job changed; those of ``write`` are merged."""
    data = json.loads(recorded("randwrite-direct"))
    job = data["jobs"][0]
    fields["write"] = {**job["write"], **fields.get("write", {})}
    job.update(fields)
    return json.dumps(data).encode()


@pytest.mark.parametrize(
    "output",
    [
        b"{}",
        b'{"jobs": []}',
        b'{"jobs": [1, 2]}',
        b"hello",
        changed(write={"clat_ns": {}}),
        changed(write={"bw_bytes": "fast"}),
        changed(write={"iops": -1}),
        changed(sync=None),
        changed(**{"job options": {"rw": "nonsense"}}),
        changed(write={"bw_bytes": float("inf")}),
        changed(write={"bw_bytes": float("nan")}),
        changed(write={"iops": 0}).replace(b'"iops": 0', b'"iops": 1e999'),
        changed(write={"iops": 0}).replace(b'"iops": 0', b'"iops": ' + b"9" * 5000),
        changed(write={"iops": 10**21}),
        b'{"jobs": ' + b"[" * 60_000,
    ],
)
def test_nonsense_is_refused(output: bytes) -> None:
    """A number that is none is no number."""
    with pytest.raises(ValueError):
        DISK.parse(outcome(output))


def test_an_error_that_fio_notes_is_said() -> None:
    """Whatever its exit status was."""
    with pytest.raises(ValueError, match="ended with error 28"):
        DISK.parse(outcome(changed(error=28)))


def test_a_job_that_did_nothing_is_not_done() -> None:
    """No operation, no number."""
    with pytest.raises(NotDone, match="did no randwrite at all"):
        DISK.parse(outcome(changed(write={"io_bytes": 0, "total_ios": 0})))


@given(st.binary(max_size=300))
def test_no_output_breaks_the_parser(output: bytes) -> None:
    """It is fio's JSON or a ValueError."""
    with pytest.raises(ValueError):
        DISK.parse(outcome(output))


def test_the_file_lies_where_data_is() -> None:
    """Nowhere else: the image is read-only."""
    assert disk.FILE.startswith("/data/")
