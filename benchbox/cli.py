"""The command line: parses, prints, exits. Nothing else in benchbox does.

Everything heavy is imported by the command that needs it, so that ``benchbox --version`` is instant.
"""

import contextlib
import difflib
import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from benchbox import __version__, completion, foreign, terminal
from benchbox.errors import BenchboxError, RecordError, TrustError, UsageError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from benchbox.analysis.summary import Summary
    from benchbox.doctor.facts import GuestTrial, Runs
    from benchbox.events import EventLines
    from benchbox.images.inventory import Entry
    from benchbox.progress import Progress
    from benchbox.record import Manifest
    from benchbox.scenario import Scenario
    from benchbox.supervisor.supervise import Ending

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 2
EXIT_NOTHING: Final = 3
EXIT_INTERRUPTED: Final = 130
_EXIT_BY_STATE: Final = {
    "done": EXIT_DONE, "failed": EXIT_FAILED, "nothing": EXIT_NOTHING, "interrupted": EXIT_INTERRUPTED,
}  # fmt: skip

#: How much of a long list `image inspect` shows for people.
_SHOWN_ITEMS: Final = 8
#: SGR code (ECMA-48).
_RED: Final = "31"

_EPILOG: Final = """\b
Examples:
  benchbox doctor                                 what can this host measure, what would disturb it
  benchbox init my-question.yaml                  a commented scenario to begin with
  benchbox run scenarios/startup.yaml             measure, print a table, write a page
  benchbox run scenarios/startup.yaml --rounds 5 --only env:native,env:container
  benchbox plan scenarios/startup.yaml            what would be done, how long, with which rights
  benchbox show latest                            the table of the newest run once more
  benchbox export latest --format csv -o run.csv  every sample, for other tools
  benchbox COMMAND --help                         each command, with examples of its own

\b
Exit codes: 0 done, 1 regression found, 2 usage or infrastructure error (a failed cell
included), 3 nothing could be judged, 130 interrupted (what was measured is kept).
"""


def _shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every command which runs a scenario has."""
    for option in reversed(
        (
            click.option("--rounds", type=click.IntRange(1, 10_000), help="Rounds, instead of the scenario's."),
            click.option("--seed", type=click.IntRange(0), help="Seed of the order and of the intervals."),
            click.option(
                "--only",
                metavar="env:LABEL,workload:NAME",
                shell_complete=completion.only,
                help="Only these environments and workloads.",
            ),
            click.option(
                "--require",
                metavar="KIND[:ACCELERATOR],...",
                shell_complete=completion.requirements,
                help="Fail, instead of skip, without these.",
            ),
            _results_option,
            click.option("--quiet", is_flag=True, help="No progress, only the result."),
        )
    ):
        command = option(command)
    return command


_results_option = click.option(
    "--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Folder of all runs."
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
_run_argument = click.argument("run_name", metavar="RUN", default="latest", shell_complete=completion.runs)


def _scenario_argument(*, required: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.argument(
        "scenario_file",
        metavar="SCENARIO",
        required=required,
        type=click.Path(path_type=Path),
        shell_complete=completion.scenario_files,
    )


class _Commands(click.Group):
    """A group that shows its help where no command is given, and names the nearest where there is none of that name."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            terminal.show(ctx.get_help(), err=True)
            ctx.exit(EXIT_FAILED)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if ctx.resilient_parsing or name.startswith("-") or self.get_command(ctx, name):
            return super().resolve_command(ctx, args)
        raise UsageError(f"no command '{name}'", hint=self._nearest(ctx, name))

    def _nearest(self, context: click.Context, name: str) -> str:
        near = difflib.get_close_matches(name.lower(), self.commands, n=1, cutoff=0.5)
        if near:
            return f"did you mean '{context.command_path} {near[0]}'?"
        if name.endswith((".yaml", ".yml")) and context.parent is None:
            return f"did you mean 'benchbox run {name}'?"
        return f"'{context.command_path} --help' shows all"


_Commands.group_class = _Commands


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@click.version_option(__version__, prog_name="benchbox")
def commands() -> None:
    """Native, container or virtual machine: what does the choice cost on this host?

    benchbox runs the same workload from the same files natively, in its own containers and in KVM guests, round by
    round, and says what differs, by how much, and how sure that is.

    A RUN is named by its id, the beginning of it, its folder, or `latest`.
    """


