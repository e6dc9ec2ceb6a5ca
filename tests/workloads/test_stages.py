"""The metrics that all workloads have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchbox.model import STAGES, Metric, Outcome
from benchbox.workloads.stages import signalled, stage_metrics, stages_in_order

CONTAINER = {
    "cgroups": 1100,
    "started": 1300,
    "isolated": 2000,
    "exec": 2100,
    "ready": 2200,
    "exited": 2250,
    "cleaned": 3000,
}


def test_each_stage_is_the_time_since_the_request() -> None:
    """In seconds, lower is better; ready and cleaned have short names too."""
    found = stage_metrics(Outcome("ok", requested_ns=1000, stages=CONTAINER, spawn_ns=400))
    assert found["startup.ready"] == Metric("startup.ready", 1200e-9, "s", "lower")
    assert found["startup.cleaned"].value == pytest.approx(2000e-9)
    assert found["startup.spawn"].value == pytest.approx(400e-9)
    assert found["startup.stage.isolated"].value == pytest.approx(1000e-9)
    assert set(found) == {
        "startup.ready",
        "startup.cleaned",
        "startup.spawn",
        *(f"startup.stage.{s}" for s in CONTAINER),
    }


def test_what_did_not_happen_has_no_metric() -> None:
    """A program that knows nothing of benchbox is never ready; a guest has no launcher."""
    found = stage_metrics(Outcome("ok", requested_ns=0, stages={"started": 5, "exec": 9}))
    assert set(found) == {"startup.stage.started", "startup.stage.exec"}


def test_a_server_s_byte_is_named_served() -> None:
    """All else stays; the name takes its place in the order of stages."""
    seen = Outcome("ok", requested_ns=1000, stages=CONTAINER)
    served = signalled(seen, "served")
    assert signalled(seen, "ready") == seen
    assert served.stages == {"served" if name == "ready" else name: stamp for name, stamp in CONTAINER.items()}
    assert stages_in_order(served) is None
    found = stage_metrics(served)
    assert found["startup.served"] == Metric("startup.served", 1200e-9, "s", "lower")
    assert found["startup.stage.served"].value == found["startup.served"].value
    assert not {"startup.ready", "startup.stage.ready"} & set(found)
    assert stages_in_order(signalled(Outcome("ok", stages={"ready": 9, "exited": 5}), "served")) is not None


@given(st.lists(st.integers(0, 1000), min_size=len(STAGES), max_size=len(STAGES)))
def test_stamps_that_ascend_are_in_order_whatever_stages_there_are(steps: list[int]) -> None:
    """Two stages may end at the same instant."""
    stamps = {name: 50 + sum(steps[: index + 1]) for index, name in enumerate(STAGES)}
    for left_out in STAGES:
        some = {name: stamp for name, stamp in stamps.items() if name != left_out}
        assert stages_in_order(Outcome("ok", requested_ns=50, stages=some)) is None


@pytest.mark.parametrize(
    ("stages", "reason"),
    [
        ({"started": 40}, "stage started is stamped 10 ns before requested"),
        ({"ready": 70, "exec": 71}, "stage ready is stamped 1 ns before exec"),
        ({"exited": 90, "cleaned": 60, "ready": 80}, "stage cleaned is stamped 30 ns before exited"),
        ({"lunch": 60}, "unknown stage lunch"),
    ],
)
def test_stamps_that_cannot_be_true_have_a_reason(stages: dict[str, int], reason: str) -> None:
    """The order of the mapping does not matter, that of the stages does."""
    assert stages_in_order(Outcome("ok", requested_ns=50, stages=stages)) == reason
