"""``launch`` by hand, on the real kernel: what its options promise, and that it leaves nothing."""

import contextlib
import os
import re
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchbox import images
from benchbox.environments import environment
from benchbox.images import tree
from benchbox.linux import cgroups, mounts, processes
from benchbox.model import STAGES, Availability, EnvironmentSpec
from tests.integration.launching import PROGRAM, arguments, copy_of_image, group, launch, reported, shell

pytestmark = pytest.mark.integration

#: A command of three processes (the shell's background needs a /dev/null).
FAMILY = "busybox sleep 100 & echo; busybox sleep 100; :"


@pytest.fixture(autouse=True)
def container(need: Callable[[str, Availability], None]) -> None:
    need("container", environment("container").check(EnvironmentSpec("container", "container")))


@pytest.fixture
def root() -> Path:
    """The image ``minimal`` in the store: nothing may change it."""
    return images.open_image("minimal").root


@pytest.fixture
def overlay(root: Path, tmp_path: Path) -> tuple[str, ...]:
    """The words for a writable layer over the image, which must be gone in the end."""
    return ("--unshare-mount", "--root-overlay", str(root), str(tmp_path / "scratch"))


@contextlib.contextmanager
def started(*words: str | Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Start ``launch`` and wait until its command has printed a first line."""
    with subprocess.Popen(arguments(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


def wait_until(what: Callable[[], bool], timeout_s: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not what() and time.monotonic() < deadline:
        time.sleep(0.005)
    return what()


# --- how it ends ---


@pytest.mark.parametrize("status", [0, 1, 7, 125, 126, 127, 255])
def test_the_exit_status_is_passed_on_exactly(status: int) -> None:
    """Whatever it is."""
    assert launch("--", "/bin/sh", "-c", f"exit {status}").status == status
    found = reported("--", "/bin/sh", "-c", f"exit {status}").report
    assert found
    assert (found.end, found.detail) == ("exit", str(status))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGUSR1])
def test_a_command_that_a_signal_ends_ends_launch_by_the_same(number: signal.Signals) -> None:
    """A shell above sees what it would have seen without it."""
    found = reported("--", "/bin/sh", "-c", f"kill -{number.value} $$")
    assert found.status == -number
    assert found.report
    assert (found.report.end, found.report.detail) == ("signal", str(number.value))


def test_a_command_that_is_not_there_is_127(root: Path) -> None:
    """And named with the kernel's reason."""
    found = reported("--chroot", root, "--", "/bin/nothing")
    assert found.status == 127
    assert found.err == "launch: cannot execute /bin/nothing: No such file or directory\n"
    assert found.report
    assert (found.report.end, found.report.detail) == (
        "error",
        "cannot execute /bin/nothing: No such file or directory",
    )
    assert "exec" not in found.report.stages


def test_a_command_that_cannot_be_executed_is_126() -> None:
    """A folder, for instance."""
    assert launch("--", "/etc").status == 126


def test_launch_s_own_failure_is_125(tmp_path: Path) -> None:
    """With the step that failed."""
    found = reported("--chroot", tmp_path / "nowhere", "--", "/bin/true")
    assert found.status == 125
    assert "cannot change the root" in found.err
    assert found.report
    assert found.report.end == "error"


def test_the_help_names_every_option() -> None:
    """On standard output, with status 0."""
    found = launch("--help")
    assert (found.status, found.err) == (0, "")
    source = Path(__file__).parents[2] / "benchbox/native/launch.c"
    for option in set(re.findall(r'"(--[a-z0-9-]+)"', source.read_text())) - {"--help"}:
        assert option in found.out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "no command is given"),
        (("--bogus", "--", "true"), "unknown option '--bogus'"),
        (("--cpus",), "--cpus needs another argument"),
        (("--hostname", "x", "--", "true"), "--hostname needs --unshare-uts"),
        (("--loopback", "--", "true"), "--loopback needs --unshare-net"),
        (("--root-bind", "/", "--", "true"), "this root needs --unshare-mount"),
        (("--proc", "/proc", "--", "true"), "mounts need --root-bind"),
        (("--unshare-user", "--", "true"), "--unshare-user needs --uid-map"),
        (("--chroot", "/", "--chroot", "/", "--", "true"), "--chroot: there can be only one root"),
        (("--cgroup-set", "a", "b", "--", "true"), "--cgroup-set needs a --cgroup before it"),
        (("--deadline", "5x", "--", "true"), "'5x' is no number"),
        (("--deadline", "-1", "--", "true"), "'-1' is no number"),
        (("--ready", "2", "--", "true"), "--ready needs a descriptor above 2"),
        (("--announce", "--", "true"), "--announce needs --report"),
        (("--cap-keep", "1,x", "--", "true"), "'x' is no list of capability numbers"),
        (("--setenv", "novalue", "--", "true"), "'novalue' is not NAME=VALUE"),
        (("--report", "999", "--", "true"), "--report: no such descriptor"),
        (("--cpus", "x", "--", "true"), "'x' is no list of CPUs"),
        (
            ("--unshare-mount", "--root-bind", "/", "--proc", "proc", "--", "true"),
            "'proc' is no path inside the root: it must begin with '/'",
        ),
    ],
)
def test_misuse_names_what_is_wrong(words: tuple[str, ...], complaint: str) -> None:
    """Status 125, before anything is done."""
    found = launch(*words)
    assert found.status == 125
    assert found.err.startswith("launch: ")
    assert complaint in found.err
    assert "--help" in found.err


