"""How long a run takes, where nothing was measured yet."""

from pathlib import Path

import pytest

from benchbox.forecast import as_text, forecast, rough_s
from benchbox.scenario import Cell, cells, loads


def rough(workloads: str, extra: str = "") -> list[float]:
    text = f"name: x\nenvironments: [{{kind: native, link: bridge}}]\nimage: debian\nworkloads: [{workloads}]\n{extra}"
    return [rough_s(cell, "native") for cell in cells(loads(text, "x.yaml"))]


def test_a_workload_that_says_how_long_it_lasts_lasts_so_long() -> None:
    """Beside its start; in whole or in parts of a second, by default as well."""
    (start,) = rough("startup")
    assert start < 0.1
    found = rough(
        "{name: network-latency, seconds: 7}, {name: memory, operation: touch, seconds: 1.5}, {name: cpu, tool: aes}"
    )
    assert found == pytest.approx([7 + start, 1.5 + start, 1 + start])


def test_what_stays_for_a_while_is_waited_for_once() -> None:
    """However many there are: they start one after the other, and are left alone together."""
    one, eight = rough("idle", "parallel: [1, 8]")
    assert 1 < one < 1.1
    assert eight - one == pytest.approx(7 * rough("startup")[0])


def test_a_foreign_workload_without_a_duration_is_its_start() -> None:
    """Its parameters mean what it likes."""
    assert rough_s(Cell("native/x", "native", "x", {"seconds": "many"}), "native") == rough("startup")[0]


def said(workloads: str, folder: Path) -> str:
    text = f"name: x\nenvironments: [{{kind: container, link: bridge}}]\nimage: debian\nworkloads: [{workloads}]\n"
    return as_text(forecast(loads(text, "x.yaml"), folder))


def test_a_forecast_says_where_clients_run(tmp_path: Path) -> None:
    """Programs of the image run outside of the environment as well: in a container, for workloads that have one."""
    line = "from the image, in a container of its own beside any environment: network-latency, redis-requests"
    assert line in said("redis-requests, network-latency, startup", tmp_path)
    assert "client" not in said("startup", tmp_path)
