"""The measuring process: prepares image and environments, runs the engine, writes the record.

Started by the supervisor as ``python -m benchbox.worker FD``: the job comes as one JSON line on standard input
(followed by ``stop`` when the user wants an end), events go as JSON lines to descriptor FD. It stays small: nothing
that only a report needs is imported here.
"""

import contextlib
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchbox import caches, foreign, host, images, record
from benchbox.caches import Cache, Seen
from benchbox.engine import Engine, PlannedCell, stored_counters
from benchbox.environments import clients, environment
from benchbox.errors import BenchboxError, EnvironmentFailure, RecordError, UnavailableError
from benchbox.linux import cgroups, mounts, occupancy, processes
from benchbox.linux.ledger import Ledger
from benchbox.linux.links import Links
from benchbox.model import Command, EnvironmentSpec, Image, Session, Workspace
from benchbox.noise import NoiseMeter, between
from benchbox.record import EnvironmentRecord, ImageRecord, Manifest, RunFolder, Sample
from benchbox.scenario import (
    PARALLEL,
    SMALLER,
    Cell,
    Scenario,
    cells,
    from_resolved,
    left_out,
    resolved,
    spec_of,
    too_large,
)
from benchbox.together import Sight
from benchbox.workloads import SERVING, bound

Job = Mapping[str, Any]
Emit = Callable[[Mapping[str, Any]], None]

STOPPED: Final = "stopped by the user; what was measured is kept"


@dataclass
class Prepared:
    """What the preparation of all environments brought: sessions and what they read by label, and a record of each."""

    sessions: dict[str, Session] = field(default_factory=dict)
    caches: dict[str, Cache] = field(default_factory=dict)
    records: list[EnvironmentRecord] = field(default_factory=list)


