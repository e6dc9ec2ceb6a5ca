"""How much memory instances take, from files as the kernel writes them."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchbox.linux import occupancy
from benchbox.linux.cgroups import Layout
from benchbox.linux.occupancy import Occupied

MIB = 1 << 20
BEFORE = Occupied(1000 * MIB, 10 * MIB, None, None, 0, {"run": 0, "pages_sharing": 5})
DURING = Occupied(700 * MIB, 250 * MIB, 300 * MIB, 240 * MIB, 4, {"run": 0, "pages_sharing": 5})
ROLLUP = "00400000-7ffd ---p 00000000 00:00 0 [rollup]\nRss:  2000 kB\nPss:  1500 kB\nPss_Anon:  900 kB\n"


def taken(before: Occupied, during: Occupied) -> dict[str, float]:
    return {metric.name: metric.value for metric in occupancy.metrics(before, during)}


def test_what_was_taken_is_the_difference_of_two_looks() -> None:
    """What is available falls, what is charged rises; all in bytes, less is better."""
    assert taken(BEFORE, DURING) == {
        "density.cgroup": 240 * MIB,
        "density.available": 300 * MIB,
        "density.rss": 300 * MIB,
        "density.pss": 240 * MIB,
    }
    assert {(m.unit, m.direction) for m in occupancy.metrics(BEFORE, DURING)} == {("B", "lower")}


def test_what_a_host_does_not_say_is_left_out() -> None:
    """Without a memory controller, or without processes that may be looked at."""
    bare = Occupied(available_bytes=700 * MIB)
    assert taken(BEFORE, bare) == {"density.available": 300 * MIB}
    assert taken(bare, bare) == {"density.available": 0}
    assert taken(Occupied(), DURING) == {"density.rss": 300 * MIB, "density.pss": 240 * MIB}


def test_memory_that_others_gave_back_is_kept_as_it_was_seen() -> None:
    """A difference below zero is no error: it is noise that must show."""
    assert taken(BEFORE, replace(DURING, available_bytes=1010 * MIB))["density.available"] == -10 * MIB


@pytest.mark.parametrize(("run", "said"), [({"run": 1}, "on"), ({"run": 0}, "off"), ({}, "not in this kernel")])
def test_the_record_says_whether_pages_are_shared(run: dict[str, int], said: str) -> None:
    """Same-page merging and how often a page is mapped."""
    found = occupancy.sharing(BEFORE, replace(DURING, ksm=run))
    assert (found["ksm"], found["processes"], found["mapped_per_page"]) == (said, 4, 1.25)
    assert found["merged_pages"] is None
    assert occupancy.sharing(BEFORE, replace(DURING, ksm={"run": 1, "pages_sharing": 45}))["merged_pages"] == 40


def test_mapped_memory_is_summed_over_processes() -> None:
    """Only the two whole sums of each file; a process that has gone says nothing."""
    assert occupancy.rollup([ROLLUP, "", ROLLUP]) == {"Rss": 4000 << 10, "Pss": 3000 << 10}
    assert occupancy.rollup([]) == {}


def test_available_memory_is_read_from_meminfo() -> None:
    """In bytes; a kernel that does not say has none."""
    assert occupancy.available_bytes("MemTotal: 10 kB\nMemAvailable:   512 kB\n") == 512 << 10
    assert occupancy.available_bytes("MemTotal: 10 kB\n") is None


def test_what_is_charged_is_read_where_the_controller_is(tmp_path: Path) -> None:
    """In v1, in v2; nowhere without a controller or without the run's group."""
    group = tmp_path / "benchbox-1"
    group.mkdir()
    (group / "memory.usage_in_bytes").write_text("4096\n")
    (group / "memory.current").write_text("8192\n")
    hybrid = Layout("hybrid", {"memory": tmp_path}, tmp_path)
    assert occupancy.charged_bytes(hybrid, "benchbox-1") == 4096
    assert occupancy.charged_bytes(Layout("v2", {}, tmp_path, ("memory",)), "benchbox-1") == 8192
    assert occupancy.charged_bytes(Layout("v2", {}, tmp_path), "benchbox-1") is None
    assert occupancy.charged_bytes(hybrid, "benchbox-2") is None


def test_a_look_at_a_host_without_any_of_it_says_nothing(tmp_path: Path) -> None:
    """And raises nothing."""
    assert occupancy.look(Layout("none"), "benchbox-1", tmp_path) == Occupied()
