"""What a run leaves on disk: ``manifest.json`` and ``samples.jsonl`` in one folder.

Raw first: each sample is one line, appended and flushed the moment it exists. Everything else (tables, intervals,
pages) is a pure function of these two files. docs/results.md describes every key.
"""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from benchbox.model import Status

#: 1: first format.
FORMAT_VERSION: Final = 1


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MetricValue(_Stored):
    """A metric of one sample in its base unit."""

    value: float
    unit: str
    direction: Literal["lower", "higher"] = "lower"


class CounterValue(_Stored):
    """A number of the account; ``value`` None means that this host cannot attribute it, ``source`` says why."""

    value: float | None
    unit: str
    source: str


class Sample(_Stored):
    """One cell in one round.

    ``round`` counts from 1; the discarded priming round is 0. ``position`` counts from 0 in the round, ``predecessor``
    is the cell measured just before (None for the first). ``stages`` are ns after ``requested_ns`` (host
    CLOCK_MONOTONIC), in the order of ``model.STAGES``; ``guest`` are ns that a guest's own clock measured.
    """

    format: int = FORMAT_VERSION
    cell: str
    environment: str
    workload: str
    params: dict[str, str | int | float] = Field(default_factory=dict)
    round: int
    position: int
    predecessor: str | None
    started_at: str
    status: Status
    reason: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    flags: dict[str, str] = Field(default_factory=dict)
    requested_ns: int
    stages: dict[str, int] = Field(default_factory=dict)
    spawn_ns: int | None = None
    guest: dict[str, int] = Field(default_factory=dict)
    metrics: dict[str, MetricValue] = Field(default_factory=dict)
    counters: dict[str, CounterValue] = Field(default_factory=dict)
    applied: dict[str, Any] = Field(default_factory=dict)
    noise: dict[str, float] = Field(default_factory=dict)
    output_tail: str = ""
    console_tail: str = ""


class CellRecord(_Stored):
    """One planned cell: ``id`` is ``environment/workload`` plus ``[k=v;k=v]`` where it has parameters."""

    id: str
    environment: str
    workload: str
    params: dict[str, str | int | float] = Field(default_factory=dict)


class EnvironmentRecord(_Stored):
    """What became of one environment of the scenario.

    ``state`` is ``measured``, ``skipped`` (this host does not offer it) or ``failed`` (it should have worked, or was
    asked for by name); ``reason`` and ``fix`` say why and what to do. ``applied`` was read back from the host.
    """

    label: str
    kind: str
    options: dict[str, Any] = Field(default_factory=dict)
    state: Literal["measured", "skipped", "failed"]
    reason: str | None = None
    fix: str | None = None
    applied: dict[str, Any] = Field(default_factory=dict)
    account: dict[str, CounterValue] = Field(default_factory=dict)


class ImageRecord(_Stored):
    """The root file system that all environments used."""

    name: str
    digest: str
    executables: dict[str, str] = Field(default_factory=dict)


class AbandonedCell(_Stored):
    """A cell that failed three times in the same way and was not tried again."""

    cell: str
    reason: str
    after_round: int


class Manifest(_Stored):
    """Everything about a run but its samples.

    ``exit_state`` is ``running`` until the end; a manifest that still says so belongs to a run that was ended hard.
    ``scenario`` is the scenario as resolved (defaults filled in), ``host`` the fingerprint, ``boot_id`` the boot it
    was measured in, ``order`` the planned order of cells per round (index 0 is the priming round).
    """

    format: int = FORMAT_VERSION
    run_id: str
    created_at: str
    ended_at: str | None = None
    exit_state: Literal["running", "done", "interrupted", "failed"] = "running"
    exit_reason: str | None = None
    scenario: dict[str, Any]
    scenario_file: str | None = None
    seed: int
    rounds: int
    baseline: str
    cells: list[CellRecord]
    order: list[list[str]]
    image: ImageRecord | None = None
    host: dict[str, Any]
    host_digest: str
    boot_id: str
    tools: dict[str, str] = Field(default_factory=dict)
    environments: list[EnvironmentRecord] = Field(default_factory=list)
    abandoned: list[AbandonedCell] = Field(default_factory=list)
    settle_ms: float = 0.0
    resumed: int = 0