@commands.command()
@_scenario_argument(required=False)
@_shared
@click.option(
    "--reports", type=click.Path(path_type=Path), default=Path("reports"), show_default=True, help="Folder of pages."
)
@click.option(
    "--resume",
    metavar="RUN",
    shell_complete=completion.runs,
    help="Go on with an interrupted RUN; its broken round is repeated.",
)
@click.option(
    "--json-events",
    is_flag=True,
    help="Every event as one JSON line on standard output, instead of progress and table.",
)
def run(
    scenario_file: Path | None,
    rounds: int | None,
    seed: int | None,
    only: str | None,
    require: str | None,
    results: Path,
    quiet: bool,
    reports: Path,
    resume: str | None,
    json_events: bool,
) -> int:
    """Measure SCENARIO, print the table, write record and page.

    Every sample is on disk the moment it exists. Ctrl-C ends the run cleanly and keeps what was measured; a second
    Ctrl-C ends it at once. Neither leaves a mount, cgroup, process or guest behind.

    \b
    Examples:
      benchbox run scenarios/startup.yaml
      benchbox run scenarios/startup.yaml --rounds 5 --only env:native,env:container
      benchbox run scenarios/startup.yaml --require vm:kvm     fail where there is no KVM
      benchbox run --resume latest                             go on with what was interrupted
      benchbox run scenarios/startup.yaml --json-events | jq 'select(.event == "sample")'
    """
    from benchbox import record
    from benchbox.supervisor import supervise

    if resume:
        job = _resumed_job(_load(scenario_file, rounds, seed, only) if scenario_file else None, results, resume)
    elif scenario_file:
        job = _new_job(_load(scenario_file, rounds, seed, only), scenario_file, results)
    else:
        raise UsageError("which scenario?", hint="benchbox run scenarios/startup.yaml")
    record.check_writable(Path(job["results"]))
    job["require"] = _required(require, job["scenario"]["environments"])
    if not resume:
        _provide(job["scenario"], quiet=quiet)
    with _watcher(job, quiet=quiet, json_events=json_events) as watcher:
        ending = supervise(job["run_id"], job, watcher.on_event)
    status = EXIT_FAILED if ending.leftovers else _EXIT_BY_STATE[ending.state]
    folder = Path(job["results"], job["run_id"])
    measured = (folder / "manifest.json").exists()
    if json_events:
        watcher.on_event(_result_event(ending, folder if measured else None, reports, status))
        return status
    try:
        if measured:
            _print_result(folder, reports)
    finally:  # a page that cannot be written must not hide how the run ended
        _print_ending(ending)
    return status


def _provide(scenario: dict[str, Any], *, quiet: bool) -> None:
    """Have installed what the scenario needs, where ``benchboxw`` runs us; say what is missing all the same."""
    from benchbox import needs
    from benchbox.scenario import from_resolved

    lacking = needs.provide(from_resolved(scenario), os.environ.pop(needs.WRAPPER, None))
    if lacking and not quiet:
        terminal.say(f"missing on this host: {needs.told(lacking)}", err=True)
        terminal.say(f"next: as root, {needs.command(lacking)}; what needs it is not measured until then", err=True)


def _watcher(job: dict[str, Any], *, quiet: bool, json_events: bool) -> "AbstractContextManager[EventLines | Progress]":
    if json_events:
        from benchbox.events import EventLines

        return EventLines(sys.stdout, job)
    from benchbox.progress import Progress

    return Progress(sys.stderr, job, quiet=quiet)


def _result_event(ending: "Ending", folder: Path | None, reports: Path, status: int) -> dict[str, Any]:
    """Return the last event: how the run ended, and where record and page are."""
    from benchbox.report.page import write_page

    page = write_page(folder, reports / f"{folder.name}.html") if folder else None
    return {
        "event": "result",
        "state": ending.state,
        "reason": ending.reason,
        "hint": ending.hint,
        "exit_status": status,
        "record": str(folder) if folder else None,
        "page": str(page) if page else None,
        "leftovers": list(ending.leftovers),
    }


def _load(scenario_file: Path, rounds: int | None, seed: int | None, only: str | None) -> "Scenario":
    from benchbox.scenario import load, select, with_overrides

    return select(with_overrides(load(scenario_file), rounds=rounds, seed=seed), only)


