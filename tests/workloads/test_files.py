"""Many small files, and writing into one of a lower layer: what is run, and what is read out of its lines."""

from typing import Any

import pytest
from pydantic import ValidationError

from benchbox.images import copy_up
from benchbox.model import DataSpec, NotDone, Outcome
from benchbox.workloads import files, workload

METADATA, COPY_UP = workload("metadata"), workload("copy-up")
#: As ``files`` printed it natively.
METADATA_LINES = b"count=1000\ncreate_ns=104921009\nstat_ns=1379606\nsync_ns=405681\nunlink_ns=10071370\n"
COPY_UP_LINES = b"size_bytes=1048576\nfirst_ns=5530120\nsecond_ns=1943\ncopied=1\n"


def values(workload_: Any, output: bytes) -> dict[str, float]:
    return {metric.name: metric.value for metric in workload_.parse(Outcome("ok", output_tail=output))}


def test_metadata_is_per_file() -> None:
    """In s; the flush is once for all."""
    found = values(METADATA, METADATA_LINES)
    assert found["metadata.create"] == pytest.approx(104921009e-12)
    assert found["metadata.stat"] == pytest.approx(1379606e-12)
    assert found["metadata.unlink"] == pytest.approx(10071370e-12)
    assert found["metadata.sync"] == pytest.approx(405681e-9)


def test_both_writes_and_the_copy_are_read_out() -> None:
    """What was not copied counts as nothing copied."""
    found = values(COPY_UP, COPY_UP_LINES)
    assert found["copy_up.first_write"] == pytest.approx(5530120e-9)
    assert found["copy_up.second_write"] == pytest.approx(1943e-9)
    assert found["copy_up.size"] == 1 << 20
    assert values(COPY_UP, COPY_UP_LINES.replace(b"copied=1", b"copied=0"))["copy_up.size"] == 0


@pytest.mark.parametrize("output", [b"", b"first_ns=1\n", b"nonsense", COPY_UP_LINES[:20], b"first_ns=-1\n" * 4])
def test_output_that_is_cut_or_foreign_is_refused(output: bytes) -> None:
    """With the line that is missing and the end of what there is."""
    for each in (METADATA, COPY_UP):
        with pytest.raises(ValueError, match=r"no line \w+=\.\.\., the end is"):
            each.parse(Outcome("ok", output_tail=output))


def test_no_file_is_no_work() -> None:
    """Nothing can be divided by it."""
    with pytest.raises(NotDone):
        METADATA.parse(Outcome("ok", output_tail=METADATA_LINES.replace(b"count=1000", b"count=0")))


def test_copy_up_writes_into_the_layer_where_there_is_one() -> None:
    """Elsewhere into a copy of the image's file, which is in /data before it begins."""
    command = COPY_UP.command({"size": "1MiB"})
    assert command.argv == ("/bin/files", "copy-up", "/data/1MiB")
    assert command.data == DataSpec(1 << 20, "layer", ("1MiB",))


def test_metadata_goes_where_it_is_told() -> None:
    """Into a folder of its own."""
    command = METADATA.command({"files": 5, "where": "layer"})
    assert command.argv == ("/bin/files", "metadata", "/data/metadata", "5")
    assert command.data is not None and command.data.place == "layer"


def test_the_sizes_are_those_of_the_image() -> None:
    """Each can be asked for, and no other."""
    assert files.SIZES == copy_up.SIZES
    assert [COPY_UP.command({"size": size}).argv[-1] for size in files.SIZES] == [f"/data/{s}" for s in files.SIZES]
    for params in ({}, {"size": "2MiB"}, {"size": "../etc"}):
        with pytest.raises(ValidationError):
            COPY_UP.command(params)
