"""A summary says what was measured, and what was not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchbox.analysis.statistics import median
from benchbox.analysis.summary import summarise
from benchbox.record import AbandonedCell, CellRecord, CounterValue, MetricValue, Sample
from tests.report.records import cell_id, environment, failed, manifest, parallel_run, sample, samples


def test_numbers_of_a_row_are_those_of_its_valid_samples() -> None:
    """Median, minimum, counts: computed here from the samples again; the priming round is in none of them."""
    taken = samples()
    summary = summarise(manifest(), taken)
    for row in summary.tables[0].rows:
        values = [s.metrics["startup.ready"].value for s in taken if s.cell == row.cell and s.round > 0]
        assert (row.ok, row.attempted) == (20, 20)
        assert row.median == median(values)
        assert row.minimum == min(values)
        assert row.maximum == max(values)
        assert row.p90 == sorted(values)[17]
        assert row.interval is not None
        assert (row.interval.low, row.interval.high) == (sorted(values)[5], sorted(values)[14])


def test_ratios_are_paired_with_the_baseline_and_the_baseline_has_none() -> None:
    """A container that takes twice as long in every round has the ratio 2, whatever the rounds do."""
    taken = [
        sample(label, number, metrics={"startup.ready": MetricValue(value=factor * number, unit="s")})
        for number in range(1, 9)
        for label, factor in (("native", 1.0), ("container", 2.0))
    ]
    native, container = summarise(manifest(("native", "container"), 8), taken).tables[0].rows
    assert native.is_baseline and native.ratio is None
    assert container.ratio is not None
    assert container.ratio.estimate == pytest.approx(2.0)
    assert container.ratio.pairs == 8
    assert native.difference is None
    assert container.difference is not None
    assert container.difference.estimate > 0


def served(environment: str, number: int, seconds: float) -> Sample:
    stages = {"exec": 1, "served": round(seconds * 1e9)}
    metrics = {"startup.served": MetricValue(value=seconds, unit="s")}
    return sample(environment, number, workload="redis", stages=stages, metrics=metrics)


def test_each_table_is_about_its_own_metric() -> None:
    """A server has no ``startup.ready``: it is compared, judged and disturbed by its first answer."""
    cells = [
        CellRecord(id=f"{label}/{name}", environment=label, workload=name)
        for name in ("startup", "redis")
        for label in ("native", "container")
    ]
    taken = [
        one
        for number in range(1, 13)
        for label, factor in (("native", 1.0), ("container", 3.0))
        for one in (sample(label, number), served(label, number, factor * (0.01 if number < 7 else 0.02)))
    ]
    summary = summarise(manifest(("native", "container"), 12, cells=cells), taken)
    assert summary.metric == "startup.ready"
    assert [table.metric for table in summary.tables] == ["startup.ready", "startup.served"]
    native, container = summary.tables[1].rows
    assert (native.ok, native.median, native.metric) == (12, 0.015, "startup.served")
    assert container.ratio is not None and container.ratio.estimate == pytest.approx(3.0)
    assert container.verdict is not None and container.verdict.kind == "worse"
    assert {one.cell for one in summary.disturbances if one.kind == "two modes"} == {"native/redis", "container/redis"}
    asked = summarise(manifest(("native", "container"), 12, cells=cells), taken, "startup.served")
    assert [(table.metric, table.rows[0].ok) for table in asked.tables] == [
        ("startup.served", 0),
        ("startup.served", 12),
    ]


def test_a_table_without_a_valid_sample_is_about_what_the_others_are_about() -> None:
    """It has no number, but a heading."""
    cells = [CellRecord(id=f"native/{name}", environment="native", workload=name) for name in ("redis", "python")]
    taken = [served("native", 1, 0.01), failed("native", 1, "gone", workload="python")]
    assert [t.metric for t in summarise(manifest(("native",), 1, cells=cells), taken).tables] == ["startup.served"] * 2


def test_failed_samples_are_counted_by_reason_and_in_no_number() -> None:
    """Attempted says how many there were, ok how many count, and each reason how often it came."""

    def instead(label: str, number: int) -> Sample | None:
        if label == "container" and number in (3, 4):
            return failed(label, number, "exit status 7")
        return failed(label, 9, "timed out") if label == "container" and number == 9 else None

    row = summarise(manifest(), samples(replace=instead)).tables[0].rows[1]
    assert (row.ok, row.attempted) == (17, 20)
    assert [(f.reason, f.count) for f in row.failures] == [("exit status 7", 2), ("timed out", 1)]
    assert row.ratio is not None and row.ratio.pairs == 17


def test_an_emulated_guest_says_so_in_its_label_and_no_number_stands_for_kvm() -> None:
    """Emulation is not a VM: the label carries it, and the missing KVM is a note with its reason."""
    summary = summarise(manifest(), samples())
    vm = summary.tables[0].rows[2]
    assert vm.display == "vm (emulated, TCG)"
    assert "VM with KVM: not measured here: a guest did not boot with KVM: paused (crashed)" in summary.notes


def test_a_guest_that_proved_kvm_is_named_so_without_a_note() -> None:
    """Proof is what each sample says it ran with."""
    taken = [sample("vm", number, flags={"accelerator": "kvm"}) for number in range(1, 9)]
    summary = summarise(manifest(("vm",), 8, baseline="vm"), taken)
    assert summary.tables[0].rows[0].display == "vm (KVM)"
    assert not [note for note in summary.notes if note.startswith("VM with KVM")]


def test_what_was_asked_for_proves_nothing() -> None:
    """A guest whose samples and read-back say nothing is labelled as not proven, though the scenario says kvm."""
    record = environment("vm", applied={}, options={"accelerator": "kvm"})
    taken = [sample("vm", number, flags={}) for number in range(1, 9)]
    summary = summarise(manifest(("vm",), 8, records=[record]), taken)
    assert summary.tables[0].rows[0].display == "vm (accelerator not proven)"
    assert [note for note in summary.notes if note.startswith("VM with KVM: not measured here")]


def test_a_guest_that_was_to_run_with_kvm_and_never_did_is_no_vm_with_kvm() -> None:
    """Failed attempts prove nothing: the missing number is told with the reason of the failures."""
    taken = [failed("vm", number, "guest paused: internal error", flags={"accelerator": "kvm"}) for number in (1, 2, 3)]
    summary = summarise(manifest(("vm",), 8, records=[environment("vm", applied={})]), taken)
    assert "VM with KVM: not measured here: guest paused: internal error" in summary.notes


@pytest.mark.parametrize(
    "proof",
    [
        {"reason": "word " * 200},
        {"reason": "word " * 200, "attempts": "no list"},
        {"attempts": [["a"], 7]},
        [],
        "x",
        None,
    ],
)
def test_a_long_reason_is_cut_where_a_word_ends(proof: object) -> None:
    """Of a record of an earlier version, or of a stranger's."""
    records = [environment("vm", applied={"accelerator": "tcg", "accelerator_proof": proof})]
    summary = summarise(manifest(("vm",), 8, records=records), [sample("vm", number) for number in range(1, 9)])
    (note,) = [text for text in summary.notes if text.startswith("VM with KVM")]
    assert len(note) < 280 and (note.endswith("word …") or "no guest has booted" in note)


