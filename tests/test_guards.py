"""What may share a table and what may not: mistakes of mixing that no number shows."""

import pytest

from benchbox.analysis.summary import summarise
from benchbox.errors import ScenarioError
from benchbox.record import CellRecord, MetricValue
from benchbox.scenario import cells, loads
from tests.report.records import environment, manifest, sample

WHOLE = "name: x\nenvironments: [native, container]\n"


@pytest.mark.parametrize("key", ["cache: cold", "cache: warm", "parallel: 2"])
def test_how_a_start_begins_is_the_same_for_all_of_a_run(key: str) -> None:
    """Sabotage: a warm native beside a cold container. It cannot be written down."""
    with pytest.raises(ScenarioError):
        loads(f"name: x\nenvironments: [native, {{kind: container, {key}}}]\nworkloads: [startup]\n", "x.yaml")
    with pytest.raises(ScenarioError):
        loads(f"{WHOLE}workloads: [{{name: startup, {key}}}]\n", "x.yaml")


def test_a_layer_and_a_folder_share_no_table() -> None:
    """Sabotage: a container's writes into its layer beside native's into a folder. Each place is a cell of its own, and
    what only one environment measured there has no ratio."""
    text = WHOLE + "workloads: [{name: metadata, where: data}, {name: metadata, where: layer}]\n"
    planned = [cell for cell in cells(loads(text, "x.yaml"))]
    assert len({cell.id for cell in planned}) == 4
    kept = [cell for cell in planned if (cell.environment == "native") is (cell.params["where"] == "data")]
    records = [
        CellRecord(id=cell.id, environment=cell.environment, workload="metadata", params=dict(cell.params))
        for cell in kept
    ]
    metrics = {"metadata.create": MetricValue(value=1.0, unit="s")}
    taken = [
        sample(cell.environment, number, workload="metadata", params=cell.params, metrics=metrics)
        for number in range(1, 9)
        for cell in kept
    ]
    labels = ("native", "container")
    summary = summarise(manifest(labels, 8, records=[environment(each) for each in labels], cells=records), taken)
    assert len(summary.tables) == 2
    assert [row.ratio for table in summary.tables for row in table.rows] == [None, None]
