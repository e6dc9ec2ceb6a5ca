"""The programs in C, built with AddressSanitizer and UBSan: on their main ways, and on arguments that are nonsense.

All tests of ``launch`` run with such a build as well: ``BENCHBOX_TEST_LAUNCH=<program> pytest
tests/integration/test_launch.py``.
"""

import os
import re
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchbox import images, native
from benchbox.environments import environment
from benchbox.linux import seccomp
from benchbox.model import Availability, Command, EnvironmentSpec
from benchbox.virt.frames import EXECUTED, PING, QUIT, Frame, run_request
from tests.integration import launching
from tests.integration import test_first_answer as asking
from tests.integration.launching import launch, reported, shell

pytestmark = pytest.mark.integration

SOURCES: Final = Path(__file__).parents[2] / "benchbox" / "native"
SANITIZERS: Final = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
#: For a program without a C library: what is undefined ends it with an illegal instruction.
TRAPS: Final = ("-fsanitize=undefined", "-fsanitize-undefined-trap-on-error")
#: A launcher ends without giving back what it holds; that is no error.
OPTIONS: Final = {"ASAN_OPTIONS": "detect_leaks=0"}
NOBODY: Final = 65534


def build(target: Path, source: Path, *flags: str) -> Path:
    """Compile ``source``; the test is skipped where there is no gcc with sanitizers."""
    words = ["gcc", "-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", *flags, "-o", str(target), str(source)]
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode and re.search(r"cannot find.*[au]*san", done.stderr):
        pytest.skip("gcc has no sanitizers here")
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def sanitized() -> Iterator[Path]:
    """``launch`` with sanitizers, where an ordinary user can execute it."""
    with tempfile.TemporaryDirectory(prefix="sanitized-") as folder:
        Path(folder).chmod(0o755)
        yield build(Path(folder, "launch"), SOURCES / "launch.c", *SANITIZERS)


@pytest.fixture
def checked(
    sanitized: Path, monkeypatch: pytest.MonkeyPatch, need: Callable[[str, Availability], None]
) -> Iterator[None]:
    """``launching`` uses it."""
    need("container", environment("container").check(EnvironmentSpec("container", "container")))
    monkeypatch.setattr(launching, "PROGRAM", sanitized)
    for name, value in OPTIONS.items():
        monkeypatch.setenv(name, value)
    yield


def container_words(scratch: Path, *more: str | Path) -> tuple[str | Path, ...]:
    root = images.open_image("minimal").root
    kernel = ("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--sys", "/sys")
    hidden = ("--mask", "/proc/keys", "--mask", "/proc/acpi", "--mask", "/proc/none", "--ro", "/proc/sys")
    privileges = ("--cap-keep", "0,1,3", "--no-new-privs", "--new-keyring", "--no-core", "--uid", "0", "--gid", "0")
    names = ("--unshare-all", "--hostname", "box", "--loopback", "--root-overlay", root, scratch)
    return (*names, *kernel, *hidden, *privileges, "--clearenv", "--setenv", "A=b", *more)


OTHER_USERS: Final = ("--unshare-user", "--uid-map", "0", "100000", "65536", "--gid-map", "0", "100000", "65536")


@pytest.mark.parametrize("users", [(), OTHER_USERS])
def test_a_container_starts_and_ends_without_a_complaint(users: tuple[str, ...], tmp_path: Path, checked: None) -> None:
    """All of a start at once: cgroups, filter, mounts, privileges, ready byte, report, what was written removed."""
    numbers = native.syscalls()[os.uname().machine]
    (tmp_path / "filter").write_bytes(seccomp.program(os.uname().machine, numbers))
    group = launching.group("sanitized")
    with (tmp_path / "filter").open("rb") as file:
        words = container_words(tmp_path / "s", *users, "--seccomp", str(file.fileno()), "--ready", "3", "--cpus", "0")
        limits = ("--cgroup2", group, "--cgroup-try", "no.such", "1", "--cgroup-read", "cpu.stat")
        nest = "busybox mkdir -p /$(busybox printf 'd/%.0s' $(busybox seq 200))"
        script = shell(f"echo $A; echo x > /new; {nest}; exec /bin/ready")
        done = reported(*limits, *words, "--deadline", "20000", *script, pass_fds=(file.fileno(),))
    assert (done.status, done.out, done.err) == (0, "b\n", "")
    assert done.report and done.report.applied["seccomp"] == "2"
    assert {"started", "exec", "ready", "exited", "cleaned"} <= done.report.stages.keys()
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("--deadline", "50", "--", "/bin/sleep", "20"), -9),
        (("--", "/no/such/program"), 127),
        (("--chroot", "/no/such/root", "--", "/bin/true"), 125),
        (("--cgroup2", "/no/such/cgroup", "--", "/bin/true"), 125),
        (("--seccomp", "99", "--", "/bin/true"), 125),
        (("--channel-latency", "10"), 0),
        (("--help",), 0),
        (("--", "/bin/sh", "-c", "kill -SEGV $$"), -11),
        (("--bind", "/", "/x"), 125),
    ],
)
def test_each_other_end_is_reached_without_a_complaint(words: tuple[str, ...], status: int, checked: None) -> None:
    """A sanitizer's complaint would be another status and a report of its own."""
    done = launch(*words)
    assert (done.status, "Sanitizer" in done.err or "runtime error" in done.err) == (status, False), done.err