def test_kvm_and_emulation_in_one_cell_share_no_number() -> None:
    """A mixture would be a number of nothing, so there is none."""
    taken = [sample("vm", n, flags={"accelerator": "kvm" if n % 2 else "tcg"}) for n in range(1, 9)]
    row = summarise(manifest(("vm",), 8), taken).tables[0].rows[0]
    assert (row.ok, row.attempted, row.median) == (0, 8, None)
    assert "mixed" in row.display
    assert row.failures[-1].count == 8


def test_skipped_and_failed_environments_are_listed_with_reason_and_fix() -> None:
    """Missing is a result: no row of numbers, but why and what to do."""
    records = [
        environment("native"),
        environment("container", state="failed", reason="no cgroup write access", fix="run as root"),
        environment("vm", state="skipped", reason="no QEMU", fix="apt-get install qemu-system-x86"),
    ]
    summary = summarise(manifest(records=records), samples(("native",)))
    assert [row.label for row in summary.tables[0].rows] == ["native"]
    assert [(a.label, a.state, a.reason, a.fix) for a in summary.absent] == [
        ("container", "failed", "no cgroup write access", "run as root"),
        ("vm", "skipped", "no QEMU", "apt-get install qemu-system-x86"),
    ]


def test_a_failed_environment_with_samples_keeps_its_row() -> None:
    """Attempts that failed are shown as such, 0 of 3."""
    records = [environment("native"), environment("vm", state="failed", reason="KVM does not boot a guest")]
    taken = [*samples(("native",)), *(failed("vm", number, "guest paused") for number in (1, 2, 3))]
    summary = summarise(manifest(("native", "vm"), records=records), taken)
    vm = summary.tables[0].rows[1]
    assert (vm.ok, vm.attempted, vm.median, vm.ratio) == (0, 3, None, None)


def test_without_a_valid_baseline_there_are_no_ratios_and_that_is_said() -> None:
    """A ratio to nothing is not printed."""
    taken = [*samples(("container",)), *(failed("native", number, "gone") for number in range(1, 21))]
    summary = summarise(manifest(("native", "container")), taken)
    assert all(row.ratio is None for row in summary.tables[0].rows)
    assert "No ratios: the baseline native has no valid sample." in summary.notes


