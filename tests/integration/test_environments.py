"""The contract: what every environment promises, whatever it is made of.

A new environment is one more row of ``KINDS``.
"""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from benchbox import images
from benchbox.environments import environment
from benchbox.images import tree
from benchbox.model import (
    OUTPUT_TAIL_BYTES,
    STAGES,
    Availability,
    Command,
    EnvironmentSpec,
    Outcome,
    Resources,
    Session,
)
from tests.integration.sessions import offset_s, output, run, session, shell

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Kind:
    """``feature`` is what it needs of this host (see the fixture ``need``), ``stages`` what can be seen of it at least.

    ``slack_s`` is how much what lies between a stage and the next may vary. ``one_stream``: output and error output
    come in the order in which they were written.
    """

    feature: str
    stages: tuple[str, ...] = ("exec", "ready", "exited", "cleaned")
    slack_s: float = 0.030
    one_stream: bool = True


#: What a program that makes containers lets be seen of them.
_FROM_OUTSIDE: Final = ("ready", "exited", "cleaned")
KINDS: Final = {
    "native": Kind("container"),
    "container": Kind("container"),
    "oci": Kind("oci", _FROM_OUTSIDE, slack_s=0.060, one_stream=False),  # runc copies each from a pipe of its own
    "docker": Kind("docker", _FROM_OUTSIDE, slack_s=0.200, one_stream=False),
}
PEERS: Final = ("oci", "docker")
READY: Final = Command(("/bin/ready",))
RESOURCES: Final = Resources(cpus=1, memory_bytes=64 << 20, pids=40)


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.peers if kind in PEERS else ()) for kind in KINDS])
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def opened(kind: Kind, tmp_path: Path, need: Callable[[str, Availability], None]) -> Iterator[Session]:
    """A session of each environment."""
    name = next(name for name, found in KINDS.items() if found is kind)
    need(kind.feature, environment(name).check(EnvironmentSpec(name, name)))
    with session(name, tmp_path, RESOURCES) as found:
        yield found


def test_a_sample_is_stamped_counted_and_read_back(opened: Session, kind: Kind) -> None:
    """Its stages are in order, its account names sources, the limits in force are the ones asked for."""
    for _ in range(3):
        outcome = run(opened, READY)
        assert (outcome.status, outcome.reason, outcome.exit_code, outcome.signal) == ("ok", None, 0, None)
        stamps = [outcome.stages[name] for name in STAGES if name in outcome.stages]
        assert set(kind.stages) <= set(outcome.stages) <= set(STAGES)
        assert stamps == sorted(stamps)
        assert 0 < outcome.requested_ns <= stamps[0]
        counters = {counter.name: counter for counter in outcome.counters}
        assert counters["cpu.usage"].value
        assert all(counter.source for counter in outcome.counters)
        assert outcome.applied["memory_bytes"] == RESOURCES.memory_bytes
        assert outcome.applied["pids"] == RESOURCES.pids


def test_a_delay_before_the_ready_byte_moves_ready_and_nothing_else(opened: Session, kind: Kind) -> None:
    """By its length: what comes before and after takes as long as without it."""
    plain, delayed = [], []
    for _ in range(5):
        plain.append(run(opened, shell("exec /bin/ready", signals_ready=True)))
        delayed.append(run(opened, shell("busybox usleep 300000; exec /bin/ready", signals_ready=True)))

    def moved_s(stage: str, since: str | None = None) -> float:
        before, after = ([took_s(outcome, stage, since) for outcome in outcomes] for outcomes in (plain, delayed))
        return min(after) - min(before)

    assert {outcome.status for outcome in (*plain, *delayed)} == {"ok"}
    assert min(took_s(outcome, "ready", since=None) for outcome in delayed) >= 0.300
    assert moved_s("ready") == pytest.approx(0.300, abs=kind.slack_s)
    assert "exec" not in kind.stages or moved_s("exec") == pytest.approx(0, abs=kind.slack_s)
    assert moved_s("exited", since="ready") == pytest.approx(0, abs=kind.slack_s)
    assert moved_s("cleaned", since="exited") == pytest.approx(0, abs=kind.slack_s)


def took_s(outcome: Outcome, stage: str, since: str | None) -> float:
    return offset_s(outcome, stage) - (offset_s(outcome, since) if since else 0.0)


def test_a_workload_that_exits_7_is_failed_with_7(opened: Session, kind: Kind) -> None:
    """Its output and what it used are kept."""
    outcome = run(opened, shell("echo out; echo err >&2; exit 7"))
    assert (outcome.status, outcome.exit_code, outcome.signal) == ("failed", 7, None)
    assert outcome.reason == "exit status 7"
    lines = outcome.output_tail.splitlines()
    assert (lines if kind.one_stream else sorted(lines, reverse=True)) == [b"out", b"err"]
    assert outcome.counters


def test_a_workload_that_is_killed_is_failed_with_the_signal(opened: Session) -> None:
    """A signal is not a status."""
    outcome = run(opened, shell("f() { f; }; f"))
    assert (outcome.status, outcome.exit_code, outcome.signal) == ("failed", None, signal.SIGSEGV)
    assert outcome.reason == "killed by SIGSEGV"


