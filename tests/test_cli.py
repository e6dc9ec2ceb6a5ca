"""The command line: what it prints, completes, suggests and refuses; nothing is measured."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
import pytest
from click.testing import CliRunner

from benchbox import cli, completion, scenario, starter, terminal
from benchbox.errors import UsageError
from benchbox.events import EVENTS, EventLines
from tests.report import records

PROJECT: Final = Path(__file__).parents[1]
COMMANDS: Final = {
    **{name: command for name, command in cli.commands.commands.items() if not isinstance(command, click.Group)},
    **{f"image {name}": command for name, command in cli.image_commands.commands.items()},
}


def benchbox(folder: Path, *words: str, **variables: str) -> tuple[int, str, str]:
    """Run the program in ``folder``; return exit status, standard output and standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "benchbox.cli", *words],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        check=False,
    )
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def recorded(folder: Path) -> str:
    """Write a run below ``folder`` and return its id."""
    run = records.manifest()
    records.write_run(folder / "results" / run.run_id, run, records.samples())
    return run.run_id


def completions(folder: Path, *words: str) -> list[str]:
    """Return what bash would be offered for the last of ``words``."""
    line = {"COMP_WORDS": " ".join(["benchbox", *words]), "COMP_CWORD": str(len(words))}
    status, out, err = benchbox(folder, **line, **{completion.VARIABLE: "bash_complete"})
    assert (status, err) == (0, "")
    return [text.partition(",")[2] for text in out.splitlines() if text]


# --- help and errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_each_command_teaches_by_example(name: str) -> None:
    """It has examples, and each that begins with ``benchbox`` is a command line that the program would take."""
    help_text = CliRunner().invoke(COMMANDS[name], ["--help"]).output
    _, found, examples = help_text.partition("Examples:")
    assert found
    lines = [line.strip() for line in examples.partition("Options:")[0].splitlines()]
    shown = [line for line in lines if line.startswith("benchbox ")]
    assert any(line.startswith(f"benchbox {name}") for line in shown) or name == "completion"
    for line in shown:
        takes(line)


def takes(line: str) -> None:
    """Fail unless the commands and options of ``line`` exist; what follows two spaces explains it."""
    words = line.split("  ")[0].partition("|")[0].partition(">")[0].partition("&&")[0].split()[1:]
    command: click.Command = cli.commands
    while isinstance(command, click.Group) and words:
        command = command.commands[words.pop(0)]
    options = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= options, line


@pytest.mark.parametrize(
    ("words", "complaint", "suggestion"),
    [
        (["rum"], "no command 'rum'", "did you mean 'benchbox run'?"),
        (["zzzz"], "no command 'zzzz'", "'benchbox --help' shows all"),
        (["my.yaml"], "no command 'my.yaml'", "did you mean 'benchbox run my.yaml'?"),
        (["image", "lst"], "no command 'lst'", "did you mean 'benchbox image list'?"),
        (["run", "--ronds", "3", "x.yaml"], "no option '--ronds'", "did you mean '--rounds'?"),
        (["completion", "tcsh"], "'tcsh'", "'benchbox completion --help'"),
        (["completion"], "Choose from: bash, zsh, fish", "'benchbox completion --help'"),
        (["run", "--rounds", "x", "x.yaml"], "'x' is not a valid whole number", "'benchbox run --help'"),
        (["validate"], "missing argument", "'benchbox validate --help'"),
        (["image", "rm", "nothing-like-it"], "the cache holds no 'nothing-like-it'", "'benchbox image list'"),
    ],
)
def test_an_error_says_what_was_meant(words: list[str], complaint: str, suggestion: str, tmp_path: Path) -> None:
    """Two lines on standard error, exit status 2, nothing on standard output."""
    status, out, err = benchbox(tmp_path, *words, BENCHBOX_CACHE=str(tmp_path / "cache"))
    assert (status, out) == (2, "")
    first, second = err.splitlines()
    assert first.startswith("error: ") and complaint in first
    assert second.startswith("next: ") and suggestion in second


@pytest.mark.parametrize("words", [(), ("image",)])
def test_where_a_command_is_missing_the_help_is_shown(words: tuple[str, ...], tmp_path: Path) -> None:
    """On standard error, as it was not asked for; every command has its text on one line, none is cut short."""
    status, out, err = benchbox(tmp_path, *words)
    assert (status, out) == (2, "")
    assert err.startswith("Usage: benchbox ")
    assert "..." not in err.partition("Commands:")[2].partition("Examples:")[0]


def test_a_run_that_is_not_there_brings_the_nearest(tmp_path: Path) -> None:
    """By its whole id."""
    run_id = recorded(tmp_path)
    status, _, err = benchbox(tmp_path, "show", run_id.replace("2", "3", 1))
    assert status == 2
    assert f"did you mean '{run_id}'?" in err


# --- terminals -------------------------------------------------------------------------------------------------------


def test_a_table_can_be_read_in_any_encoding(tmp_path: Path) -> None:
    """What the encoding lacks is shown by what looks like it; nothing fails."""
    recorded(tmp_path)
    status, out, err = benchbox(tmp_path, "show", PYTHONIOENCODING="latin-1")
    assert (status, err) == (0, "")
    assert "4,650-5,030" in out and "–" not in out


