"""How long the pure parts take: those between two samples, those before a run, those after it.

Run with ``pytest benchmarks/test_pure_speed.py``. Each limit is a share of a promise that the whole must keep: 15 ms
between two samples, a plan at once, a page of 100,000 samples in 15 s. They are wide enough for a busy host; what the
functions really take is in the table that pytest-benchmark prints.
"""

import itertools
import random
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchbox import plan, record
from benchbox.analysis.statistics import paired_ratio
from benchbox.environments import container
from benchbox.environments.launched import Requested, instance_limits, outcome
from benchbox.environments.prepared import Prepared
from benchbox.linux import cgroups, launch
from benchbox.linux.launch import LaunchPlan, Report
from benchbox.model import Command, Resources
from benchbox.progress import Tally
from benchmarks.real_runs import write_run
from tests.report.records import manifest

HIERARCHIES = {name: Path("/sys/fs/cgroup", name) for name in cgroups.CONTROLLERS}
LAYOUT = cgroups.Layout("hybrid", HIERARCHIES, Path("/sys/fs/cgroup/unified"))
SEEDS = itertools.count(1)


def median_s(benchmark: BenchmarkFixture) -> float:
    assert benchmark.stats is not None
    return float(benchmark.stats.stats.median)


@pytest.fixture
def container_plan() -> LaunchPlan:
    """The plan of a container on a hybrid host, as long as a plan gets."""
    groups = cgroups.plan(LAYOUT, "benchbox-0", "container-s1", instance_limits(Resources()), (1,))
    options = container.Options.model_validate({})
    prepared = Prepared(Path("/image"), Path("/layers"), Path("/launch"), Path("/devices"), seccomp_fd=9)
    return container.container_plan(Command(("/bin/ready",)), prepared, "s1", groups, (1,), options)


@pytest.fixture
def report(container_plan: LaunchPlan) -> bytes:
    """What ``launch`` writes at the end of ``container_plan``; each file says 1 in its own form."""
    forms = {"cpu.stat": "usage_usec 1\nuser_usec 1\nsystem_usec 1\n", "cpuset.cpus": "1\n"}
    limits = {"memory.limit_in_bytes": f"{Resources().memory_bytes}\n", "pids.max": f"{Resources().pids}\n"}
    limits |= {"cpu.cfs_quota_us": "-1\n"}
    pressure = "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n"
    text = "requested 1000\n"
    text += "".join(f"stage {name} {1000 + 1000 * at}\n" for at, name in enumerate(("started", "ready", "exited")))
    for group in container_plan.cgroups.groups:
        for file in group.reads:
            content = pressure if file.endswith("pressure") else (forms | limits).get(file, "1\n")
            text += f"read {len(content)} {group.path / file}\n{content}\n"
    text += "applied cpus 1\napplied capabilities 5fb\napplied no_new_privs 1\napplied seccomp 0\nend exit 0\n"
    return text.encode()


def test_planning_a_start_takes_at_most_half_a_millisecond(
    benchmark: BenchmarkFixture, container_plan: LaunchPlan
) -> None:
    """From the plan to the launcher's arguments, once a sample."""
    words = benchmark(launch.arguments, container_plan, Path("/launch"), 5)
    assert words[-1] == "/bin/ready"
    assert median_s(benchmark) <= 0.0005


def test_reading_a_report_takes_at_most_half_a_millisecond(benchmark: BenchmarkFixture, report: bytes) -> None:
    """Once a sample."""
    found: Report = benchmark(launch.parse_report, report)
    assert found.end == "exit"
    assert median_s(benchmark) <= 0.0005


def test_judging_a_report_takes_at_most_a_millisecond(
    benchmark: BenchmarkFixture, container_plan: LaunchPlan, report: bytes
) -> None:
    """Counters, limits in force, status: once a sample."""
    parsed, requested = launch.parse_report(report), Requested.of(instance_limits(Resources()), (1,))
    assert benchmark(outcome, parsed, container_plan, requested, 1, b"").status == "ok"
    assert median_s(benchmark) <= 0.001


@pytest.mark.parametrize("cells", [3, 12])
def test_an_order_of_10_000_rounds_takes_at_most_2_s(benchmark: BenchmarkFixture, cells: int) -> None:
    """Few cells are ordered by looking at all permutations, many by building some."""
    order = benchmark.pedantic(plan.order, args=([f"cell {n}" for n in range(cells)], 10_000, 1), rounds=3)  # type: ignore[no-untyped-call]
    assert len(order) == 10_001
    assert median_s(benchmark) <= 2.0


@pytest.mark.parametrize("rounds", [20, 10_000])
def test_an_interval_of_10_000_resamples_takes_at_most_half_a_second(benchmark: BenchmarkFixture, rounds: int) -> None:
    """Each time with draws of its own; cells of one run share them and are faster."""
    chance = random.Random(1)
    values = {number: chance.lognormvariate(0, 0.1) for number in range(rounds)}
    baseline = {number: chance.lognormvariate(0, 0.1) for number in range(rounds)}
    ratio = benchmark(lambda: paired_ratio(values, baseline, next(SEEDS), resamples=10_000))
    assert ratio is not None and ratio.low is not None
    assert median_s(benchmark) <= 0.5


def test_reading_100_000_samples_takes_at_most_8_s(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Every line is validated; the rest of what a page may take is for the page."""
    run = write_run(tmp_path / "run", 33_333)
    found, notes = benchmark.pedantic(record.read_samples, args=(run,), rounds=3)  # type: ignore[no-untyped-call]
    assert len(found) >= 100_002 and notes == []
    assert median_s(benchmark) <= 8.0


def test_watching_100_000_samples_takes_at_most_5_s(benchmark: BenchmarkFixture) -> None:
    """Ten cells in 10,000 rounds: after each sample the median of its cell and the time that is left."""
    cells = [f"environment-{number}/startup" for number in range(10)]

    def watch() -> Tally:
        tally, chance = Tally([cells] * 10_001, 1), random.Random(1)
        for number in range(10_001):
            for cell in cells:
                headline = {"value": chance.random(), "unit": "s"}
                tally.note({"cell": cell, "round": number, "status": "ok", "elapsed_s": 0.1, "headline": headline})
                tally.median_text(cell)
                tally.left_text()
        return tally

    assert not any(benchmark.pedantic(watch, rounds=3).left.values())  # type: ignore[no-untyped-call]
    assert median_s(benchmark) <= 5.0


def test_2_000_runs_are_listed_in_at_most_3_s(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Each by its manifest, which has the order of all rounds."""
    for number in range(2_000):
        found = manifest(
            run_id=f"startup-202605{1 + number // 1440:02d}T{number // 60 % 24:02d}{number % 60:02d}00Z-ab12"
        )
        folder = record.RunFolder(tmp_path / found.run_id, found.run_id)
        folder.path.mkdir()
        folder.manifest.write_text(found.model_dump_json(indent=1))

    def listed() -> list[str]:
        return [record.read_manifest(path).run_id for path in record.list_runs(tmp_path)]

    assert len(benchmark.pedantic(listed, rounds=3)) == 2_000  # type: ignore[no-untyped-call]
    assert median_s(benchmark) <= 3.0