# --- stamps ---


def test_the_stamps_are_in_order_and_on_the_host_s_clock(overlay: tuple[str, ...]) -> None:
    """Between two looks at the same clock from outside."""
    before_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    found = reported(*overlay, "--cgroup2", group("a"), "--ready", "3", "--", "/bin/ready").report
    after_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    assert found
    names = [name for name in STAGES if name in found.stages]
    assert names == ["cgroups", "started", "isolated", "exec", "ready", "exited", "cleaned"]
    stamps = [before_ns, found.requested_ns, *(found.stages[name] for name in names), after_ns]
    assert stamps == sorted(stamps)


@pytest.mark.parametrize("number", range(3, 12))
def test_any_descriptor_can_be_the_ready_one(number: int, overlay: tuple[str, ...]) -> None:
    """Whichever of its own ``launch`` has to get out of the way."""
    found = reported(*overlay, "--ready", str(number), *shell("busybox usleep 50000; exec /bin/ready")).report
    assert found
    assert found.stages["started"] <= found.stages["isolated"] <= found.stages["exec"]
    assert found.stages["ready"] - found.stages["isolated"] >= 50_000_000


def test_ready_is_announced_at_once(root: Path) -> None:
    """Whoever asked for it hears of it while the command runs."""
    reader, writer = os.pipe()
    words = ("--report", str(writer), "--announce", "--ready", "3", "--chroot", root)
    argv = arguments(*words, *shell("/bin/ready; exec busybox sleep 100"))
    with subprocess.Popen(argv, pass_fds=(writer,)) as process:
        os.close(writer)
        assert re.fullmatch(rb"ready \d+\n", os.read(reader, 100))
        process.terminate()
    os.close(reader)


def test_those_that_wait_at_one_gate_begin_together(root: Path) -> None:
    """Not before it opens, and then all of them: their request is that moment, not the start of ``launch``."""
    gate, holder = os.pipe2(os.O_CLOEXEC)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    words = ("--gate", str(gate), "--report", str(writer), "--chroot", root, "--", "/bin/busybox", "true")
    started = [subprocess.Popen(arguments(*words), pass_fds=(gate, writer)) for _ in range(4)]
    os.close(writer)
    time.sleep(0.1)
    assert [process.poll() for process in started] == [None] * 4
    opened_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    os.close(holder)
    assert [process.wait(10) for process in started] == [0] * 4
    with os.fdopen(reader, "rb") as file:
        requested = [int(found) for found in re.findall(rb"^requested (\d+)$", file.read(), re.MULTILINE)]
    os.close(gate)
    assert len(requested) == 4
    assert opened_ns <= min(requested)
    assert max(requested) < opened_ns + 50_000_000


