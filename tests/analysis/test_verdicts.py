"""A verdict says no more than its interval does."""

from dataclasses import replace

import pytest

from benchbox.analysis.statistics import Ratio
from benchbox.analysis.summary import Row, summarise
from benchbox.analysis.verdicts import ALPHA, Evidence, control, judge, shared_confidence
from benchbox.record import EnvironmentRecord, Manifest, MetricValue, Sample
from tests.report.records import environment, manifest, sample, samples


def ratio(low: float | None, high: float | None, pairs: int = 20) -> Ratio:
    return Ratio(1.0, low, high, pairs)


def evidence(low: float | None, high: float | None, direction: str = "lower") -> Evidence:
    return Evidence(ratio(low, high), ratio(low, high), None, direction)


@pytest.mark.parametrize(
    ("low", "high", "direction", "kind"),
    [
        (2.1, 2.4, "lower", "worse"),
        (2.1, 2.4, "higher", "better"),
        (0.4, 0.5, "lower", "better"),
        (0.4, 0.5, "higher", "worse"),
        (0.97, 1.04, "lower", "equivalent"),
        (1.01, 1.04, "lower", "equivalent"),
        (0.94, 1.04, "lower", "inconclusive"),
        (0.5, 3.0, "lower", "inconclusive"),
    ],
)
def test_the_interval_decides(low: float, high: float, direction: str, kind: str) -> None:
    """Excluding 1, inside of the tolerance, or neither."""
    assert judge(evidence(low, high, direction)).kind == kind


def test_an_undecided_verdict_says_how_many_rounds_might_decide() -> None:
    """Four times as wide as it should be takes sixteen times the rounds."""
    verdict = judge(evidence(1 / 1.05**2, 1.05**2))
    assert (verdict.kind, verdict.rounds_needed) == ("inconclusive", 320)


def test_too_few_rounds_are_no_equality() -> None:
    """There is no interval, so there is no verdict."""
    verdict = judge(evidence(None, None))
    assert (verdict.kind, verdict.rounds_needed) == ("inconclusive", 6)
    assert judge(Evidence(None, None, None, "lower")).reason == "0 rounds, at least 6 are needed"


def test_drift_and_modes_forbid_equivalence_and_nothing_else() -> None:
    """What is far apart stays far apart."""
    for low, high, kind in ((0.98, 1.02, "inconclusive"), (2.1, 2.4, "worse")):
        assert judge(replace(evidence(low, high), blocks=("drift", "two modes"))).kind == kind
    assert judge(replace(evidence(0.98, 1.02), blocks=("drift", "two modes"))).reason == "drift and two modes"


def test_a_verdict_that_hangs_on_outliers_is_none() -> None:
    """Whether they make it or break it."""
    for low, high in ((1.5, 2.0), (0.98, 1.02)):
        found = judge(replace(evidence(low, high), without_outliers=ratio(0.5, 1.5)))
        assert (found.kind, "outliers" in found.reason) == ("inconclusive", True)
    assert judge(replace(evidence(1.5, 2.0), without_outliers=ratio(1.6, 1.9))).kind == "worse"


def test_the_smallest_effect_is_the_far_end_of_the_interval() -> None:
    """On whichever side of 1 it is."""
    assert control("c", "b", ratio(0.98, 1.03), 0.95).smallest_effect == pytest.approx(0.03)
    assert control("c", "b", ratio(0.8, 1.03), 0.95).smallest_effect == pytest.approx(0.25)


@pytest.mark.parametrize(("low", "high", "trusted"), [(0.9, 1.1, True), (1.01, 1.1, False), (0.8, 0.99, False)])
def test_a_control_that_excludes_1_is_not_trusted(low: float, high: float, trusted: bool) -> None:
    """On either side."""
    assert control("c", "b", ratio(low, high), 0.95).trusted is trusted


def test_a_control_without_an_interval_tells_nothing() -> None:
    """Neither trusted nor not."""
    found = control("c", "b", ratio(None, None, 3), 0.95)
    assert (found.trusted, found.smallest_effect) == (None, None)


def test_several_comparisons_share_the_error() -> None:
    """With m of them each may err with a m-th only."""
    assert 1 - shared_confidence(5) == pytest.approx(ALPHA / 5)
    assert shared_confidence(0) == shared_confidence(1) == pytest.approx(0.95)


# --- in a summary ----------------------------------------------------------------------------------------------------


