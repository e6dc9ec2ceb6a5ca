"""The one way to a terminal: whatever is printed goes through it, and nothing of others commands it."""

import ast
import contextlib
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from benchbox import cli, completion, terminal
from benchbox.doctor import facts
from benchbox.doctor import look as looks
from benchbox.errors import EnvironmentFailure, LockError
from benchbox.images import inventory
from benchbox.progress import Progress
from benchbox.supervisor import cleanup
from tests.doctor import hosts
from tests.report import records

RUN: Final = "startup-20260501T100000Z-ab12"
PACKAGE: Final = Path(cli.__file__).parent
#: Clears the screen, sets the title, C1's CSI, turns the reading direction, rings; half of a surrogate pair.
NASTY: Final = "no\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\u2066\x7f\x08\udcffpe"
#: What benchbox itself sends: colours, and what moves the cursor for the bars.
OURS: Final = re.compile(r"\x1b\[[0-9;]*[mAK]|\x1b\[\?25[lh]|\x1b\[2K|\r")


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def tty(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Return a terminal with colours."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def harmful(text: str) -> list[str]:
    """Return what of ``text`` commands a terminal or reorders what is read, but for what benchbox itself sends."""
    bad = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return [char for char in OURS.sub("", text) if unicodedata.category(char) in bad and char not in "\n\t"]


def run(tty: Terminal, *words: str) -> None:
    """Run the program as its entry point does, with ``tty`` as standard output and error."""
    called(tty, lambda: cli.commands.main(list(words), "benchbox", standalone_mode=False))


def called(tty: Terminal, function: Callable[[], int]) -> int:
    with contextlib.redirect_stdout(tty), contextlib.redirect_stderr(tty):
        return cli._exit_with(function)


# --- nobody goes another way -----------------------------------------------------------------------------------------

#: They hand a stream to what is made for it, or ask what it is.
TAKERS: Final = {"EventLines", "Progress", "terminal.console", "sys.stdout.isatty", "sys.stderr.isatty"}
_PRINTS: Final = re.compile(r"click\.(s?echo|secho|style)|(self\._)?stream\.write|sys\.(__)?std(out|err)(__)?")


def bypasses(code: str, name: str) -> Iterator[str]:
    """Yield each place in ``code``, of the module ``name``, that could print without ``terminal``."""
    tree = ast.parse(code)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    allowed = {id(each) for call in calls if _takes_a_stream(call) for each in ast.walk(call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "Console"):
            yield f"{name}:{node.lineno}: {ast.unparse(node.func)}"
        elif isinstance(node, ast.Attribute) and id(node) not in allowed and _prints(node):
            yield f"{name}:{node.lineno}: {ast.unparse(node)}"


def _prints(node: ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Load) and _PRINTS.fullmatch(ast.unparse(node)) is not None


def _takes_a_stream(call: ast.Call) -> bool:
    return ast.unparse(call.func) in TAKERS


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(PACKAGE.rglob("*.py")) if path.name not in ("terminal.py", "foreign.py", "copy_up.py")],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_whatever_is_printed_goes_through_the_terminal_module(path: Path) -> None:
    """No print, no click.echo, no console of rich's own, no write to a standard stream anywhere else."""
    assert list(bypasses(path.read_text(), path.name)) == []


def test_the_search_for_bypasses_finds_them() -> None:
    """Each of the ways that the rule names."""
    code = "import sys, click\nprint(1)\nclick.echo(2)\nsys.stdout.write('3')\nConsole().print(4)\nf(sys.stderr)\n"
    found = {text.partition(": ")[2] for text in bypasses(code, "x.py")}
    assert found == {"print", "Console", "click.echo", "sys.stderr", "sys.stdout"}


# --- the exit itself -------------------------------------------------------------------------------------------------


def test_our_colours_are_kept_and_those_of_others_are_not(tty: Terminal) -> None:
    """The code that the program gives stands around the text, none inside of it."""
    with contextlib.redirect_stdout(tty):
        terminal.say(f"a {NASTY}", colour="1;31")
    assert tty.getvalue().startswith("\x1b[1;31ma no ") and tty.getvalue().endswith("pe\x1b[0m\n")
    assert harmful(tty.getvalue()) == []


def test_no_line_of_others_begins_like_one_of_ours(tty: Terminal) -> None:
    """What has line breaks stands indented below its beginning."""
    with contextlib.redirect_stdout(tty):
        terminal.say("error: a\nnext: rm -rf /")
    assert tty.getvalue() == "error: a\n  next: rm -rf /\n"


def test_richs_colours_are_kept_and_those_of_others_are_not(tty: Terminal) -> None:
    """A text with a style of ours and codes of others."""
    from rich.text import Text

    terminal.console(tty).print(Text(f"a {NASTY}", style="bold red"))
    assert "\x1b[1;31ma no" in tty.getvalue()
    assert harmful(tty.getvalue()) == []


# --- each source of foreign text -------------------------------------------------------------------------------------


def nasty_run(folder: Path) -> None:
    """Write a run in which everything that others may have written is nasty."""
    run_record, taken, _ = records.evil_run(NASTY.replace("\udcff", ""))
    records.write_run(folder / "results" / RUN, run_record, taken)


@pytest.mark.parametrize("words", [("show",), ("export",), ("export", "--raw-text"), ("list",), ("show", "--json")])
def test_a_record_of_others_cannot_steer_a_terminal(
    words: tuple[str, ...], tty: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reasons, consoles, agents' words, flags and notes of a record, in the table, the list, the export, as JSON."""
    nasty_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    run(tty, *words)
    assert "owned" in tty.getvalue()
    assert harmful(tty.getvalue()) == []


@pytest.mark.parametrize(
    "words",
    [
        (NASTY,),
        ("run", NASTY),
        ("run", f"--{NASTY}"),
        ("run", "--rounds", NASTY, "x.yaml"),
        ("validate", NASTY),
        ("show", NASTY),
        ("show", f"./{NASTY}"),
        ("image", NASTY),
        ("image", "rm", NASTY),
        ("completion", NASTY),
        ("plan", "--require", NASTY, "mine.yaml"),
        ("plan", "--only", NASTY, "mine.yaml"),
        ("init", f"no-such-folder/{NASTY}"),
    ],
)
def test_arguments_and_names_cannot_steer_a_terminal(
    words: tuple[str, ...], tty: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an error quotes of the command line, of benchbox's own errors as of click's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "cache"))
    run(tty, "init", "mine.yaml")
    tty.seek(0)
    tty.truncate()
    run(tty, *words)
    assert "error" in tty.getvalue()
    assert harmful(tty.getvalue()) == []


def test_a_file_of_a_nasty_name_cannot_steer_a_terminal(
    tty: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written, and said with what its name has of letters."""
    monkeypatch.chdir(tmp_path)
    run(tty, "init", f"{NASTY}.yaml")
    assert len(list(tmp_path.iterdir())) == 1
    assert harmful(tty.getvalue()) == []


def test_an_error_and_its_hint_cannot_steer_a_terminal(tty: Terminal) -> None:
    """Whatever they quote."""

    def fail() -> int:
        raise EnvironmentFailure(f"a\n{NASTY}", hint=NASTY)

    assert called(tty, fail) == 2
    assert tty.getvalue().startswith("\x1b[31merror\x1b[0m: a\n  no")
    assert harmful(tty.getvalue()) == []


def test_the_holder_of_the_lock_and_busy_processes_cannot_steer_a_terminal(
    tty: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any user chooses the name and the command line of a process, and root looks at them."""
    monkeypatch.setattr(looks, "look", lambda *_: hosts.BROKEN)
    run(tty, "doctor")
    assert "\x1b[1;31mBLOCKERS\x1b[0m" in tty.getvalue()
    assert "cc1 ]0;title" in tty.getvalue()
    assert harmful(tty.getvalue()) == []


def test_who_holds_the_host_cannot_steer_a_terminal(
    tty: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line of whoever bound the lock's name is quoted where a run is refused."""

    def taken(*_: object) -> None:
        raise LockError(f"another run holds this host: process 1 ({NASTY})", hint="wait for its end")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("benchbox.supervisor.supervise", taken)
    run(tty, "init", "mine.yaml")
    run(tty, "run", "mine.yaml")
    assert "another run holds this host" in tty.getvalue()
    assert harmful(tty.getvalue()) == []


def test_what_dead_runs_left_cannot_steer_a_terminal(tty: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger names folders and runs."""
    cleaned = cleanup.Cleaned(f"run\n{NASTY}", (NASTY,), (NASTY,))
    monkeypatch.setattr(cleanup, "clean_dead_runs", lambda: [cleaned])
    monkeypatch.setattr(cleanup, "sweep_scratch", lambda: [Path(NASTY)])
    monkeypatch.setattr(cleanup, "living_runs", lambda: [NASTY])
    run(tty, "clean")
    assert "removed" in tty.getvalue()
    assert harmful(tty.getvalue()) == []


def test_the_cache_cannot_steer_a_terminal(tty: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of files, and what a manifest of an image says."""
    entry = inventory.Entry(NASTY, NASTY, tmp_path / NASTY, 1, NASTY, NASTY)
    monkeypatch.setattr(inventory, "entries", lambda **_: [entry])
    monkeypatch.setattr(inventory, "find", lambda _: [entry])
    monkeypatch.setattr(inventory, "details", lambda _: {"name": NASTY, "packages": [NASTY], "size_bytes": 1})
    run(tty, "image", "list")
    run(tty, "image", "inspect", "x")
    assert harmful(tty.getvalue()) == []


EVENTS: Final[tuple[dict[str, Any], ...]] = (
    {"event": "prepare", "what": NASTY},
    {"event": "environment", "label": NASTY, "state": "skipped", "reason": NASTY, "fix": NASTY, "applied": {}},
    {"event": "environment", "label": NASTY, "state": "measured", "reason": None, "applied": {"accelerator": NASTY}},
    {"event": "start", "measured": [f"a{NASTY}"]},
    {
        "event": "sample", "cell": f"a{NASTY}/w", "round": 1, "status": "failed", "reason": f"x\n{NASTY}",
        "headline": None, "elapsed_s": 1.0,
    },
    {"event": "abandoned", "cell": f"a{NASTY}/w", "reason": NASTY},
)  # fmt: skip
JOB: Final[dict[str, Any]] = {
    "run_id": NASTY, "scenario": {"name": NASTY}, "order": [[f"a{NASTY}/w"]] * 2, "first_round": 1,
}  # fmt: skip


@pytest.mark.parametrize("stream", [Terminal, io.StringIO], ids=["bars", "lines"])
def test_the_display_of_a_run_cannot_steer_a_terminal(stream: Callable[[], io.StringIO]) -> None:
    """Labels, cells, reasons and fixes, in bars and in lines."""
    shown = stream()
    with Progress(shown, JOB) as progress:
        for event in EVENTS:
            progress.on_event(event)
    assert "abandoned" in shown.getvalue()
    assert harmful(shown.getvalue()) == []


def test_no_event_of_a_run_makes_a_line_like_ours() -> None:
    """A line break in a label or a reason begins an indented line."""
    shown = io.StringIO()
    with Progress(shown, JOB) as progress:
        progress.on_event({"event": "prepare", "what": "a\nnext: rm -rf /"})
        progress.on_event({**EVENTS[1], "label": "a\nnext: rm", "reason": "b\nnext: rm"})
    assert not [line for line in shown.getvalue().splitlines() if line.startswith("next")]


def test_events_as_json_cannot_steer_a_terminal() -> None:
    """They are ASCII, and read back as what they were."""
    from benchbox.events import EventLines

    shown = Terminal()
    with EventLines(shown, JOB) as lines:
        for event in EVENTS:
            lines.on_event(event)
    assert harmful(shown.getvalue()) == []
    assert json.loads(shown.getvalue().splitlines()[1]) == EVENTS[0]


def test_a_shell_is_offered_whole_harmless_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It puts them on the command line unquoted: a name that it would read as code is not offered."""
    monkeypatch.chdir(tmp_path)
    names = ("good.yaml", "grün.yaml", f"{NASTY}.yaml", "$(reboot).yaml", "a;b.yaml", "a b.yaml", "`a`.yaml")
    for name in names:
        Path(name).write_text("")
    context = cli.commands.make_context("benchbox", ["validate", "x"], resilient_parsing=True)
    found = completion.scenario_files(context, cli.commands.params[0], "")
    assert {item.value for item in found} == {"good.yaml", "grün.yaml"}


def test_what_a_shell_shows_beside_a_word_is_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The description is the file's own."""
    monkeypatch.setattr(completion, "_description", lambda _: NASTY)
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("")
    context = cli.commands.make_context("benchbox", ["validate", "x"], resilient_parsing=True)
    (item,) = completion.scenario_files(context, cli.commands.params[0], "")
    assert harmful(str(item.help)) == []


def test_these_facts_are_as_nasty_as_they_should_be() -> None:
    """The host that the doctor looks at has a process whose name is an escape sequence, and a holder of the lock."""
    assert any("\x1b" in busy.name for busy in hosts.BROKEN.activity.busy)
    assert isinstance(hosts.BROKEN.runs, facts.Runs) and hosts.BROKEN.runs.holder