def test_a_gate_that_is_not_there_is_named() -> None:
    """Nothing is started."""
    found = launch("--gate", "77", "--", "/bin/true")
    assert (found.status, "cannot wait at the gate, descriptor 77" in found.err) == (125, True)


def test_what_is_said_after_the_first_byte_is_not_listened_to(root: Path) -> None:
    """And does no harm: the descriptor stays open."""
    found = reported("--chroot", root, "--ready", "3", *shell("printf abc >&3; printf d >&3; busybox usleep 50000"))
    assert found.status == 0
    assert found.report
    assert found.report.stages["ready"] < found.report.stages["exited"]


# --- its end before the command's ---


def test_a_deadline_ends_the_command(overlay: tuple[str, ...]) -> None:
    """In time, and the report says that it was that."""
    found = reported(*overlay, "--deadline", "300", "--unshare-pid", *shell("busybox sleep 100")).report
    assert found
    assert found.end == "timeout"
    assert 0.3 <= (found.stages["exited"] - found.requested_ns) / 1e9 < 0.6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_ending_launch_ends_the_command_and_cleans_up(
    number: signal.Signals, overlay: tuple[str, ...], tmp_path: Path
) -> None:
    """Cgroups, scratch folder, and all that the command has started."""
    place = group("a")
    with started("--cgroup2", place, *overlay, "--dev", "/dev", *shell(FAMILY)) as process:
        assert wait_until(lambda: len(cgroups.processes(place)) == 3)
        members = cgroups.processes(place)
        process.send_signal(number)
        assert process.wait(5) == -signal.SIGKILL  # as the command ended
    assert not place.exists()
    assert not (tmp_path / "scratch").exists()
    assert wait_until(lambda: not any(processes.start_time(pid) and not processes.is_zombie(pid) for pid in members))


def test_a_killed_launch_takes_the_command_with_it(root: Path, tmp_path: Path) -> None:
    """The kernel sees to it. What is left then is for whoever keeps the ledger."""
    place = group("a")
    words = ("--cgroup2", place, "--unshare-all", "--root-overlay", root, tmp_path / "scratch")
    with started(*words, "--dev", "/dev", *shell(FAMILY)) as process:
        assert wait_until(lambda: len(cgroups.processes(place)) == 3)
        process.kill()
        process.wait()
        assert wait_until(lambda: cgroups.processes(place) == ())
    cgroups.remove_tree(place)


@pytest.mark.parametrize("delay_s", [n * 0.0004 for n in range(12)])
def test_launch_may_be_killed_at_any_moment(delay_s: float, root: Path, tmp_path: Path) -> None:
    """However early in the start: no command goes on without it."""
    place = group("a")
    words = ("--cgroup2", place, "--unshare-all", "--root-overlay", root, tmp_path / "scratch")
    process = subprocess.Popen(arguments(*words, *shell("busybox sleep 100")))
    time.sleep(delay_s)
    process.kill()
    process.wait()
    assert wait_until(lambda: cgroups.processes(place) == ())
    cgroups.remove_tree(place)


# --- what it removes ---


@pytest.mark.parametrize("version", [1, 2])
def test_daemons_that_a_command_leaves_are_ended(version: int, root: Path) -> None:
    """In either kind of hierarchy, without a pid namespace: the command's end is the end of all of it."""
    place = group("a", version)
    begun = time.monotonic()
    daemon = "busybox setsid busybox sleep 100 < /dev/null > /dev/null 2>&1 & exit 0"
    found = reported("--cgroup" if version == 1 else "--cgroup2", place, "--chroot", root, *shell(daemon))
    assert (found.status, found.out) == (0, "")
    assert time.monotonic() - begun < 1.5
    assert not place.exists()


def test_the_scratch_folder_goes_with_all_that_was_written(overlay: tuple[str, ...], tmp_path: Path) -> None:
    """Whatever it is, however deep."""
    script = (
        "busybox mkdir -p /d/e/f; echo x > /d/e/f/g; busybox ln -s / /d/l; busybox rm /etc/passwd; busybox chmod 0 /d"
    )
    assert launch(*overlay, *shell(script)).status == 0
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_made_is_unmade(root: Path, tmp_path: Path) -> None:
    """A start that fails half-way leaves none of the cgroups that it had made."""
    first, second = group("a"), group("b") / "no/such/parent"
    found = reported("--cgroup2", first, "--cgroup2", second, "--chroot", root, "--", "/bin/true")
    assert found.status == 125
    assert f"cannot make the cgroup {second}" in found.err
    assert not first.exists()


