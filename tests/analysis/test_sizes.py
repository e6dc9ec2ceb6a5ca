"""Exact numbers: neither interval nor verdict, every format in a bar."""

from typing import Any

from benchbox.analysis.summary import Summary, summarise
from benchbox.record import CellRecord, Manifest, MetricValue, Sample
from benchbox.report import figures, table, words
from benchbox.report.page import render_page
from tests.report.records import environment, manifest, sample

MIB = 1 << 20
Weights = dict[str, float]
DIRECTORY: Weights = {
    "allocated": 4,
    "apparent": 3,
    "part.format": 1,
    "part.content": 3,
    "part.base": 0,
    "gzip": 2,
    "build": 1,
}
OVERLAY: Weights = {
    "allocated": 1,
    "part.base": 5,
    "part.format": 0.5,
    "part.content": 0.5,
    "instances.1": 1,
    "instances.20": 20,
}
KERNEL: Weights = {"allocated": 13, "part.kernel": 13}
HOST: Weights = {"allocated": 80, "apparent": 40, "with_shared": 200, "part.packages": 80}
FORMATS = {"directory": DIRECTORY, "overlay": OVERLAY, "kernel": KERNEL, "needs-vm": HOST}


def weighed(label: str, numbers: dict[str, float]) -> Sample:
    found = {
        f"size.{name}": MetricValue(
            value=value if name == "build" else value * MIB, unit="s" if name == "build" else "B"
        )
        for name, value in numbers.items()
    }
    made = sample(label, 1, workload="image-size", stages_ns={"cgroups": 1})
    changes: dict[str, Any] = {"stages": {}, "metrics": found, "counters": {}, "applied": {"content_bytes": 3 * MIB}}
    return made.model_copy(update=changes)


def run() -> tuple[Manifest, list[Sample]]:
    labels = tuple(FORMATS)
    cells = [CellRecord(id=f"{label}/image-size", environment=label, workload="image-size") for label in labels]
    records = [environment(label, kind="format") for label in labels]
    record = manifest(labels, 1, records=records, cells=cells, baseline="directory")
    return record, [weighed(label, numbers) for label, numbers in FORMATS.items()]


def summary() -> Summary:
    return summarise(*run())


def test_exact_numbers_have_neither_interval_nor_verdict() -> None:
    """One round is enough, nothing is said of too few; the ratio stands."""
    found = summary()
    rows = {row.label: row for row in found.tables[0].rows}
    assert found.metric == "size.allocated"
    assert all(row.is_exact and row.interval is None and row.verdict is None for row in rows.values())
    assert rows["kernel"].ratio is not None and round(rows["kernel"].ratio.estimate, 6) == 13 / 4
    assert (found.comparisons, found.disturbances) == (0, ())
    assert not any("below" in note for note in found.notes)
    assert found.parity.headline == "Like for like: every format was made of the same tree."


def test_each_format_has_its_numbers_by_name() -> None:
    """Parts, instances and whether it is a format at all."""
    sizes = summary().sizes
    assert sizes is not None and sizes.content_bytes == 3 * MIB
    by_name = {weight.display: weight for weight in sizes.weights}
    assert by_name["directory"].parts == {"base": 0, "format": MIB, "content": 3 * MIB}
    assert by_name["overlay"].instances == {1: MIB, 20: 20 * MIB}
    assert [w.is_format for w in sizes.weights] == [True, True, False, False]
    assert [w.is_host for w in sizes.weights] == [False, False, False, True]


def test_a_run_without_formats_has_no_sizes() -> None:
    """Nor has one whose formats all failed."""
    record, taken = run()
    failed = [one.model_copy(update={"status": "failed", "reason": "x", "metrics": {}}) for one in taken]
    assert summarise(record, failed).sizes is None
    assert summarise(manifest(), [sample("native", 1)]).sizes is None


def test_bars_are_stacked_in_one_order_and_add_up() -> None:
    """A bar for each format, kernel apart, no packages; ticks are powers of two."""
    sizes = summary().sizes
    assert sizes is not None
    figure = figures.sizes(sizes)
    assert [trace["name"] for trace in figure["data"]] == ["base", "format", "content", "kernel"]
    assert figure["data"][0]["y"] == ["directory", "overlay", "kernel"]
    totals = [sum(trace["x"][number] for trace in figure["data"]) for number in range(3)]
    assert totals == [4 * MIB, 6 * MIB, 13 * MIB]
    assert figure["layout"]["barmode"] == "stack"
    assert figure["layout"]["xaxis"]["ticktext"] == ["0 B", "4 MiB", "8 MiB", "12 MiB"]


def test_byte_ticks_are_few_and_powers_of_two() -> None:
    """On both kinds of axis."""
    assert figures.byte_ticks(13.7 * MIB) == [0, 4 * MIB, 8 * MIB, 12 * MIB]
    assert figures.byte_ticks(0) == [0]
    ticks = figures.byte_log_ticks(200 << 10, 3000 * MIB)
    assert 3 <= len(ticks) <= 9 and all(tick.bit_length() == int(tick).bit_length() for tick in map(int, ticks))
    assert {bin(int(tick)).count("1") for tick in ticks} == {1}


def test_table_and_page_say_it_in_words() -> None:
    """Least, most, one more instance, what a guest and what a host needs; no chart of a distribution of one value."""
    found = summary()
    text = " ".join(table.plain_text(found).split())
    assert "The image has 3 MiB of content. On the disk it takes least as directory 4 MiB" in text
    assert "20 instances over overlay took 20 MiB after they ran, 1 MiB each." in text
    assert "A guest needs besides: kernel 13 MiB." in text
    assert "Installed on the host for nothing else: needs-vm 80 MiB." in text
    assert "inconclusive" not in text
    page = render_page(*run())
    assert 'id="figure-sizes"' in page and "Against the baseline" in page
    assert 'id="figure-distribution"' not in page and 'id="stages"' not in page
    assert found.sizes is not None
    assert "kernel kernel 13 MiB" in words.sizes_alt(found.sizes)
