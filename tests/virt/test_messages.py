"""What engine and libvirt worker say to each other arrives as it was said."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchbox.linux.cgroups import Layout
from benchbox.model import Command, Counter, Outcome
from benchbox.virt.messages import (
    decode,
    encode,
    order_from_json,
    order_to_json,
    outcome_from_json,
    outcome_to_json,
)
from tests.virt.observations import ORDER, SPEC

ORDERS = [
    ORDER,
    replace(ORDER, command=None, cpu_quota=0.5, log="/log"),
    replace(ORDER, spec=replace(SPEC, cpus=(0, 1), disabled_features=("a",), environment={"A": "\n"}, root_user=True)),
    replace(
        ORDER, spec=replace(SPEC, firmware="/fw", loader="pflash", cpu_model="a", nic=True, disk="/d", disk_bytes=9)
    ),
    replace(ORDER, command=Command(("/bin/sh", "-c", "é\udcff"), {"A": "b"}, "/tmp", 1.5, False, True)),
]


@pytest.mark.parametrize("order", ORDERS)
def test_an_order_survives_the_way_to_the_worker(order: object) -> None:
    """One line, and the same order on the other side."""
    assert isinstance(order, type(ORDER))
    line = encode({"order": order_to_json(order)})

    assert line.count(b"\n") == 1
    assert order_from_json(decode(line)["order"]) == order


@given(st.binary(max_size=100), st.text(max_size=50), st.dictionaries(st.sampled_from(["a", "b"]), st.integers()))
def test_an_outcome_survives_the_way_back(output: bytes, console: str, stages: dict[str, int]) -> None:
    """Output is bytes and stays so; counters keep their source."""
    counters = (Counter("cpu.usage", 1.5, "s", "cgroup2"), Counter("io.write", None, "B", "not attributed"))
    outcome = Outcome("failed", "why", 7, None, 5, stages, None, {"boot": 1}, counters, {"a": [1]}, {"f": "x"}, output)
    outcome = replace(outcome, console_tail=console)

    assert outcome_from_json(decode(encode(outcome_to_json(outcome)))) == outcome


@pytest.mark.parametrize("line", [b"", b"[]", b"{", b"1"])
def test_what_is_no_message_is_refused(line: bytes) -> None:
    """Anything but an object is an error."""
    with pytest.raises(ValueError):
        decode(line)


def test_qemu_is_confined_to_its_cpus_and_not_limited_in_memory() -> None:
    """The guest's memory is its RAM; QEMU's own is accounted only."""
    layout = Layout("v2", {}, Path("/cg"), ("cpuset", "cpu", "memory", "pids"))
    (group,) = replace(ORDER, cpu_quota=0.5).cgroups(layout).groups

    assert {write.file: write.value for write in group.writes} == {"cpuset.cpus": "1", "cpu.max": "50000 100000"}
    assert "memory.peak" in group.reads
    assert json.dumps(order_to_json(ORDER))
