"""Scenarios: what to measure, read from YAML that someone else may have written.

``load`` says everything that is wrong with a file at once; what it returns needs no further checks, except for what
only the host can tell (is there an overlay, does KVM work).
"""

import dataclasses
import json
import operator
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, reduce
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic import create_model as new_model

from benchbox import environments, images, plan, workloads
from benchbox.complaints import near, not_one_of, problems, report, shown
from benchbox.document import EMPTY, MAX_BYTES, Document, KeyPath, Problem, decode, parse
from benchbox.environments.sizes import Size
from benchbox.errors import RecordError, ScenarioError, UsageError
from benchbox.images import OwnImage
from benchbox.model import EnvironmentSpec, Resources
from benchbox.record import format_pairs
from benchbox.units import format_size
from benchbox.workloads.patterns import PatternMetric

Parameter = str | int | float | bool
CacheState = Literal["warm", "cold"]

MAX_ROUNDS: Final = 10_000
MAX_PARALLEL: Final = 64
#: The parameter of a cell that says how many instances are started at once.
PARALLEL: Final = "parallel"
#: What helps where guests at once do not fit into memory.
SMALLER: Final = "lower parallel or resources.memory"
_CONTROL_SUFFIX: Final = "-control"
_SLUG: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
#: What a guest's ``kernel`` may be besides a path, see images.find_kernel.
KERNEL_CHOICES: Final = ("host", "distribution")
_KERNEL_OPTIONS: Final = {
    "kernel": f"expected {', '.join(KERNEL_CHOICES)} or the path of a kernel that is there",
    "kernel_modules": "expected a folder of kernel modules that is there",
}
_SCHEMA_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True)
class WorkloadSpec:
    """One entry of a scenario's ``workloads``: its name and all its parameters (JSON types), defaults filled in."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scenario:
    """What to measure. Labels are unique, ``baseline`` is one of them, every option and parameter is filled in.

    With ``control`` there is a second environment like the baseline, called ``control_label(baseline)``. ``parallel``
    is how many instances are started at once: a number, or several, each of which is a cell. With a budget, cells whose
    instances together would have more memory are left out.
    """

    name: str
    description: str
    image: str | OwnImage
    baseline: str
    rounds: int
    seed: int
    resources: Resources
    environments: tuple[EnvironmentSpec, ...]
    workloads: tuple[WorkloadSpec, ...]
    settle_ms: float = 5.0
    timeout_s: float = 60.0
    control: bool = False
    cache: CacheState = "warm"
    parallel: tuple[int, ...] = (1,)
    memory_budget_bytes: int | None = None


@dataclass(frozen=True)
class Cell:
    """One environment with one workload; ``environment`` is a label. ``id`` is unique in its scenario."""

    id: str
    environment: str
    workload: str
    params: Mapping[str, str | int | float] = field(default_factory=dict)


def load(path: Path) -> Scenario:
    """Return the scenario in the file ``path``.

    Raises ScenarioError, with a line ``file:line: key: what is wrong`` for each problem, in the order of the file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ScenarioError(f"{path}: no such file", hint=_near_file(path)) from error
    except OSError as error:
        raise ScenarioError(
            f"{path}: cannot be read: {error.strerror}", hint="give the path of a scenario file"
        ) from error
    try:
        text = decode(data)
    except ValueError as error:
        raise ScenarioError(f"{path}:1: {error}", hint="a scenario is a short YAML text in UTF-8") from error
    return loads(text, str(path))


def loads(text: str, name: str) -> Scenario:
    """Return the scenario that ``text`` says; ``name`` is what messages call it. Raises ScenarioError."""
    document = parse(text)
    found = _check(document)
    if isinstance(found, Scenario):
        return found
    message, hint = report(name, found)
    raise ScenarioError(message, hint=hint)


def resolved(scenario: Scenario) -> dict[str, Any]:
    """Return ``scenario`` in JSON types with every default filled in; as YAML it is a scenario file again."""
    data = dataclasses.asdict(scenario)
    data["parallel"] = list(scenario.parallel)
    data["memory_budget"] = data.pop("memory_budget_bytes")
    data["image"] = scenario.image.written() if isinstance(scenario.image, OwnImage) else scenario.image
    data["resources"]["memory"] = data["resources"].pop("memory_bytes")
    data["resources"]["disk"] = data["resources"].pop("disk_bytes")
    data["environments"] = [{"kind": e.kind, "label": e.label, **e.options} for e in scenario.environments]
    data["workloads"] = [{"name": w.name, **w.params} for w in scenario.workloads]
    return data


