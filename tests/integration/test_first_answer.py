"""``first_answer`` against real servers: one that answers, answers late, wrongly, never, or ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from benchbox import native

pytestmark = pytest.mark.integration

PROGRAM: Final = Path(os.environ.get("BENCHBOX_TEST_FIRST_ANSWER", native.program("first_answer")))
ASK: Final = ("--ask", "PING\r\n", "--expect", "+PONG\r\n")
#: The beginning of a server: it listens on the socket that is its first argument, takes one connection after another.
LISTENS: Final = """
import os, signal, socket, sys, time
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
def answers(text):
    connection = server.accept()[0]
    asked = connection.recv(100)
    connection.sendall(text if asked == b"PING\\r\\n" else b"-not what was to be asked\\r\\n")
"""
GOES_ON: Final = "\nwhile True: answers(b'+PONG\\r\\n')"


@dataclass(frozen=True)
class Done:
    """How it ended: exit status, what it said, whether the ready byte came and after how long, in s."""

    status: int
    said: str
    byte: bytes
    byte_after_s: float | None
    took_s: float


def first_answer(folder: Path, server: str, *options: str, address: str | None = None) -> Done:
    """Run ``first_answer`` on a Python ``server`` until it is gone."""
    path = address or str(folder / "server-{pid}.sock")
    words = [PROGRAM, *(options or ASK), path, "--", sys.executable, "-c", server, path]
    return run([str(word) for word in words])


def run(words: list[str]) -> Done:
    """Run ``words`` with a place for the ready byte; a build with sanitizers needs not give back what it holds."""
    read, write = os.pipe()
    begun = time.monotonic()
    process = subprocess.Popen(
        words,
        env={"BENCHBOX_READY": str(write), "ASAN_OPTIONS": "detect_leaks=0"},
        pass_fds=(write,),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    os.close(write)
    with os.fdopen(read, "rb", buffering=0) as ready:
        byte = ready.read(10) or b""
        byte_after_s = time.monotonic() - begun if byte else None
    said, _ = process.communicate(timeout=30)
    return Done(process.returncode, said, byte, byte_after_s, time.monotonic() - begun)


def test_a_server_that_answers_is_said_to_have_and_is_ended(tmp_path: Path) -> None:
    """One byte, no word, status 0; the server is gone."""
    pid = tmp_path / "pid"
    done = first_answer(tmp_path, f"{LISTENS}\nopen({str(pid)!r}, 'w').write(str(os.getpid()))" + GOES_ON)
    assert (done.status, done.said, done.byte) == (0, "", b"!")
    assert not Path("/proc", pid.read_text()).exists()


def test_the_byte_comes_with_the_answer_not_sooner(tmp_path: Path) -> None:
    """A server that listens and answers 300 ms later moves the byte by that, and is not asked twice."""
    late = first_answer(tmp_path, f"{LISTENS}\ntime.sleep(0.3)\nanswers(b'+PONG\\r\\n')\ntime.sleep(60)")
    prompt = first_answer(tmp_path, LISTENS + GOES_ON)
    assert late.status == prompt.status == 0
    assert late.byte_after_s and prompt.byte_after_s
    assert late.byte_after_s - prompt.byte_after_s == pytest.approx(0.3, abs=0.1)


def test_a_wrong_answer_is_asked_about_again(tmp_path: Path) -> None:
    """As of a server that is still loading."""
    wrong = "answers(b'-LOADING\\r\\n'); answers(b'+PO'); server.accept()[0].close()"
    done = first_answer(tmp_path, f"{LISTENS}\n{wrong}" + GOES_ON)
    assert (done.status, done.said, done.byte) == (0, "", b"!")


def test_a_server_with_wrong_answers_only_is_no_success(tmp_path: Path) -> None:
    """The last one is shown, harmless on a terminal."""
    server = f"{LISTENS}\nwhile True: answers(b'-ERR \\x1b[31m no\\r\\n')"
    done = first_answer(tmp_path, server, *ASK, "--deadline-ms", "700")
    assert (done.status, done.byte) == (3, b"")
    assert done.said == (
        'first_answer: no right answer within 700 ms; the last one began with "-ERR \\x1b[31m no\\x0d\\x0a"\n'
    )


@pytest.mark.parametrize(
    "server",
    ["import time; time.sleep(60)", f"{LISTENS}\ntime.sleep(60)", f"{LISTENS}\nserver.accept(); time.sleep(60)"],
)
def test_a_server_that_never_answers_is_given_up_at_the_deadline(server: str, tmp_path: Path) -> None:
    """Whether it does not listen, listens, or takes the connection."""
    done = first_answer(tmp_path, server, *ASK, "--deadline-ms", "500")
    assert (done.status, done.said, done.byte) == (3, "first_answer: no answer within 500 ms\n", b"")
    assert 0.5 <= done.took_s < 2


@pytest.mark.parametrize(
    ("end", "status", "said"),
    [
        ("sys.exit(7)", 7, "the server ended with status 7 before it answered"),
        ("sys.exit(0)", 1, "the server ended with status 0 before it answered"),
        ("os.kill(os.getpid(), 9)", 137, "the server was killed by signal 9 before it answered"),
    ],
)
def test_a_server_that_ends_too_soon_is_no_success(end: str, status: int, said: str, tmp_path: Path) -> None:
    """Its status is the program's; nobody waits for the deadline."""
    for before in ("import os, sys", LISTENS, f"{LISTENS}\nserver.accept()"):
        done = first_answer(tmp_path, f"{before}\n{end}")
        assert (done.status, done.said, done.byte) == (status, f"first_answer: {said}\n", b"")
        assert done.took_s < 10