def _new_job(scenario: "Scenario", scenario_file: Path, results: Path) -> dict[str, Any]:
    import secrets
    from datetime import UTC, datetime

    from benchbox import record
    from benchbox.scenario import planned_order, resolved

    return {
        "run_id": record.new_run_id(scenario.name, datetime.now(UTC), secrets.token_hex(2)),
        "scenario": resolved(scenario),
        "scenario_file": str(scenario_file),
        "results": str(results),
        "order": planned_order(scenario),
        "first_round": 1,
        "resumed": False,
    }


def _resumed_job(scenario: "Scenario | None", results: Path, name: str) -> dict[str, Any]:
    """Return the job that goes on with the run ``name``. Raises UsageError where that would mix unlike things."""
    from benchbox import record
    from benchbox.scenario import from_resolved, resolved

    folder, manifest = record.open_interrupted(record.find_run(results, name))
    # As this version would write it: a key that has come since has its default there.
    if scenario and resolved(from_resolved(manifest.scenario)) != resolved(scenario):
        raise UsageError(f"{manifest.run_id} was made with another scenario", hint="give the same file and options")
    _refuse_changed_host(manifest)
    samples, _ = record.read_samples(folder)
    last_whole = record.last_whole_round(manifest, samples)
    if last_whole >= manifest.rounds:
        raise UsageError(f"{manifest.run_id} is complete", hint=f"benchbox show {manifest.run_id}")
    return {
        "run_id": manifest.run_id,
        "scenario": manifest.scenario,
        "scenario_file": manifest.scenario_file,
        "results": str(folder.path.parent),
        "order": manifest.order,
        "first_round": max(1, last_whole + 1),
        "resumed": True,
    }


def _refuse_changed_host(manifest: "Manifest") -> None:
    from benchbox import host

    if host.boot_id() != manifest.boot_id:
        raise UsageError(f"{manifest.run_id} was measured in another boot of this host", hint="start a new run")
    found = host.fingerprint()
    if host.digest(found) != manifest.host_digest:
        changed = host.differences(manifest.host, found)
        raise UsageError(f"this host has changed since {manifest.run_id}: {', '.join(changed)}", hint="start a new run")


def _required(text: str | None, environments: list[dict[str, Any]]) -> list[str]:
    """Return the words of ``--require``. Raises UsageError for one that the scenario does not have."""
    words = [word for word in (text or "").split(",") if word]
    known = sorted({entry[key] for entry in environments for key in ("kind", "label")})
    for word in words:
        name, colon, accelerator = word.partition(":")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"did you mean '{near[0]}{colon}{accelerator}'? " if near else ""
            raise UsageError(
                f"--require {word}: the scenario has no such environment", hint=f"{meant}it has {', '.join(known)}"
            )
    return words


def _print_result(folder: Path, reports: Path) -> None:
    from benchbox.report.page import write_page

    if sys.stdout.isatty():
        terminal.say()  # the progress stands above
    _print_table(folder)
    page: Path | None = None
    try:
        page = write_page(folder, reports / f"{folder.name}.html")
    finally:
        terminal.say()
        terminal.say(f"record  {folder}")
        if page:
            terminal.say(f"page    {page}")


def _summary(folder: Path) -> "Summary":
    from benchbox import record
    from benchbox.analysis.summary import summarise

    with record.collector_paused():
        samples, notes = record.read_samples(folder)
        return summarise(record.read_manifest(folder), samples, reading_notes=notes)


def _print_table(folder: Path) -> None:
    from benchbox.report import table

    summary = _summary(folder)
    if sys.stdout.isatty():
        terminal.console(sys.stdout).print(table.rich_text(summary))
    else:
        terminal.show(table.plain_text(summary))


def _print_ending(ending: "Ending") -> None:
    if ending.reason:
        terminal.say(err=True)
        terminal.say(f"{ending.state}: {ending.reason}", err=True)
    if ending.hint:
        terminal.say(f"next: {ending.hint}", err=True)
    for leftover in ending.leftovers:
        terminal.say(f"could not be removed: {leftover}", err=True)