def from_resolved(data: Mapping[str, Any]) -> Scenario:
    """Return the scenario that ``resolved`` made ``data`` of. Raises RecordError if this benchbox cannot read it."""
    found = _check(Document(dict(data), {}))
    if isinstance(found, Scenario):
        return found
    message, _ = report("scenario", found)
    raise RecordError(
        f"the record's scenario cannot be read: {message}",
        hint="use the benchbox version that wrote it (see its tools)",
    )


def control_label(baseline: str) -> str:
    """Return the label of the environment that is the baseline once more (A/A control)."""
    return f"{baseline}{_CONTROL_SUFFIX}"


def cells(scenario: Scenario) -> tuple[Cell, ...]:
    """Return every (environment, workload, parameters) of ``scenario``, in the order of the file.

    With ``parallel`` each comes once for each number of instances, which is then one of its parameters.
    """
    counts = [{}] if scenario.parallel == (1,) else [{PARALLEL: count} for count in scenario.parallel]
    return tuple(
        _cell(environment.label, dataclasses.replace(workload, params={**workload.params, **count}))
        for environment in scenario.environments
        for workload in scenario.workloads
        for count in counts
    )


def spec_of(cell: Cell, scenario: Scenario) -> WorkloadSpec:
    """Return the entry of ``scenario`` that ``cell`` is of; StopIteration for a cell of another scenario."""
    own = {key: value for key, value in cell.params.items() if key != PARALLEL}
    return next(spec for spec in scenario.workloads if spec.name == cell.workload and _shown_params(spec) == own)


def too_large(scenario: Scenario, kind: str, available_bytes: int | None) -> str | None:
    """Say why the guests of ``scenario`` that are to run at once do not fit into ``available_bytes``; None if they do.

    What is no guest takes only what it touches, its limit is no need. One guest alone is left to the host.
    """
    count = min(scenario.parallel) if scenario.memory_budget_bytes else max(scenario.parallel)
    needed_bytes = count * scenario.resources.memory_bytes
    if kind != "vm" or count == 1 or available_bytes is None or needed_bytes <= available_bytes:
        return None
    return (
        f"{count} guests at once of {format_size(scenario.resources.memory_bytes)} need {format_size(needed_bytes)}, "
        f"this host has {format_size(available_bytes)} available"
    )


def planned_order(scenario: Scenario) -> tuple[tuple[str, ...], ...]:
    """Return the ids of the cells of ``scenario`` in the order of each round, as ``plan.order`` has them.

    The priming round has of several numbers at once only the smallest: one brings into memory what many read. It has no
    formats: what is counted needs no priming.
    """
    planned = cells(scenario)
    priming, *measured = plan.order([cell.id for cell in planned], scenario.rounds, scenario.seed)
    needless = {
        cell.id
        for cell in planned
        if cell.workload == _WEIGHS or cell.params.get(PARALLEL, scenario.parallel[0]) != scenario.parallel[0]
    }
    return tuple(name for name in priming if name not in needless), *measured


def left_out(scenario: Scenario, count: int, available_bytes: int | None) -> str | None:
    """Say why ``count`` instances at once are left out by the memory budget of ``scenario``, None if not. Pure.

    Each instance counts with all the memory that it may use, in every environment alike, so that none is measured with
    a number that another lacks.
    """
    budget_bytes = scenario.memory_budget_bytes
    if budget_bytes is None:
        return None
    each_bytes = scenario.resources.memory_bytes
    needed = f"{count} x {format_size(each_bytes)} need {format_size(count * each_bytes)}"
    if count * each_bytes > budget_bytes:
        return f"left out: {needed}, the memory budget is {format_size(budget_bytes)}"
    if available_bytes is not None and count * each_bytes > available_bytes:
        return f"left out: {needed}, this host has {format_size(available_bytes)} available"
    return None


