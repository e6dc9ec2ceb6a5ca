"""What a run of one guest says about this host."""

from pathlib import Path
from typing import Any

import pytest

from benchbox.doctor.facts import GuestTrial
from benchbox.errors import LockError
from benchbox.record import EnvironmentRecord, MetricValue, Sample
from benchbox.scenario import loads
from benchbox.supervisor import trial
from benchbox.supervisor.supervise import Ending

PROOF = {"accelerator": "tcg", "accelerator_proof": {"reason": "no guest boots with KVM"}}


def environment(state: Any = "measured", **fields: Any) -> EnvironmentRecord:
    return EnvironmentRecord(label="vm", kind="vm", state=state, **fields)


def sample(number: int, status: Any = "ok", reason: str | None = None, ready_s: float = 2.5) -> Sample:
    metrics = {"startup.ready": MetricValue(value=ready_s, unit="s", direction="lower")}
    return Sample(
        cell="vm/startup",
        environment="vm",
        workload="startup",
        round=number,
        position=0,
        predecessor=None,
        started_at="2026-01-02T03:04:05",
        status=status,
        reason=reason,
        requested_ns=1,
        metrics=metrics,
    )


def test_the_scenario_of_the_trial_is_valid() -> None:
    """It has one environment."""
    assert [spec.kind for spec in loads(trial.SCENARIO, "doctor").environments] == ["vm"]


def test_a_guest_that_ran_says_with_what_and_how_fast() -> None:
    """By its last round: the first one only primes."""
    found = trial.judged(environment(applied=PROOF), [sample(1, ready_s=2.5), sample(0, ready_s=9.0)])
    assert found == GuestTrial("measured", "no guest boots with KVM", "tcg", 2.5)


@pytest.mark.parametrize("state", ["skipped", "failed"])
def test_a_guest_that_was_not_started_says_why(state: str) -> None:
    """As the record does."""
    assert trial.judged(environment(state, reason="no QEMU"), []) == GuestTrial(state, "no QEMU")


def test_a_guest_that_failed_proves_nothing() -> None:
    """Though its session was opened."""
    failed = [sample(0), sample(1, "failed", "it hung")]
    assert trial.judged(environment(applied=PROOF), failed) == GuestTrial("failed", "it hung")
    assert trial.judged(environment(applied=PROOF), []).state == "failed"


@pytest.mark.parametrize(
    ("ending", "state"), [(Ending("interrupted", "stopped"), "interrupted"), (Ending("failed", "it broke"), "untried")]
)
def test_a_run_that_came_to_nothing_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: Ending, state: str
) -> None:
    """Stopped by the user, or ended before it had a record."""
    monkeypatch.setattr(trial, "supervise", lambda *_: ending)
    assert trial.boot_guest({"run_id": "doctor-1", "results": str(tmp_path)}).state == state


@pytest.mark.parametrize("error", [LockError("another run holds this host: it"), OSError(28, "No space left")])
def test_a_host_that_is_held_or_full_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The guest would disturb the other run, or cannot be made; that is an answer, too."""

    def refuse(*_: object) -> Ending:
        raise error

    monkeypatch.setattr(trial, "supervise", refuse)
    found = trial.boot_guest({"run_id": "doctor-1", "results": str(tmp_path)})
    assert found == GuestTrial("untried", str(error))
