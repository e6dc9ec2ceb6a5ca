"""Workloads that stay: idle and under a small load."""

import pytest

from benchbox.model import Outcome
from benchbox.workloads import workload


def test_both_stay_and_are_left_alone_for_a_second() -> None:
    """They run the same program; only one has work to do."""
    idle, light = (workload(name).command({}) for name in ("idle", "light"))
    assert idle.argv == ("/bin/steady",)
    assert light.argv == ("/bin/steady", "--every-ms", "100", "--work-us", "1000")
    for command in (idle, light):
        assert (command.stays, command.signals_ready, command.hold_s) == (True, True, 1.0)


@pytest.mark.parametrize("name", ["idle", "light"])
def test_what_prints_something_did_not_do_its_work(name: str) -> None:
    """The program says nothing; the metrics are those of all that live at once."""
    assert workload(name).parse(Outcome("ok")) == ()
    with pytest.raises(ValueError, match="expected nothing, got b'oops'"):
        workload(name).parse(Outcome("ok", output_tail=b"oops"))
    with pytest.raises(ValueError, match="hold_s"):
        workload(name).command({"hold_s": 3})