@commands.command(short_help="Say what `run` would do, and do nothing.")
@_scenario_argument()
@_shared
@_json_option
def plan(
    scenario_file: Path,
    rounds: int | None,
    seed: int | None,
    only: str | None,
    require: str | None,
    results: Path,
    quiet: bool,
    as_json: bool,
) -> int:
    """Say what `run` would do, and do nothing: cells, order, time, rights, disk.

    \b
    Examples:
      benchbox plan scenarios/startup.yaml
      benchbox plan scenarios/startup.yaml --quiet           without the order of each round
      benchbox plan scenarios/startup.yaml --json
    """
    from benchbox import forecast
    from benchbox.scenario import resolved

    scenario = _load(scenario_file, rounds, seed, only)
    required = _required(require, resolved(scenario)["environments"])
    found = forecast.forecast(scenario, results, required)
    terminal.show(json.dumps(forecast.as_dict(found), indent=2) if as_json else forecast.as_text(found, brief=quiet))
    return EXIT_DONE


@commands.command(short_help="Check scenario files.")
@click.argument(
    "scenario_files",
    metavar="SCENARIO...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
    shell_complete=completion.scenario_files,
)
def validate(scenario_files: tuple[Path, ...]) -> int:
    """Check scenario files; every error names file, line, key and remedy.

    \b
    Examples:
      benchbox validate my-question.yaml
      benchbox validate scenarios/*.yaml
    """
    from benchbox.scenario import load

    broken = False
    for path in scenario_files:
        try:
            scenario = load(path)
        except BenchboxError as error:
            broken = True
            _print_error(error)
        else:
            count = len(scenario.environments) * len(scenario.workloads)
            terminal.say(f"{path}: well, {count} cells, {scenario.rounds} rounds")
    return EXIT_FAILED if broken else EXIT_DONE


@commands.command()
def schema() -> int:
    """Print the JSON schema of scenario files, for editors.

    \b
    Examples:
      benchbox schema > scenario.schema.json
      # then, as the first line of a scenario, for editors with the YAML language server:
      # yaml-language-server: $schema=scenario.schema.json
    """
    from benchbox.scenario import json_schema

    terminal.show(json.dumps(json_schema(), indent=2))
    return EXIT_DONE


@commands.command("list")
@_results_option
@_json_option
def list_runs(results: Path, as_json: bool) -> int:
    """List the runs in the results folder, the newest last.

    \b
    Examples:
      benchbox list
      benchbox list --json | jq -r '.[-1].run_id'
    """
    from benchbox import record

    manifests = [record.read_manifest(path) for path in record.list_runs(results)]
    if as_json:
        keys = {"run_id", "created_at", "exit_state", "rounds"}
        terminal.show(json.dumps([manifest.model_dump(include=keys) for manifest in manifests], indent=2))
        return EXIT_DONE
    if not manifests:
        terminal.say(f"no runs in {results}; `benchbox run scenarios/startup.yaml` makes one", err=True)
    for manifest in manifests:
        environments = ", ".join(f"{item.label} {item.state}" for item in manifest.environments)
        terminal.say(f"{manifest.run_id}  {manifest.exit_state:<11}  {manifest.rounds:>4} rounds  {environments}")
    return EXIT_DONE


@commands.command()
@_run_argument
@_results_option
@click.option("--json", "as_json", is_flag=True, help="Print the whole summary as JSON.")
def show(run_name: str, results: Path, as_json: bool) -> int:
    """Print the table of RUN.

    \b
    Examples:
      benchbox show                          the newest run
      benchbox show startup-20260101         the run whose id begins like that
      benchbox show latest --json            the whole summary, for scripts
    """
    from benchbox import record

    folder = record.find_run(results, run_name)
    if not as_json:
        _print_table(folder)
        return EXIT_DONE
    terminal.show(json.dumps(_summary(folder).as_json(), indent=2))
    return EXIT_DONE


@commands.command(short_help="Write the page of RUN.")
@_run_argument
@_results_option
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The page; default reports/RUN.html.")
def report(run_name: str, results: Path, out: Path | None) -> int:
    """Write the page of RUN: one HTML file that needs nothing else.

    \b
    Examples:
      benchbox report                        reports/<run>.html of the newest run
      benchbox report startup-20260101 -o page.html
    """
    from benchbox import record
    from benchbox.report.page import write_page

    folder = record.find_run(results, run_name)
    terminal.say(write_page(folder, out or Path("reports", f"{folder.name}.html")))
    return EXIT_DONE


