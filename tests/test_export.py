"""The long table of a run."""

import csv
import io
from typing import Any

import pytest

from benchbox.export import COLUMNS, export_rows, write_csv
from benchbox.record import CellRecord, EnvironmentRecord, Manifest, MetricValue, Sample

RUN = "startup-20260102T030405Z-0a1b"


def manifest(**changes: Any) -> Manifest:
    given: dict[str, Any] = {
        "run_id": RUN, "created_at": "", "scenario": {"name": "startup"}, "seed": 1, "rounds": 1, "baseline": "native",
        "order": [], "host": {}, "host_digest": "", "boot_id": "",
        "cells": [CellRecord(id=f"{label}/w", environment=label, workload="w") for label in ("native", "vm")],
    }  # fmt: skip
    return Manifest(**{**given, **changes})


def sample(environment: str = "native", round: int = 1, **changes: Any) -> Sample:
    given: dict[str, Any] = {
        "cell": f"{environment}/w", "environment": environment, "workload": "w", "round": round, "position": 2,
        "predecessor": None, "started_at": "", "status": "ok", "requested_ns": 0,
        "metrics": {
            "startup.ready": MetricValue(value=0.1 + 0.2, unit="s"),
            "disk.rate": MetricValue(value=1e9, unit="B/s", direction="higher"),
        },
    }  # fmt: skip
    return Sample(**{**given, **changes})


def test_the_columns_are_the_contract() -> None:
    """Other programs read them by name."""
    assert ",".join(COLUMNS) == "run,scenario,round,position,environment,workload,params,metric,unit,value,status,flags"


def test_each_metric_of_a_good_sample_is_a_row() -> None:
    """Numbers are exact: what is read back is what was measured."""
    found = list(export_rows(manifest(), [sample(params={"a": 1, "b": "x"}, flags={"accelerator": "tcg"})]))
    assert found == [
        (RUN, "startup", 1, 2, "native", "w", "a=1;b=x", "startup.ready", "s", 0.1 + 0.2, "ok", "accelerator=tcg"),
        (RUN, "startup", 1, 2, "native", "w", "a=1;b=x", "disk.rate", "B/s", 1e9, "ok", "accelerator=tcg"),
    ]


def test_a_sample_that_is_not_ok_is_one_row_without_a_value() -> None:
    """Its numbers, if it has any, are in no statistics."""
    for status in ("failed", "invalid", "skipped"):
        (row,) = export_rows(manifest(), [sample(status=status, reason="x")])
        assert row[7:11] == ("", "", "", status)


def test_a_good_sample_without_metrics_is_visible() -> None:
    """A command that signals nothing has none."""
    (row,) = export_rows(manifest(), [sample(metrics={})])
    assert row[7:11] == ("", "", "", "ok")


def test_the_priming_round_is_left_out_unless_asked_for() -> None:
    """Whoever averages a column must not average it in."""
    samples = [sample(round=0), sample(round=1)]
    assert {row[2] for row in export_rows(manifest(), samples)} == {1}
    assert {row[2] for row in export_rows(manifest(), samples, priming=True)} == {0, 1}


def test_an_environment_that_was_skipped_is_a_row_for_each_of_its_cells() -> None:
    """Missing is a result."""
    records = [EnvironmentRecord(label="vm", kind="vm", state="skipped", reason="no QEMU")]
    rows = list(export_rows(manifest(environments=records), [sample()]))
    assert rows[-1] == (RUN, "startup", "", "", "vm", "w", "", "", "", "", "skipped", "")
    assert len(rows) == 3


def test_csv_is_quoted_where_it_must_be() -> None:
    """Read by any CSV reader it comes back the same, numbers included."""
    out = io.StringIO()
    rows = list(export_rows(manifest(), [sample(params={"argv": 'sh -c "a, b"\nc'})]))
    write_csv(rows, out)
    header, *read = csv.reader(io.StringIO(out.getvalue()))
    assert tuple(header) == COLUMNS
    assert [tuple(map(str, row)) for row in rows] == [tuple(row) for row in read]
    assert float(read[0][9]) == 0.1 + 0.2


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-cmd|' /C calc'!A0", "'-cmd|' /C calc'!A0"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\tx", "'\tx"),
        ("\r=1", "' =1"),
        ("\n=1", "'\n=1"),
        ("  =1", "'  =1"),
        ("\uff1d1", "'\uff1d1"),
        ("\u200b=1", "'=1"),
        ("a=1;b=-2", "a=1;b=-2"),
        ("", ""),
        (-1.5, "-1.5"),
        (-3, "-3"),
        ("a\x1b[2Jb\u202ec", "a [2Jbc"),
    ],
)
def test_text_in_an_export_is_no_formula(cell: str | float, written: str) -> None:
    """What a spreadsheet would compute or a terminal obey is text; numbers stay numbers."""
    out = io.StringIO()
    write_csv([(cell, "next")], out)
    assert list(csv.reader(io.StringIO(out.getvalue())))[1] == [written, "next"]


def test_an_export_is_disarmed_unless_text_is_wanted_as_it_is() -> None:
    """A label, a workload and a flag of a stranger's record."""
    taken = [sample("=HYPERLINK(1)", params={"@a": "x"}, flags={"-b": "1"})]
    for raw_text, mark in ((False, "'"), (True, "")):
        out = io.StringIO()
        write_csv(export_rows(manifest(), taken), out, raw_text=raw_text)
        row = list(csv.reader(io.StringIO(out.getvalue())))[1]
        assert (row[4], row[6], row[11]) == (f"{mark}=HYPERLINK(1)", f"{mark}@a=x", f"{mark}-b=1")