def test_a_program_that_is_not_there_is_named(opened: Session) -> None:
    """As it was asked for."""
    outcome = run(opened, Command(("/bin/no-such-program",)))
    assert outcome.status == "failed"
    assert "/bin/no-such-program" in (outcome.reason or "")
    assert "ready" not in outcome.stages


def test_a_workload_that_never_says_ready_is_invalid(opened: Session) -> None:
    """However well it ends; it is no sample of anything."""
    outcome = run(opened, shell("exit 0", signals_ready=True))
    assert (outcome.status, outcome.exit_code) == ("invalid", 0)
    assert "never said that it was ready" in (outcome.reason or "")


def test_a_workload_that_is_not_done_in_time_is_ended(opened: Session, kind: Kind) -> None:
    """At its deadline, with all that it started."""
    begun = time.monotonic()
    outcome = run(opened, shell("busybox sleep 100 & busybox sleep 100", timeout_s=0.5))
    assert outcome.status == "failed"
    assert "not done after 0.5 s" in (outcome.reason or "")
    assert 0.5 <= offset_s(outcome, "exited") < 0.77 + kind.slack_s
    assert time.monotonic() - begun < 3


def test_a_workload_can_be_ended_at_any_time(opened: Session) -> None:
    """``wait`` then says so, and nothing of it runs on."""
    for delay_s in (0.0, 0.001, 0.005, 0.1):
        running = opened.start(shell("busybox sleep 100 & busybox sleep 100"))
        time.sleep(delay_s)
        running.kill()
        outcome = running.wait()
        assert (outcome.status, outcome.reason) == ("failed", "ended by benchbox")


def test_ending_what_has_ended_changes_nothing(opened: Session) -> None:
    """The outcome stays what it was."""
    running = opened.start(READY)
    outcome = running.wait()
    running.kill()
    assert outcome.status == "ok"


def test_a_server_is_ready_while_it_runs(opened: Session) -> None:
    """``ready`` returns before its end."""
    running = opened.start(shell("/bin/ready; exec busybox sleep 100", signals_ready=True, stays=True))
    begun = time.monotonic()
    assert running.ready()
    assert time.monotonic() - begun < 5
    running.kill()
    outcome = running.wait()
    assert "ready" in outcome.stages
    assert (outcome.status, outcome.reason, outcome.exit_code, outcome.signal) == ("ok", None, None, None)


def test_a_server_that_ends_before_it_is_ready_does_not_hold_anybody_up(opened: Session) -> None:
    """``ready`` then returns false."""
    running = opened.start(shell("exit 3", signals_ready=True, stays=True))
    assert not running.ready()
    assert running.wait().exit_code == 3


def test_a_flood_of_output_is_kept_from_its_end(opened: Session) -> None:
    """Up to a limit, and it does not hold the workload up."""
    script = "i=0; while [ $i -lt 6000 ]; do echo $i and what else it has to say for so long a time; i=$((i+1)); done"
    outcome = run(opened, shell(f"{script}; echo the end"))
    assert outcome.status == "ok"
    assert len(outcome.output_tail) == OUTPUT_TAIL_BYTES
    assert outcome.output_tail.endswith(b"5999 and what else it has to say for so long a time\nthe end\n")


def test_variables_and_folder_are_those_of_the_command(opened: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of benchbox's own environment gets in."""
    monkeypatch.setenv("OF_BENCHBOX", "x")
    outcome = run(opened, shell('echo "$A|$OF_BENCHBOX|$LANG|$(busybox pwd)"', env={"A": "b c"}, cwd="/etc"))
    assert outcome.output_tail == b"b c|||/etc\n"


def test_nothing_is_written_into_the_image(opened: Session) -> None:
    """A workload that tries to changes at most its own instance."""
    image = images.open_image("minimal")
    attempts = (
        "echo x > /etc/passwd; busybox rm -f /bin/ready; busybox chmod 777 /etc; busybox touch /new; busybox mkdir /d"
    )
    run(opened, shell(f"({attempts}) 2> /dev/null; exit 0"))
    found = tree.scan(image.root)
    assert tree.digest(found, tree.file_sums(found)) == image.digest
    assert run(opened, READY).status == "ok"


def test_a_workload_can_write_to_tmp(opened: Session) -> None:
    """Whether its root is writable or not."""
    assert output(opened, "echo x > /tmp/mine && busybox cat /tmp/mine; busybox rm /tmp/mine") == "x\n"


def test_samples_can_run_side_by_side(opened: Session) -> None:
    """Four at once, each with its own account and end."""
    with ThreadPoolExecutor(4) as pool:
        commands = [shell(f"echo {n}; busybox usleep 100000; exit {n}") for n in range(4)]
        outcomes = list(pool.map(lambda command: run(opened, command), commands))
    assert [outcome.exit_code for outcome in outcomes] == [0, 1, 2, 3]
    assert [outcome.output_tail for outcome in outcomes] == [b"0\n", b"1\n", b"2\n", b"3\n"]


def test_the_session_says_what_it_applied(opened: Session) -> None:
    """Read back once for all samples, and how late a ready byte may be stamped."""
    assert opened.applied()["root"]
    assert 0 < opened.applied()["channel_latency_ns"] < 5_000_000
