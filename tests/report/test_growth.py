"""Whatever is made of a record grows as the record does, told without a clock."""

import sys
from types import FrameType
from typing import Any

import pytest

from benchbox.analysis import statistics as st
from benchbox.analysis.summary import summarise
from benchbox.export import export_rows
from benchbox.record import Manifest, Sample
from benchbox.report.page import render_page
from benchbox.report.table import plain_text
from tests.report.records import manifest, sample, samples


def _run(rounds: int) -> tuple[Manifest, list[Sample]]:
    """Return a run in which the container has two modes, some samples fail, and one round was begun anew."""

    def disturbed(label: str, number: int) -> Sample | None:
        if label == "container" and number % 5 < 2:
            return sample(label, number, factor=2.5 + number / rounds / 100, predecessor="native/startup")
        if number % 97 == 96:
            return sample(label, number, status="failed", reason=f"exit code {number % 7}", metrics={}, stages={})
        return None

    taken = samples(rounds=rounds, replace=disturbed)
    return manifest(rounds=rounds), [*taken[: rounds * 2 + 1], *taken[rounds * 2 - rounds * 2 % 3 :]]


def _work(rounds: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many calls table, page and export of such a run take, each value that is sorted counted as one."""
    run, taken = _run(rounds)
    counted = 0
    ordered = st._ordered

    def counting(values: Any) -> list[float]:
        nonlocal counted
        counted += len(values)
        return ordered(values)

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    with monkeypatch.context() as patched:
        patched.setattr(st, "_ordered", counting)
        before = sys.getprofile()
        sys.setprofile(watch)
        try:
            plain_text(summarise(run, taken))
            render_page(run, taken)
            for _ in export_rows(run, taken):
                pass
        finally:
            sys.setprofile(before)
    return counted


def test_table_page_and_export_of_twice_the_samples_are_twice_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the further samples are four times the further work; with a square in it, it would be ten times."""
    _, few, some, many = (_work(rounds, monkeypatch) for rounds in (10, 250, 500, 1_500))  # the first one imports
    assert (many - some) / (some - few) < 4 * 1.25
