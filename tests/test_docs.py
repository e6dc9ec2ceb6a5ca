"""The docs say what the code does: examples are valid, every key and file is named, links lead somewhere."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click
import pytest
import yaml
from pydantic import TypeAdapter

from benchbox import cli, record, scenario
from benchbox.analysis import statistics
from benchbox.environments.container import KEPT_CAPABILITIES
from benchbox.environments.prepared import MASKED, READ_ONLY
from benchbox.events import EVENTS
from benchbox.export import COLUMNS
from benchbox.linux import cgroups, seccomp
from benchbox.model import STAGES, Command, Outcome
from benchbox.noise import Snapshot, between
from benchbox.units import parse_size
from tests.linux import recordings
from tests.test_layers import LAYERS, MODULES, PACKAGE

PROJECT: Final = Path(__file__).parents[1]
DOCS: Final = PROJECT / "docs"
FOLDERS: Final = (".", "docs", "scenarios", "results", "reports", "benchmarks")
PAGES: Final = sorted(page for folder in FOLDERS for page in (PROJECT / folder).glob("*.md"))

#: What completes an example that shows only some keys.
REQUIRED_KEYS: Final = {
    "name": "name: example",
    "environments": "environments: [native, container, vm]",
    "workloads": "workloads: [startup]",
}
_FENCE: Final = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
_CODE: Final = re.compile(r"`([^`\n]+)`")
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
_ROW: Final = re.compile(r"^\| `(\w+)` \| (.+?) \| (.+?) \| .+ \|$", re.MULTILINE)


def text_of(page: str | Path) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def prose(text: str) -> str:
    """Return ``text`` without its fenced blocks."""
    return _FENCE.sub("", text)


def words_in_code(page: str) -> set[str]:
    """Return every word that stands in code style in the prose of ``page``."""
    spans = _CODE.findall(prose(text_of(page)))
    return {word for span in spans for word in (span, *re.findall(r"[\w.]+", span))}


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in _FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def section(page: str, heading: str) -> str:
    """Return what stands in ``page`` below ``heading``, up to the next one of any depth."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text_of(page), re.MULTILINE | re.DOTALL)
    assert found, f"docs/{page} has no section {heading!r}"
    return found[1]


# --- examples --------------------------------------------------------------------------------------------------------

EXAMPLES: Final = [
    pytest.param(body, id=f"{page.relative_to(PROJECT)}-{number}")
    for page in PAGES
    for number, body in enumerate(blocks(page, "yaml"), start=1)
]


def completed(example: str) -> str:
    """Return ``example`` with the required keys that it leaves out."""
    shown = yaml.safe_load(example)
    return "\n".join([example, *(line for key, line in REQUIRED_KEYS.items() if key not in shown)])


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_of_a_scenario_is_valid(example: str) -> None:
    """Each YAML block of the docs is a scenario, or becomes one with the keys that it leaves out."""
    scenario.loads(completed(example), "example")


def test_there_are_examples() -> None:
    """The page about scenario files shows them; were none found, the test above would say nothing."""
    assert len(blocks(DOCS / "scenarios.md", "yaml")) >= 8


def test_the_last_example_has_every_key() -> None:
    """The whole file at the end of docs/scenarios.md leaves nothing out."""
    whole = blocks(DOCS / "scenarios.md", "yaml")[-1]
    assert {key for model in MODELS.values() for key in model if f"{key}:" not in whole} == set()


def test_the_example_of_a_workload_works() -> None:
    """The Python block of docs/extending.md is a workload: it makes a command and reads a metric."""
    (source,) = blocks(DOCS / "extending.md", "python")
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(source, "docs/extending.md", "exec"), names)
    workload = names["WORKLOAD"]
    assert workload.command({"seconds": 3}) == Command(("/bin/count", "3"), signals_ready=False)
    (metric,) = workload.parse(Outcome("ok", output_tail=b"hello\nrate=12\n"))
    assert (metric.name, metric.value, metric.unit, metric.direction) == ("counting.rate", 12.0, "1/s", "higher")
    assert workload.parse(Outcome("ok", output_tail=b"rate=twelve")) == ()


# --- scenarios.md ----------------------------------------------------------------------------------------------------