def split_cpus(allowed: Sequence[int], wanted: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the CPUs for environments and those for benchbox itself. Pure.

    Environments get the last ``wanted`` of them: the first CPU is where a kernel does most of its own work. Where
    nothing is left for benchbox, it shares.
    """
    ordered = tuple(sorted(allowed))
    chosen = ordered[-wanted:] if wanted < len(ordered) else ordered
    return chosen, tuple(cpu for cpu in ordered if cpu not in chosen) or ordered


class HostConditions:
    """Settles and watches the real host."""

    def __init__(self, settle_ms: float, caches: Mapping[str, Cache], cgroup_name: str) -> None:
        self._settle_s, self._caches = settle_ms / 1000, caches
        self._layout, self._cgroup_name = cgroups.detect(), cgroup_name
        self._meter = NoiseMeter()

    def settle(self) -> None:
        time.sleep(self._settle_s)

    def cache(self, environment: str) -> Callable[[], Seen]:
        return self._caches[environment].watch()

    def noise(self) -> Callable[[], dict[str, float]]:
        before = self._meter.snapshot()
        return lambda: between(before, self._meter.snapshot())

    def occupancy(self) -> Callable[[], Sight]:
        before = occupancy.look(self._layout, self._cgroup_name)

        def sight() -> Sight:
            during = occupancy.look(self._layout, self._cgroup_name)
            return Sight(occupancy.metrics(before, during), {"memory_sharing": occupancy.sharing(before, during)})

        return sight


def main(argv: Sequence[str]) -> int:
    """Run the job on standard input; the exit status says only whether the worker itself went well."""
    foreign.guard_tracebacks()
    descriptor = int(argv[1])
    os.set_inheritable(descriptor, False)

    def emit(event: Mapping[str, Any]) -> None:
        os.write(descriptor, json.dumps(event).encode() + b"\n")

    job = json.loads(sys.stdin.readline())
    processes.die_with_parent(job["supervisor_pid"])
    measurement = Measurement(job, emit)
    try:
        emit({"event": "end", **measurement.run()})
    except BenchboxError as error:
        # Where there is no space left the record cannot be closed either: what ended the run is told all the same.
        with contextlib.suppress(RecordError):
            measurement.close_record("failed", error.message)
        emit({"event": "end", "state": "failed", "reason": error.message, "hint": error.hint})
    return 0


class Measurement:
    """One run, from its job to its closed record."""

    def __init__(self, job: Job, emit: Emit) -> None:
        self._job, self._emit = job, emit
        self._scenario = from_resolved(job["scenario"])
        self._folder: RunFolder | None = None
        self._engine: Engine | None = None
        threading.Thread(target=self._listen, name="stop", daemon=True).start()

    def run(self) -> dict[str, Any]:
        """Measure and return how it ended: ``state``, ``reason``, ``hint``."""
        workspace = self._workspace()
        self._emit({"event": "prepare", "what": f"image {self._scenario.image!s}"})
        image = images.open_image(self._scenario.image, lambda what: self._emit({"event": "prepare", "what": what}))
        folder = self._folder = self._open_record(image)
        with ExitStack() as stack, record.SampleWriter(folder) as writer:
            workspace = replace(workspace, links=stack.enter_context(Links()))
            prepared = self._prepare(stack, image, workspace)
            self._update(folder, environments=prepared.records)
            available_bytes = host.available_memory_bytes()
            planned = [planned_cell(cell, self._scenario, available_bytes) for cell in cells(self._scenario)]
            order = [tuple(names) for names in self._job["order"]]
            self._emit(
                {"event": "start", "measured": sorted(prepared.sessions), "first_round": self._job["first_round"]}
            )
            conditions = HostConditions(self._scenario.settle_ms, prepared.caches, workspace.cgroup_name)
            abandoned = record.read_manifest(folder).abandoned
            self._engine = Engine(
                planned, order, prepared.sessions, conditions, writer, self._noting(folder), abandoned,
                stack.enter_context(clients.opened(image, workspace)) if any(c.client for c in planned) else None,
                image.executables,
            )  # fmt: skip
            _quiet_collector()
            end = self._engine.run(self._job["first_round"])
        return self._close(folder, end, prepared, self._engine)

    def _listen(self) -> None:
        """Wait for the word to stop; the end of standard input is the end of the supervisor, which ends us anyway."""
        if sys.stdin.readline().strip() != "stop":
            return
        if self._engine:
            self._engine.stop()
        else:
            # Preparing has waits that nothing interrupts (a guest that proves KVM); what it made is in the ledger.
            self.close_record("interrupted", STOPPED)
            self._emit({"event": "end", "state": "interrupted", "reason": STOPPED})
            os._exit(0)

    def close_record(self, state: str, reason: str | None) -> None:
        """Write into the record how the run ended, if there is a record yet."""
        if self._folder:
            self._update(self._folder, ended_at=_now(), exit_state=state, exit_reason=reason)

    def _noting(self, folder: RunFolder) -> Emit:
        """Return an ``emit`` that writes an abandoned cell into the manifest at once: --resume must know of it."""

        def emit(event: Mapping[str, Any]) -> None:
            if event["event"] == "abandoned" and self._engine:
                self._update(folder, abandoned=list(self._engine.abandoned))
            self._emit(event)

        return emit

    def _workspace(self) -> Workspace:
        chosen, harness = split_cpus(sorted(os.sched_getaffinity(0)), self._scenario.resources.cpus)
        os.sched_setaffinity(0, harness)
        if os.geteuid() == 0:
            with contextlib.suppress(BenchboxError):  # each environment that needs it says so itself
                mounts.enter_private()
        return Workspace(
            run_id=self._job["run_id"],
            scratch=Path(self._job["scratch"]),
            runtime=Path(self._job["runtime"]),
            cgroup_name=self._job["cgroup_name"],
            cpus=chosen,
            harness_cpus=harness,
            ledger=Ledger(Path(self._job["ledger"])),
        )

    def _open_record(self, image: Image) -> RunFolder:
        if self._job["resumed"]:
            folder = RunFolder(Path(self._job["results"], self._job["run_id"]), self._job["run_id"])
            # Not sooner: the run that is gone on with might still have lived before the host was ours.
            record.drop_after_round(folder, self._job["first_round"] - 1)
            resumed = record.read_manifest(folder).resumed + 1
            self._update(folder, exit_state="running", exit_reason=None, ended_at=None, resumed=resumed)
            return folder
        return record.create(Path(self._job["results"]), self._manifest(image))

    def _manifest(self, image: Image) -> Manifest:
        fingerprint = host.fingerprint()
        scenario = self._scenario
        return Manifest(
            run_id=self._job["run_id"],
            created_at=_now(),
            scenario=resolved(scenario),
            scenario_file=self._job.get("scenario_file"),
            seed=scenario.seed,
            rounds=scenario.rounds,
            baseline=scenario.baseline,
            cells=[record.CellRecord(**asdict(cell)) for cell in cells(scenario)],
            order=[list(names) for names in self._job["order"]],
            image=ImageRecord(name=image.name, digest=image.digest, executables=dict(image.executables)),
            host=fingerprint,
            host_digest=host.digest(fingerprint),
            boot_id=host.boot_id(),
            tools=host.tools(),
            settle_ms=scenario.settle_ms,
        )

    def _update(self, folder: RunFolder, **changes: Any) -> None:
        record.write_manifest(folder, record.read_manifest(folder).model_copy(update=changes))

    def _prepare(self, stack: ExitStack, image: Image, workspace: Workspace) -> Prepared:
        prepared = Prepared()
        for spec in self._scenario.environments:
            first = " (the first time: fetches a guest kernel, tries KVM; up to a minute)" if spec.kind == "vm" else ""
            self._emit({"event": "prepare", "what": f"environment {spec.label}{first}"})
            found = self._open(stack, spec, image, workspace, prepared)
            prepared.records.append(found)
            self._emit(
                {
                    "event": "environment",
                    **found.model_dump(include={"label", "kind", "state", "reason", "fix", "applied"}),
                }
            )
        return prepared

    def _open(
        self, stack: ExitStack, spec: EnvironmentSpec, image: Image, workspace: Workspace, prepared: Prepared
    ) -> EnvironmentRecord:
        kind = environment(spec.kind)
        basis = {"label": spec.label, "kind": spec.kind, "options": dict(spec.options)}
        required = [word for word in self._job.get("require", ()) if word.partition(":")[0] in (spec.kind, spec.label)]
        offer = kind.check(spec)
        if not offer.available:
            state = "failed" if required else "skipped"
            return EnvironmentRecord.model_validate({**basis, "state": state, "reason": offer.reason, "fix": offer.fix})
        try:
            if problem := too_large(self._scenario, spec.kind, host.available_memory_bytes()):
                raise EnvironmentFailure(problem, hint=SMALLER)
            session = stack.enter_context(kind.open(spec, image, self._scenario.resources, workspace))
            cache = caches.open_cache(self._scenario.cache, session.reads())
        except UnavailableError as error:
            state = "failed" if required else "skipped"
            return EnvironmentRecord.model_validate(
                {**basis, "state": state, "reason": error.message, "fix": error.hint}
            )
        except BenchboxError as error:
            return EnvironmentRecord.model_validate(
                {**basis, "state": "failed", "reason": error.message, "fix": error.hint}
            )
        applied = {**session.applied(), **cache.applied()}
        if missing := unmet(required, applied):
            return EnvironmentRecord.model_validate({**basis, "state": "failed", "reason": missing, "applied": applied})
        prepared.sessions[spec.label], prepared.caches[spec.label] = session, cache
        account = stored_counters(session.account())
        return EnvironmentRecord.model_validate({**basis, "state": "measured", "applied": applied, "account": account})

    def _close(self, folder: RunFolder, end: str, prepared: Prepared, engine: Engine) -> dict[str, Any]:
        failed = failed_cells(record.read_samples(folder)[0], [item.cell for item in engine.abandoned])
        state, reason = ending(end, prepared.records, failed)
        self._update(folder, abandoned=list(engine.abandoned))
        self.close_record("failed" if state == "nothing" else state, reason)
        return {"state": state, "reason": reason, "hint": None}


def failed_cells(samples: Sequence[Sample], abandoned: Sequence[str]) -> tuple[str, ...]:
    """Return each cell that was abandoned or has not one valid sample, with why. Pure."""
    valid = {sample.cell for sample in samples if sample.round and sample.status == "ok"}
    tried = [sample for sample in samples if sample.round and sample.status != "skipped"]
    last = {sample.cell: sample.reason for sample in tried if sample.cell not in valid}
    given_up = [f"cell {cell} was abandoned" for cell in abandoned]
    return (*given_up, *(f"cell {cell}: {reason}" for cell, reason in last.items() if cell not in abandoned))


def ending(end: str, environments: Sequence[EnvironmentRecord], failures: Sequence[str]) -> tuple[str, str | None]:
    """Return how a run ended and why. Pure.

    ``failed`` where an environment or a cell failed, ``nothing`` where this host offered no environment at all.
    """
    if end == "interrupted":
        return "interrupted", STOPPED
    failed = [f"environment {item.label}: {item.reason}" for item in environments if item.state == "failed"]
    failed += failures
    if failed:
        return "failed", "; ".join(failed)
    if not any(item.state == "measured" for item in environments):
        return "nothing", "this host offers none of the environments"
    return "done", None


def unmet(required: Sequence[str], applied: Mapping[str, Any]) -> str | None:
    """Say what of ``required`` (``vm:kvm``) an environment that did open does not fulfil. Pure."""
    for word in required:
        accelerator = word.partition(":")[2]
        if accelerator and applied.get("accelerator") != accelerator:
            return f"{accelerator} is required, this host gave {applied.get('accelerator', 'none')}"
    return None


def planned_cell(cell: Cell, scenario: Scenario, available_bytes: int | None = None) -> PlannedCell:
    """Return ``cell`` as the engine needs it, on a host that has ``available_bytes`` of memory left."""
    command, parse = bound(cell.workload, spec_of(cell, scenario).params)
    command = replace(command, timeout_s=scenario.timeout_s)
    at_once = cell.params.get(PARALLEL, 1 if command.stays else None)
    return PlannedCell(
        cell.id, cell.environment, cell.workload, cell.params, command, parse,
        None if at_once is None else int(at_once), left_out(scenario, int(at_once or 1), available_bytes),
        _client(cell.workload, spec_of(cell, scenario).params),
    )  # fmt: skip


def _client(name: str, params: Mapping[str, str | int | float]) -> Callable[[str], Command] | None:
    serving = SERVING.get(name)
    return (lambda address: serving.client(params, address)) if serving else None


def _quiet_collector() -> None:
    """Keep the garbage collector from running between a request and its answer."""
    gc.collect()
    gc.freeze()
    gc.disable()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
