"""The frozen startup workload."""

import pytest

from benchbox.model import Outcome
from benchbox.workloads import CONFIGURED, NAMES, TABLE, params_model, workload


def test_it_runs_the_ready_program_and_nothing_else() -> None:
    """Its numbers are those of its stages."""
    command = workload("startup").command({})
    assert command.argv == ("/bin/ready",)
    assert command.signals_ready
    assert workload("startup").parse(Outcome("ok")) == ()


def test_it_takes_no_parameter() -> None:
    """It never changes."""
    with pytest.raises(ValueError, match="delay_ms"):
        workload("startup").command({"delay_ms": 3})


def test_every_workload_has_a_row_and_parameters() -> None:
    """The table is what scenarios are checked against."""
    assert (*TABLE, *CONFIGURED) == NAMES
    for name in NAMES:
        assert params_model(name).model_config["extra"] == "forbid"
    with pytest.raises(KeyError):
        workload("nothing")
