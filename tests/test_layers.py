"""The order of the layers, read from the imports (docs/architecture.md draws it)."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

PACKAGE: Final = Path(__file__).parents[1] / "benchbox"

#: From the top down. A layer imports itself and those below it; a row's members may import each other.
LAYERS: Final = (
    ("cli", "__main__", "progress", "events", "completion", "terminal"),
    ("supervisor",),
    ("report", "analysis", "export"),
    ("engine", "together", "served", "caches", "worker", "forecast", "needs", "doctor"),
    ("scenario", "starter", "document", "complaints", "plan", "record", "host", "noise"),
    ("environments", "workloads"),
    ("virt",),
    ("images",),
    ("linux",),
    ("model", "units", "foreign", "errors", "remedies"),
    ("native",),
)
RANK: Final = {name: rank for rank, row in enumerate(LAYERS) for name in row}
#: Imported by everything: the package itself, for its version.
ROOT: Final = ""
#: They meet in ``model.Command`` and ``model.Outcome`` only.
STRANGERS: Final = ({"environments", "workloads"},)
#: Imported from below, too: what goes wrong has one set of words.
LEAVES: Final = frozenset({"errors"})

#: Read by every process, the measuring one and ``launch``'s planner among them.
STANDARD_LIBRARY_ONLY: Final = ("linux", "model", "units", "foreign", "errors", "remedies", "native")
#: Too large for the measuring process, which imports everything from ``engine`` down.
HEAVY: Final = frozenset({"numpy", "pandas", "plotly", "scipy", "jinja2"})
LIBVIRT_WORKER: Final = PACKAGE / "virt" / "worker.py"

MODULES: Final = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted name of everything that the module at ``path`` imports, at whatever depth of its code."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import hides its layer"
            source = node.module or ""
            yield from (f"{source}.{alias.name}" for alias in node.names) if source == "benchbox" else (source,)


def layer(name: str) -> str:
    """Return the layer that a dotted name below ``benchbox`` belongs to."""
    first = name.removeprefix("benchbox").lstrip(".").partition(".")[0]
    return ROOT if first.startswith("__version__") else first


def layer_of(path: Path) -> str:
    """Return the layer that the module at ``path`` belongs to."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return ROOT if first == "__init__" else first


def may_import(importer: str, imported: str) -> bool:
    """Say whether a module of the layer ``importer`` may import the layer ``imported``."""
    if imported in {ROOT, importer, *LEAVES}:
        return True
    if importer == ROOT or {importer, imported} in STRANGERS:
        return False
    return RANK[importer] <= RANK.get(imported, -1)


def named(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_imports_only_its_own_layer_and_those_below(path: Path) -> None:
    """Each module imports only its own row of the table and the rows below it."""
    assert layer_of(path) in {ROOT, *RANK}, f"give {named(path)} a place in LAYERS"
    ours = [name for name in imports(path) if name.split(".")[0] == "benchbox"]
    assert [name for name in ours if not may_import(layer_of(path), layer(name))] == []


@pytest.mark.parametrize("path", [path for path in MODULES if layer_of(path) in STANDARD_LIBRARY_ONLY], ids=named)
def test_the_lowest_layers_use_the_standard_library_only(path: Path) -> None:
    """What every process imports brings no third-party package with it."""
    foreign = {name.split(".")[0] for name in imports(path)} - {"benchbox"} - sys.stdlib_module_names
    assert foreign == set()


@pytest.mark.parametrize("path", [path for path in MODULES if RANK.get(layer_of(path), 0) >= RANK["engine"]], ids=named)
def test_the_measuring_process_imports_nothing_heavy(path: Path) -> None:
    """From the engine down nothing imports the libraries of analysis and report, not even inside a function."""
    assert HEAVY & {name.split(".")[0] for name in imports(path)} == set()


def test_only_the_libvirt_worker_imports_libvirt() -> None:
    """libvirt's library lives in a process of its own."""
    importers = {path for path in MODULES if "libvirt" in {name.split(".")[0] for name in imports(path)}}
    assert importers <= {LIBVIRT_WORKER}


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("cli", "units", True),
        ("engine", "environments", True),
        ("linux", "images", False),
        ("environments", "workloads", False),
        ("workloads", "environments", False),
        ("environments", "engine", False),
        ("native", "errors", True),
        ("model", "linux", False),
    ],
)
def test_the_rule_refuses_what_it_should(importer: str, imported: str, allowed: bool) -> None:
    """The rule itself lets through what points down and refuses what points up or sideways to a stranger."""
    assert may_import(importer, imported) is allowed