def select(scenario: Scenario, only: str | None) -> Scenario:
    """Return ``scenario`` narrowed to ``only``, such as ``env:vm,workload:startup``; None keeps it as it is.

    Several of one kind add up. A baseline that is not selected is replaced by the first environment that is. The A/A
    control stays with its baseline.
    Raises UsageError for what the scenario does not have.
    """
    if only is None:
        return scenario
    wanted = _parse_only(only, scenario)
    chosen = _with_control(scenario, wanted.get("env"))
    kept = tuple(e for e in scenario.environments if e.label in (chosen or {e.label}))
    labels = [environment.label for environment in kept]
    return dataclasses.replace(
        scenario,
        environments=kept,
        workloads=tuple(w for w in scenario.workloads if w.name in wanted.get("workload", {w.name})),
        parallel=tuple(count for count in scenario.parallel if str(count) in wanted.get(PARALLEL, {str(count)})),
        baseline=scenario.baseline if scenario.baseline in labels else labels[0],
        control=scenario.control and scenario.baseline in labels,
    )


def _with_control(scenario: Scenario, labels: set[str] | None) -> set[str] | None:
    """Return the chosen ``labels``, the control among them if its baseline is."""
    if labels is None or not scenario.control or scenario.baseline not in labels:
        return labels
    return labels | {control_label(scenario.baseline)}


def with_overrides(scenario: Scenario, *, rounds: int | None = None, seed: int | None = None) -> Scenario:
    """Return ``scenario`` with what the command line says instead. Raises UsageError for a value out of range."""
    if rounds is not None and not 1 <= rounds <= MAX_ROUNDS:
        raise UsageError(f"--rounds: expected a whole number from 1 to {MAX_ROUNDS}; got {rounds}")
    if seed is not None and not 0 <= seed < 1 << 63:
        raise UsageError(f"--seed: expected a whole number from 0 to 2^63-1; got {seed}")
    return dataclasses.replace(
        scenario,
        rounds=scenario.rounds if rounds is None else rounds,
        seed=scenario.seed if seed is None else seed,
    )


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of scenario files, for editors, with the options of every environment and workload."""
    schema = _file_model().model_json_schema()
    for key, names in (("environments", environments.KINDS), ("workloads", workloads.NAMES)):
        entry = schema["properties"][key]
        entry["items"] = {"anyOf": [{"enum": _nameable(key, names)}, entry["items"]]}
    schema["properties"]["image"]["oneOf"][0]["enum"] = sorted(images.TABLE)
    return {"$schema": _SCHEMA_DIALECT, **schema, "title": "benchbox scenario"}


def _shown_params(workload: WorkloadSpec) -> dict[str, str | int | float]:
    """Return what tells a workload from another one of its name: not how it is read."""
    own = {key: value for key, value in workload.params.items() if key not in workloads.READING}
    return {key: str(value).lower() if isinstance(value, bool) else value for key, value in own.items()}


def _cell(label: str, workload: WorkloadSpec) -> Cell:
    params = _shown_params(workload)
    suffix = f"[{format_pairs(params)}]" if params else ""
    return Cell(f"{label}/{workload.name}{suffix}", label, workload.name, params)


def _parse_only(only: str, scenario: Scenario) -> dict[str, set[str]]:
    names = {
        "env": [environment.label for environment in scenario.environments],
        "workload": [workload.name for workload in scenario.workloads],
        PARALLEL: [str(count) for count in scenario.parallel],
    }
    wanted: dict[str, set[str]] = {}
    for part in only.split(","):
        kind, _, name = part.strip().partition(":")
        if kind not in names:
            meant = near(kind, [*names, *(f"{key}:{each}" for key in names for each in names[key])])
            raise UsageError(f"--only: expected env:LABEL, workload:NAME or parallel:N; got '{part}'", hint=meant)
        if name not in names[kind]:
            raise UsageError(f"--only: {kind}: {not_one_of(name, names[kind])}", hint=near(name, names[kind]))
        wanted.setdefault(kind, set()).add(name)
    return wanted


def _near_file(path: Path) -> str | None:
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.suffix in (".yaml", ".yml")]
    except OSError:
        return None
    return near(path.name, names)


# --- what a file may say ---------------------------------------------------------------------------------------------


def _slug(text: str) -> str:
    if not _SLUG.fullmatch(text):
        raise ValueError("expected up to 64 lower-case letters, digits and dashes, no dash first")
    return text


def _counts(value: Any) -> Any:
    """Return ``value`` as a list, whose numbers go up and come once each."""
    counts = value if isinstance(value, list) else [value]
    numbers = [count for count in counts if isinstance(count, int) and not isinstance(count, bool)]
    if len(numbers) != len(counts) or not counts or not all(1 <= count <= MAX_PARALLEL for count in numbers):
        raise ValueError(f"expected whole numbers from 1 to {MAX_PARALLEL}, such as [1, 2, 4]")
    if numbers != sorted(set(numbers)):
        raise ValueError("expected each number once, the smallest first")
    return numbers


_Count = {"type": "integer", "minimum": 1, "maximum": MAX_PARALLEL}
_Parallel = Annotated[
    list[int],
    BeforeValidator(_counts),
    WithJsonSchema({"anyOf": [_Count, {"type": "array", "items": _Count, "minItems": 1, "uniqueItems": True}]}),
]
_Slug = Annotated[str, AfterValidator(_slug), WithJsonSchema({"type": "string", "pattern": f"^{_SLUG.pattern}$"})]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _EnvironmentEntry(_Strict):
    label: _Slug | None = Field(default=None, description="its name in results; the kind if it is left out")


class _WorkloadEntry(_Strict):
    pass


class _Resources(_Strict):
    cpus: int = Field(default=1, ge=1, le=4096, description="number of CPUs that confine the whole environment")
    memory: Size = Field(default=256 << 20, description="limit of native and container, RAM of a guest")
    pids: int = Field(default=512, ge=1, le=1 << 22, description="limit of processes and threads")
    cpu_quota: float | None = Field(
        default=None, gt=0, le=4096, description="share of CPU time in CPUs: 0.5 is half of one"
    )
    disk: Size = Field(default=10 << 30, description="limit of what one instance writes into /data and its layer")


class _OwnImage(_Strict):
    """An image of the user's own: exactly one of these."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    directory: str | None = Field(default=None, min_length=1, description="a folder that holds a root file system")
    tar: str | None = Field(default=None, min_length=1, description="a tar archive of one")
    oci: str | None = Field(
        default=None, min_length=1, description="an OCI image: an archive, or the folder of a layout"
    )
    packages: list[str] | None = Field(
        default=None, min_length=1, max_length=200, description="packages of this host's distribution"
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_fields_set) != 1 or self.source is None:
            raise ValueError(f"expected exactly one of {', '.join(_OwnImage.model_fields)}")
        return self

    @property
    def source(self) -> OwnImage | None:
        if self.packages is not None:
            return OwnImage("packages", packages=tuple(self.packages))
        kinds: tuple[Literal["directory", "tar", "oci"], ...] = ("directory", "tar", "oci")
        return next((OwnImage(kind, Path(path).absolute()) for kind in kinds if (path := getattr(self, kind))), None)


