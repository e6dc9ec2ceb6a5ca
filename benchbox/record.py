"""What a run leaves on disk: ``manifest.json`` and ``samples.jsonl`` in one folder.

Raw first: each sample is one line, appended and flushed the moment it exists. Everything else (tables, intervals,
pages) is a pure function of these two files. docs/results.md describes every key.
"""

import contextlib
import difflib
import gc
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as stored_dataclass

from benchbox.errors import RecordError
from benchbox.linux import trust
from benchbox.linux.state import make_folder
from benchbox.model import Status

#: 1: first format. 2: ``instances`` of a sample. 3: ``iterations`` of a sample.
FORMAT_VERSION: Final = 3


_STRICT: Final = ConfigDict(extra="forbid", allow_inf_nan=False)


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, **_STRICT)


@stored_dataclass(frozen=True, slots=True, config=_STRICT)
class MetricValue:
    """A metric of one sample in its base unit. A dataclass: a large run has millions of them in memory."""

    value: float
    unit: str
    direction: Literal["lower", "higher"] = "lower"


@stored_dataclass(frozen=True, slots=True, config=_STRICT)
class CounterValue:
    """A number of the account; ``value`` None means that this host cannot attribute it, ``source`` says why."""

    value: float | None
    unit: str
    source: str


@stored_dataclass(frozen=True, slots=True, config=_STRICT)
class Instance:
    """One of several that were started at the same moment.

    ``requested_ns`` is after the sample's request (None for one that never began), ``stages`` are ns after its own.
    """

    status: Status
    reason: str | None
    requested_ns: int | None
    stages: dict[str, int]


@stored_dataclass(frozen=True, slots=True, config=_STRICT)
class Iterations:
    """What a metric was made of, in its unit and in the order of time; the first ``warm_up`` are not in its value.

    ``warm_up`` None means that no steady state was reached: all are in the value.
    """

    values: list[float]
    warm_up: int | None


class Sample(_Stored):
    """One cell in one round.

    ``round`` counts from 1; the discarded priming round is 0. ``position`` counts from 0 in the round, ``predecessor``
    is the cell measured just before (None for the first). ``stages`` are ns after ``requested_ns`` (host
    CLOCK_MONOTONIC), in the order of ``model.STAGES``; ``guest`` are ns that a guest's own clock measured.
    ``instances`` are those that it consists of where several were started at once. ``iterations`` are what a metric
    was made of, by its name.
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
    instances: list[Instance] = Field(default_factory=list)
    iterations: dict[str, Iterations] = Field(default_factory=dict)


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


# --- folders ---------------------------------------------------------------------------------------------------------

MANIFEST_FILE: Final = "manifest.json"
SAMPLES_FILE: Final = "samples.jsonl"

_RUN_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]*-(?P<time>\d{8}T\d{6}Z)-[0-9a-f]{4}")
_UPGRADE: Final = "install the newer benchbox (pip install --upgrade benchbox) to read it"
_SHOWN_CANDIDATES: Final = 5


@dataclass(frozen=True)
class RunFolder:
    """Where one run is recorded."""

    path: Path
    run_id: str

    @property
    def manifest(self) -> Path:
        return self.path / MANIFEST_FILE

    @property
    def samples(self) -> Path:
        return self.path / SAMPLES_FILE


def new_run_id(scenario_name: str, now: datetime, token: str) -> str:
    """Return ``<scenario>-<UTC time>-<token>``; ``now`` is aware of its zone, ``token`` is four hex digits."""
    run_id = f"{scenario_name}-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{token}"
    if not _RUN_ID.fullmatch(run_id):
        raise ValueError(f"{run_id!r} is no run id")
    return run_id


def check_writable(results: Path) -> None:
    """Make ``results`` where it is missing and prove that it can be written.

    Raises RecordError; TrustError where another user could put something in the place of a run's folder.
    """
    probe = results / f".writable-{os.getpid()}"
    refuse_foreign(results)
    try:
        make_folder(results, 0o755)
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise _unwritable(results, error) from error


def refuse_foreign(results: Path) -> None:
    """Raise TrustError where another user could put something in the place of a run that is written there."""
    trust.require(results, "results folder", "choose a folder of yours with --results DIR", shared=True)


def create(results: Path, manifest: Manifest) -> RunFolder:
    """Make the folder of a new run in ``results``, its manifest and an empty list of samples in it.

    Raises RecordError where the folder cannot be written or exists.
    """
    folder = RunFolder(results / manifest.run_id, manifest.run_id)
    check_writable(results)
    try:
        folder.path.mkdir(0o755)
        folder.samples.touch(0o644)
    except OSError as error:
        raise _unwritable(folder.path, error) from error
    write_manifest(folder, manifest)
    return folder


def write_manifest(folder: RunFolder, manifest: Manifest) -> None:
    """Replace the manifest in ``folder`` so that at any instant, power cuts included, a whole one is there."""
    _replace(folder.manifest, [manifest.model_dump_json(indent=1).encode() + b"\n"])


#: What is written anew; how it may be read is said beside it, whatever the umask is.
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


def _replace(path: Path, parts: Iterable[bytes]) -> None:
    temporary = path.with_name(f".{path.name}.new")
    try:
        with os.fdopen(os.open(temporary, _NEW_FILE, 0o644), "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> RecordError:
    return RecordError(f"{path}: cannot be written: {error.strerror}", hint="choose another folder with --results DIR")


class SampleWriter:
    """Appends samples to a run, each with a single write(2): a reader sees all of a line or none.

    A line is in the kernel's hands when ``append`` returns and so survives the end of this process. It survives a
    power cut from the next ``sync`` on, which is called after each round: a sync between two samples would
    disturb the next one. What a torn write left at the end of the file is removed first.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.samples
        try:
            _cut_torn_line(self._path)
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def append(self, sample: Sample) -> None:
        """Write ``sample``. Raises RecordError, for instance when the disk is full."""
        data = sample.model_dump_json().encode() + b"\n"
        try:
            written = os.write(self._descriptor, data)
            if written != len(data):
                os.write(self._descriptor, data[written:])
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def sync(self) -> None:
        """Block until all samples are on the disk. Raises RecordError."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def close(self) -> None:
        """Sync and close; a second call does nothing."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _cut_torn_line(path: Path) -> None:
    size = path.stat().st_size if path.exists() else 0
    with path.open("rb") if size else contextlib.nullcontext(io.BytesIO()) as file:
        whole = size
        while whole and not _ends_line(file, whole):
            whole -= 1
    if whole < size:
        os.truncate(path, whole)