def test_too_few_samples_have_no_interval_and_that_is_said() -> None:
    """Five rounds: medians, but neither intervals nor p90."""
    summary = summarise(manifest(("native", "container"), 5), samples(("native", "container"), 5))
    for row in summary.tables[0].rows:
        assert row.median is not None
        assert row.interval is None and row.p90 is None
    assert "No interval below 6 samples: native, container." in summary.notes
    assert "No p90 below 10 samples: native, container." in summary.notes


def test_an_outlier_is_flagged_and_stays_in_the_numbers() -> None:
    """A sample ten times slower is the maximum of its row, counted, and named with its round."""
    summary = summarise(
        manifest(), samples(replace=lambda e, n: sample(e, n, factor=10) if (e, n) == ("native", 5) else None)
    )
    native = summary.tables[0].rows[0]
    assert native.ok == 20
    assert native.outliers == 1
    assert native.maximum == pytest.approx(0.005)
    (found,) = [one for one in summary.disturbances if one.kind == "outliers" and one.cell == "native/startup"]
    assert [(outlier.round, outlier.value) for outlier in found.outliers] == [(5, native.maximum)]


def test_stage_medians_are_medians_of_each_samples_own_durations() -> None:
    """Not differences of the medians of instants: here those would say 2 and 2, the durations say 1 and 3."""
    instants = [(1, 2), (1, 5), (3, 4), (2, 6), (9, 12)]
    taken = [
        sample("native", number, stages={"cgroups": first * 10**9, "started": second * 10**9})
        for number, (first, second) in enumerate(instants, start=1)
    ]
    row = summarise(manifest(("native",), 5), taken).tables[0].rows[0]
    assert [(stage.name, stage.median_s, stage.count) for stage in row.stages] == [("cgroups", 2, 5), ("started", 3, 5)]


def test_each_workload_and_parameter_has_its_own_table_and_baseline() -> None:
    """Only what ran the same thing is compared."""
    works: list[tuple[str, dict[str, str | int | float]]] = [("a", {}), ("b", {"size": 1}), ("b", {"size": 2})]
    cells = [
        CellRecord(id=cell_id(label, name, params), environment=label, workload=name, params=params)
        for name, params in works
        for label in ("native", "container")
    ]
    taken = [
        sample(cell.environment, number, workload=cell.workload, params=cell.params, factor=1 + number / 100)
        for number in range(1, 8)
        for cell in cells
    ]
    summary = summarise(manifest(("native", "container"), 7, cells=cells), taken)
    assert [table.title for table in summary.tables] == ["a", "b[size=1]", "b[size=2]"]
    assert [[row.is_baseline for row in table.rows] for table in summary.tables] == [[True, False]] * 3
    assert all(table.rows[1].ratio is not None for table in summary.tables)


def titles(works: list[tuple[str, dict[str, str | int | float]]]) -> list[str]:
    cells = [
        CellRecord(id=cell_id("native", *work), environment="native", workload=work[0], params=work[1])
        for work in works
    ]
    return [table.title for table in summarise(manifest(("native",), 1, cells=cells), []).tables]


def test_a_title_names_what_tells_a_table_from_the_others() -> None:
    """Neither what all have in common nor a default, but where it is the other value of what was varied."""
    disk: dict[str, str | int | float] = {
        "block": "4k", "depth": 1, "sync": "direct", "where": "data", "size_mib": 64, "seconds": 1,
    }  # fmt: skip
    found = titles(
        [
            ("disk", {"rw": "randread", **disk}),
            ("disk", {"rw": "randwrite", **disk, "depth": 32}),
            ("disk", {"rw": "randwrite", **disk, "depth": 32, "where": "layer"}),
            ("disk", {"rw": "write", **disk, "sync": "fsync"}),
            ("network-throughput", {"direction": "in", "seconds": 1, "streams": 1}),
            ("network-throughput", {"direction": "out", "seconds": 1, "streams": 1}),
            ("network-latency", {"rate": 500, "seconds": 2, "size": 64}),
            ("startup", {"parallel": 4}),
        ]
    )
    assert found == [
        "disk[rw=randread]",
        "disk[rw=randwrite;depth=32;where=data]",
        "disk[rw=randwrite;depth=32;where=layer]",
        "disk[rw=write;sync=fsync]",
        "network-throughput[direction=in]",
        "network-throughput[direction=out]",
        "network-latency",
        "startup[parallel=4]",
    ]


@given(
    st.lists(
        st.fixed_dictionaries(
            {"block": st.sampled_from(["4k", "1m"]), "depth": st.sampled_from([1, 8, 32])},
            optional={"where": st.sampled_from(["data", "layer"]), "other": st.integers(0, 2)},
        ),
        min_size=1,
        max_size=12,
        unique_by=lambda params: tuple(sorted(params.items())),
    )
)
def test_no_two_tables_have_the_same_title(params: list[dict[str, str | int | float]]) -> None:
    """Whatever was varied, by a record of whatever version."""
    found = titles([("disk", each) for each in params])
    assert len(set(found)) == len(params)