def models() -> dict[str, dict[str, Any]]:
    """Return the keys of each part of a scenario, with their JSON schema, by the heading that describes it."""
    schema = scenario.json_schema()
    found = {"Top level": schema["properties"], "`resources`": schema["$defs"]["_Resources"]["properties"]}
    for name, definition in schema["$defs"].items():
        kind, _, part = name.rpartition("-")
        if part in ("environment", "workload"):
            common = ("kind", "label") if part == "environment" else ("name",)
            own = {key: value for key, value in definition["properties"].items() if key not in common}
            found[f"`{kind}`"] = own
    return found


MODELS: Final = models()


def documented(heading: str) -> dict[str, str]:
    """Return the cell ``default`` of each row below ``heading``."""
    return {key: default for key, _, default in _ROW.findall(section("scenarios.md", heading))}


@pytest.mark.parametrize("heading", MODELS)
def test_every_key_of_a_scenario_has_a_row_and_no_row_is_too_many(heading: str) -> None:
    """The tables of docs/scenarios.md have the keys of the models, in their order."""
    assert list(documented(heading)) == [key for key in documented(heading) if key in MODELS[heading]]
    assert set(documented(heading)) == set(MODELS[heading])


@pytest.mark.parametrize("heading", MODELS)
def test_every_default_is_the_one_of_the_model(heading: str) -> None:
    """What a table calls the default is what a scenario without that key gets."""
    for key, default in documented(heading).items():
        schema = MODELS[heading][key]
        if "default" not in schema:
            assert default == "required", key
        elif schema["default"] is None:
            assert default.startswith("none: "), key
        elif isinstance(schema["default"], dict):
            assert default == "see below", key
        else:
            assert same(default.strip("`"), schema["default"]), key


def same(written: str, default: Any) -> bool:
    """Say whether ``written`` means ``default``; a size may have a unit."""
    found = yaml.safe_load(written)
    return bool(found == default or (isinstance(default, int) and parse_size(written) == default))


@pytest.mark.parametrize("heading", MODELS)
def test_every_choice_is_named(heading: str) -> None:
    """The type of an option that may be one of some words is those words."""
    for key, kind, _ in _ROW.findall(section("scenarios.md", heading)):
        choices = MODELS[heading][key].get("enum") if key != "image" else None
        assert _CODE.findall(kind) == (choices or []), key


def test_the_shared_options_are_described() -> None:
    """Each option of ``benchbox run`` is named."""
    options = {name for each in command("run").params for name in each.opts if name.startswith("--")}
    assert {name for name in options if name not in text_of("scenarios.md")} == set()


def command(name: str) -> click.Command:
    found = cli.commands.commands[name]
    assert isinstance(found, click.Command)
    return found


# --- results.md ------------------------------------------------------------------------------------------------------

RECORD_MODELS: Final = (
    record.Manifest,
    record.Sample,
    record.CellRecord,
    record.EnvironmentRecord,
    record.ImageRecord,
    record.AbandonedCell,
    record.MetricValue,
    record.CounterValue,
)


@pytest.mark.parametrize("model", RECORD_MODELS, ids=lambda model: model.__name__)
def test_every_key_of_the_record_is_described(model: type) -> None:
    """Each key of manifest and samples begins a row of a table in docs/results.md."""
    rows = re.findall(r"^\| (.+?) \|", text_of("results.md"), re.MULTILINE)
    named = {key for row in rows for key in _CODE.findall(row)}
    keys = set(TypeAdapter(model).json_schema()["properties"])
    assert keys - named == set()


def test_every_column_of_the_export_is_described() -> None:
    """The CSV's columns stand in docs/results.md, in their order."""
    rows = re.findall(r"^\| (.+?) \|", section("results.md", "CSV"), re.MULTILINE)
    assert tuple(key for row in rows for key in _CODE.findall(row)) == COLUMNS


def test_the_version_of_the_format_is_the_one_that_is_written() -> None:
    """A raised number is raised in the docs as well."""
    assert f"it is {record.FORMAT_VERSION}." in section("results.md", "Versions of the format")


def test_every_exit_code_is_described() -> None:
    """Each code that the command line gives has a row."""
    codes = {value for name, value in vars(cli).items() if name.startswith("EXIT_")}
    assert {code for code in codes if f"\n| {code} |" not in section("results.md", "Exit codes")} == set()


