"""What the shell completes: runs, scenario files, environments. Never raises: a completion that fails is none."""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import click
from click.shell_completion import CompletionItem, get_completion_class

from benchbox.errors import BenchboxError, UsageError
from benchbox.foreign import plain

#: The environment variable by which a shell's completion calls the program.
VARIABLE: Final = "_BENCHBOX_COMPLETE"
SHELLS: Final = ("bash", "zsh", "fish")
#: What a shell takes for one word as it stands. It is put on the command line unquoted: nothing else is offered.
_WORD: Final = re.compile(r"[\w@%+=:,./-]+")
_SCENARIO_FOLDER: Final = Path("scenarios")

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
Source = Callable[[click.Context, str], Iterable[tuple[str, str | None]]]


def script(command: click.Command, shell: str) -> str:
    """Return what ``shell`` has to read to complete ``command``."""
    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError(f"no completion for {shell}", hint=f"there is one for {', '.join(SHELLS)}")
    made = kind(command, {}, "benchbox", VARIABLE)
    return made.source_template % made.source_vars()


def _completer(source: Source) -> Completer:
    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        with contextlib.suppress(Exception):  # half a command line can be anything
            found = source(context, incomplete)
            return [
                CompletionItem(text, help=what and plain(what))
                for text, what in found
                if text.startswith(incomplete) and _WORD.fullmatch(text)
            ]
        return []

    return complete


def _runs(context: click.Context, incomplete: str) -> Iterator[tuple[str, str | None]]:
    from benchbox.record import list_runs

    yield "latest", "the newest run"
    for path in reversed(list_runs(Path(context.params.get("results") or "results"))):
        yield path.name, None


def _scenario_files(context: click.Context, incomplete: str) -> Iterator[tuple[str, str | None]]:
    typed = Path(incomplete)
    folder = typed if incomplete.endswith("/") else typed.parent
    folders = [folder] if incomplete else [folder, _SCENARIO_FOLDER]
    for place in (each for each in folders if each.is_dir()):
        for path in sorted(place.iterdir()):
            if path.suffix in (".yaml", ".yml"):
                yield str(path), _description(path)
            elif path.is_dir() and incomplete and not path.name.startswith("."):
                yield f"{path}/", None


def _description(path: Path) -> str | None:
    from benchbox.scenario import load

    with contextlib.suppress(BenchboxError):
        return load(path).description.partition("\n")[0] or None
    return None


def _only(context: click.Context, incomplete: str) -> Iterator[tuple[str, str | None]]:
    from benchbox.scenario import load

    # The parser has given up before the option that has no value yet: what it left may name the file.
    words = [context.params.get("scenario_file"), *context.args]
    scenario = load(next(path for word in words if word and (path := Path(word)).is_file()))
    before = incomplete[: incomplete.rfind(",") + 1]
    for environment in scenario.environments:
        yield f"{before}env:{environment.label}", environment.kind
    for workload in scenario.workloads:
        yield f"{before}workload:{workload.name}", None


def _requirements(context: click.Context, incomplete: str) -> Iterator[tuple[str, str | None]]:
    from benchbox.environments import KINDS

    before = incomplete[: incomplete.rfind(",") + 1]
    for kind in (*KINDS, "vm:kvm"):
        yield f"{before}{kind}", None


def _cached(context: click.Context, incomplete: str) -> Iterator[tuple[str, str | None]]:
    from benchbox.images import inventory

    for entry in inventory.entries(measured=False):
        yield entry.name, entry.what


runs: Final = _completer(_runs)
scenario_files: Final = _completer(_scenario_files)
only: Final = _completer(_only)
requirements: Final = _completer(_requirements)
cached: Final = _completer(_cached)