@commands.command(short_help="Write every sample of RUN as CSV.")
@_run_argument
@_results_option
@click.option("--format", "form", type=click.Choice(["csv"]), default="csv", show_default=True, help="The format.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="A file, instead of standard output.")
@click.option("--raw-text", is_flag=True, help="Text as it was recorded: it may hold formulas and control characters.")
def export(run_name: str, results: Path, form: str, out: Path | None, raw_text: bool) -> int:
    """Write every sample of RUN as a long table, values in base units (s, B, B/s, 1/s, 1).

    Text that a spreadsheet would take for a formula stands behind an apostrophe, control characters are left out.

    \b
    Examples:
      benchbox export latest -o run.csv
      benchbox export latest | grep startup.ready
    """
    from benchbox import export as exports
    from benchbox import record

    folder = record.find_run(results, run_name)
    samples, notes = record.read_samples(folder)
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(out.open("w", newline="")) if out else terminal.output()
        exports.write_csv(exports.export_rows(record.read_manifest(folder), samples), target, raw_text=raw_text)
    for note in notes:
        terminal.say(note, err=True)
    return EXIT_DONE


@commands.command(short_help="Say what this host can measure, and what would disturb it.")
@click.option(
    "--require",
    metavar="KIND[:ACCELERATOR],...",
    shell_complete=completion.requirements,
    help="What this host must be able to measure.",
)
@click.option("--boot", is_flag=True, help="Boot a guest as well (some seconds): the only proof of KVM.")
@_results_option
@_json_option
def doctor(require: str | None, boot: bool, results: Path, as_json: bool) -> int:
    """Say what this host can measure and what would disturb it; change nothing.

    Each finding says why it matters to these measurements and how it is mended. Exit code 2 where something blocks a
    run, or where an environment of --require is missing; `--require vm:kvm` boots a guest unless one has booted before.

    \b
    Examples:
      benchbox doctor
      benchbox doctor --boot
      benchbox doctor --require vm:kvm,container --json
    """
    from dataclasses import replace

    from benchbox.doctor import examine, look, offers, required_words, text

    required = required_words(require)
    facts = look.look(results, _other_runs())
    if boot or ("vm:kvm" in required and offers.accelerator(facts) == offers.UNPROVEN):
        facts = replace(facts, guests=replace(facts.guests, trial=_boot_guest()))
    found = examine(facts, required)
    if as_json:
        terminal.show(json.dumps(text.as_dict(found, required), indent=2))
    else:
        for line in text.as_lines(found, terminal.columns()):
            terminal.say(line.text, colour=line.colour)
    return EXIT_FAILED if found.blocked else EXIT_DONE


def _other_runs() -> "Runs":
    """Return what only the supervisor's layer knows: who holds the host, and what dead runs left."""
    from benchbox.doctor.facts import Runs
    from benchbox.supervisor import cleanup, lock

    holder, others = lock.holder(), tuple(lock.others())
    try:
        dead = {run_id: len(entries) for run_id, entries in cleanup.dead_runs().items()}
    except TrustError as error:
        return Runs(holder, others=others, untrusted=(error.message, str(error.hint)))
    lost: list[Path] = []
    if holder is None:  # else they may be that run's
        with contextlib.suppress(BenchboxError):  # what is wrong with the cache is said of the cache
            lost = cleanup.lost_scratch()
    return Runs(holder, dead, tuple(map(str, lost)), others)


def _boot_guest() -> "GuestTrial":
    import tempfile

    from benchbox.scenario import loads
    from benchbox.supervisor import trial

    if sys.stderr.isatty():
        terminal.say("booting a guest ...", err=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = trial.boot_guest(_new_job(loads(trial.SCENARIO, "doctor"), Path("doctor"), Path(folder)))
    except OSError as error:
        raise RecordError(f"no folder for the record of the guest: {error}", hint="set TMPDIR to a folder") from error
    if found.state == "interrupted":
        raise click.Abort
    return found


@commands.command()
def clean() -> int:
    """Remove what runs that were ended hard have left on this host.

    Runs that live are not touched. `benchbox run` does the same before it begins.

    \b
    Examples:
      benchbox clean
    """
    from benchbox.errors import LockError
    from benchbox.supervisor import cleanup
    from benchbox.supervisor.lock import host_lock

    cleaned = cleanup.clean_dead_runs()
    swept, stuck = [], []
    with contextlib.suppress(LockError), host_lock():
        swept, stuck = cleanup.sweep_scratch(), cleanup.lost_scratch()
    for path in swept:
        terminal.say(f"removed folder {path}")
    for path in stuck:
        terminal.say(f"could not remove folder {path}: look what is immutable or mounted in it", err=True)
    for item in cleaned:
        for what in item.removed:
            terminal.say(f"{item.run_id}: removed {what}")
        for what in item.remaining:
            terminal.say(f"{item.run_id}: could not remove {what}", err=True)
    living = cleanup.living_runs()
    for run_id in living:
        terminal.say(f"{run_id}: lives, not touched")
    if not cleaned and not living and not swept and not stuck:
        terminal.say("nothing to clean")
    return EXIT_FAILED if stuck or any(item.remaining for item in cleaned) else EXIT_DONE


@commands.command(short_help="Write a commented scenario to begin with.")
@click.argument("file", metavar="[FILE]", type=click.Path(path_type=Path), default=Path("scenario.yaml"))
def init(file: Path) -> int:
    """Write a commented scenario to begin with; FILE is scenario.yaml by default.

    It is valid as it stands. A file that is there is never overwritten.

    \b
    Examples:
      benchbox init
      benchbox init my-question.yaml && benchbox run my-question.yaml
    """
    from benchbox.starter import starter

    try:
        with file.open("x", encoding="utf-8") as target:
            target.write(starter(foreign.plain(file.stem), foreign.plain(file)))
    except FileExistsError as error:
        raise UsageError(f"{file} is there already", hint="give another name: benchbox init FILE") from error
    except OSError as error:
        raise UsageError(f"{file}: cannot be written: {error.strerror}", hint="choose another folder") from error
    terminal.say(file)
    terminal.say(f"next: look into it, then benchbox run {file}", err=True)
    return EXIT_DONE


@commands.command("completion", short_help="Print what a shell reads to complete commands.")
@click.argument("shell", metavar="SHELL", type=click.Choice(completion.SHELLS))
def print_completion(shell: str) -> int:
    """Print what SHELL reads to complete commands, options, runs, scenario files and environments.

    \b
    Examples:
      eval "$(benchbox completion bash)"                                   in ~/.bashrc
      eval "$(benchbox completion zsh)"                                    in ~/.zshrc
      benchbox completion fish > ~/.config/fish/completions/benchbox.fish
    """
    terminal.show(completion.script(commands, shell))
    return EXIT_DONE


@commands.group("image", short_help="Look at the cache of images and kernels; free it.")
def image_commands() -> None:
    """Look at the cache of images, kernels and what was made of them, and free it.

    Whatever is removed is made again when a run needs it.

    \b
    Examples:
      benchbox image list
      benchbox image inspect minimal
      benchbox image rm emulator vmlinux
    """


@image_commands.command("list")
@_json_option
def image_list(as_json: bool) -> int:
    """List what the cache holds, with the space that it takes.

    \b
    Examples:
      benchbox image list
      benchbox image list --json | jq 'map(.size_bytes) | add'
    """
    from benchbox.images import inventory
    from benchbox.linux.state import cache_folder
    from benchbox.units import format_size

    found = inventory.entries()
    if as_json:
        terminal.show(json.dumps([_entry_facts(entry) for entry in found], indent=2))
        return EXIT_DONE
    if not found:
        terminal.say(f"nothing in {cache_folder()}; the first run fills it", err=True)
    for entry in found:
        terminal.say(f"{format_size(entry.size_bytes):>9}  {entry.name[:28]:<28}  {entry.made_at[:10]}  {entry.what}")
    if found:
        terminal.say(f"{format_size(sum(entry.size_bytes for entry in found)):>9}  in {cache_folder()}")
    return EXIT_DONE


def _entry_facts(entry: "Entry") -> dict[str, Any]:
    keys = ("name", "kind", "what", "image", "size_bytes", "made_at")
    return {key: getattr(entry, key) for key in keys} | {"path": str(entry.path)}


@image_commands.command("inspect")
@click.argument("name", shell_complete=completion.cached)
@_json_option
def image_inspect(name: str, as_json: bool) -> int:
    """Say what is known of NAME.

    NAME is an image's, a kind (`kernels`), or the beginning of an entry's name in `benchbox image list`.

    \b
    Examples:
      benchbox image inspect minimal
      benchbox image inspect kernels --json
    """
    from benchbox.images import inventory
    from benchbox.units import format_size

    found = [inventory.details(entry) for entry in inventory.find([name])]
    if as_json:
        terminal.show(json.dumps(found, indent=2))
        return EXIT_DONE
    for facts in found:
        facts["size"] = format_size(facts.pop("size_bytes"))
        for key, value in facts.items():
            terminal.say(f"{key:<9} {_as_line(value)}")
    return EXIT_DONE


def _as_line(value: Any) -> str:
    """Return a fact on one line; of a long list its beginning."""
    if isinstance(value, dict):
        return " ".join(", ".join(f"{key} {item}" for key, item in value.items()).split()) or "-"
    if not isinstance(value, list):
        return str(value)
    more = f", ... ({len(value)} in all)" if len(value) > _SHOWN_ITEMS else ""
    return (", ".join(map(str, value[:_SHOWN_ITEMS])) or "-") + more


@image_commands.command("rm", short_help="Remove what each NAME means.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=completion.cached)
def image_rm(names: tuple[str, ...]) -> int:
    """Remove what each NAME means, and say how much that freed.

    NAME is an image's, a kind (`initramfs`: all of it), or the beginning of an entry's name in `benchbox image list`.
    Refused while a run lives on this host.

    \b
    Examples:
      benchbox image rm minimal
      benchbox image rm initramfs emulator       everything of these kinds
      benchbox image rm store/ffa9fc3f
    """
    from benchbox.images import inventory
    from benchbox.supervisor.lock import host_lock
    from benchbox.units import format_size

    inventory.find(names)  # a wrong name is said even while a run lives
    with host_lock():
        found = inventory.find(names)
        for entry in found:
            inventory.remove(entry)
            terminal.say(f"removed {entry.name} ({entry.what}), {format_size(entry.size_bytes)}")
    terminal.say(f"freed {format_size(sum(entry.size_bytes for entry in found))}")
    return EXIT_DONE


def _print_error(error: BenchboxError) -> None:
    terminal.say("error", err=True, colour=_RED, end="")
    terminal.say(f": {error.message}", err=True)
    if error.hint:
        terminal.say(f"next: {error.hint}", err=True)


def _as_ours(error: click.ClickException) -> UsageError:
    """Return what click has to say in the form of every other error."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    place = context.command_path if context else "benchbox"
    if isinstance(error, click.NoSuchOption):
        known = [name for parameter in context.command.params for name in parameter.opts] if context else []
        near = difflib.get_close_matches(error.option_name, [*known, "--help"], n=1, cutoff=0.5)
        meant = f"did you mean '{near[0]}'? " if near else ""
        return UsageError(f"no option '{error.option_name}'", hint=f"{meant}'{place} --help' shows all")
    message = " ".join(error.format_message().split()).replace("integer range", "whole number")
    return UsageError(f"{message[:1].lower()}{message[1:]}".rstrip("."), hint=f"'{place} --help' shows examples")


def _exit_with(function: Callable[[], int]) -> int:
    """Run ``function``; turn errors that benchbox knows into a message and exit code 2."""
    try:
        return function()
    except BenchboxError as error:
        _print_error(error)
        return EXIT_FAILED
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        _print_error(_as_ours(error))
        return EXIT_FAILED
    except (click.exceptions.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has had enough (`benchbox show | head`); Python must not complain at its end.
        sys.stdout = None
        return EXIT_DONE


def main() -> None:
    """The entry point of the program ``benchbox``."""
    terminal.be_legible()
    foreign.guard_tracebacks()
    # Nothing that is made from here on, by whichever process, can be written by others.
    os.umask(os.umask(0o077) | 0o022)
    program = functools.partial(
        commands.main, prog_name="benchbox", complete_var=completion.VARIABLE, standalone_mode=False
    )
    sys.exit(_exit_with(program))


if __name__ == "__main__":
    main()