def test_every_command_is_described() -> None:
    """Each command of ``benchbox`` is named somewhere."""
    everything = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert {name for name in cli.commands.commands if f"benchbox {name}" not in everything} == set()


def test_every_event_is_described() -> None:
    """docs/cli.md has a row for each event of a run, in the order in which they come."""
    rows = re.findall(r"^\| `(\w+)` \|", section("cli.md", "`--json-events`"), re.MULTILINE)
    assert tuple(rows) == EVENTS


# --- measuring.md ----------------------------------------------------------------------------------------------------


def test_every_stage_is_described() -> None:
    """Each stage has a row: of native and container, or of a guest."""
    rows = re.findall(r"^\| `(\w+)` \|", section("measuring.md", "Stages"), re.MULTILINE)
    assert set(rows) == {"requested", *STAGES}


def counter_names() -> Iterator[str]:
    """Yield the counters of a system of each kind, from recordings, and those that are named in code."""
    root = Path("/sys/fs/cgroup")
    for kind in recordings.KINDS:
        texts = recordings.read(kind)
        layout = layout_of(kind, texts, root)
        plan = cgroups.plan(layout, "", "benchbox-recorded", cgroups.Limits(1, 1, 1.0), (0,))
        yield from (counter.name for counter in cgroups.counters(plan, texts))
    for path in (PACKAGE / "virt" / "verdict.py", PACKAGE / "environments" / "vm.py"):
        yield from literal_counters(path)


def layout_of(kind: str, texts: Mapping[str, str], root: Path) -> cgroups.Layout:
    found = cgroups.parse_mountinfo(texts["/proc/self/mountinfo"])
    offered = tuple(texts[f"{root}/cgroup.controllers"].split()) if kind == "v2" else ()
    usable = tuple(name for name in ("cpuset", "cpu", "memory", "pids", "io") if name in offered)
    return cgroups.Layout(found.mode, found.v1, found.v2, usable)