def _ends_line(file: BinaryIO, size: int) -> bool:
    file.seek(size - 1)
    return file.read(1) == b"\n"


# --- reading ---------------------------------------------------------------------------------------------------------


def read_manifest(folder: Path | RunFolder) -> Manifest:
    """Return the manifest in ``folder``. Raises RecordError: none there, not readable, of a newer format."""
    path = _path(folder) / MANIFEST_FILE
    data = _read(path)
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        raise _unreadable(str(path), data, error) from error
    if manifest.format > FORMAT_VERSION:
        raise _newer(str(path), manifest.format)
    return manifest


def read_samples(folder: Path | RunFolder) -> tuple[list[Sample], list[str]]:
    """Return the samples in ``folder`` in the order in which they were measured, and what to tell the user.

    A last line that a hard end tore is left out and said. Raises RecordError, naming the line, for a broken one
    before it, and for a line of a newer format.
    """
    path = _path(folder) / SAMPLES_FILE
    samples: list[Sample] = []
    fields: set[str] = set()
    with _opened(path) as file, collector_paused():
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return samples, [_torn(path, number)]
            try:
                sample = Sample.model_validate_json(line)
            except ValidationError as error:
                if not _is_object(line) and not file.read(1):
                    return samples, [_torn(path, number)]
                raise _unreadable(f"{path}:{number}", line, error) from error
            if sample.format > FORMAT_VERSION:
                raise _newer(f"{path}:{number}", sample.format)
            fields = _with_shared_fields(sample, fields)
            samples.append(sample)
    return samples, []


def _with_shared_fields(sample: Sample, known: set[str]) -> set[str]:
    """Let ``sample`` share the set of the fields that its line has, where it is the ``known`` one; return its set.

    Nearly all lines have the same, and a set of its own is a sixth of what a sample takes in memory.
    """
    own = sample.__pydantic_fields_set__
    if own != known:
        return own
    object.__setattr__(sample, "__pydantic_fields_set__", known)
    return known


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the cycle collector from walking over the millions of objects of a record again and again.

    That is half of the time of reading it, and a tenth of what is made of it.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def open_interrupted(folder: Path) -> tuple[RunFolder, Manifest]:
    """Return the run in ``folder`` that is to be gone on with, and its manifest.

    Its commands will run with the rights of who goes on with it, so it must be that user's own.
    Raises TrustError where another user could have written it, RecordError where it is not what its folder's name says.
    """
    path = folder.resolve()
    for part in (path / MANIFEST_FILE, path / SAMPLES_FILE):
        trust.require(part, "record", "only a run of your own is gone on with; show, report and export take any")
    manifest = read_manifest(path)
    if not _RUN_ID.fullmatch(path.name) or manifest.run_id != path.name:
        raise RecordError(
            f"{path / MANIFEST_FILE}: it is of a run {manifest.run_id!r}, its folder is called {path.name!r}",
            hint="a run is gone on with in its own folder: give the folder its name back",
        )
    return RunFolder(path, manifest.run_id), manifest


def drop_after_round(folder: RunFolder, last_round: int) -> list[Sample]:
    """Remove the samples of all rounds after ``last_round`` and a torn last line; return those that stay.

    The file is replaced as a whole, or not at all. Raises RecordError.
    """
    kept = [sample for sample in read_samples(folder)[0] if sample.round <= last_round]
    _replace(folder.samples, (sample.model_dump_json().encode() + b"\n" for sample in kept))
    return kept