def test_a_limit_that_the_kernel_refuses_is_an_error(root: Path) -> None:
    """Named with value and file; one that may be missing is passed over if it is missing."""
    place = group("a")
    found = reported("--cgroup2", place, "--cgroup-set", "cgroup.max.depth", "nonsense", "--", "/bin/true")
    assert found.status == 125
    assert f"cannot write nonsense to {place}/cgroup.max.depth: Invalid argument" in found.err
    words = ("--cgroup2", place, "--cgroup-try", "no.such.file", "1", "--cgroup-set", "cgroup.max.depth", "3")
    found = reported(*words, "--cgroup-read", "cgroup.max.depth", "--cgroup-read", "no.such.file", "--", "/bin/true")
    assert found.status == 0
    assert found.report
    assert found.report.files == {f"{place}/cgroup.max.depth": "3\n"}


def test_a_user_map_that_the_kernel_refuses_leaves_nothing(overlay: tuple[str, ...]) -> None:
    """The command that waits for it is ended, in whatever hierarchy it is."""
    begun = time.monotonic()
    maps = ("--unshare-user", "--uid-map", "0", "100000", "0", "--gid-map", "0", "100000", "65536")
    found = reported("--cgroup", group("a", 1), *maps, *overlay, "--", "/bin/true")
    assert found.status == 125
    assert "cannot map users" in found.err
    assert time.monotonic() - begun < 1.5


# --- what the command gets ---


def descriptors_of(*words: str | Path) -> set[str]:
    """Return the descriptors that the command has (the one that lists them left out)."""
    extra = [os.dup(0) for _ in range(4)]
    reader, writer = os.pipe()
    for number in (*extra, reader, writer):
        os.set_inheritable(number, True)
    try:
        script = "cd /proc/self/fd; for f in *; do if [ -e $f ]; then echo $f; fi; done"
        argv = arguments(*words, "--", "/bin/sh", "-c", script)
        done = subprocess.run(argv, close_fds=False, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=True)
    finally:
        for number in (*extra, reader, writer):
            os.close(number)
    return set(done.stdout.decode().split())


def test_the_command_has_its_standard_descriptors_only() -> None:
    """Whatever could be inherited from whoever started it; and the ready descriptor, if it asked for it."""
    assert descriptors_of() == {"0", "1", "2"}
    assert descriptors_of("--ready", "3") == {"0", "1", "2", "3"}
    assert descriptors_of("--ready", "7") == {"0", "1", "2", "7"}


def test_the_environment_is_inherited_or_not(root: Path) -> None:
    """``--setenv`` adds in either case, and the ready descriptor has its variable."""
    env = {"A": "1", "PATH": os.environ["PATH"]}
    show = ("--", "/bin/busybox", "env")
    kept = launch("--chroot", root, "--setenv", "B=2=3", *show, env=env).out.splitlines()
    assert {"A=1", "B=2=3"} <= set(kept)
    alone = launch("--chroot", root, "--clearenv", "--setenv", "B=2", "--ready", "4", *show, env=env).out
    assert sorted(alone.splitlines()) == ["B=2", "BENCHBOX_READY=4"]


def test_signals_are_as_they_were(root: Path) -> None:
    """None that ``launch`` itself blocks or catches stays so in the command."""
    found = launch("--chroot", "/", "--", "/bin/cat", "/proc/self/status").out
    masks = dict(re.findall(r"^(SigBlk|SigCgt):\t(\w+)$", found, re.M))
    assert masks == {"SigBlk": "0" * 16, "SigCgt": "0" * 16}