def test_a_server_that_does_not_want_to_end_is_killed(tmp_path: Path) -> None:
    """It had answered, but something is wrong with it."""
    done = first_answer(tmp_path, f"{LISTENS}\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)" + GOES_ON)
    assert (done.status, done.byte) == (5, b"!")
    assert "did not end within 5000 ms of SIGTERM and was killed" in done.said


def test_a_server_that_ends_badly_is_no_success(tmp_path: Path) -> None:
    """It had answered; its status is the program's."""
    done = first_answer(tmp_path, f"{LISTENS}\nsignal.signal(signal.SIGTERM, lambda *_: os._exit(9))" + GOES_ON)
    assert (done.status, done.byte) == (9, b"!")
    assert "the server ended with status 9 when it was told to end" in done.said


def test_a_server_on_a_port_is_asked_there(tmp_path: Path) -> None:
    """TCP on the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    listens = LISTENS.replace("socket.AF_UNIX", "socket.AF_INET").replace(
        "sys.argv[1]", "('127.0.0.1', int(sys.argv[1]))"
    )
    done = first_answer(tmp_path, listens + GOES_ON, address=port)
    assert (done.status, done.said, done.byte) == (0, "", b"!")


def test_the_server_has_neither_the_variable_nor_the_descriptor(tmp_path: Path) -> None:
    """A server that knows of benchbox cannot say itself that it has answered."""
    clean = (
        "os.environ.get('BENCHBOX_READY') is None and sorted(map(int, os.listdir('/proc/self/fd')))[:4] == [0, 1, 2, 3]"
    )
    owns = "[os.readlink('/proc/self/fd/%d' % n) for n in (3,)][0].startswith('socket:')"
    done = first_answer(tmp_path, f"{LISTENS}\nif not ({clean} and {owns}): sys.exit(8)" + GOES_ON)
    assert (done.status, done.said) == (0, "")


def test_when_it_dies_the_server_dies(tmp_path: Path) -> None:
    """Nothing of it goes on alone."""
    pid, path = tmp_path / "pid", str(tmp_path / "s")
    server = f"{LISTENS}\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    words = [str(PROGRAM), *ASK, path, "--", sys.executable, "-c", server, path]
    process = subprocess.Popen(words, env={"BENCHBOX_READY": "1"}, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while Path("/proc", pid.read_text()).exists() and "Z" not in state(pid.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def state(pid: str) -> str:
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ((), 2, "arguments are needed"),
        (("--ask", "x", "--expect", "y", "/s"), 2, "no server"),
        (("--ask", "x", "--expect", "y", "--", "/bin/true"), 2, "an address"),
        (("--ask", "x", "/s", "--", "/bin/true"), 2, "--expect"),
        ((*ASK, "--pause-us", "-1", "/s", "--", "/bin/true"), 2, "not a number of --pause-us"),
        ((*ASK, "--pauseus", "1", "/s", "--", "/bin/true"), 2, "no option --pauseus"),
        ((*ASK, "70000", "--", "/bin/true"), 2, "not a port: 70000"),
        ((*ASK, "localhost:1", "--", "/bin/true"), 2, "not a number of a port"),
        ((*ASK, f"/{'x' * 200}", "--", "/bin/true"), 2, "too long for a socket"),
        ((*ASK, "/s", "--", "/no/such/server"), 127, "cannot execute /no/such/server: No such file"),
        ((*ASK, "/s", "--", "/etc/passwd"), 126, "cannot execute /etc/passwd: Permission denied"),
    ],
)
def test_arguments_that_cannot_be_followed_are_refused(words: tuple[str, ...], status: int, said: str) -> None:
    """With what is wrong with them."""
    done = run([str(PROGRAM), *words])
    assert (done.status, done.byte) == (status, b"")
    assert said in done.said


def test_without_a_place_for_the_byte_nothing_is_started() -> None:
    """It would be measured for nothing."""
    words = [str(PROGRAM), *ASK, "/s", "--", "/bin/echo", "started"]
    done = subprocess.run(words, env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "not set: BENCHBOX_READY" in done.stderr
    done = subprocess.run(words, env={"BENCHBOX_READY": "/no/such/path"}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (4, "")


def listening(server: str, *options: str, ends_after_s: float = 0.3) -> tuple[Done, float]:
    """Run a ``server`` on a free port that is not to be asked; end all after a while, if it has not ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    read, write = os.pipe()
    words = [str(PROGRAM), "--listens", *options, port, "--", sys.executable, "-c", server, port]
    begun = time.monotonic()
    process = subprocess.Popen(words, env={"BENCHBOX_READY": str(write)}, pass_fds=(write,), stderr=subprocess.PIPE)
    os.close(write)
    byte = os.read(read, 2)
    after_s = time.monotonic() - begun
    os.close(read)
    try:
        process.wait(ends_after_s if byte else 10)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=10)[1].decode()
    return Done(process.returncode, said, byte, after_s if byte else None, time.monotonic() - begun), after_s