def last_whole_round(manifest: Manifest, samples: Sequence[Sample]) -> int:
    """Return the last round up to which ``samples`` has everything that was to be measured, -1 if there is none.

    Cells of an environment that was not measured and those that were abandoned before a round are not missed in it.
    """
    measured: dict[int, set[str]] = {}
    for sample in samples:
        measured.setdefault(sample.round, set()).add(sample.cell)
    absent = {record.label for record in manifest.environments if record.state != "measured"}
    never = {cell.id for cell in manifest.cells if cell.environment in absent}
    whole = -1
    for number, planned in enumerate(manifest.order):
        abandoned = {each.cell for each in manifest.abandoned if each.after_round < number}
        if not set(planned) - never - abandoned <= measured.get(number, set()):
            break
        whole = number
    return whole


def _path(folder: Path | RunFolder) -> Path:
    return folder.path if isinstance(folder, RunFolder) else folder


def _read(path: Path) -> bytes:
    with _opened(path) as file:
        return file.read()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError as error:
        raise RecordError(f"{path}: no such file", hint="'benchbox list' shows the runs that are there") from error
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}", hint="check its permissions") from error


def _torn(path: Path, number: int) -> str:
    return f"{path}:{number}: the last line is torn (the run was ended while it was written); it is left out"


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _format_of(data: bytes) -> int | None:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    version = found.get("format") if isinstance(found, dict) else None
    return version if isinstance(version, int) else None


def _newer(place: str, version: int) -> RecordError:
    return RecordError(
        f"{place}: written by a newer benchbox: format {version}, this one reads up to {FORMAT_VERSION}", hint=_UPGRADE
    )


def _unreadable(place: str, data: bytes, error: ValidationError) -> RecordError:
    version = _format_of(data)
    if version is not None and version > FORMAT_VERSION:
        return _newer(place, version)
    first = error.errors(include_url=False, include_input=False)[0]
    key = ".".join(map(str, first["loc"]))
    return RecordError(
        f"{place}: {f'{key}: ' if key else ''}{first['msg']}", hint="restore the file from a copy, or measure again"
    )


# --- finding runs ----------------------------------------------------------------------------------------------------


def list_runs(results: Path) -> tuple[Path, ...]:
    """Return the folder of each run in ``results``, the oldest first; none where there is no such folder."""
    try:
        found = [
            path for path in results.iterdir() if _RUN_ID.fullmatch(path.name) and (path / MANIFEST_FILE).is_file()
        ]
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise RecordError(
            f"{results}: cannot be read: {error.strerror}", hint="choose a folder with --results DIR"
        ) from error
    return tuple(sorted(found, key=_age))


def _age(path: Path) -> tuple[str, int, str]:
    match = _RUN_ID.fullmatch(path.name)
    return (match["time"] if match else "", (path / MANIFEST_FILE).stat().st_mtime_ns, path.name)


def find_run(results: Path, name: str) -> Path:
    """Return the folder of the run ``name``: its id, a unique prefix of it, a path, or ``latest``.

    Raises RecordError when there is none, or several with that prefix (it lists them).
    """
    if "/" in name or name in (".", ".."):
        return _run_at(Path(name))
    runs = list_runs(results)
    if name == "latest" and runs:
        return runs[-1]
    matches = [run for run in runs if run.name == name] or [run for run in runs if name and run.name.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        newest = [run.name for run in reversed(matches)]
        more = ", ..." if len(newest) > _SHOWN_CANDIDATES else ""
        shown = ", ".join(newest[:_SHOWN_CANDIDATES])
        raise RecordError(
            f"'{name}' means {len(matches)} runs: {shown}{more}", hint="give more of the name, or 'latest'"
        )
    if (Path(name) / MANIFEST_FILE).is_file():
        return Path(name)
    what = f"no run '{name}'" if runs else "no run"
    near = difflib.get_close_matches(name, ["latest", *(run.name for run in runs)], n=1, cutoff=0.6) if runs else []
    meant = f"did you mean '{near[0]}'? " if near else ""
    raise RecordError(
        f"{what} in {results}", hint=f"{meant}'benchbox list' shows the runs that are there; see also --results DIR"
    )


def _run_at(path: Path) -> Path:
    if not (path / MANIFEST_FILE).is_file():
        raise RecordError(f"{path}: no run there (it has no {MANIFEST_FILE})", hint="'benchbox list' shows the runs")
    return path


def format_pairs(pairs: Mapping[str, object]) -> str:
    """Return ``pairs`` as ``k=v;k=v``. In a value ``%``, ``;`` and line ends are written ``%25``, ``%3B``, ``%0A``."""
    return ";".join(f"{key}={_escaped(str(value))}" for key, value in pairs.items())


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace(";", "%3B").replace("\n", "%0A").replace("\r", "%0D")