_Image = Annotated[
    Annotated[str, Tag("name")] | Annotated[_OwnImage, Tag("own")],
    Discriminator(lambda value: "own" if isinstance(value, (dict, _OwnImage)) else "name"),
]


class _File(_Strict):
    """What does starting, computing or serving cost natively, in a container and in a virtual machine?"""

    name: _Slug = Field(description="what results are filed under")
    description: str = Field(default="", max_length=2000, description="the question it answers")
    image: _Image = Field(default="minimal", description="the root file system of all environments")
    baseline: str | None = Field(default=None, description="label of the environment the others are compared with")
    rounds: int = Field(default=20, ge=1, le=MAX_ROUNDS, description="samples of each cell")
    seed: int = Field(default=1, ge=0, lt=1 << 63, description="decides the order of cells")
    resources: _Resources = Field(default=_Resources())
    control: bool = Field(default=False, description="measure the baseline twice, to know what noise can show")
    cache: CacheState = Field(default="warm", description="whether the host's page cache holds what a start reads")
    parallel: _Parallel = Field(default=[1], description="how many instances are started at once; several: a cell each")
    memory_budget: Size | None = Field(
        default=None, description="numbers at once whose memory together is more are left out"
    )
    settle_ms: float = Field(default=5.0, ge=0, le=60_000, description="pause between two samples, in ms")
    timeout_s: float = Field(default=60.0, gt=0, le=86_400, description="limit of one sample, in s")


@cache
def _file_model() -> type[BaseModel]:
    """Return the model of a whole file, entries written out as mappings."""
    entries: dict[str, Any] = {
        "environments": _entries("kind", [_environment_model(kind) for kind in environments.KINDS]),
        "workloads": _entries("name", [_workload_model(name) for name in workloads.NAMES]),
    }
    return new_model("Scenario", __base__=_File, **entries)