def test_user_group_folder_and_cpus_are_those_asked_for(root: Path) -> None:
    """And read back into the report."""
    cpu = max(os.sched_getaffinity(0))
    words = ("--uid", "1234", "--gid", "567", "--chdir", "/etc", "--cpus", str(cpu))
    found = reported("--chroot", root, *words, *shell("busybox id; busybox pwd; busybox nproc"))
    assert found.out == "uid=1234 gid=567\n/etc\n1\n"
    assert found.report
    assert found.report.applied["cpus"] == str(cpu)


def test_a_command_of_another_user_dies_with_launch_too(root: Path) -> None:
    """A change of user takes the tie away; it is made again."""
    place = group("a")
    words = ("--cgroup2", place, "--chroot", root, "--uid", "65534", "--gid", "65534")
    with started(*words, "--cap-keep", "", "--no-new-privs", *shell("echo; exec busybox sleep 100")) as process:
        process.kill()
        process.wait()
        assert wait_until(lambda: cgroups.processes(place) == ())
    cgroups.remove_tree(place)


def status_fields(*words: str | Path) -> dict[str, str]:
    text = launch(*words, "--", "/bin/cat", "/proc/self/status").out
    return dict(re.findall(r"^(\w+):\t(.*)$", text, re.M))


@pytest.mark.parametrize(("listed", "mask"), [("", 0), ("0,10", 0x401), ("40", 1 << 40), ("0,1,3,4,5,6,7,8,10", 0x5FB)])
def test_capabilities_are_the_kept_ones(listed: str, mask: int) -> None:
    """In every set that counts, and the command cannot get another back."""
    found = status_fields("--cap-keep", listed, "--no-new-privs")
    sets = {name: int(found[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert sets == {"CapInh": 0, "CapPrm": mask, "CapEff": mask, "CapBnd": mask, "CapAmb": 0}
    assert found["NoNewPrivs"] == "1"


def test_another_user_has_no_capabilities_whatever_is_kept() -> None:
    """As the kernel has it at exec; the report says so too."""
    words = ("--uid", "1234", "--cap-keep", "0,10")
    found = status_fields(*words)
    assert int(found["CapEff"], 16) == int(found["CapPrm"], 16) == 0
    assert int(found["CapBnd"], 16) == 0x401
    report = reported(*words, "--", "/bin/true").report
    assert report
    assert report.applied["capabilities"] == "0"


def test_without_being_asked_privileges_stay() -> None:
    """Native keeps what it has."""
    found = status_fields()
    assert found["CapEff"] == re.findall(r"^CapEff:\t(.*)$", Path("/proc/self/status").read_text(), re.M)[0]
    assert found["NoNewPrivs"] == "0"


# --- a filter of system calls ---


@contextlib.contextmanager
def filter_program(denied: int, error: int) -> Iterator[int]:
    """Yield a descriptor of a program that allows all but the system call ``denied``, which fails with ``error``.

    Struct sock_filter: code, jump if true, jump if false, operand; the number is at offset 0 of struct seccomp_data.
    """
    load, equal, end = 0x20, 0x15, 0x06
    allow, fail = 0x7FFF0000, 0x00050000
    steps = [(load, 0, 0, 0), (equal, 0, 1, denied), (end, 0, 0, fail | error), (end, 0, 0, allow)]
    with tempfile.TemporaryFile() as file:
        file.write(b"".join(struct.pack("=HBBI", *step) for step in steps))
        file.flush()
        yield file.fileno()


UNAME = {"x86_64": 63, "aarch64": 160}


@pytest.mark.skipif(os.uname().machine not in UNAME, reason="the number of uname(2) is not known here")
@pytest.mark.parametrize("is_ready", [False, True])
def test_a_filter_of_system_calls_is_installed(is_ready: bool, overlay: tuple[str, ...]) -> None:
    """The denied call fails in the command, which cannot see the descriptor that the filter came by.

    Not even where the ready descriptor is to have the same number.
    """
    with filter_program(UNAME[os.uname().machine], 1) as number:
        words = ["--proc", "/proc", "--no-new-privs", "--cap-keep", "", "--seccomp", str(number)]
        words += ["--ready", str(number)] if is_ready else []
        look = f"[ -e /proc/self/fd/{number} ] && echo open; [ $BENCHBOX_READY ] && /bin/ready"
        found = reported(*overlay, *words, *shell(f"busybox uname -r; {look}; exit 0"), pass_fds=(number,))
    assert found.out.strip() == ("open" if is_ready else "")
    assert found.report
    assert ("ready" in found.report.stages) is is_ready
    assert found.report.applied["seccomp"] == "2"


def test_what_is_no_filter_is_refused(tmp_path: Path) -> None:
    """The command does not run without it."""
    (tmp_path / "filter").write_bytes(b"12345")
    with (tmp_path / "filter").open() as file:
        found = launch("--seccomp", str(file.fileno()), "--", "/bin/echo", "ran", pass_fds=(file.fileno(),))
    assert (found.status, found.out) == (125, "")
    assert "no seccomp program on descriptor" in found.err


# --- roots and mounts ---


def test_an_overlay_s_writes_do_not_reach_the_image(overlay: tuple[str, ...]) -> None:
    """They are seen inside, and the image's digest is what it was."""
    script = "echo x > /etc/passwd && busybox rm /bin/ready && busybox cat /etc/passwd"
    assert launch(*overlay, *shell(script)).out == "x\n"
    image = images.open_image("minimal")
    found = tree.scan(image.root)
    assert tree.digest(found, tree.file_sums(found)) == image.digest


@pytest.mark.parametrize("kind", ["--root-ro-bind", "--root-bind"])
def test_a_bound_root_is_writable_or_not(kind: str, tmp_path: Path) -> None:
    """As asked for."""
    root = copy_of_image(tmp_path)
    found = launch("--unshare-mount", kind, root, *shell("echo x > /new"))
    assert (found.status == 0, (root / "new").exists()) == ((True, True) if kind == "--root-bind" else (False, False))


def test_folders_can_be_bound_into_the_root(overlay: tuple[str, ...], tmp_path: Path) -> None:
    """Writable or read-only, files too; with what is mounted below them."""
    for name in ("rw", "ro"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    words: list[str | Path] = ["--bind", tmp_path / "rw", "/data", "--ro-bind", tmp_path / "ro", "/tmp"]
    words += ["--ro-bind", tmp_path / "ro/file", "/etc/hostname"]
    writes = "; ".join(f"echo new > {path}" for path in ("/data/new", "/tmp/new", "/etc/hostname"))
    found = launch(*overlay, *words, *shell(f"busybox cat /data/file /tmp/file /etc/hostname; {writes}"))
    assert found.out == "rwroro"
    assert (tmp_path / "rw/new").read_text() == "new\n"
    assert found.err.count("Read-only file system") == 2
    assert (tmp_path / "ro/file").read_text() == "ro"


def test_what_is_mounted_below_a_read_only_bind_is_read_only_too(overlay: tuple[str, ...], tmp_path: Path) -> None:
    """A mount inside it is no way to write."""
    (tmp_path / "outer/inner").mkdir(parents=True)
    mounts.enter_private()
    mounts.tmpfs(tmp_path / "outer/inner", 1 << 20)
    try:
        found = launch(*overlay, "--ro-bind", tmp_path / "outer", "/data", *shell("echo x > /data/inner/new"))
        assert not (tmp_path / "outer/inner/new").exists()
    finally:
        mounts.detach(tmp_path / "outer/inner")
    assert "Read-only file system" in found.err


def test_a_bind_gives_no_device_but_by_its_own_option(overlay: tuple[str, ...], tmp_path: Path) -> None:
    """Nor does what is mounted below it, nor a program that is set-user-id; the rest is as outside."""
    (tmp_path / "devices").mkdir()
    os.mknod(tmp_path / "devices/null", 0o20666, os.makedev(1, 3))
    opens = shell("echo x > /data/null && busybox grep ' /data ' /proc/self/mountinfo")
    held = launch(*overlay, "--proc", "/proc", "--bind", tmp_path / "devices", "/data", *opens)
    assert held.status != 0 and "Permission denied" in held.err
    opened = launch(*overlay, "--proc", "/proc", "--dev-bind", tmp_path / "devices", "/data", *opens)
    assert opened.status == 0, opened.err
    (tmp_path / "devices/null").unlink()


def test_a_tmpfs_has_the_size_that_is_named_before_it(overlay: tuple[str, ...]) -> None:
    """The next one has the kernel's again."""
    words = ("--size", str(1 << 20), "--tmpfs", "/tmp", "--tmpfs", "/data")
    write = "busybox dd if=/dev/zero of=$place/f bs=64k count=32; busybox stat -c %s $place/f"
    found = launch(*overlay, *words, "--dev", "/dev", *shell(f"for place in /tmp /data; do {write}; done"))
    assert found.out.split() == [str(1 << 20), str(2 << 20)], found.err
    assert launch("--size", "many", "--tmpfs", "/tmp", "--", "/bin/true").status == 125


def test_mounts_of_a_container_do_not_show_outside(overlay: tuple[str, ...], before: object) -> None:
    """Neither the overlay nor what is mounted in it."""
    with started(*overlay, "--proc", "/proc", "--tmpfs", "/tmp", *shell("echo; exec busybox sleep 100")) as process:
        assert "scratch" not in Path("/proc/self/mountinfo").read_text()
        process.terminate()


def test_a_masked_path_can_neither_be_read_nor_written(overlay: tuple[str, ...]) -> None:
    """A file is empty, a folder too; one that is not there is no error."""
    words = ("--proc", "/proc", "--dev", "/dev")
    masks = ("--mask", "/etc/passwd", "--mask", "/etc", "--mask", "/no/such", "--mask", "/proc/keys")
    script = "busybox wc -c < /proc/keys; busybox ls /etc; busybox touch /etc/new"
    found = launch(*overlay, *words, *masks, *shell(script))
    assert found.out == "0\n"
    assert "Read-only file system" in found.err


def test_a_mask_that_cannot_be_put_is_an_error(overlay: tuple[str, ...]) -> None:
    """A root without /dev/null has nothing to mask a file with: the command must not run and see it."""
    found = launch(*overlay, "--mask", "/etc/passwd", "--", "/bin/busybox", "cat", "/etc/passwd")
    assert (found.status, found.out) == (125, "")
    assert "cannot mask /etc/passwd" in found.err


def test_a_path_can_be_made_read_only(overlay: tuple[str, ...]) -> None:
    """One that is not there is no error."""
    found = launch(*overlay, "--ro", "/etc", "--ro", "/no/such", *shell("echo x > /etc/new; echo x > /new && echo y"))
    assert "Read-only file system" in found.err
    assert found.out == "y\n"


def test_a_user_namespace_starts_and_is_root_inside_only(tmp_path: Path) -> None:
    """It sees user 0, which is another one outside; proc, sys, dev, the device files and its own layer work."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o777)
    tmp_path.chmod(0o755)
    words = [
        "--unshare-all",
        "--unshare-user",
        "--uid-map",
        "0",
        "100000",
        "65536",
        "--gid-map",
        "0",
        "100000",
        "65536",
    ]
    words += ["--cgroup2", str(group("a")), "--hostname", "inside", "--loopback"]
    words += ["--root-overlay", str(copy_of_image(tmp_path)), str(tmp_path / "scratch")]
    words += ["--proc", "/proc", "--sys", "/sys", "--dev", "/dev", "--tmpfs", "/tmp", "--ro-bind", "/usr", "/data"]
    words += ["--bind", str(tmp_path / "data"), "/etc"]
    writes = "; ".join(f"echo x > {path}" for path in ("/etc/mine", "/new", "/dev/null", "/tmp/new"))
    with parents_open(tmp_path):
        found = reported(*words, *shell(f"busybox id -u; busybox hostname; {writes}; busybox ls /sys/class/net"))
    assert (found.err, found.out) == ("", "0\ninside\nlo\n")
    assert (tmp_path / "data/mine").stat().st_uid == 100000
    assert found.report
    assert found.report.end == "exit"


@contextlib.contextmanager
def parents_open(path: Path) -> Iterator[None]:
    """Let other users through the folders above ``path``: pytest's are its user's alone."""
    above = [(parent, parent.stat().st_mode) for parent in path.parents if not parent.stat().st_mode & 1]
    for parent, mode in above:
        parent.chmod(mode | 0o111)
    try:
        yield
    finally:
        for parent, mode in above:
            parent.chmod(mode)


# --- an image that wants out ---


#: A link in the image that would lead a mount to the host's folder HOST, and the options that follow it.
TRAPS = {
    "absolute": ("t", "HOST", ("--tmpfs", "/t")),
    "upwards": ("t", "../../..HOST", ("--tmpfs", "/t")),
    "by a process": ("t", "/proc/self/cwdHOST", ("--proc", "/proc", "--tmpfs", "/t")),
    "by a process's root": ("t", "/proc/1/rootHOST", ("--proc", "/proc", "--tmpfs", "/t")),
    "a folder on the way": ("t", "..HOST", ("--tmpfs", "/t/made")),
    "a folder on the way by a process": ("t", "/proc/self/cwdHOST", ("--proc", "/proc", "--tmpfs", "/t/made")),
    "device files": ("t", "..HOST", ("--dev", "/t")),
    "device files at the root": ("t", "/", ("--dev", "/t")),
    "a bind": ("t", "..HOST", ("--bind", "/usr", "/t")),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_no_link_of_an_image_leads_a_mount_outside(trap: str, tmp_path: Path) -> None:
    """The host's folder is neither covered nor written to: it is not in the new root, so the link leads nowhere."""
    link, target, words = TRAPS[trap]
    host = tmp_path / "host"
    host.mkdir()
    (host / "file").write_text("host")
    root = copy_of_image(tmp_path)
    (root / link).symlink_to(target.replace("HOST", str(host)))
    found = reported("--unshare-all", "--root-overlay", root, tmp_path / "scratch", *words, *shell("exit 0"))
    assert [path.name for path in host.iterdir()] == ["file"]
    assert found.status == (0 if trap == "device files at the root" else 125), "a mount went where the link leads"


def test_the_old_root_is_out_of_reach(overlay: tuple[str, ...], tmp_path: Path) -> None:
    """By no way upwards, nor by the folders of processes."""
    (tmp_path / "host-file").touch()
    words = ("--unshare-pid", *overlay, "--proc", "/proc")
    ways = ("/../../..", "/proc/self/cwd", "/proc/1/root", "/proc/self/root/..")
    script = "; ".join(f"busybox ls -d {way}{tmp_path}/host-file" for way in ways)
    found = launch(*words, *shell(f"({script}) 2>&1 | busybox grep -vc 'No such file'"))
    assert found.out == "0\n"


# --- other names and modes ---


def test_the_latency_of_the_channel_is_measured() -> None:
    """Half a round trip, some µs."""
    found = launch("--cpus", str(min(os.sched_getaffinity(0))), "--channel-latency", "50")
    assert found.status == 0
    assert 500 < int(found.out) < 5_000_000


def test_under_the_name_of_an_emulator_it_joins_and_becomes_it(tmp_path: Path) -> None:
    """With its arguments as they were, in the cgroups and on the CPUs of its variables."""
    place = group("a")
    place.mkdir()
    program = tmp_path / "qemu-system-test"
    program.write_bytes(PROGRAM.read_bytes())
    program.chmod(0o755)
    (tmp_path / "real").symlink_to("/bin/sh")
    cpu = max(os.sched_getaffinity(0))
    env = {"BENCHBOX_JOIN": str(place / "cgroup.procs"), "BENCHBOX_CPUS": str(cpu), "PATH": os.environ["PATH"]}
    script = "echo $0 $1; cat /proc/self/cgroup; nproc"
    try:
        argv = ["/any/path/qemu-system-test", "-c", script, "qemu", "a b"]
        done = subprocess.run(argv, executable=program, env=env, capture_output=True, text=True, check=True)
        lines = done.stdout.splitlines()
        assert (lines[0], lines[-1]) == ("qemu a b", "1")
        assert f"0::/{place.name}" in lines
    finally:
        cgroups.remove_tree(place)
    done = subprocess.run(argv, executable=program, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert f"cannot join the cgroup {place}/cgroup.procs" in done.stderr
