"""``launch`` as root, with plans that nobody would write: it starts them or refuses them, and takes nothing with it.

Each plan is executed for real, by a build with sanitizers, as root of a user namespace in a container of its own: there
it may mount, unshare and remove what root may, and nothing of the host. What it stood in is compared before and after.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchbox.environments import environment
from benchbox.model import Availability, EnvironmentSpec
from tests.integration import launching
from tests.integration.test_sanitized import OPTIONS, SANITIZERS, SOURCES, build, root_with

pytestmark = pytest.mark.integration

#: It hands the plan on and says how that ended, and what is not as it was. /tmp has what must stay.
SCRIPT: Final = """
b=/image/bin/busybox
count() { echo $#; }
state() { count /proc/[0-9]*; $b cat /proc/mounts; $b find /tmp /image; $b cat /tmp/kept/file; }
$b mkdir -p /tmp/kept /tmp/a; echo content > /tmp/kept/file; $b ln -s / /tmp/top
before=$(state)
/agent "$@" < /dev/null
echo "status=$?"
[ "$before" = "$(state)" ] || { echo changed; state > /tmp/after; echo "$before" | $b diff - /tmp/after; }
"""
OUTER: Final = (
    "--unshare-all", "--unshare-user", "--uid-map", "0", "100000", "65536", "--gid-map", "0", "100000", "65536",
    "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--sys", "/sys", "--loopback", "--deadline", "10000",
    "--clearenv", "--setenv", f"ASAN_OPTIONS={OPTIONS['ASAN_OPTIONS']}",
)  # fmt: skip

PATHS: Final = st.sampled_from(
    ["/", "/tmp", "/tmp/a", "/tmp/new", "/tmp/kept", "/tmp/kept/file", "/tmp/top", "/tmp/top/tmp/new", "/image",
     "/proc", "/proc/self/exe", "/proc/1/root", "/dev/null", "/no/such", "tmp", "..", "../..", "", "x" * 300,
     "/" + "y/" * 2100]
)  # fmt: skip
NUMBERS: Final = st.sampled_from(["0", "1", "2", "3", "7", "99", "1000", "65535", "65536", "2147483647"])
NAMESPACES: Final = ("pid", "mount", "uts", "ipc", "net", "cgroup", "user")
#: Each option and what may follow it.
OPTIONS_OF: Final[dict[str, tuple[st.SearchStrategy[str], ...]]] = {
    **{f"--unshare-{name}": () for name in (*NAMESPACES, "all")},
    **{f"--{name}-map": (NUMBERS, NUMBERS, NUMBERS) for name in ("uid", "gid")},
    **{f"--{name}": (PATHS,) for name in ("proc", "sys", "dev", "tmpfs", "mask", "ro", "chroot", "root-bind")},
    **{f"--{name}": (PATHS, PATHS) for name in ("bind", "ro-bind", "root-overlay")},
    **{f"--{name}": () for name in ("loopback", "no-new-privs", "new-keyring", "no-core", "announce", "clearenv")},
    **{f"--{name}": (NUMBERS,) for name in ("uid", "gid", "seccomp", "ready", "report", "gate", "join-net")},
    "--cgroup-set": (NUMBERS, NUMBERS),
    "--root-ro-bind": (PATHS,),
    "--hostname": (st.sampled_from(["box", "", "x" * 65, "a/b"]),),
    "--cap-keep": (st.sampled_from(["", "0,1,21", "63"]),),
    "--cgroup2": (PATHS,),
    "--cgroup-read": (PATHS,),
    "--cpus": (st.sampled_from(["0", "0-1", "99"]),),
    "--chdir": (PATHS,),
    "--setenv": (st.sampled_from(["A=b", "LD_PRELOAD=/tmp/kept/file"]),),
}  # fmt: skip
#: Most plans are refused at once unless they have what others need.
USERS: Final = ("--unshare-user", "--uid-map", "0", "0", "9", "--gid-map", "0", "0", "9")
STARTS: Final = st.sampled_from(
    [(), ("--chroot", "/image"), ("--unshare-all", "--root-ro-bind", "/image"),
     ("--unshare-all", "--root-overlay", "/image", "/tmp/new"), (*USERS, "--unshare-all", "--root-bind", "/image"),
     (*USERS, "--unshare-all", "--root-overlay", "/image", "/tmp/new"),
     ("--unshare-pid", "--unshare-mount", "--root-overlay", "/image", "/tmp/a")]
)  # fmt: skip
COMMANDS: Final = st.sampled_from(
    [("/bin/true",), ("/image/bin/true",), ("/no/such",), ("/proc/self/exe", "--help"), ("/tmp",),
     ("/bin/sh", "-c", "echo x > /tmp/b; mkdir -p /tmp/c/d; exit 3"),
     ("/bin/sh", "-c", "kill -9 $$"), ("/bin/sleep", "9")]
)  # fmt: skip


@st.composite
def plans(draw: st.DrawFn) -> list[str]:
    """A start that may work, more options with what may well follow them, a command, and little time."""
    words = list(draw(STARTS))
    for option in draw(st.lists(st.sampled_from(sorted(OPTIONS_OF)), max_size=5)):
        words += [option, *(draw(argument) for argument in OPTIONS_OF[option])]
    return [*words, "--deadline", "300", "--", *draw(COMMANDS)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A root with the build, its libraries and an image."""
    folder = tmp_path_factory.mktemp("fuzzed")
    built = root_with(build(folder / "agent", SOURCES / "launch.c", *SANITIZERS), folder)
    (built / "dev").mkdir()
    for above in (folder, *folder.parents[:2]):
        above.chmod(0o755)
    yield built
    shutil.rmtree(built)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=plans())