def _entries(discriminator: str, models: list[type[BaseModel]]) -> Any:
    member: Any = Annotated[reduce(operator.or_, models), Field(discriminator=discriminator)]
    return (list[member], Field(min_length=1))


@cache
def _environment_model(kind: str) -> type[BaseModel]:
    bases = (environments.options_model(kind), _EnvironmentEntry)
    return new_model(f"{kind}-environment", __base__=bases, kind=(_only(kind), ...))


@cache
def _workload_model(name: str) -> type[BaseModel]:
    bases = (workloads.params_model(name), _WorkloadEntry)
    return new_model(f"{name}-workload", __base__=bases, name=(_only(name), ...))


def _only(word: str) -> Any:
    return Literal[word]


def _nameable(key: str, names: Iterable[str]) -> list[str]:
    """Return those of ``names`` that need no option, so that the bare name is a whole entry."""
    model = environments.options_model if key == "environments" else workloads.params_model
    return [name for name in names if not any(each.is_required() for each in model(name).model_fields.values())]


# --- from a document to a scenario -----------------------------------------------------------------------------------


def _check(document: Document) -> Scenario | list[Problem]:
    value = document.value
    if not isinstance(value, dict):
        return list(document.problems) or [_not_a_mapping(value)]
    written_out = dataclasses.replace(document, value=_written_out(value))
    found = [*document.problems, *_cross_problems(written_out)]
    try:
        file = _file_model().model_validate_json(json.dumps(written_out.value), strict=True)
    except ValidationError as error:
        places = {problem.key for problem in document.problems}
        errors = error.errors(include_url=False)
        wrong = problems(errors, written_out, _known_keys(written_out.value), _owners())
        return [*found, *(problem for problem in wrong if problem.key not in places)]
    return found or _scenario(file)


def _not_a_mapping(value: Any) -> Problem:
    if value is None:
        return Problem(1, (), EMPTY, "see scenarios/startup.yaml for an example")
    return Problem(1, (), "expected keys and values, such as 'name: startup'")