def known_options() -> list[str]:
    return sorted(set(re.findall(r"\"(--[a-z0-9-]+)\"", (SOURCES / "launch.c").read_text())))


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Options that exist, and after each anything or what it may well want; a command that does nothing."""
    text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
    plausible = st.sampled_from(
        ["0", "1", "3", "-1", "4294967296", "9" * 20, "0-2,5", ",", "0,", "9-1", "", "A=b", "=", "/", "/tmp", "a/b",
         "x" * 5000, "/" + "y/" * 3000, "/proc/self/exe", "%s%n", "63", "64", "0,1,63"]
    )  # fmt: skip
    words: list[str] = []
    for option in draw(st.lists(st.sampled_from(known_options()) | text, max_size=8)):
        words += [option, *draw(st.lists(plausible | text, max_size=3))]
    words += [draw(st.sampled_from(known_options()))] * draw(st.integers(0, 1) | st.just(300))
    return [*words, "--", "/bin/true"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=command_lines())
def test_no_arguments_lead_launch_astray(words: list[str], sanitized: Path, tmp_path: Path) -> None:
    """It says what is wrong and ends with 125, or does what it was asked; as an ordinary user, who can harm nothing."""
    argv = [os.fsencode(word) for word in words]
    user: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    done = subprocess.run(
        [sanitized, *argv], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, cwd="/", check=False,
        env={**OPTIONS, "PATH": "/none"}, **user,
    )  # fmt: skip
    complaint = done.stderr.decode(errors="replace")
    assert "Sanitizer" not in complaint and "runtime error" not in complaint, (words, complaint)
    assert done.returncode in (0, 125, 126, 127, -9), (words, done.returncode, complaint)
    assert done.returncode != 125 or complaint.startswith("launch: "), (words, complaint)


def test_ready_does_nothing_undefined(tmp_path: Path) -> None:
    """It has no C library to report with: the compiler's checks would end it by a signal."""
    flags = ("-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", *TRAPS)
    program = build(tmp_path / "ready", SOURCES / "ready.c", *flags)
    (tmp_path / "byte").touch()
    for value, status in (
        ("1", 0),
        (str(tmp_path / "byte"), 0),
        ("77", 1),
        ("", 1),
        ("x" * 5000, 1),
        ("9" * 40, 1),
        (None, 2),
    ):
        env = {} if value is None else {"BENCHBOX_READY": value}
        done = subprocess.run([program], env=env, capture_output=True, check=False)
        assert done.returncode == status, value
    assert (tmp_path / "byte").read_bytes() == b"!"