def test_no_plan_takes_anything_with_it(
    words: list[str], root: Path, tmp_path: Path, need: Callable[[str, Availability], None]
) -> None:
    """It ends as its command did or with 125 and a reason; mounts, processes and files are as they were."""
    need("container", environment("container").check(EnvironmentSpec("container", "container")))
    found = executed(words, root, tmp_path / "layer")
    said = found.stdout + found.stderr
    assert found.returncode == 0 and "Sanitizer" not in said and "runtime error" not in said, (words, said)
    assert "changed" not in found.stdout.splitlines(), (words, said)
    statuses = ("status=0", "status=3", "status=125", "status=126", "status=127", "status=137", "status=1")
    assert found.stdout.splitlines()[-1] in statuses, (words, said)
    assert "status=125" not in found.stdout or "launch: " in found.stderr, (words, said)


def executed(words: list[str], root: Path, layer: Path) -> "subprocess.CompletedProcess[str]":
    """Run the plan ``words`` in its container."""
    outer: Any = ("--root-overlay", root, layer, *OUTER, "--", "/image/bin/busybox", "sh", "-c", SCRIPT, "x", *words)
    return subprocess.run(
        launching.arguments(*outer), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
        timeout=30, check=False,
    )  # fmt: skip


def test_such_a_plan_does_start(root: Path, tmp_path: Path, need: Callable[[str, Availability], None]) -> None:
    """Else the plans above would show nothing: containers are made there, with layer, mounts and users of their own."""
    need("container", environment("container").check(EnvironmentSpec("container", "container")))
    everywhere = ("--tmpfs", "/tmp", "--mask", "/proc/keys", "--ro", "/proc/sys")
    # Of these, root of a user namespace may make only what its own users are to see.
    for more in (everywhere, (*USERS, "--proc", "/proc", "--dev", "/dev", *everywhere)):
        words = ["--unshare-all", "--root-overlay", "/image", "/tmp/new", *more]
        found = executed([*words, "--", "/bin/sh", "-c", "echo x > /new; echo $$; exit 3"], root, tmp_path / "layer")
        assert (found.stdout, found.stderr) == ("1\nstatus=3\n", "")