def _written_out(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``value`` with each bare name in its lists as the mapping that it stands for."""
    return {
        key: _entries_written_out(_DISCRIMINATORS[key], entries)
        if key in _DISCRIMINATORS and isinstance(entries, list)
        else entries
        for key, entries in value.items()
    }


_DISCRIMINATORS: Final = {"environments": "kind", "workloads": "name"}


def _entries_written_out(discriminator: str, entries: Iterable[Any]) -> list[Any]:
    return [{discriminator: entry} if isinstance(entry, str) else entry for entry in entries]


def _known_keys(value: Mapping[str, Any]) -> dict[KeyPath, Iterable[str]]:
    known: dict[KeyPath, Iterable[str]] = {
        (): _file_model().model_fields,
        ("resources",): _Resources.model_fields,
        ("image",): _OwnImage.model_fields,
    }
    for index, entry in _mappings(value, "environments"):
        if entry.get("kind") in environments.KINDS:
            known["environments", index] = _keys_of(_environment_model(entry["kind"]), "kind")
    for index, entry in _mappings(value, "workloads"):
        if entry.get("name") in workloads.NAMES:
            known["workloads", index] = _keys_of(_workload_model(entry["name"]), "name")
            for number, _ in _mappings(entry, "metrics"):
                known["workloads", index, "metrics", number] = list(PatternMetric.model_fields)
    return known


def _owners() -> dict[str, str]:
    """Return the kind of environment that each option belongs to, as a hint for whoever gives it to another."""
    return {
        name: f"it is an option of {kind}"
        for kind in environments.KINDS
        for name in environments.options_model(kind).model_fields
    }


def _keys_of(model: type[BaseModel], first: str) -> list[str]:
    return [first, *(name for name in model.model_fields if name != first)]


def _mappings(value: Mapping[str, Any], key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    entries = value.get(key)
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(entry, dict):
            yield index, entry


def _cross_problems(document: Document) -> Iterator[Problem]:
    """What no single key shows; a value of the wrong type is left to the models."""
    yield from _label_problems(document)
    yield from _control_problems(document)
    yield from _same_workload_problems(document)
    yield from _kernel_problems(document)
    yield from _package_problems(document)
    yield from _own_image_problems(document)
    yield from _format_problems(document)
    yield from _link_problems(document)
    image = document.value.get("image", "minimal")
    if isinstance(image, str) and image not in images.TABLE:
        hint = near(image, images.TABLE)
        yield Problem(
            document.line_of(("image",)), ("image",), f"no such image; {not_one_of(image, images.TABLE)}", hint
        )


def _label_problems(document: Document) -> Iterator[Problem]:
    labels: list[str] = []
    for index, entry in _mappings(document.value, "environments"):
        label = entry.get("label") or entry.get("kind")
        if label in labels:
            key: KeyPath = ("environments", index)
            yield Problem(
                document.line_of(key), key, f"a second environment is called '{label}'", "give it a label of its own"
            )
        labels += [label] if isinstance(label, str) else []
    baseline = document.value.get("baseline")
    if isinstance(baseline, str) and labels and baseline not in labels:
        line = document.line_of(("baseline",))
        yield Problem(
            line, ("baseline",), f"no such environment; {not_one_of(baseline, labels)}", near(baseline, labels)
        )


def _control_problems(document: Document) -> Iterator[Problem]:
    """The control needs a label, and one that is taken must be the control itself, as in a resolved scenario."""
    if document.value.get("control") is not True:
        return
    entries = {entry.get("label") or entry.get("kind"): entry for _, entry in _mappings(document.value, "environments")}
    baseline = document.value.get("baseline") or next(iter(entries), None)
    if not isinstance(baseline, str) or baseline not in entries:
        return
    label, key, line = control_label(baseline), ("control",), document.line_of(("control",))
    if not _SLUG.fullmatch(label):
        yield Problem(
            line, key, f"the control would be called '{label}', which is too long", "shorten the baseline's label"
        )
    elif label in entries and _unlabelled(entries[label]) != _unlabelled(entries[baseline]):
        yield Problem(line, key, f"another environment is called '{label}'", "give it another label")


def _unlabelled(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "label"}


def _same_workload_problems(document: Document) -> Iterator[Problem]:
    seen: list[dict[str, Any]] = []
    for index, entry in _mappings(document.value, "workloads"):
        what = {key: value for key, value in entry.items() if key not in workloads.READING}
        if what in seen:
            key: KeyPath = ("workloads", index)
            yield Problem(document.line_of(key), key, "the same as one above it", "remove it, or change a parameter")
        seen.append(what)


def _own_image_problems(document: Document) -> Iterator[Problem]:
    """An image of one's own must be there before anything is started; that of a record may have gone since."""
    given = document.value.get("image")
    if not isinstance(given, dict) or not document.lines:
        return
    try:
        source = _OwnImage.model_validate(given, strict=True).source
    except ValidationError:
        return
    problem = source and source.problem()
    if source and problem:
        key: KeyPath = ("image", source.kind)
        value = given[source.kind]
        if source.packages:
            wrong = next(index for index, name in enumerate(value) if not images.PACKAGE_NAME.fullmatch(name))
            key, value = (*key, wrong), value[wrong]
        yield Problem(document.line_of(key), key, f"{problem}; got {shown(value)}")


def _packages_of(image: Any) -> tuple[str, tuple[str, ...]] | None:
    """Return the name of ``image`` and the packages that it is known to have; None where that is not known."""
    if isinstance(image, str) and image in images.TABLE:
        return f"the image '{image}'", images.PACKAGES.get(image, ())
    packages = image.get("packages") if isinstance(image, dict) else None
    return ("this list of packages", tuple(map(str, packages))) if isinstance(packages, list) else None


def _package_problems(document: Document) -> Iterator[Problem]:
    """A workload that runs a program of the distribution needs an image that has it."""
    known = _packages_of(document.value.get("image", "minimal"))
    if known is None:
        return
    image, there = known
    for index, entry in _mappings(document.value, "workloads"):
        package = workloads.package_of(str(entry.get("name")), entry)
        if package and package not in there:
            key: KeyPath = ("workloads", index)
            having = " or ".join(name for name, packages in images.PACKAGES.items() if package in packages)
            text = f"{image} has no {package}, which '{entry['name']}' runs"
            yield Problem(document.line_of(key), key, text, f"set image: {having}")


#: Nothing runs in it, and it alone can be weighed.
FORMAT: Final = "format"
_WEIGHS: Final = "image-size"


def _format_problems(document: Document) -> Iterator[Problem]:
    """A format can be weighed and nothing else; nothing else can be."""
    kinds = [(index, entry.get("kind")) for index, entry in _mappings(document.value, "environments")]
    names = [(index, entry.get("name")) for index, entry in _mappings(document.value, "workloads")]
    if all(kind != FORMAT for _, kind in kinds) and all(name != _WEIGHS for _, name in names):
        return
    for index, kind in kinds:
        if kind != FORMAT:
            key: KeyPath = ("environments", index)
            yield Problem(document.line_of(key), key, f"{kind} cannot be weighed by {_WEIGHS}", "use kind: format")
    for index, name in names:
        if name != _WEIGHS:
            key = ("workloads", index)
            yield Problem(document.line_of(key), key, f"{name} cannot run in a format", f"use {_WEIGHS}, alone")


def _link_problems(document: Document) -> Iterator[Problem]:
    """A workload with a client needs a link in every environment, and is measured alone."""
    names = [entry.get("name") for _, entry in _mappings(document.value, "workloads")]
    serving = next((name for name in names if isinstance(name, str) and name in workloads.SERVING), None)
    if serving is None:
        return
    for index, entry in _mappings(document.value, "environments"):
        kind = entry.get("kind")
        if kind in environments.KINDS and entry.get("link", "none") == "none":
            key: KeyPath = ("environments", index)
            can = "link" in environments.options_model(kind).model_fields
            hint = (
                "write it as {kind: " + str(kind) + ", link: bridge}" if can else "measure it in a scenario without it"
            )
            text = f"'{serving}' has a client, to which this environment has no link"
            yield Problem(document.line_of(key), key, text, hint)
    if document.value.get("parallel", [1]) not in (1, [1]):
        key = ("parallel",)
        yield Problem(document.line_of(key), key, f"'{serving}' has a client, which asks one server alone")


def _kernel_problems(document: Document) -> Iterator[Problem]:
    """A guest kernel of one's own must be there before anything is started."""
    for index, entry in _mappings(document.value, "environments"):
        for name, text in _KERNEL_OPTIONS.items():
            given = entry.get(name)
            if isinstance(given, str) and not _is_kernel(name, given):
                key: KeyPath = ("environments", index, name)
                hint = near(given, KERNEL_CHOICES) if name == "kernel" else None
                yield Problem(document.line_of(key), key, f"{text}; got {shown(given)}", hint)


def _is_kernel(name: str, given: str) -> bool:
    return given in KERNEL_CHOICES or Path(given).is_file() if name == "kernel" else Path(given).is_dir()


def _scenario(file: Any) -> Scenario:
    specs = tuple(_environment_spec(entry) for entry in file.environments)
    baseline = file.baseline or specs[0].label
    return Scenario(
        name=file.name,
        description=file.description.strip(),
        image=file.image if isinstance(file.image, str) else file.image.source,
        baseline=baseline,
        rounds=file.rounds,
        seed=file.seed,
        resources=_resources(file.resources),
        environments=_controlled(specs, baseline) if file.control else specs,
        workloads=tuple(_workload_spec(entry) for entry in file.workloads),
        settle_ms=file.settle_ms,
        timeout_s=file.timeout_s,
        control=file.control,
        cache=file.cache,
        parallel=tuple(file.parallel),
        memory_budget_bytes=file.memory_budget,
    )


def _resources(given: _Resources) -> Resources:
    return Resources(given.cpus, given.memory, given.pids, given.cpu_quota, given.disk)


def _controlled(specs: tuple[EnvironmentSpec, ...], baseline: str) -> tuple[EnvironmentSpec, ...]:
    """Return ``specs`` with the baseline once more, right behind it; a resolved scenario has it already."""
    label = control_label(baseline)
    if any(spec.label == label for spec in specs):
        return specs
    position = next(index for index, spec in enumerate(specs) if spec.label == baseline)
    again = dataclasses.replace(specs[position], label=label)
    return (*specs[: position + 1], again, *specs[position + 1 :])


def _environment_spec(entry: Any) -> EnvironmentSpec:
    options = entry.model_dump(mode="json", exclude={"kind", "label"})
    return EnvironmentSpec(entry.kind, entry.label or entry.kind, options)


def _workload_spec(entry: Any) -> WorkloadSpec:
    params = entry.model_dump(mode="json", exclude={"name"}, exclude_none=True)
    return WorkloadSpec(entry.name, params)