def test_a_run_that_did_not_end_well_says_so_first() -> None:
    """Interrupted, failed or never ended: the reader learns it before the other notes, after those of the reading."""
    summary = summarise(
        manifest(exit_state="interrupted", exit_reason="SIGINT"), samples(), reading_notes=["the last line is torn"]
    )
    assert summary.notes[:2] == (
        "the last line is torn",
        "The run was interrupted; what it had measured is here: SIGINT.",
    )
    assert "has no end on record" in summarise(manifest(exit_state="running"), samples()).notes[0]


def test_samples_left_out_are_said() -> None:
    """Samples of a repeated round and of unknown cells count nowhere, but their number is told."""
    strange = sample("native", 1, workload="other")
    again = sample("native", 20, factor=1.0)
    summary = summarise(manifest(("native",)), [*samples(("native",)), strange, again])
    assert summary.tables[0].rows[0].attempted == 20
    assert any(note.startswith("1 samples of rounds that were begun anew") for note in summary.notes)
    assert any(note.startswith("1 samples of cells that the manifest does not know") for note in summary.notes)


def test_flags_other_than_the_accelerator_are_counted_and_told() -> None:
    """What disturbed samples stands below their numbers."""
    summary = summarise(
        manifest(),
        samples(replace=lambda e, n: sample(e, n, flags={"throttled": "yes"}) if (e, n) == ("native", 5) else None),
    )
    assert summary.tables[0].rows[0].flags == {"throttled=yes": 1}
    assert "native, startup: samples flagged throttled=yes (1 of 20)." in summary.notes


def test_a_cold_run_says_so_once() -> None:
    """Not again for each cell, though each sample is flagged; a warm one is what one expects."""
    flagged = [one.model_copy(update={"flags": {"cache": "cold"}}) for one in samples(("native",))]
    scenario = manifest().scenario | {"cache": "cold"}
    summary = summarise(manifest(("native",), scenario=scenario), flagged)
    assert summary.cache == "cold"
    assert [note for note in summary.notes if "old" in note] == [summary.notes[0]]
    assert summary.notes[0].startswith("Cold: what a start reads")
    assert summarise(manifest(), samples()).cache == "warm"


def test_several_at_once_are_said_to_share_their_cpus() -> None:
    """One table for each number."""
    run, taken = parallel_run()
    summary = summarise(run, taken)
    assert [table.title for table in summary.tables] == [f"startup[parallel={count}]" for count in (1, 2, 4)]
    assert (summary.metric, summary.unit) == ("parallel.all_ready", "s")
    assert any(note.startswith("All instances that start at once share the same CPU;") for note in summary.notes)


def test_abandoned_cells_are_kept_with_their_reason() -> None:
    """A cell that was given up is in the summary."""
    gone = AbandonedCell(cell="vm/startup", reason="no boot", after_round=3)
    assert summarise(manifest(abandoned=[gone]), samples()).abandoned[0].after_round == 3


def test_a_counter_that_one_sample_cannot_attribute_has_no_median() -> None:
    """A number of some samples would pass for that of all; the source says why there is none."""
    known = CounterValue(value=4.0, unit="B", source="cgroup2 memory.peak")
    unknown = CounterValue(value=None, unit="B", source="no memory controller")
    taken = [
        sample("native", number, counters={"always": known, "once": unknown if number == 2 else known})
        for number in (1, 2, 3)
    ]
    taken.append(failed("native", 4, "gone", counters={"always": CounterValue(value=99, unit="B", source="x")}))
    always, once = summarise(manifest(("native",), 4), taken).tables[0].rows[0].counters
    assert (always.median, always.count, always.source) == (4.0, 3, "cgroup2 memory.peak")
    assert (once.median, once.source) == (None, "no memory controller")


def test_a_summary_is_json_and_depends_on_nothing_but_its_input() -> None:
    """Twice the same input, twice the same text, without NaN or infinity."""
    taken = samples(replace=lambda e, n: failed(e, n, "no") if e == "vm" else None)
    texts = {json.dumps(summarise(manifest(), taken).as_json(), allow_nan=False) for _ in range(2)}
    assert len(texts) == 1


def test_a_run_without_samples_has_rows_without_numbers() -> None:
    """An interrupted first round breaks nothing."""
    summary = summarise(manifest(), [])
    assert [(row.ok, row.attempted, row.median) for row in summary.tables[0].rows] == [(0, 0, None)] * 3
    assert summary.unit == "s"
