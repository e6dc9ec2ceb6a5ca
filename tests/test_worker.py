"""The worker's decisions that need no host."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchbox import worker
from benchbox.record import EnvironmentRecord, Sample


def record(label: str, state: str, reason: str | None = None) -> EnvironmentRecord:
    return EnvironmentRecord.model_validate({"label": label, "kind": label, "state": state, "reason": reason})


@pytest.mark.parametrize(
    ("allowed", "wanted", "chosen", "harness"),
    [
        ((0, 1), 1, (1,), (0,)),
        ((0, 1, 2, 3), 2, (2, 3), (0, 1)),
        ((3, 5, 7), 1, (7,), (3, 5)),
        ((0,), 1, (0,), (0,)),
        ((0, 1), 2, (0, 1), (0, 1)),
        ((0, 1), 5, (0, 1), (0, 1)),
    ],
)
def test_cpus_are_shared_out(
    allowed: tuple[int, ...], wanted: int, chosen: tuple[int, ...], harness: tuple[int, ...]
) -> None:
    """Environments get the last ones, benchbox the others; where none is left it shares."""
    assert worker.split_cpus(allowed, wanted) == (chosen, harness)


@given(st.sets(st.integers(0, 200), min_size=1), st.integers(1, 300))
def test_nobody_is_left_without_a_cpu(allowed: set[int], wanted: int) -> None:
    """Both parts are of the allowed CPUs, and apart wherever there are enough."""
    chosen, harness = worker.split_cpus(sorted(allowed), wanted)
    assert chosen
    assert harness
    assert set(chosen) | set(harness) == allowed
    assert len(chosen) == min(wanted, len(allowed))
    assert set(chosen).isdisjoint(harness) or wanted >= len(allowed)


def test_a_run_that_measured_all_is_done() -> None:
    """A skipped environment does not change that."""
    found = worker.ending("done", [record("native", "measured"), record("vm", "skipped", "no QEMU")], [])
    assert found == ("done", None)


def test_a_failed_environment_fails_the_run() -> None:
    """The reason names each, and the cells that were given up."""
    environments = [record("native", "measured"), record("vm", "failed", "no KVM"), record("x", "failed", "gone")]
    state, reason = worker.ending("done", environments, ["cell native/w was abandoned"])
    assert state == "failed"
    assert reason == "environment vm: no KVM; environment x: gone; cell native/w was abandoned"


def test_a_host_that_offers_nothing_is_told_apart() -> None:
    """Nothing was measured, nothing failed."""
    assert worker.ending("done", [record("vm", "skipped", "no QEMU")], []) == (
        "nothing", "this host offers none of the environments",
    )  # fmt: skip


def test_an_interruption_comes_before_all_else() -> None:
    """What failed until then is in the record."""
    state, reason = worker.ending("interrupted", [record("vm", "failed", "x")], ["native/w"])
    assert (state, reason) == ("interrupted", "stopped by the user; what was measured is kept")


@pytest.mark.parametrize(
    ("required", "applied", "reason"),
    [
        ([], {}, None),
        (["vm"], {"accelerator": "tcg"}, None),
        (["vm:kvm"], {"accelerator": "kvm"}, None),
        (["vm:kvm"], {"accelerator": "tcg"}, "kvm is required, this host gave tcg"),
        (["vm", "vm:kvm"], {"accelerator": "tcg"}, "kvm is required, this host gave tcg"),
        (["container:kvm"], {}, "kvm is required, this host gave none"),
    ],
)
def test_what_is_required_of_an_environment_is_checked(
    required: list[str], applied: dict[str, str], reason: str | None
) -> None:
    """``vm`` asks that it is there, ``vm:kvm`` that it is accelerated."""
    assert worker.unmet(required, applied) == reason


def sample(cell: str, number: int, status: str = "ok", reason: str | None = None) -> Sample:
    data = {"cell": cell, "environment": "native", "workload": "w", "round": number, "position": 0, "predecessor": None}
    return Sample.model_validate(
        {**data, "started_at": "", "status": status, "reason": reason, "requested_ns": 1, "applied": {}}
    )


def test_a_cell_without_a_valid_sample_has_failed() -> None:
    """However few its samples are; the priming round does not count, one valid sample is enough."""
    samples = [sample("a", 0), sample("a", 1, "failed", "exit status 7"), sample("b", 1, "failed", "x"), sample("b", 2)]
    assert worker.failed_cells(samples, ()) == ("cell a: exit status 7",)
    assert worker.failed_cells(samples, ("a",)) == ("cell a was abandoned",)
