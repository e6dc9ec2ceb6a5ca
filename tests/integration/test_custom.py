"""A workload that is a scenario alone: a command and patterns; table, page and failures, without Python."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchbox.environments import environment
from benchbox.model import Availability, EnvironmentSpec
from tests.integration import runs

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def container(need: Callable[[str, Availability], None]) -> None:
    need("container", environment("container").check(EnvironmentSpec("container", "container")))


def command(script: str, *metrics: dict[str, str]) -> dict[str, Any]:
    return {"name": "command", "argv": ["/bin/busybox", "sh", "-c", script], "metrics": list(metrics)}


def test_a_command_with_patterns_gives_a_table_and_a_page(tmp_path: Path) -> None:
    """In its base unit, compared with the baseline; several matches are kept as iterations."""
    speed = {
        "name": "speed",
        "pattern": r"^speed (\d+) MiB/s$",
        "unit": "MiB/s",
        "direction": "higher",
        "check": "^done$",
    }
    passes = {"name": "pass", "pattern": r"^pass (\d+) us$", "unit": "us"}
    workload = command(
        "for n in 900 100 100 101 99 100 100 102 100 100; do echo pass $n us; done; echo speed 3 MiB/s; echo done",
        speed,
        passes,
    )
    path = runs.scenario(tmp_path, workloads=[workload, "floor"], rounds=6)
    status, out, err = runs.benchbox(tmp_path, "run", path)
    assert status == 0, err
    assert "command.speed" in out and "3 MiB/s" in out and "floor.elapsed" in out
    _, samples = runs.read(tmp_path)
    mine = [sample for sample in samples if sample.workload == "command"]
    assert len(mine) == 14
    for sample in mine:
        assert (sample.status, sample.metrics["command.speed"].value) == ("ok", 3 * 2**20)
        assert sample.metrics["command.pass"].value == pytest.approx(100e-6)
        assert (sample.iterations["command.pass"].warm_up, len(sample.iterations["command.pass"].values)) == (1, 10)
        assert sample.metrics["command.elapsed"].value > 0
    _, shown, _ = runs.benchbox(tmp_path, "show", "latest", "--json")
    tables = json.loads(shown)["tables"]
    assert [table["metric"] for table in tables] == ["command.speed", "floor.elapsed"]
    assert tables[0]["rows"][1]["ratio"]["estimate"] == 1.0
    (page,) = (tmp_path / "reports").glob("*.html")
    assert "command.speed" in page.read_text()


def test_nonsense_fails_its_own_cell_only(tmp_path: Path) -> None:
    """With the metric's name and what was printed; a command that fails, too; the others go on."""
    rate = {"name": "rate", "pattern": "rate=([0-9.]+)", "unit": "1/s", "direction": "higher"}
    workloads = [
        command("echo rate=12", rate),
        command("echo nothing of that kind", rate),
        command("echo rate=7; exit 3", rate),
        command("head -c 40000 /dev/zero | tr '\\0' a", {"name": "rate", "pattern": "(a+a+)+b", "unit": "1/s"}),
        {"name": "command", "argv": ["/usr/bin/no-such-tool"], "metrics": [rate]},
    ]
    path = runs.scenario(tmp_path, environments=["native"], workloads=workloads, rounds=1)
    status, _, err = runs.benchbox(tmp_path, "run", path)
    assert status == 2, err
    _, samples = runs.read(tmp_path)
    good, foreign, ended, endless, absent = (
        next(sample for sample in samples if sample.round and sample.params["argv"] == argv)
        for argv in dict.fromkeys(cell.params["argv"] for cell in runs.read(tmp_path)[0].cells)
    )
    assert (good.status, good.metrics["command.rate"].value) == ("ok", 12.0)
    assert foreign.status == "invalid" and foreign.reason
    assert "metric rate: its pattern 'rate=([0-9.]+)' matches nothing" in foreign.reason
    assert "nothing of that kind" in foreign.reason
    assert (ended.status, ended.exit_code) == ("failed", 3) and "rate=7" in ended.output_tail
    assert endless.status == "invalid" and "took longer than 1 s" in str(endless.reason)
    assert absent.status == "failed" and "no-such-tool" in str(absent.reason)
