"""The gateway to other processes: what goes wrong is said, what is to end ends, and nothing else does."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchbox.errors import EnvironmentFailure
from benchbox.linux import processes


@contextlib.contextmanager
def sleeper(*words: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(["sh", "-c", "exec sleep 60", *words])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def zombie() -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    return process


def test_a_command_is_run_to_its_end() -> None:
    """What it printed is returned, bytes that are no text included."""
    done = processes.run(["sh", "-c", r"printf 'a\377b'; printf e >&2; cat"], timeout_s=10, stdin="in")
    assert (done.status, done.stdout, done.stderr) == (0, "a�bin", "e")


def test_a_command_that_fails_says_so_with_its_last_words() -> None:
    """Command, status, and the end of what it printed."""
    with pytest.raises(EnvironmentFailure, match=r"sh -c .*: exit status 3: bad luck"):
        processes.run(["sh", "-c", "echo bad luck >&2; exit 3"], timeout_s=10)
    assert processes.run(["sh", "-c", "exit 3"], timeout_s=10, check=False).status == 3


def test_a_command_is_followed_line_by_line() -> None:
    """Its standard error, as it comes; the status is the caller's to judge."""
    script = "echo no >&1; echo one >&2; printf 'a\\377\\n' >&2; echo $X >&2; exit 3"
    heard: list[str] = []
    done = processes.follow(["sh", "-c", script], heard.append, timeout_s=10, env={"X": "y"})
    assert heard == ["one", "a\ufffd", "y"]
    assert (done.status, done.stderr) == (3, "one\na\ufffd\ny\n")


def test_a_command_that_is_followed_for_too_long_is_killed_with_what_it_started() -> None:
    """Also when a child of it holds its standard error."""
    begun = time.monotonic()
    with pytest.raises(EnvironmentFailure, match=r"sh: not done after 0.3 s"):
        processes.follow(["sh", "-c", "sleep 60 & sleep 60"], lambda line: None, timeout_s=0.3, env={})
    assert time.monotonic() - begun < 5
    with pytest.raises(EnvironmentFailure, match="no-such-program: No such file"):
        processes.follow(["no-such-program"], lambda line: None, timeout_s=1, env={})


def test_a_missing_program_comes_with_what_to_install() -> None:
    """The hint names it."""
    with pytest.raises(EnvironmentFailure, match="no-such-program: no such program") as error:
        processes.run(["no-such-program"], timeout_s=10)
    assert error.value.hint == "install no-such-program"


def test_a_program_that_cannot_be_executed_is_named(tmp_path: Path) -> None:
    """Whether it is waited for or not."""
    (tmp_path / "data").write_text("no program")
    for start in (lambda argv: processes.run(argv, timeout_s=10), processes.spawn):
        with pytest.raises(EnvironmentFailure, match=r"data: Permission denied"):
            start([tmp_path / "data"])


def test_a_command_that_takes_too_long_is_ended() -> None:
    """And said to be."""
    with pytest.raises(EnvironmentFailure, match=r"sleep 60: not done after 0\.05 s"):
        processes.run(["sleep", "60"], timeout_s=0.05)


def test_an_environment_is_added_to_or_replaced() -> None:
    """``run`` adds to this process's environment, ``spawn`` replaces it."""
    assert processes.run(["sh", "-c", 'echo "$A$HOME"'], timeout_s=10, env={"A": "1"}).stdout.startswith("1/")
    with processes.spawn(["/bin/sh", "-c", 'echo "$A$HOME"'], stdout=subprocess.PIPE, env={"A": "1"}) as process:
        assert process.communicate()[0] == b"1\n"