def test_no_encoding_error_gets_through() -> None:
    """Letters without a lookalike become question marks."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    terminal.be_legible()
    stream.reconfigure(errors="benchbox.legible")
    stream.write("3 × 2 – 1 … 漢")
    stream.flush()
    assert stream.buffer.getvalue() == b"3 \xd7 2 - 1 ... ?"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("variables", "stream", "coloured"),
    [
        ({}, Terminal(), True),
        ({"NO_COLOR": "1"}, Terminal(), False),
        ({"NO_COLOR": ""}, Terminal(), True),
        ({"TERM": "dumb"}, Terminal(), False),
        ({}, io.StringIO(), False),
    ],
)
def test_colours_are_for_terminals_whose_users_want_them(
    variables: Mapping[str, str], stream: io.StringIO, coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NO_COLOR, when it is not empty, takes them away; so does a terminal that has none."""
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert terminal.colourful(stream) is coloured


# --- completion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_there_is_a_script_for_each_shell(shell: str) -> None:
    """It calls the program with the variable that the program answers to."""
    text = completion.script(cli.commands, shell)
    assert completion.VARIABLE in text and "benchbox" in text


def test_another_shell_is_refused() -> None:
    with pytest.raises(UsageError, match="no completion for tcsh"):
        completion.script(cli.commands, "tcsh")


def test_commands_runs_files_and_environments_are_completed(tmp_path: Path) -> None:
    """Each where it is asked for."""
    run_id = recorded(tmp_path)
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios" / "mine.yaml").write_text(starter.starter("mine", "mine.yaml"))
    assert completions(tmp_path, "ru") == ["run"]
    assert completions(tmp_path, "show", "") == ["latest", run_id]
    assert completions(tmp_path, "run", "") == ["scenarios/mine.yaml"]
    assert completions(tmp_path, "run", "sc") == ["scenarios/"]
    assert completions(tmp_path, "run", "scenarios/m") == ["scenarios/mine.yaml"]
    assert completions(tmp_path, "run", "scenarios/mine.yaml", "--only", "env:") == [
        "env:native",
        "env:container",
        "env:vm",
    ]
    assert "vm:kvm" in completions(tmp_path, "run", "--require", "vm")
    assert completions(tmp_path, "run", "--resume", "la") == ["latest"]


def test_a_completion_that_cannot_be_is_none(tmp_path: Path) -> None:
    """No word of an error gets onto the user's line."""
    assert completions(tmp_path, "run", "missing.yaml", "--only", "env:") == []
    (tmp_path / "broken.yaml").write_text("name: [")
    assert completions(tmp_path, "run", "broken.yaml", "--only", "env:") == []
    assert completions(tmp_path, "run", "nowhere/") == []


# --- init ------------------------------------------------------------------------------------------------------------


def test_the_starter_is_a_scenario(tmp_path: Path) -> None:
    """It validates as it stands, is called after its file, and so do the lines that it has as comments."""
    status, out, _ = benchbox(tmp_path, "init", "My Question.yaml")
    assert (status, out) == (0, "My Question.yaml\n")
    found = scenario.load(tmp_path / "My Question.yaml")
    assert found.name == "my-question"
    assert [each.kind for each in found.environments] == ["native", "container", "vm"]
    text = (tmp_path / "My Question.yaml").read_text()
    used = scenario.loads("\n".join(uncommented(line) for line in text.splitlines()), "starter")
    assert (len(used.environments), len(used.workloads), used.resources.cpu_quota) == (4, 2, 0.5)


def uncommented(line: str) -> str:
    """Return ``line`` without the mark that makes a key of it a comment; the head of the file stays one."""
    return line.replace("# ", "", 1) if line.lstrip() != line and line.lstrip().startswith("# ") else line


def test_init_never_overwrites(tmp_path: Path) -> None:
    """The file stays what it was."""
    (tmp_path / "scenario.yaml").write_text("precious")
    status, _, err = benchbox(tmp_path, "init")
    assert status == 2 and "is there already" in err
    assert (tmp_path / "scenario.yaml").read_text() == "precious"
    assert benchbox(tmp_path, "init", "no/such/folder.yaml")[0] == 2


@pytest.mark.parametrize(("stem", "name"), [("a b", "a-b"), ("---", "scenario"), ("Ünï", "n"), ("x" * 99, "x" * 64)])
def test_a_name_is_made_of_what_a_file_is_called(stem: str, name: str) -> None:
    assert starter.name_of(stem) == name


# --- events ----------------------------------------------------------------------------------------------------------

JOB: Final[Mapping[str, Any]] = {
    "run_id": "test-20260101T000000Z-0000",
    "scenario": {"name": "test"},
    "order": [["a/startup", "b/startup"], ["b/startup", "a/startup"]],
    "first_round": 1,
}


def test_events_are_one_json_object_a_line() -> None:
    """The first says which run it is, and what it will measure."""
    stream = io.StringIO()
    with EventLines(stream, JOB) as lines:
        lines.on_event({"event": "prepare", "what": "image minimal\n"})
    first, second = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert first["event"] == EVENTS[0] and first["rounds"] == 1 and first["cells"] == ["a/startup", "b/startup"]
    assert second == {"event": "prepare", "what": "image minimal\n"}


def test_a_reader_that_has_gone_does_not_end_the_run() -> None:
    """Its events are dropped."""

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with EventLines(Gone(), JOB) as lines:
        lines.on_event({"event": "end"})
