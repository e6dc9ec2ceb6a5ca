"""The container holds: each way out is tried from inside, and seen to work where the container was opened for it.

An attack is a row of ``ATTACKS``: what ``attack.c`` (or a script) tries, and what of the container's plan has to be
taken away for it to work. The same row is tested twice: as the container is, where it must be refused, and opened,
where it must work; so no test passes because the attack itself is no good. Where this kernel lacks what is attacked
(no modules, no kexec), the opened half says so and is skipped.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest

from benchbox import images, native
from benchbox.environments import environment
from benchbox.environments.launched import LaunchedSession
from benchbox.environments.prepared import MASKED
from benchbox.linux import cgroups, seccomp
from benchbox.linux.launch import LaunchPlan, MountStep, Root, arguments
from benchbox.model import Availability, Command, DataSpec, EnvironmentSpec, Image, Outcome, Resources, Session
from tests.conftest import skip_unless_available
from tests.integration import runs
from tests.integration.sessions import run, session, shell

pytestmark = pytest.mark.integration

WORKED, REFUSED, ABSENT = 0, 1, 2
SECRET: Final = "what nobody inside may read"
RESOURCES: Final = Resources(memory_bytes=64 << 20, pids=40)
#: ``user_namespace`` is the same container with other users: what holds there must hold here.
MODES: Final[Mapping[str, Mapping[str, Any]]] = {"plain": {}, "user_namespace": {"user_namespace": True}}

Change = Callable[[LaunchPlan], LaunchPlan]


# --- how a container is opened ---------------------------------------------------------------------------------------


def powerful(plan: LaunchPlan) -> LaunchPlan:
    """All capabilities, every system call, the host's users."""
    return replace(plan, capabilities=None, no_new_privs=False, seccomp_fd=None)


def unmasked(plan: LaunchPlan) -> LaunchPlan:
    """Nothing of /proc and /sys hidden or read-only, and powerful."""
    steps = tuple(step for step in plan.mounts if step.kind not in ("mask", "ro"))
    return replace(powerful(plan), mounts=steps)


def without(*names: str) -> Change:
    """Unmasked, powerful, and in the host's namespaces of these kinds."""

    def change(plan: LaunchPlan) -> LaunchPlan:
        opened = replace(unmasked(plan), namespaces=tuple(name for name in plan.namespaces if name not in names))
        if "uts" in names:
            opened = replace(opened, hostname=None)
        return replace(opened, loopback=False) if "net" in names else opened

    return change


def chrooted(plan: LaunchPlan) -> LaunchPlan:
    """The root changed and nothing else, as native does it."""
    return replace(without(*plan.namespaces)(plan), root=Root("chroot", plan.root.path), mounts=())


def own_keyring_kept(plan: LaunchPlan) -> LaunchPlan:
    return replace(plan, new_keyring=False)


def from_host(*folders: str) -> Change:
    """Folders of the host's in place of the container's own; and powerful."""

    def change(plan: LaunchPlan) -> LaunchPlan:
        steps = [step for step in plan.mounts if not step.path.startswith(tuple(f"{folder}/" for folder in folders))]
        steps = [MountStep("dev-bind", step.path, Path(step.path)) if step.path in folders else step for step in steps]
        return replace(powerful(plan), mounts=tuple(steps))

    return change


def fresh_devices(plan: LaunchPlan) -> LaunchPlan:
    """A /dev of its own that can be written to."""
    steps = tuple(MountStep("dev", "/dev") if step.path == "/dev" else step for step in plan.mounts)
    return replace(powerful(plan), mounts=steps)


def unfiltered(plan: LaunchPlan) -> LaunchPlan:
    return replace(plan, seccomp_fd=None)