def test_a_spawned_process_gets_the_named_descriptors_only() -> None:
    """Others that could be inherited are not."""
    read_end, write_end = os.pipe()
    os.set_inheritable(read_end, True)
    argv = ["sh", "-c", f"echo kept > /dev/fd/{write_end}; ls /proc/self/fd"]
    with processes.spawn(argv, stdout=subprocess.PIPE, pass_fds=(write_end,)) as process:
        listed = process.communicate()[0].split()
    assert os.read(read_end, 10) == b"kept\n"
    assert str(write_end).encode() in listed
    assert str(read_end).encode() not in listed
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize(
    ("status", "text"),
    [(0, "exit status 0"), (7, "exit status 7"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")],
)
def test_a_status_is_described(status: int, text: str) -> None:
    """In subprocess's convention: negative is a signal."""
    assert processes.describe_status(status) == text


def test_a_process_is_known_by_pid_and_start() -> None:
    """Two reads give the same start; a process that is gone has none."""
    with sleeper() as process:
        start = processes.start_time(process.pid)
        assert start is not None
        assert start == processes.start_time(process.pid)
    assert processes.start_time(process.pid) is None


def test_a_name_with_a_parenthesis_does_not_shift_the_fields(tmp_path: Path) -> None:
    """/proc/PID/stat writes the name unescaped."""
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as process:
        with sleeper() as other:
            ours, theirs = processes.start_time(process.pid), processes.start_time(other.pid)
        process.kill()
    assert ours is not None
    assert theirs is not None
    assert abs(theirs - ours) < 100 * 10


def test_a_process_is_ended() -> None:
    """It is gone when ``end`` returns true; one that was gone before is gone."""
    with sleeper() as process:
        assert processes.end(process.pid)
        assert process.wait() == -signal.SIGKILL
        assert processes.end(process.pid)


def test_another_process_of_the_same_number_is_spared() -> None:
    """A pid is given again: only the start time tells them apart."""
    with sleeper() as process:
        start = processes.start_time(process.pid)
        assert start is not None
        assert processes.end(process.pid, expected_start=start - 1)
        assert process.poll() is None


def test_descendants_are_found_nearest_first() -> None:
    """Children before grandchildren."""
    with subprocess.Popen(["sh", "-c", "sh -c 'sleep 60; :' & wait"]) as process:
        while len(found := processes.descendants(process.pid)) < 2:
            time.sleep(0.005)
        assert found[0] in processes.children(process.pid)
        assert found[1] in processes.children(found[0])
        for pid in (process.pid, *found):
            processes.end(pid)


def test_zombies_are_reaped_but_those_with_a_waiter() -> None:
    """Whoever waits for a child of its own must still find its status."""
    mine, orphan = zombie(), zombie()
    assert processes.is_zombie(orphan.pid)
    assert processes.reap_orphans(known=(mine.pid, *others(mine, orphan))) == [orphan.pid]
    assert not processes.is_zombie(orphan.pid)
    assert mine.wait() == 0
    orphan.wait()


def others(*ours: "subprocess.Popen[bytes]") -> set[int]:
    return set(processes.children(os.getpid())) - {process.pid for process in ours}


def test_a_living_child_is_not_waited_for() -> None:
    """Reaping never blocks."""
    with sleeper() as process:
        assert process.pid not in processes.reap_orphans()
        assert process.poll() is None


def test_processes_are_found_by_their_arguments() -> None:
    """This process itself is never among them."""
    word = f"benchbox-test-{os.getpid()}-{time.monotonic_ns()}"
    with subprocess.Popen(["sh", "-c", "sleep 60; :", word]) as process:
        deadline = time.monotonic() + 5  # a process has its arguments a moment after it has begun
        while process.pid not in processes.with_argument(word) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.pid in processes.with_argument(word)
        assert os.getpid() not in processes.with_argument(sys.executable)
        for pid in (*processes.children(process.pid), process.pid):
            processes.end(pid)


PARENT_DIES = """
import os, sys, time
from benchbox.linux import processes
reader, writer = os.pipe()
parent = os.getpid()
child = os.fork()
if child == 0:
    processes.die_with_parent(parent)
    os.write(writer, b"!")
    time.sleep(60)
os.read(reader, 1)
print(child, flush=True)
os._exit(0)
"""


def test_a_process_dies_with_its_parent() -> None:
    """The kernel sees to it, whatever ended the parent."""
    done = subprocess.run([sys.executable, "-c", PARENT_DIES], capture_output=True, check=True, text=True)
    child = int(done.stdout)
    deadline = time.monotonic() + 5
    while processes.start_time(child) and not processes.is_zombie(child) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert processes.start_time(child) is None or processes.is_zombie(child)


def test_a_process_whose_parent_is_gone_already_leaves_at_once() -> None:
    """Otherwise it would wait for an end that has been."""
    code = "from benchbox.linux import processes; processes.die_with_parent(1 << 22); print('still here')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")


ORPHAN = """
import os, subprocess, time
from benchbox.linux import processes
processes.become_subreaper()
subprocess.run(["sh", "-c", "sleep 0.05 & exit 0"], check=True)
deadline = time.monotonic() + 5
while not processes.children(os.getpid()) and time.monotonic() < deadline: time.sleep(0.001)
while not processes.reap_orphans() and time.monotonic() < deadline: time.sleep(0.001)
assert time.monotonic() < deadline and not processes.children(os.getpid())
"""


def test_a_subreaper_gets_the_orphans() -> None:
    """What a child leaves behind becomes this process's child and can be reaped."""
    subprocess.run([sys.executable, "-c", ORPHAN], check=True)


def test_where_the_threads_of_a_process_may_run_is_told() -> None:
    """Each list once; one that has gone has none."""
    allowed = sorted(os.sched_getaffinity(0))
    with sleeper() as process:
        os.sched_setaffinity(process.pid, allowed[:1])
        assert processes.thread_cpus(process.pid) == {str(allowed[0])}
    assert processes.thread_cpus(process.pid) == set()
