"""The table in the terminal."""

import io
import random

import pytest
from rich.console import Console

from benchbox.analysis.summary import Summary, summarise
from benchbox.record import AbandonedCell, CellRecord, MetricValue
from benchbox.report.table import plain_text, rich_text
from benchbox.report.words import difference_text, format_value, interval_text, ratio_text
from tests.report.records import (
    STAGES_NS,
    controlled_run,
    environment,
    failed,
    manifest,
    parallel_run,
    sample,
    samples,
)


@pytest.fixture
def summary() -> Summary:
    records = [
        environment("native"),
        environment("container"),
        environment("vm"),
        environment("lxc", state="skipped", reason="lxc-start was not found", fix="apt-get install lxc"),
    ]
    taken = samples(replace=lambda e, n: failed(e, n, "exit status 7") if (e, n) == ("container", 3) else None)
    gone = AbandonedCell(cell="vm/startup", reason="no boot", after_round=3)
    return summarise(manifest(records=records, abandoned=[gone]), taken, reading_notes=["line 61 is torn"])


def on_terminal(summary: Summary, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(rich_text(summary))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_every_number_of_the_summary_is_in_both_tables(summary: Summary) -> None:
    """Plain or rich, what is shown is what the summary holds."""
    for text in (plain_text(summary), on_terminal(summary)):
        for row in summary.tables[0].rows:
            assert f"{row.ok}/{row.attempted}" in text
            assert format_value(row.median, row.unit) in text
            assert interval_text(row.interval, row.unit) in text
            if row.ratio is not None:
                assert ratio_text(row.ratio) in text
                assert difference_text(row.difference, row.unit) in text


def test_what_is_missing_stands_below_with_reason_and_fix(summary: Summary) -> None:
    """Skips, failures, abandoned cells and notes are all said."""
    for text in (plain_text(summary), on_terminal(summary)):
        flat = " ".join(text.split())
        assert "lxc skipped: lxc-start was not found → apt-get install lxc" in flat
        assert "container: 1 of 20 failed: exit status 7" in flat
        assert "vm/startup abandoned after round 3: no boot" in flat
        assert "line 61 is torn" in flat
        assert "VM with KVM: not measured here" in flat


def test_cold_is_in_the_heading_of_every_table() -> None:
    """It is never read as if it were warm."""
    cold = summarise(manifest(scenario=manifest().scenario | {"cache": "cold"}), samples())
    assert plain_text(cold).startswith("startup: startup.ready, cold\n")
    assert "startup: startup.ready, cold" in on_terminal(cold)
    assert "cold" not in plain_text(summarise(manifest(), samples()))


def test_several_at_once_have_a_line_by_their_number() -> None:
    """One for each environment."""
    text = " ".join(plain_text(summarise(*parallel_run((1, 4)))).split())
    assert "container, startup, at once: 1: 2.45 ms, 4: 9.80 ms" in text


def test_emulation_is_in_the_row_of_its_number(summary: Summary) -> None:
    """The line with the guest's median is the line that says emulated."""
    vm = summary.tables[0].rows[2]
    line = next(line for line in plain_text(summary).splitlines() if format_value(vm.median, "s") in line)
    assert line.startswith("vm (emulated, TCG)")


@pytest.mark.parametrize("label", ["native", "a-container-with-a-long-name-and-more-words-than-fit-anywhere " * 3])
def test_plain_text_is_at_most_112_columns_wide_and_without_escapes(label: str) -> None:
    """It can go into a file, a mail or a log."""
    cells = [CellRecord(id="native/startup", environment=label, workload="startup")]
    text = plain_text(summarise(manifest(cells=cells, baseline=label, records=[]), samples(("native",))))
    assert max(map(len, text.splitlines())) <= 112
    assert "\x1b" not in text
    assert text.endswith("\n")


def test_the_rich_table_does_not_tear_numbers_on_80_columns(summary: Summary) -> None:
    """A narrow terminal breaks between a ratio and its interval, never inside of one."""
    text = on_terminal(summary, 80)
    assert max(map(len, text.splitlines())) <= 80
    for row in summary.tables[0].rows:
        assert format_value(row.median, row.unit) in text
        for part in (*ratio_text(row.ratio).split(), *difference_text(row.difference, row.unit).rsplit(" ", 1)):
            assert part in text


@pytest.mark.parametrize(("width", "shown"), [(80, False), (92, False), (140, True)])
def test_minimum_and_p90_are_what_a_narrow_terminal_lacks(summary: Summary, width: int, shown: bool) -> None:
    """The comparison is what the table is for."""
    head = next(line for line in on_terminal(summary, width).splitlines() if "median" in line)
    assert ("min" in head.split(), "p90" in head.split()) == (shown, shown)


def test_a_run_of_containers_takes_a_line_a_row_on_92_columns() -> None:
    """Labels up to 17 letters, times in ms, differences in µs: what the anatomy of a container has."""
    labels = ("container", "container-control", "no-seccomp")
    cells = [CellRecord(id=f"{label}/startup", environment=label, workload="startup") for label in labels]
    stages = STAGES_NS["container"]
    chance = random.Random(4)
    taken = [
        sample(label, number, stages_ns=stages, factor=chance.lognormvariate(0, 0.1))
        for number in range(1, 31)
        for label in labels
    ]
    summary = summarise(manifest(cells=cells, baseline="container", records=[]), taken)
    lines = on_terminal(summary, 92).splitlines()
    for row in summary.tables[0].rows[1:]:
        line = next(line for line in lines if line.startswith(f"{row.label} "))
        assert ratio_text(row.ratio) in line
        assert difference_text(row.difference, row.unit) in line


def test_markup_and_escapes_of_others_are_only_text() -> None:
    """A label in square brackets is no style, an escape sequence moves no cursor."""
    reason = "[bold red]no[/] \x1b[2Jwipe [link=http://x]y[/link]"
    records = [environment("native", state="skipped", reason=reason, fix="[blink]")]
    summary = summarise(manifest(records=records), [])
    for text in (plain_text(summary), on_terminal(summary, 200)):
        assert "[bold red]no[/]" in text
        assert "\x1b[2J" not in text and "\x1b]8" not in text


def test_each_workload_has_a_table_of_its_own() -> None:
    """What ran different things does not stand in one column."""
    cells = [CellRecord(id=f"native/{name}", environment="native", workload=name) for name in ("one", "two")]
    taken = [sample("native", number, workload=cell.workload) for number in range(1, 8) for cell in cells]
    text = plain_text(summarise(manifest(cells=cells), taken))
    assert "one: startup.ready" in text and "two: startup.ready" in text
    assert text.count("environment") == 2


def test_a_server_s_table_says_what_it_is_about() -> None:
    """Each heading has the metric of its numbers."""
    cells = [CellRecord(id=f"native/{name}", environment="native", workload=name) for name in ("startup", "redis")]
    metrics = {"startup.served": MetricValue(value=0.0123, unit="s")}
    taken = [sample("native", 1), sample("native", 1, workload="redis", metrics=metrics)]
    text = plain_text(summarise(manifest(("native",), 1, cells=cells), taken))
    assert "startup: startup.ready" in text and "redis: startup.served" in text
    assert "12.3 ms" in text.partition("redis: startup.served")[2]


def test_an_untrusted_run_is_said_first_and_in_red() -> None:
    """Before the numbers that nobody should believe."""
    untrusted = summarise(*controlled_run(1.2))
    assert plain_text(untrusted).startswith("UNTRUSTED: native was measured twice and differs from itself")
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system="standard")
    console.print(rich_text(untrusted))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().startswith("\x1b[1;31mUNTRUSTED")
    assert "UNTRUSTED" not in plain_text(summarise(*controlled_run()))


def test_verdicts_parity_control_and_noise_stand_below_the_table() -> None:
    """One line each, verdicts first."""
    flat = " ".join(plain_text(summarise(*controlled_run())).split())
    assert "container: slower by 4" in flat
    assert "native-control: control: no difference, as it should be" in flat
    assert "the smallest effect that this host could show today is" in flat
    assert "Like for like: yes, but for the isolation itself" in flat
    slow = summarise(manifest(), samples(replace=lambda e, n: sample(e, n, factor=9) if (e, n) == ("vm", 3) else None))
    assert "vm (emulated, TCG): 1 of 20 samples is an outlier" in " ".join(plain_text(slow).split())