# --- the attacks -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attack:
    """``words`` may hold ``{outside}``, ``{secret}``, ``{victim}``, ``{port}``, ``{name}``, ``{key}``.

    ``opened`` changes the plan so that it works; ``path`` must exist on this host. ``resources`` are those of the
    opened container, where a limit is what holds.
    """

    words: tuple[str, ...]
    opened: Change = powerful
    path: str | None = None
    resources: Resources = RESOURCES
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join(word.strip("/{}").replace("/", ".") for word in self.words)


def attack(*words: str, **options: Any) -> Attack:
    return Attack(words, **options)


NAMESPACES: Final = {
    "mnt": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000, "pid": 0x20000000,
    "net": 0x40000000,
}  # fmt: skip
SYSCTL: Final = "/proc/sys/kernel/panic"
SYSFS: Final = "/sys/kernel/mm/transparent_hugepage/enabled"

ATTACKS: Final = (
    # out of the root
    attack("leave-chroot", "{outside}", "{secret}", opened=chrooted),
    attack("old-root", "{outside}", "{secret}", opened=from_host("/tmp")),
    attack("magic-links", "{outside}", "{secret}", opened=without("pid")),
    attack("open-by-handle"),
    attack("change-input", opened=chrooted),
    # namespaces and mounts
    *(attack("join-namespace", name) for name in ("mnt", "cgroup", "uts", "ipc", "pid", "net")),
    *(attack("new-namespace", f"{flag:x}") for flag in (*NAMESPACES.values(), 0x80)),
    *(attack("clone-namespace", f"{flag:x}") for flag in NAMESPACES.values()),
    attack("clone3-namespace", f"{NAMESPACES['user']:x}"),
    attack("mount"),
    attack("bind"),
    attack("new-file-system"),
    attack("copy-mount"),
    attack("pivot"),
    attack("unmount", "/proc/sys"),
    attack("unmount", "/proc/timer_list"),
    attack("unmount", "/sys"),
    attack("writable-again", "/proc/sys"),
    # files of the kernel, devices
    attack("write-same", SYSCTL, opened=unmasked),
    attack("write-same", SYSFS, opened=from_host("/sys"), path=SYSFS),
    attack("write-same", "/proc/irq/default_smp_affinity", opened=unmasked, path="/proc/irq/default_smp_affinity"),
    *(attack("look", path, opened=unmasked, path=path) for path in MASKED),
    attack("make-device"),
    attack("open-device", "/data/device"),
    attack("open-device", "/dev/kmsg", opened=from_host("/dev"), path="/dev/kmsg"),
    attack("open-device", "/dev/mem", opened=from_host("/dev"), path="/dev/mem"),
    attack("open-device", "/dev/kvm", opened=from_host("/dev"), path="/dev/kvm"),
    attack("change-device", opened=fresh_devices),
    attack("terminal-input"),
    attack("terminal-input-high"),
    # cgroups
    attack("leave-cgroup", opened=without("cgroup")),
    attack("release-agent", "{v1}", opened=without("cgroup")),
    # other processes
    attack("see-process", "{victim}", opened=without("pid")),
    attack("send-signal", "{victim}", opened=without("pid")),
    attack("signal-all", opened=without("pid")),
    attack("trace", "{victim}", opened=without("pid")),
    attack("hold-process", "{victim}", opened=without("pid")),
    # keys, programs in the kernel, counters
    attack("get-keyring"),
    attack("add-key"),
    attack("request-key"),
    attack("find-key", "{key}", opened=own_keyring_kept, options={"seccomp": "off"}),
    attack("load-bpf"),
    attack("count-events"),
    attack("handle-faults"),
    attack("submit-ring"),
    attack("load-kernel"),
    attack("load-module"),
    attack("load-module-file"),
    attack("restart"),
    attack("set-clock"),
    attack("swap"),
    attack("read-log"),
    attack("host-name"),
    attack("fixed-addresses"),
    # network and IPC
    attack("abstract-socket", "{name}", opened=without("net")),
    attack("loopback-service", "{port}", opened=without("net")),
    attack("make-socket", "2", "3", "1"),  # raw
    attack("make-socket", "17", "3", "0"),  # packets
    attack("make-socket", "38", "5", "0"),  # the kernel's cryptography
    attack("make-socket", "40", "1", "0"),  # to the hypervisor
    attack("make-socket", "16", "3", "9"),  # audit
    attack("shared-memory", "{shm}", opened=without("ipc")),
    # limits and privileges
    attack("many-processes", "60", opened=lambda plan: plan, resources=Resources(memory_bytes=64 << 20, pids=100)),
    attack("much-memory", "96", opened=lambda plan: plan, resources=Resources(memory_bytes=256 << 20)),
    attack("gain-user", "/bin/attack-setuid", opened=chrooted),
)