def literal_counters(path: Path) -> Iterator[str]:
    """Yield the names of counters that the module at ``path`` writes out."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Counter":
            name = node.args[0]
            if isinstance(name, ast.Constant):
                yield str(name.value)


def test_every_counter_is_described() -> None:
    """Whatever the account of a sample has, on cgroup v1, v2 or both, stands in docs/measuring.md."""
    names = set(counter_names())
    assert {"cpu.usage", "memory.peak", "io.read", "pressure.cpu", "guest.memory.oom_kills"} <= names
    assert names - words_in_code("measuring.md") == set()


def test_every_kind_of_noise_is_described() -> None:
    """Whatever is recorded of the host around a sample stands in docs/measuring.md."""
    pressure = dict.fromkeys(("cpu", "io", "memory"), 0)
    noise = between(Snapshot(0, 1.0, pressure, 0, 0, 0, 0.0), Snapshot(9, 1.0, pressure, 1, 9, 1, 1.0))
    assert set(noise) - words_in_code("measuring.md") == set()


def test_the_numbers_of_the_statistics_are_those_of_the_code() -> None:
    """Where an interval begins, how often is resampled, what is an outlier."""
    text = " ".join(section("measuring.md", "Statistics").split())
    assert f"below {statistics.MIN_VALUES_P90} values" in text
    assert f"Below {statistics.MIN_VALUES} values" in text
    assert f"Below {statistics.MIN_VALUES} pairs" in text
    assert f"{statistics.RESAMPLES:,} resamples" in text
    assert f"Above {statistics.MAX_BLOCKS:,} pairs" in text
    assert f"above {statistics.OUTLIER_LIMIT}" in text


MISTAKES: Final = re.findall(
    r"^\| (\d+) \| .+ \| .+ \| .+ \| (.+) \|$",
    section("measuring.md", "Mistakes that are guarded against"),
    re.MULTILINE,
)


def test_every_mistake_has_its_number() -> None:
    """All fifteen have a row."""
    assert [int(number) for number, _ in MISTAKES] == list(range(1, 16))


@pytest.mark.parametrize("shown", [shown for _, shown in MISTAKES], ids=[number for number, _ in MISTAKES])
def test_every_test_that_shows_a_guard_is_there(shown: str) -> None:
    """Each row names at least one, by file and function."""
    assert_there(shown)


def assert_there(shown: str) -> None:
    """Assert that there is a test of each name in ``shown``, and that there is a name."""
    named = [name.partition("::") for name in _CODE.findall(shown)]
    assert named
    for file, _, function in named:
        tree = ast.parse((PROJECT / "tests" / file).read_bytes())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file}::{function}"


#: Attack and tests of each row of the threat model.
THREATS: Final = re.findall(
    r"^\| (.+?) \| .*? \| .*? ?\| ((?:`[^`]+`(?:, )?)+|no test) \|$", text_of("security.md"), re.MULTILINE
)
#: What nothing shows: what a guest could do to QEMU, and what no kernel interface divides among containers.
KNOWN_BY_ARGUMENT: Final = ("break out of QEMU", "use up what the kernel counts for the whole host")


def test_every_row_of_the_threat_model_is_looked_at() -> None:
    """Each line of its tables is an attack with what holds, what does not, and tests."""
    threats = text_of("security.md").partition("## Threats\n")[2].partition("\n## ")[0]
    rows = [line for line in threats.splitlines() if line.startswith("| ") and not line.startswith("| attack |")]
    assert len(THREATS) == len(rows) > 30


@pytest.mark.parametrize(("attack", "shown"), THREATS, ids=[re.sub(r"\W+", "-", attack)[:40] for attack, _ in THREATS])
def test_every_threat_names_a_test_that_is_there(attack: str, shown: str) -> None:
    """Or is one of the few that nothing shows, and says so."""
    if attack.startswith(KNOWN_BY_ARGUMENT):
        assert shown == "no test"
    else:
        assert_there(shown)


# --- architecture.md and security.md ---------------------------------------------------------------------------------


def test_every_module_is_on_the_map() -> None:
    """docs/architecture.md has a row for each Python module and each C source of the package."""
    sources = [*MODULES, *(PACKAGE / "native").glob("*.c")]
    named = words_in_code("architecture.md")
    assert {name for path in sources if (name := str(path.relative_to(PACKAGE))) not in named} == set()


def test_the_map_names_no_module_that_is_gone() -> None:
    """Each file in the first column of the map is there."""
    rows = re.findall(r"^\| (`.+?) \|", section("architecture.md", "Files"), re.MULTILINE)
    assert [name for row in rows for name in _CODE.findall(row) if not (PACKAGE / name).exists()] == []


def test_the_layers_are_those_of_the_test() -> None:
    """The table of layers has the rows that tests/test_layers.py holds, as far as they exist."""
    rows = re.findall(r"^\| [^`|]+ \| (`.+?) \|$", section("architecture.md", "Layers"), re.MULTILINE)
    drawn = [tuple(_CODE.findall(row)) for row in rows]
    exist = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES}
    assert drawn == [tuple(name for name in row if name in exist) for row in LAYERS]


def test_what_a_container_keeps_and_hides_is_described() -> None:
    """Each kept capability, each masked and each read-only path stands in docs/security.md."""
    text = text_of("security.md")
    assert {name for name in (*KEPT_CAPABILITIES, *MASKED, *READ_ONLY) if name not in text} == set()
    text = " ".join(section("security.md", "The filter").split())
    assert {group for group in seccomp.ALLOWED if group not in text} == set()
    assert {call for call in seccomp.RULES if f"`{call}`" not in text} == set()
    capabilities = set(re.findall(r"CAP_[A-Z_]+", section("security.md", "What each environment holds")))
    assert capabilities - {"CAP_MKNOD"} == set(KEPT_CAPABILITIES)


# --- links -----------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = _HEADING.findall(prose(page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """File and heading of each link inside the project exist."""
    for target in _LINK.findall(prose(page.read_text(encoding="utf-8"))):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.is_relative_to(PROJECT) and file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_every_page_of_the_docs_is_linked_from_the_readme_or_another_page() -> None:
    """No page is hidden."""
    targets = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in _LINK.findall(page.read_text(encoding="utf-8"))
        if "://" not in target
    }
    assert {page.name for page in DOCS.glob("*.md") if page.resolve() not in targets} == set()
