"""All at a glance: a line for each table, a column for each environment, and emulation never in a VM's place."""

from typing import Any

from benchbox.analysis.overview import Overview
from benchbox.analysis.summary import summarise
from benchbox.record import CellRecord, CounterValue, EnvironmentRecord, Manifest, MetricValue, Sample
from benchbox.report import table, words
from benchbox.report.page import render_page
from tests.report.records import cell_id, environment, manifest, sample

LABELS = ("native", "container", "vm")
#: Work by the second: natively, in a container, in a guest.
RATES = {"native": 1000.0, "container": 900.0, "vm": 100.0}
#: What the image takes on the disk.
STORED = {"native": 200 << 20, "container": 200 << 20, "vm": 300 << 20}


def record(label: str, **changes: Any) -> EnvironmentRecord:
    """Return an environment that says what its image takes."""
    stored = CounterValue(value=STORED[label], unit="B", source="blocks")
    return environment(label, account={"image.stored": stored}, **changes)


def run(
    records: list[EnvironmentRecord] | None = None, accelerator: str = "tcg", workloads: tuple[str, ...] = ("cpu",)
) -> tuple[Manifest, list[Sample]]:
    """Return a run that started the static program and did ``workloads``, in each environment."""
    cells = [
        CellRecord(id=cell_id(label, workload, {}), environment=label, workload=workload)
        for workload in ("startup", *workloads)
        for label in LABELS
    ]
    taken = [one for number in range(1, 13) for cell in cells for one in [_sample(cell, number, accelerator)]]
    return manifest(LABELS, 12, cells=cells, records=records or [record(label) for label in LABELS]), taken


def _sample(cell: CellRecord, number: int, accelerator: str) -> Sample:
    one = sample(cell.environment, number, workload=cell.workload, factor=1 + number / 1000)
    flags = {"accelerator": accelerator} if cell.environment == "vm" else {}
    if cell.workload == "startup":
        return one.model_copy(update={"flags": flags})
    rate = MetricValue(value=RATES[cell.environment] + number, unit="1/s", direction="higher")
    return one.model_copy(update={"flags": flags, "metrics": {"cpu.sysbench": rate}})


def found(*arguments: Any, **options: Any) -> Overview:
    seen = summarise(*run(*arguments, **options)).overview
    assert seen is not None
    return seen


def test_each_line_is_a_table_and_the_last_the_image() -> None:
    """An entry is the table's own row, with its ratio; of the image there is a number but neither interval nor
    verdict."""
    seen = found()
    assert [(line.workload, line.metric) for line in seen.lines] == [
        ("startup", "startup.ready"), ("cpu", "cpu.sysbench"), ("image", "size.stored"),
    ]  # fmt: skip
    (native, container, *_), image = seen.lines[1].entries, seen.lines[2].entries
    assert native is not None and native.is_baseline
    assert container is not None and container.ratio is not None and round(container.ratio.estimate, 1) == 0.9
    assert [row.median if row else None for row in image] == [200 << 20, 200 << 20, 300 << 20, 300 << 20]
    last = image[3]
    assert last is not None and last.ratio is not None and last.ratio.estimate == 1.5
    assert last.verdict is None and last.ratio.low is None


def test_emulation_has_a_column_of_its_own() -> None:
    """That of the virtual machine says that it was not measured and why, and has no number but the image's."""
    seen = found()
    kvm, emulated = seen.columns[2:]
    assert (kvm.display, emulated.display) == ("vm (KVM)", "vm (emulated, TCG)")
    assert kvm.absent is not None and "paused (crashed)" in kvm.absent
    assert emulated.emulated and emulated.absent is None
    assert [line.entries[2] for line in seen.lines[:2]] == [None, None]
    assert all(line.entries[3] for line in seen.lines[:2])


def test_a_guest_that_kvm_ran_is_the_virtual_machine() -> None:
    """It has one column, with its numbers."""
    seen = found(accelerator="kvm")
    assert [column.display for column in seen.columns] == ["native", "container", "vm (KVM)"]
    assert seen.lines[0].entries[2] is not None


def test_an_environment_that_is_not_there_says_so() -> None:
    """Its column stays, with the reason, so that nobody takes it for forgotten."""
    absent = environment("vm", state="skipped", reason="qemu is not installed")
    seen = found([record("native"), record("container"), absent])
    assert (seen.columns[2].display, seen.columns[2].absent) == ("vm", "qemu is not installed")
    assert [line.entries[2] for line in seen.lines] == [None, None, None]


def test_one_table_alone_needs_none() -> None:
    """Its own table says it all."""
    assert summarise(*run(workloads=())).overview is None


def test_the_page_shows_it_first() -> None:
    """Above every sentence and every table, with the value beside the ratio and all that is known at the pointer."""
    page = render_page(*run())
    begin = page.index('aria-label="Every measurement by environment"')
    assert begin < page.index('class="answer"') < page.index('id="verdicts"')
    shown = page[begin : page.index("</table>", begin)]
    assert ">0.901 lower<" in shown and ">(0.900–0.901) 906 1/s<" in shown and "not measured" in shown
    assert "95% 90" in shown and "12 of 12 samples" in shown
    assert 'href="#verdicts-2">CPU</a>' in shown


def test_an_entry_says_what_happened_where_there_is_no_number() -> None:
    """Nothing stands for itself only: a failed cell is called that, with its reason at the pointer."""
    record, taken = run()
    gone = {"status": "failed", "reason": "no such file", "metrics": {}}
    broken = [one.model_copy(update=gone) if one.cell == "container/cpu" else one for one in taken]
    seen = summarise(record, broken).overview
    assert seen is not None
    row = seen.lines[1].entries[1]
    assert row is not None
    assert words.entry_text(row) == "failed"
    assert words.entry_details(row) == "12 of 12 failed: no such file"


def test_the_terminal_has_it_too() -> None:
    """In short: the ratio and what it comes to."""
    lines = table.plain_text(summarise(*run())).splitlines()
    begin = lines.index("At a glance")
    assert " ".join(lines[begin + 2].split()) == "× baseline native container vm (KVM) vm (emulated, TCG)"
    assert " ".join(lines[begin + 4].split()) == "CPU: cpu.sysbench 1.01 k/s 0.901 lower not measured 0.106"
    assert " ".join(lines[begin + 5].split()) == "Image on the disk 200 MiB 1.00 1.50 1.50"


def test_lines_of_one_aspect_are_told_apart() -> None:
    """By the title of their table, and by the metric where that says no more than the aspect."""
    seen = found(workloads=("python", "cpu"))
    assert [words.line_details(line) for line in seen.lines] == ["startup.ready", "python", "cpu.sysbench", ""]