#: Listens after a pause; whoever connects is an error.
LISTENS_LATE: Final = """
import socket, sys, time
time.sleep(0.3)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
server.settimeout(float(sys.argv[2]) if len(sys.argv) > 2 else 100)
try:
    server.accept()
    sys.exit(9)
except TimeoutError:
    sys.exit(4)
"""


def test_a_server_that_is_not_asked_is_only_looked_at() -> None:
    """Nobody connects: some servers take any connection for their client."""
    done, after_s = listening(LISTENS_LATE.replace("100", "100"))
    assert (done.status, done.byte, done.said) == (0, b"!", "")
    assert 0.3 <= after_s < 5


def test_a_server_that_stays_goes_on_after_the_byte() -> None:
    """Until it is ended from outside; its own end is this program's."""
    done, _ = listening(LISTENS_LATE, "--stay", ends_after_s=1.0)
    assert (done.status, done.byte) == (-signal.SIGTERM, b"!")
    left, _ = listening(LISTENS_LATE.replace("100", "0.5"), "--stay", ends_after_s=10)
    assert (left.status, left.byte) == (4, b"!")
    assert left.said == "first_answer: the server ended with status 4 after it was ready\n"


def test_a_server_that_never_listens_is_given_up() -> None:
    """After the deadline, as one that never answers."""
    done, _ = listening("import time; time.sleep(60)", "--deadline-ms", "500")
    assert (done.status, done.byte, done.said) == (3, b"", "first_answer: no answer within 500 ms\n")


@pytest.mark.parametrize("words", [["--listens", "--ask", "x", "7"], ["--listens", "/path"], ["--listens"]])
def test_what_goes_not_together_is_refused(words: list[str]) -> None:
    """Before anything starts."""
    assert run([str(PROGRAM), *words, "--", "/bin/true"]).status == 2