def test_first_answer_ends_each_way_without_a_complaint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A right answer, wrong ones of any bytes, none, a server that is gone, arguments that are nonsense."""
    program = build(tmp_path / "first_answer", SOURCES / "first_answer.c", *SANITIZERS)
    monkeypatch.setattr(asking, "PROGRAM", program)
    flood = f"{asking.LISTENS}\nwhile True: answers(bytes(range(256)) * 40)"
    ways = [
        (asking.LISTENS + asking.GOES_ON, 0),
        (flood, 3),
        ("import time; time.sleep(60)", 3),
        (f"{asking.LISTENS}\nserver.accept(); sys.exit(9)", 9),
    ]
    for server, status in ways:
        done = asking.first_answer(tmp_path, server, *asking.ASK, "--deadline-ms", "1500")
        assert (done.status, "Sanitizer" in done.said or "runtime error" in done.said) == (status, False), done.said
    for words in ([], ["--ask"], ["--"], [*asking.ASK, "9" * 30, "--", "x"], [*asking.ASK, "{pid}" * 3000, "--", "x"]):
        done = asking.run([str(program), *words])
        assert (done.status, "Sanitizer" in done.said or "runtime error" in done.said) == (2, False), done.said


def test_pingpong_measures_and_refuses_without_a_complaint(tmp_path: Path) -> None:
    """Round trips over loopback, nobody who answers, arguments that are nonsense."""
    program = build(tmp_path / "pingpong", SOURCES / "pingpong.c", *SANITIZERS)
    environment = {"ASAN_OPTIONS": "detect_leaks=0"}

    def ask(*words: str) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run([program, *words], capture_output=True, text=True, env=environment, timeout=30)
        assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
        return done

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    read, write = os.pipe()
    server = subprocess.Popen(
        [program, "server", port], pass_fds=(write,), env={**environment, "BENCHBOX_READY": str(write)}
    )
    try:
        assert os.read(read, 1) == b"!"
        done = ask("client", "127.0.0.1", port, "500", "1", "64")
    finally:
        server.kill()
        server.wait()
        os.close(read)
        os.close(write)
    found = dict(line.split("=") for line in done.stdout.splitlines())
    assert (done.returncode, found["asked"], found["received"]) == (0, "500", "500")
    assert int(found["min_ns"]) <= int(found["p50_ns"]) <= int(found["p90_ns"]) <= int(found["max_ns"])
    assert "p99_ns" not in found
    silent = ask("client", "127.0.0.1", port, "50", "1", "16")
    assert (silent.returncode, "\np50_ns" in silent.stdout) == (3, False)
    for words in (
        [],
        ["server"],
        ["server", "0"],
        ["client", "x", "7", "1", "1", "64"],
        ["client", "127.0.0.1", "7", "1", "1", "15"],
    ):
        assert ask(*words).returncode == 2


def test_the_agent_runs_a_command_without_a_complaint(
    tmp_path: Path, need: Callable[[str, Availability], None]
) -> None:
    """Its way from the request to the last answer, as the first process of a container instead of a guest."""
    need("container", environment("container").check(EnvironmentSpec("container", "container")))
    root = root_with(
        build(
            tmp_path / "agent", Path(__file__).with_name("agent_session.c"), *SANITIZERS, f'-DAGENT="{SOURCES}/agent.c"'
        ),
        tmp_path,
    )
    command = Command(("/bin/busybox", "sh", "-c", "echo out; (busybox sleep 100 &) ; exit 7"), env={"A": "b"})
    found, output = converse(root, run_request(command), Frame(PING, b"1234"), Frame(QUIT))
    assert [kind for kind, _ in found] == [b"H", EXECUTED, b"D", b"O", b"p"]
    assert b"exit_code=7\0" in dict(found)[b"D"]
    assert b"output_bytes=4\0" in dict(found)[b"O"]
    assert dict(found)[b"p"] == b"1234"
    assert output == b"out\n"
    found, _ = converse(root, run_request(Command(("/no/such/program",))), Frame(QUIT))
    assert [kind for kind, _ in found] == [b"H", b"F"]


def root_with(program: Path, folder: Path) -> Path:
    """Return a root that has ``program``, the libraries that it loads, and the image at /image."""
    root = folder / "root"
    for name in ("proc", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for library in map(Path, re.findall(r"(/\S+) \(0x", listed)):
        (root / library.parent.relative_to("/")).mkdir(parents=True, exist_ok=True)
        shutil.copy(library, root / library.relative_to("/"))
    shutil.copy(program, root / "agent")
    shutil.copytree(images.open_image("minimal").root, root / "image", symlinks=True)
    return root


def converse(root: Path, *frames: Frame) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Let the agent run in ``root`` and hear ``frames``; return what it answers and its command's output."""
    ours, its = socket.socketpair()
    words = launching.arguments(
        "--unshare-all", "--root-bind", root, "--proc", "/proc", "--deadline", "20000", "--", "/agent"
    )
    with ours, subprocess.Popen(words, stdin=its.fileno(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        its.close()
        ours.sendall(b"".join(frame.encoded() for frame in frames))
        with ours.makefile("rb") as stream:
            answers = stream.read()
        output, complaint = process.communicate(timeout=30)
    assert (process.returncode, complaint) == (0, b""), complaint.decode(errors="replace")
    found = []
    while answers:
        kind, length = struct.unpack_from("<cI", answers)
        found.append((kind, answers[5 : 5 + length]))
        answers = answers[5 + length :]
    return found, output


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("metadata", "made", "50"), 0),
        (("copy-up", "file"), 0),
        (("copy-up", "empty"), 1),
        (("copy-up", "absent"), 1),
        (("copy-up", "."), 1),
        (("metadata", "file", "5"), 1),
        (("metadata", "made", "0"), 2),
        (("metadata", "made", "5x"), 2),
        (("metadata", "made"), 2),
        ((), 2),
    ],
)
def test_files_ends_each_way_without_a_complaint(tmp_path: Path, words: tuple[str, ...], status: int) -> None:
    """What goes well prints its numbers, what does not says what and where; nothing is left of what it made."""
    program = build(tmp_path / "files", SOURCES / "files.c", *SANITIZERS)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_bytes(b"content")
    (folder / "empty").touch()
    done = subprocess.run([program, *words], cwd=folder, capture_output=True, text=True, env=dict(OPTIONS), timeout=20)
    assert done.returncode == status, done.stderr
    assert ("=" in done.stdout) is (status == 0) and "Sanitizer" not in done.stderr
    assert bool(done.stderr) is (status != 0)
    assert {path.name for path in folder.iterdir()} == {"file", "empty"}