def controlled(factor: float, rounds: int = 20) -> tuple[Manifest, list[Sample]]:
    """Return a run with a control that takes ``factor`` times as long as the baseline, and a container."""
    labels = ("native", "native-control", "container")
    records = [environment(label, kind=label.removesuffix("-control")) for label in labels]
    run = manifest(labels, rounds, records=records)
    taken = [
        sample(
            label,
            number,
            stages_ns={"ready": 1000},
            metrics={"startup.ready": MetricValue(value=0.001 * times * (1 + 0.01 * (number * 7 % 5)), unit="s")},
        )
        for number in range(1, rounds + 1)
        for label, times in zip(labels, (1, factor * (1 + 0.002 * (number % 2)), 2), strict=True)
    ]
    return run.model_copy(update={"scenario": {**run.scenario, "control": True}}), taken


def rows(run: Manifest, taken: list[Sample]) -> dict[str, Row]:
    return {row.label: row for row in summarise(run, taken).tables[0].rows}


def test_a_good_control_says_what_could_have_been_seen() -> None:
    """The run is trusted, the control itself is no comparison, and the others are judged."""
    run, taken = controlled(0.999)
    summary = summarise(run, taken)
    assert summary.trusted is True and summary.comparisons == 1
    assert summary.control is not None and 0 < (summary.control.smallest_effect or 0) < 0.01
    found = rows(run, taken)
    assert found["native-control"].is_control and found["native-control"].verdict is None
    assert found["container"].verdict is not None and found["container"].verdict.kind == "worse"


def test_an_untrusted_run_is_not_judged() -> None:
    """A baseline that is 10 % slower than itself."""
    run, taken = controlled(1.1)
    assert summarise(run, taken).trusted is False
    verdict = rows(run, taken)["container"].verdict
    assert verdict is not None and verdict.kind == "not judged" and "not trusted" in verdict.reason


def test_without_a_control_nothing_is_said_of_trust() -> None:
    """An environment that only is called so is none."""
    run, taken = controlled(1.1)
    assert summarise(run.model_copy(update={"scenario": {}}), taken).trusted is None
    assert summarise(manifest(), samples()).control is None


def test_emulation_is_never_judged() -> None:
    """Nor is it a comparison that others have to share their error with."""
    summary = summarise(manifest(), samples())
    vm = summary.tables[0].rows[2]
    assert vm.verdict is not None and vm.verdict.kind == "not judged" and "emulation" in vm.verdict.reason
    assert summary.comparisons == 1


def kvm_guest(same: bool) -> tuple[Manifest, list[Sample]]:
    kernel = {"release": "6.1.0-28-amd64" if same else "5.10.0", "version": "#1", "same_as_host": same}
    vm: EnvironmentRecord = environment("vm", applied={"accelerator": "kvm", "kernel": kernel})
    taken = [
        one.model_copy(update={"flags": {"accelerator": "kvm"} if one.environment == "vm" else {}}) for one in samples()
    ]
    return manifest(records=[environment("native"), environment("container"), vm]), taken


def test_a_start_with_another_kernel_is_void() -> None:
    """The ratio stays, the verdict goes, and says why; with the host's own kernel there is one."""
    other, same = (rows(*kvm_guest(same))["vm"] for same in (False, True))
    assert other.verdict is not None and other.ratio is not None
    assert (other.verdict.kind, other.verdict.reason) == (
        "not judged",
        "void, because it has another kernel than the baseline",
    )
    assert same.verdict is not None and same.verdict.kind == "worse"


@pytest.mark.parametrize("label", ["native", "container"])
@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ({"client_bound": "yes"}, "client-bound: the client of {} took more than 80% of its CPU"),
        ({"client_cpu": "shared"}, "the client of {} had no CPU of its own"),
    ],
)
def test_what_the_client_limits_is_not_judged(label: str, flag: dict[str, str], reason: str) -> None:
    """On either side: a server that waits for its client looks like any other that does."""
    taken = [
        sample(name, number, flags=flag if name == label else {}, factor=3.0 if name == "container" else 1.0)
        for number in range(1, 13)
        for name in ("native", "container")
    ]
    verdict = summarise(manifest(("native", "container"), 12), taken).tables[0].rows[1].verdict
    assert verdict is not None
    assert (verdict.kind, verdict.reason) == ("not judged", reason.format(label))


def test_a_client_that_is_busy_now_and_then_is_no_limit() -> None:
    """Half of the samples or fewer."""
    taken = [
        sample(
            name,
            number,
            flags={"client_bound": "yes"} if number <= 6 else {},
            factor=3.0 if name == "container" else 1.0,
        )
        for number in range(1, 13)
        for name in ("native", "container")
    ]
    verdict = summarise(manifest(("native", "container"), 12), taken).tables[0].rows[1].verdict
    assert verdict is not None and verdict.kind == "worse"