# --- what is attacked ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled program."""
    folder = tmp_path_factory.mktemp("attack")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        skip_unless_available("container", Availability.no("no C compiler", "install gcc"))
    source, target = Path(__file__).with_name("attack.c"), folder / "attack"
    subprocess.run([str(compiler), "-O1", "-static", "-o", target, source], check=True, timeout=120)
    return target


@pytest.fixture(scope="module")
def hostile(attacker: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """An image with the program, also setuid, a script that makes its interpreter run, and a device node."""
    minimal = images.open_image("minimal")
    root = tmp_path_factory.mktemp("image") / "root"
    shutil.copytree(minimal.root, root, symlinks=True)
    shutil.copy(attacker, root / "bin/attack")
    shutil.copy(attacker, root / "bin/attack-setuid")
    (root / "bin/attack-setuid").chmod(0o4755)
    (root / "bin/a=b").write_text("#!/proc/self/exe --setenv\n")
    (root / "bin/a=b").chmod(0o755)
    os.mknod(root / "data/device", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    for folder in (root.parent, *root.parent.parents):
        if folder.is_relative_to(tmp_path_factory.getbasetemp()):
            folder.chmod(0o755)
    return Image("hostile", "0" * 64, root)


@pytest.fixture
def surroundings(tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """What there is to get at on the host: a file, a process, a socket, a service, a key, shared memory."""
    outside = tmp_path / "outside"
    outside.write_text(SECRET)
    name = f"benchbox-attack-{os.getpid()}"
    with contextlib.ExitStack() as stack:
        victim = stack.enter_context(sleeping())
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0{name}")
        abstract.listen()
        service = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        yield {
            "outside": str(outside), "secret": SECRET, "victim": str(victim), "name": name,
            "port": str(service.getsockname()[1]), "key": stack.enter_context(session_key(name)),
            "shm": str(stack.enter_context(shared_segment())), "v1": ",".join(cgroups.detect().v1) and "pids",
        }  # fmt: skip


@contextlib.contextmanager
def sleeping() -> Iterator[int]:
    # Its working folder and a descriptor lead to the host's root, whatever namespace it is seen from.
    with subprocess.Popen(["/bin/sleep", "600"], cwd="/") as process:
        try:
            yield process.pid
        finally:
            process.kill()


@contextlib.contextmanager
def session_key(name: str) -> Iterator[str]:
    """A key in this process's session keyring, keyctl(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    numbers = native.syscalls()[os.uname().machine]
    key = libc.syscall(numbers["add_key"], b"user", name.encode(), b"x", ctypes.c_size_t(1), ctypes.c_int(-3))
    if key < 0:
        skip_unless_available("container", Availability.no(os.strerror(ctypes.get_errno()), "allow add_key"))
    try:
        yield name
    finally:
        libc.syscall(numbers["keyctl"], 9, key, ctypes.c_int(-3))


@contextlib.contextmanager
def shared_segment() -> Iterator[int]:
    """System V shared memory; its key."""
    libc, key = ctypes.CDLL(None), os.getpid() | 1 << 24
    segment = libc.shmget(key, ctypes.c_size_t(4096), 0o1666)
    assert segment >= 0
    try:
        yield key
    finally:
        libc.shmctl(segment, 0, None)


def open_to(opened: Session, change: Change) -> None:
    """Make ``opened`` change every plan; only a test that wants to see an attack work does that."""
    assert isinstance(opened, LaunchedSession)
    planner = opened._planner
    opened._planner = lambda command, name: change(planner(command, name))


def attempt(opened: Session, words: tuple[str, ...], surroundings: Mapping[str, str]) -> tuple[int | None, str]:
    """Return with which status the attack ended, and what it said."""
    argv = ("/bin/attack", *(word.format_map(surroundings) for word in words))
    outcome = run(opened, Command(argv, signals_ready=False, timeout_s=20))
    return outcome.exit_code, said(outcome)


def said(outcome: Outcome) -> str:
    return f"{outcome.reason}: {outcome.output_tail.decode(errors='replace')}"


def skip_without(need: Callable[[str, Availability], None], path: str | None, mode: str = "plain") -> None:
    spec = EnvironmentSpec("container", "container", MODES[mode])
    need("container", environment("container").check(spec))
    if path is not None and not (any(Path(path).iterdir()) if Path(path).is_dir() else Path(path).exists()):
        pytest.skip(f"this kernel has no {path}, or nothing in it")


# --- the promise -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tried", ATTACKS, ids=str)
def test_the_container_holds(
    tried: Attack, mode: str, hostile: Image, surroundings: Mapping[str, str], tmp_path: Path, need: Any
) -> None:
    """The attack is refused, or killed at a limit, and says why."""
    skip_without(need, None, mode)
    with session("container", tmp_path, RESOURCES, hostile, **{**tried.options, **MODES[mode]}) as opened:
        status, words = attempt(opened, tried.words, surroundings)
    killed_at_limit = tried.words[0] == "much-memory" and status is None and "out of memory" in words
    assert status in (REFUSED, ABSENT) or killed_at_limit, (status, words)


@pytest.mark.parametrize("tried", ATTACKS, ids=str)
def test_the_attack_works_where_the_container_is_opened(
    tried: Attack, hostile: Image, surroundings: Mapping[str, str], tmp_path: Path, need: Any
) -> None:
    """The same program in the same container, but for what is to hold it."""
    skip_without(need, tried.path)
    if "{v1}" in tried.words and not surroundings["v1"]:
        pytest.skip("this host has no cgroup v1")
    with session("container", tmp_path, tried.resources, hostile, **tried.options) as opened:
        open_to(opened, tried.opened)
        status, words = attempt(opened, tried.words, surroundings)
    if status == ABSENT:
        pytest.skip(f"this kernel has no such thing ({words.strip()})")
    assert status == WORKED, words


# --- what is not a plan's to take away -------------------------------------------------------------------------------


def test_a_folder_that_was_left_open_is_closed(
    hostile: Image, attacker: Path, surroundings: Mapping[str, str], tmp_path: Path, need: Any
) -> None:
    """A descriptor that ``launch`` inherits leads nowhere inside; the same program that gets it finds the file."""
    skip_without(need, None)
    words = ("inherited-folder", surroundings["outside"], SECRET)
    top = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    plans: list[LaunchPlan] = []
    try:
        with session("container", tmp_path, RESOURCES, hostile) as opened:

            def note(plan: LaunchPlan) -> LaunchPlan:
                plans.append(plan)
                return plan

            open_to(opened, note)
            assert run(opened, Command(("/bin/attack", *words), signals_ready=False)).exit_code == REFUSED
            assert launch_by_hand(plans[0], tmp_path, (top,)) == REFUSED
        assert subprocess.run([attacker, *words], pass_fds=(top,), check=False).returncode == WORKED
    finally:
        os.close(top)


def launch_by_hand(plan: LaunchPlan, folder: Path, passed: Sequence[int]) -> int:
    """Start ``plan`` with more descriptors than benchbox would hand over; return the status."""
    with (folder / "report").open("wb") as report:
        scratch = replace(plan.root, scratch=plan.root.scratch.with_name("by-hand")) if plan.root.scratch else plan.root
        words = arguments(replace(plan, root=scratch), native.program("launch"), report.fileno())
        descriptors = (report.fileno(), *passed, *([plan.seccomp_fd] if plan.seccomp_fd is not None else []))
        return subprocess.run(words, pass_fds=descriptors, env={}, timeout=20, check=False).returncode


@pytest.mark.parametrize("mode", MODES)
def test_the_launcher_cannot_be_changed_from_inside(mode: str, hostile: Image, tmp_path: Path, need: Any) -> None:
    """A script of the image whose interpreter is /proc/self/exe runs ``launch`` inside: its file stays as it was.

    Without the filter, which stops that trick already; seen to work on a copy of ``launch`` that is not read-only.
    """
    skip_without(need, None, mode)
    command = Command(("/bin/a=b", "/bin/attack", "change-launcher"), signals_ready=False)
    with session("container", tmp_path, RESOURCES, hostile, seccomp="off", **MODES[mode]) as opened:
        held = run(opened, command)
        assert isinstance(opened, LaunchedSession)
        opened._program = Path(shutil.copy(native.program("launch"), tmp_path / "launch"))
        changed = run(opened, command)
    assert (held.exit_code, "refused: chmod" in said(held)) == (REFUSED, True), said(held)
    assert changed.exit_code == (WORKED if mode == "plain" else REFUSED), said(changed)


def test_a_program_cannot_change_its_image_through_its_own_link(hostile: Image, tmp_path: Path, need: Any) -> None:
    """What it changes is its own layer, unless the image itself is its root, writable."""
    skip_without(need, None)
    program = hostile.root / "bin/attack"
    command = Command(("/bin/attack", "change-own-program"), signals_ready=False)
    with session("container", tmp_path, RESOURCES, hostile) as opened:
        assert run(opened, command).exit_code == WORKED
        assert stat.S_IMODE(program.stat().st_mode) == 0o755
        open_to(opened, lambda plan: replace(plan, root=Root("root-bind", hostile.root)))
        assert run(opened, command).exit_code == WORKED
        assert stat.S_IMODE(program.stat().st_mode) == 0o711
    program.chmod(0o755)
    (tmp_path / "bind").mkdir()
    with session("container", tmp_path / "bind", RESOURCES, hostile, root="bind") as opened:
        assert run(opened, command).exit_code == REFUSED


#: Where a command's writable layer lies below a run's scratch folder, by how it is made.
LAYERS: Final[Mapping[str, tuple[dict[str, Any], str]]] = {
    "container": ({"kind": "container"}, "*/layers-*/*/upper"),
    "user_namespace": ({"kind": "container", "user_namespace": True}, "*/layers-*/*/upper"),
    "oci": ({"kind": "oci"}, "*/layers-*/*/upper"),
}
NOBODY: Final = 65534


@pytest.fixture
def public_cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache that every user of the host can get to, as one below /var/cache."""
    with tempfile.TemporaryDirectory(prefix="benchbox-public-") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("BENCHBOX_CACHE", f"{folder}/cache")
        yield Path(folder, "cache")


@pytest.mark.parametrize("layer", LAYERS)
def test_a_set_user_id_file_made_inside_is_out_of_reach_of_other_users(
    layer: str, public_cache: Path, tmp_path: Path, need: Any
) -> None:
    """It lies on the host's disk with root as its owner while the container runs; its folders are closed."""
    entry, place = LAYERS[layer]
    need(entry["kind"], environment(entry["kind"]).check(EnvironmentSpec(entry["kind"], layer)))
    makes = "/bin/busybox sh -c 'cp /bin/busybox /left && chmod 4755 /left && /bin/ready; busybox sleep 100'"
    process = runs.start(tmp_path, "run", runs.scenario(tmp_path, [{**entry, "layer": "disk"}], makes, rounds=1))
    try:
        found = runs.eventually(lambda: list((public_cache / "scratch").glob(f"{place}/left")))[0]
        runs.eventually(lambda: stat.S_IMODE(found.stat().st_mode) == 0o4755)
        with pytest.raises(PermissionError):
            subprocess.run([found, "true"], user=NOBODY, group=NOBODY, extra_groups=[], check=False)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


@pytest.mark.parametrize("kind", ["native", "container", "user_namespace", "oci"])
def test_root_and_data_give_no_user_and_no_device(kind: str, hostile: Image, tmp_path: Path, need: Any) -> None:
    """Whatever is made there, or comes with the image: nothing is run set-user-id, nothing opened as a device."""
    options = MODES["user_namespace"] if kind == "user_namespace" else {}
    name = "container" if options else kind
    need(name, environment(name).check(EnvironmentSpec(name, name, options)))
    command = shell("busybox cat /proc/self/mountinfo", data=DataSpec(1 << 20))
    with session(name, tmp_path, RESOURCES, hostile, **options) as opened:
        outcome = run(opened, command)
    assert outcome.status == "ok", said(outcome)
    # The last of those that are mounted at one place is the one that counts.
    mounts = {line.split()[4]: line.split()[5].split(",") for line in outcome.output_tail.decode().splitlines()}
    assert all({"nosuid", "nodev"} <= set(mounts[place]) for place in ("/", "/data")), mounts


@pytest.mark.parametrize("mode", MODES)
def test_every_call_that_is_not_listed_is_refused(mode: str, hostile: Image, tmp_path: Path, need: Any) -> None:
    """All that the headers know, each with arguments that are wrong everywhere, and numbers that nobody knows.

    Without the filter, and still without capabilities, the kernel looks at the arguments of many.
    """
    skip_without(need, None, mode)
    numbers = native.syscalls()[os.uname().machine]
    denied = [number for name, number in numbers.items() if name not in seccomp.allowed_names() | set(seccomp.RULES)]
    beyond = [max(numbers.values()) + 1, max(numbers.values()) + 1000, seccomp.X32_BIT, seccomp.X32_BIT | 39]
    words = ("calls", *map(str, [*denied, numbers["clone3"], *beyond]))
    with session("container", tmp_path, RESOURCES, hostile, **MODES[mode]) as opened:
        status, found = attempt(opened, words, {})
        assert status == REFUSED, found
        open_to(opened, unfiltered)
        status, found = attempt(opened, words, {})
    assert status == WORKED
    assert len(found.split(":")[-1].split()) > 15, found


def test_a_call_of_32_bits_ends_the_process(hostile: Image, tmp_path: Path, need: Any) -> None:
    """By ``int 0x80`` other numbers have other meanings; without the filter it is answered."""
    skip_without(need, None)
    if os.uname().machine != "x86_64":
        pytest.skip("only x86-64 has that instruction")
    command = Command(("/bin/attack", "old-call"), signals_ready=False)
    with session("container", tmp_path, RESOURCES, hostile) as opened:
        outcome = run(opened, command)
        assert outcome.reason == "killed by SIGSYS"
        open_to(opened, unfiltered)
        unheld = run(opened, command)
    assert unheld.reason != "killed by SIGSYS"


def test_processes_beyond_the_limit_end_with_the_container(hostile: Image, tmp_path: Path, need: Any) -> None:
    """A fork bomb that goes on in the background is gone when its first process is."""
    skip_without(need, None)
    bomb = "f() { while :; do f & done; }; f 2> /dev/null & busybox usleep 300000; exit 5"
    with session("container", tmp_path, RESOURCES, hostile) as opened:
        outcome = run(opened, shell(bomb))
        assert outcome.exit_code in (5, 2), said(outcome)
        assert run(opened, Command(("/bin/ready",))).status == "ok"
