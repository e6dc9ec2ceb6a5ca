"""Runtimes and daemons that fail, hang or lie, a worker that is killed: a failed sample with the reason, nothing left.

Real ones are in ``test_environments.py``, which holds every environment to the same contract.
"""

import contextlib
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from benchbox.environments import environment, oci
from benchbox.environments.docker import socket_path
from benchbox.environments.engine_api import Engine
from benchbox.errors import UnavailableError
from benchbox.linux import cgroups, links, mounts, nest
from benchbox.linux.links import Links
from benchbox.linux.state import make_state_folder
from benchbox.model import (
    OUTPUT_TAIL_BYTES,
    Availability,
    Command,
    DataSpec,
    EnvironmentSpec,
    LinkedSession,
    Outcome,
    Resources,
)
from benchbox.supervisor import cleanup
from benchbox.supervisor.place import place_of
from tests.environments.daemons import Answer, Daemon, daemon, hang, raw, says
from tests.integration import runs
from tests.integration.sessions import linked_session, output, run, session, shell

pytestmark = [pytest.mark.integration, pytest.mark.peers]

READY: Final = Command(("/bin/ready",), timeout_s=10.0)


@pytest.fixture(autouse=True)
def groups(need: Callable[[str, Availability], None]) -> Iterator[None]:
    """Groups can be made here; none of ours stays in any hierarchy, those that only other programs use included."""
    need("container", environment("native").check(EnvironmentSpec("native", "native")))
    yield
    left = [path for mount in nest.find().mounts for path in mount.glob(f"benchbox-test-{os.getpid()}*")]
    assert left == []


@pytest.fixture
def runc(need: Callable[[str, Availability], None]) -> Path:
    need("oci", environment("oci").check(EnvironmentSpec("oci", "oci", {"runtime": "runc"})))
    found = oci.find_runtime("runc")
    assert found
    return found


@pytest.fixture
def docker(need: Callable[[str, Availability], None]) -> Engine:
    need("docker", environment("docker").check(EnvironmentSpec("docker", "docker")))
    return Engine(socket_path(None))


# --- runtimes that are played ----------------------------------------------------------------------------------------


def played(folder: Path, script: str, options: str = "--preserve-fds") -> str:
    """Return the path of a runtime that does what ``script`` says when it is asked to run something."""
    path = folder / "played"
    path.write_text(f'#!/bin/sh\ncase " $* " in *" --help "*|*--version*) echo "{options}"; exit;; esac\n{script}\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that hangs does so when the session looks at a first container, too."""
    for name in ("_PROBE_S", "_ASKING_S"):
        monkeypatch.setattr(oci, name, 0.5)


def sample(folder: Path, script: str, command: Command = READY) -> Outcome:
    with session("oci", folder, runtime=played(folder, script)) as opened:
        return run(opened, command)


def test_a_runtime_that_fails_is_a_failed_sample_with_its_words(tmp_path: Path) -> None:
    """From its log where it keeps one, else what it printed."""
    outcome = sample(tmp_path, "echo 'no space left on device' >&2; exit 3")
    assert (outcome.status, outcome.exit_code) == ("failed", None)
    assert outcome.reason == ("played ended with status 3, but nothing ever ran in its cgroup: no space left on device")
    logged = """while [ "$1" != --log ]; do shift; done; echo '{"level":"error","msg":"it broke"}' > "$2"; exit 1"""
    assert sample(fresh(tmp_path), logged).reason == "played: it broke"


def fresh(folder: Path) -> Path:
    """Return an empty folder for one more session."""
    path = folder / f"{time.monotonic_ns()}"
    path.mkdir()
    return path


def test_a_runtime_that_lies_is_not_believed(tmp_path: Path) -> None:
    """It says that all went well, even writes the ready byte itself; nothing ran where the container should be."""
    for script in ("exit 0", "echo ok; exit 0", "printf '!' >&3; exit 0"):
        outcome = sample(fresh(tmp_path), script)
        assert outcome.status == "failed"
        assert "ended with status 0, but nothing ever ran in its cgroup" in (outcome.reason or "")


def test_a_runtime_that_hangs_is_ended_at_the_deadline(tmp_path: Path, impatient: None) -> None:
    """With all that it started, wherever that went."""
    begun = time.monotonic()
    outcome = sample(tmp_path, "trap '' TERM; sleep 100 & setsid sleep 100 & sleep 100", shell("true", timeout_s=0.5))
    assert outcome.status == "failed"
    assert outcome.reason == "not done after 0.5 s, killed; nothing ever ran in its cgroup"
    assert time.monotonic() - begun < 8


def test_a_runtime_that_hangs_when_it_is_asked_anything_is_survived(tmp_path: Path, impatient: None) -> None:
    """Its version is unknown then; samples fail at their deadline."""
    path = tmp_path / "hanging"
    path.write_text("#!/bin/sh\nexec sleep 100\n")
    path.chmod(0o755)
    with session("oci", tmp_path, runtime=str(path)) as opened:
        assert "not done after" in opened.applied()["versions"]["hanging"]
        assert "not_read_back" in opened.applied()
        assert run(opened, shell("true", timeout_s=0.3)).status == "failed"


def test_what_a_runtime_leaves_behind_is_removed(tmp_path: Path) -> None:
    """State, groups in every hierarchy, processes in them; it is asked to delete first, and need not."""
    leave = """
case " $* " in *" delete "*) echo "$@" >> {folder}/deleted; exit 1;; esac
while [ $# -gt 1 ]; do [ "$1" = --root ] && state=$2; [ "$1" = --bundle ] && bundle=$2; shift; done
mkdir -p "$state/$1"
path=$(sed 's/.*"cgroupsPath": "\\([^"]*\\)".*/\\1/' "$bundle/config.json")
for mount in {mounts}; do mkdir -p "$mount$path"; done
(echo 0 > {first}$path/cgroup.procs; setsid sleep 100 > /dev/null 2>&1 &)
exit 0
"""
    mounts = nest.find().mounts
    first = next(iter(cgroups.detect().roots()[-1:]))
    script = leave.format(folder=tmp_path, mounts=" ".join(map(str, mounts)), first=first)
    outcome = sample(tmp_path, script)
    assert outcome.status in ("failed", "invalid")
    deleted = (tmp_path / "deleted").read_text()
    assert "delete --force benchbox-test-" in deleted


def test_a_runtime_that_is_not_there_is_a_skip_with_a_remedy() -> None:
    """Named as it was asked for."""
    offer = environment("oci").check(EnvironmentSpec("oci", "oci", {"runtime": "/opt/no/such"}))
    assert (offer.available, offer.reason) == (False, "there is no OCI runtime /opt/no/such")
    assert (offer.fix, offer.packages) == ("leave runtime: out, for runc or crun", ())


def test_a_runtime_that_passes_no_descriptors_on_is_ready_by_its_error_output(runc: Path, tmp_path: Path) -> None:
    """Which is the workload's; what it prints is kept, what is wrong with the runtime comes from its log."""
    script = f'case " $* " in *" --preserve-fds "*) exit 9; esac; exec {runc} "$@"'
    with session("oci", tmp_path, runtime=played(tmp_path, script, "no such option")) as opened:
        assert opened.applied()["ready_by"] == "its error output"
        outcome = run(opened, shell("echo out; busybox usleep 100000; exec /bin/ready", signals_ready=True))
        assert (outcome.status, outcome.reason, outcome.output_tail) == ("ok", None, b"out\n")
        assert outcome.stages["ready"] - outcome.requested_ns > 100_000_000
        assert "/bin/nothing" in (run(opened, Command(("/bin/nothing",))).reason or "")


# --- a real runtime --------------------------------------------------------------------------------------------------


def test_its_container_is_like_ours(runc: Path, tmp_path: Path) -> None:
    """Limits, filter, capabilities and privileges are read back from a container that stands still."""
    with session("oci", tmp_path, Resources(memory_bytes=64 << 20, pids=40), runtime="runc") as opened:
        found = opened.applied()
        assert found["read_back"]["seccomp"] == "filter"
        assert found["read_back"]["no_new_privs"] is True
        assert found["read_back"]["capabilities"] == "5fb"
        assert found["read_back"]["limits_by_program"]["memory_bytes"] == 64 << 20
        assert found["read_back"]["limits_by_program"]["pids"] == 40
        assert output(opened, "busybox ls /sys/class/net") == "lo\n"
        for path in ("/proc/sys/kernel/hostname", "/sys/kernel/uevent_helper"):
            assert "Read-only file system" in output(opened, f"(echo 1 > {path}) 2>&1; exit 0")
        assert "denied" in output(opened, "busybox mount -t tmpfs x /tmp 2>&1; exit 0")


@pytest.mark.parametrize(
    ("options", "script", "expected"),
    [
        ({"network": False}, "busybox readlink /proc/self/ns/net", None),
        ({"root": "bind"}, "(echo x > /new) 2>&1; exit 0", "can't create /new: Read-only file system"),
        ({"seccomp": "off"}, "busybox grep Seccomp: /proc/self/status", "Seccomp:\t0"),
    ],
)
def test_options_do_what_they_say(
    options: dict[str, Any], script: str, expected: str | None, runc: Path, tmp_path: Path
) -> None:
    """Each of its own."""
    with session("oci", tmp_path, runtime="runc", **options) as opened:
        assert (expected or str(Path("/proc/self/ns/net").readlink())) in output(opened, script)


def test_docker_s_networks_are_what_they_say(docker: Engine, tmp_path: Path) -> None:
    """Loopback alone, or the host's."""
    with session("docker", fresh(tmp_path)) as opened:
        assert output(opened, "busybox ls /sys/class/net") == "lo\n"
    with session("docker", fresh(tmp_path), network="host") as opened:
        assert output(opened, "busybox readlink /proc/self/ns/net").strip() == str(Path("/proc/self/ns/net").readlink())


def joined(folder: Path, kind: str) -> str:
    """Return what a container that is linked to a bridge sees of its network: that of the link."""
    with Links() as made, linked_session(kind, folder, made) as opened:
        assert isinstance(opened, LinkedSession) and opened.link and opened.link.namespace
        network = str(Path(f"/proc/self/fd/{opened.link.namespace}").readlink())
        assert output(opened, "busybox readlink /proc/self/ns/net", serves=True).strip() == network
        assert output(opened, "busybox ls /sys/class/net", serves=True).split() == ["lo", "load0"]
        assert output(opened, "busybox hostname", serves=True).strip() == "benchbox"
        assert output(opened, "busybox ls /sys/class/net").split() == ["lo"]
        assert opened.applied()["read_back"]["seccomp"] == "filter"
        return opened.link.address


def test_samples_of_a_runtime_are_in_the_namespace_of_their_link(runc: Path, tmp_path: Path) -> None:
    """Found by a path, nothing else of it is shared; its address is of the bridge."""
    assert joined(tmp_path, "oci").startswith(f"{links.NETWORK}.")


def test_samples_of_docker_are_in_the_namespace_of_a_container_that_stands_still(
    docker: Engine, tmp_path: Path
) -> None:
    """One a session, in a cgroup of the run's that is no sample's, gone with the session."""
    run_name = f"benchbox-test-{os.getpid()}"
    assert joined(fresh(tmp_path), "docker").startswith(f"{links.NETWORK}.")
    with Links() as made, linked_session("docker", fresh(tmp_path), made) as opened:
        (holder,) = docker.containers(run_name)
        pid = docker.inspect(holder)["State"]["Pid"]
        assert f"/{run_name}/docker-holder/box/" in Path(f"/proc/{pid}/cgroup").read_text()
        before = Path(f"/proc/{pid}/stat").read_text().split()[13:15]
        assert output(opened, "echo hello", serves=True) == "hello\n"
        assert docker.containers(run_name) == [holder]
        assert Path(f"/proc/{pid}/stat").read_text().split()[13:15] == before
    assert docker.containers(run_name) == []


def test_docker_s_own_layer_is_held_by_what_the_disk_lost(docker: Engine, tmp_path: Path) -> None:
    """Nobody but the daemon knows where it lies; who fills it is ended all the same, and the next one is not."""
    with session("docker", tmp_path, Resources(disk_bytes=128 << 20)) as opened:
        outcome = run(opened, shell("exec busybox dd if=/dev/zero of=/f bs=1M count=20000"))
        assert (outcome.status, outcome.exit_code) == ("failed", None)
        assert "in no file of its /data or layer" in str(outcome.reason), outcome.reason
        assert run(opened, READY).status == "ok"


def test_a_holder_that_ends_fails_samples_with_the_daemon_s_words(docker: Engine, tmp_path: Path) -> None:
    """There is no network to join any more."""
    with Links() as made, linked_session("docker", tmp_path, made) as opened:
        (holder,) = docker.containers(f"benchbox-test-{os.getpid()}")
        docker.remove(holder)
        outcome = run(opened, replace(READY, serves=True))
    assert outcome.status == "failed"
    assert (outcome.reason or "").startswith("docker: ") and holder[:12] in (outcome.reason or "")


@pytest.mark.parametrize("layer", ["tmpfs", "disk"])
def test_a_layer_lies_where_it_is_asked_for(layer: str, runc: Path, tmp_path: Path) -> None:
    """The runtime's container writes to it like to any folder; nothing of it is left."""
    with session("oci", tmp_path, layer=layer) as opened:
        assert opened.applied()["root"] == f"overlay, writable layer on {layer}"
        (layers,) = (tmp_path / "scratch").glob("layers-*")
        assert (mounts.file_system(layers) == "tmpfs") is (layer == "tmpfs")
        for _ in range(2):
            assert output(opened, "busybox ls /written 2>/dev/null; echo x > /written; busybox cat /written") == "x\n"
        assert list(layers.iterdir()) == []
        outcome = run(opened, shell("echo x > /data/x", data=DataSpec(1 << 20, "layer")))
        assert ("tmpfs" in outcome.applied["data"]) is (layer == "tmpfs")


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_out_of_memory_is_the_kernel_s_word(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Also of a workload that survives it; a kill by somebody else is none."""
    request.getfixturevalue({"oci": "runc", "docker": "docker"}[kind])
    with session(kind, tmp_path, Resources(memory_bytes=16 << 20)) as opened:
        grow = "a=xxxxxxxx; while :; do a=$a$a; done"
        for script in (grow, f"busybox sh -c '{grow}'; exit 0"):
            assert (run(opened, shell(script)).reason or "").startswith("out of memory: the kernel killed 1 process")
        assert run(opened, shell("busybox sh -c 'kill -9 $$'; exit 7")).reason == "exit status 7"


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_a_share_of_cpu_time_is_kept(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """By the group around the container, where it is read back and counted."""
    request.getfixturevalue({"oci": "runc", "docker": "docker"}[kind])
    with session(kind, tmp_path, Resources(cpu_quota=0.25)) as opened:
        outcome = run(opened, shell("i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done"))
    counters = {counter.name: counter.value for counter in outcome.counters}
    assert (outcome.status, outcome.applied["cpu_quota"]) == ("ok", 0.25)
    assert counters["cpu.throttled"]


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_a_hundred_megabytes_of_output_are_kept_from_their_end(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """In a small measuring process, and the workload is not held up for good."""
    request.getfixturevalue({"oci": "runc", "docker": "docker"}[kind])
    with session(kind, tmp_path) as opened:
        script = "busybox dd if=/dev/zero bs=1048576 count=100 2> /dev/null | busybox tr '\\0' x; echo; echo the end"
        outcome = run(opened, shell(script, timeout_s=60.0))
    assert (outcome.status, outcome.reason) == ("ok", None)
    assert len(outcome.output_tail) == OUTPUT_TAIL_BYTES
    assert outcome.output_tail.endswith(b"xxx\nthe end\n")


KILLED: Final = """
import os, signal, sys, time
from benchbox import images
from benchbox.environments import environment
from benchbox.linux.ledger import Ledger
from benchbox.linux.links import Links
from benchbox.model import Command, EnvironmentSpec, Resources, Workspace
from benchbox.supervisor.place import place_of
kind, link, place = sys.argv[1], sys.argv[3], place_of(sys.argv[2])
name, book = place.cgroup_name, Ledger(place.runtime / "ledger.jsonl")
cpus = tuple(sorted(os.sched_getaffinity(0)))
workspace = Workspace("r", place.scratch, place.runtime, name, cpus[-1:], cpus[:1], book, Links())
from benchbox.linux import cgroups
for root in cgroups.detect().roots():
    book.record("cgroup", str(root / name))
book.record("folder", str(place.scratch))
spec = EnvironmentSpec(kind, kind, {"link": link})
with environment(kind).open(spec, images.open_image("minimal"), Resources(), workspace) as opened:
    command = Command(("/bin/busybox", "sh", "-c", "/bin/ready; exec busybox sleep 100"), stays=True)
    assert opened.start(command).ready()
    print("ready", flush=True)
    time.sleep(100)
"""


@pytest.mark.parametrize("link", ["none", "bridge"])
@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_a_worker_that_is_killed_leaves_nothing_that_the_ledger_does_not_name(
    kind: str, link: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Not a process, a container, a group in any hierarchy; the container ran until then."""
    request.getfixturevalue({"oci": "runc", "docker": "docker"}[kind])
    monkeypatch.setenv("BENCHBOX_STATE", str(tmp_path / "state"))
    make_state_folder()
    place = place_of(secrets.token_hex(4))
    name = place.cgroup_name
    for folder in (place.runtime, place.scratch):
        folder.mkdir(mode=0o700, parents=True)
    words = [sys.executable, "-c", KILLED, kind, place.token, link]
    worker = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert worker.stdout and worker.stdout.readline() == b"ready\n"
    groups = [path for root in cgroups.detect().roots() for path in (root / name).glob(f"{kind}-*/box")]
    assert any(cgroups.processes(group) for group in groups)
    worker.kill()
    worker.wait()
    worker.stdout.close()
    # What stands still ends by itself: nobody can take its byte any more.
    holding = [group for group in groups if group.parent.name == "docker-holder"]
    assert bool(holding) is ((kind, link) == ("docker", "bridge"))
    runs.eventually(lambda: not any(map(cgroups.processes, holding)))
    (cleaned,) = cleanup.clean_dead_runs()
    assert cleaned.remaining == ()
    left = {"oci": f"folder {place.runtime}/oci-oci", "docker": f"docker {socket_path(None)} {name}"}[kind]
    assert left in cleaned.removed
    if kind == "docker":
        assert Engine(socket_path(None)).containers(name) == []


# --- daemons that are played -----------------------------------------------------------------------------------------


def attached(connection: socket.socket, body: bytes) -> None:
    raw(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")(connection, body)


ANSWERS: Final[dict[str, Answer]] = {
    "GET /_ping": says(),
    "GET /info": says({"KernelVersion": os.uname().release, "CgroupDriver": "cgroupfs", "Driver": "played"}),
    "GET /images/": says({}),
    "GET /containers/json": says([]),
    "POST /containers/create": says({"Id": "abc"}, 201),
    "POST /containers/abc/attach": attached,
    "POST /containers/abc/wait": says({"StatusCode": 0}),
    "POST /containers/abc/start": says(status=204),
    "POST /containers/": says(status=204),
    "DELETE /containers/": says(status=204),
}


def waits(connection: socket.socket, body: bytes) -> None:
    """Say that the wait has begun, and never that it is over."""
    raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")(connection, body)
    hang(connection, body)


@contextlib.contextmanager
def playing(monkeypatch: pytest.MonkeyPatch, **answers: Answer) -> Iterator[Daemon]:
    """Yield a daemon that does as Docker does but for ``answers``; it runs nothing."""
    monkeypatch.setattr("benchbox.environments.docker._PROBE_S", 0.1)
    monkeypatch.setattr("benchbox.environments.docker._GRACE_S", 0.3)
    monkeypatch.setattr("benchbox.environments.docker.Engine", partial(Engine, timeout_s=1.0))
    own = {f"POST /containers/{'' if name == 'create' else 'abc/'}{name}": answer for name, answer in answers.items()}
    with daemon({**own, **{key: value for key, value in ANSWERS.items() if key not in own}}) as found:
        yield found


def by(found: Daemon, folder: Path, command: Command = READY) -> Outcome:
    with session("docker", folder, socket=str(found.path)) as opened:
        return run(opened, command)


def test_a_daemon_that_lies_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that the container ended well, and never had one."""
    with playing(monkeypatch) as found:
        outcome = by(found, tmp_path)
    assert outcome.status == "failed"
    assert outcome.reason == "docker ended with status 0, but nothing ever ran in its cgroup"


@pytest.mark.parametrize("request_", ["create", "attach", "wait", "start"])
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (hang, "does not answer|not done after 0.5 s"),
        (raw(b"220 mail.example ESMTP\r\n\r\n"), "nonsense"),
        (raw(b""), "closed the connection"),
        (says({"message": "no more room"}, 500), "docker: no more room"),
    ],
)
def test_a_daemon_that_hangs_refuses_or_talks_nonsense_is_a_failed_sample(
    request_: str, answer: Answer, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At whatever it was asked; within its time."""
    begun = time.monotonic()
    with playing(monkeypatch, **{"wait": waits, request_: answer}) as found:
        outcome = by(found, tmp_path, Command(("/bin/ready",), timeout_s=0.5))
    assert outcome.status == "failed"
    assert re.search(reason, outcome.reason or "")
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"KernelVersion": "5.0.0-elsewhere"}, "another kernel"),
        ({"CgroupDriver": "systemd"}, "cgroup driver is systemd"),
    ],
)
def test_a_daemon_whose_containers_could_not_be_accounted_is_a_skip_with_a_remedy(
    said: dict[str, str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is made."""
    with playing(monkeypatch) as found:
        info = {"KernelVersion": os.uname().release, "CgroupDriver": "cgroupfs", **said}
        found.answers["GET /info"] = says(info)
        with (
            pytest.raises(UnavailableError, match=reason) as error,
            session("docker", tmp_path, socket=str(found.path)),
        ):
            pass
    assert error.value.hint


def test_no_daemon_is_a_skip_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or one that is elsewhere."""
    offer = environment("docker").check(EnvironmentSpec("docker", "docker", {"socket": f"{tmp_path}/none"}))
    assert not offer.available
    # To install an engine is the user's choice: no package is offered for it.
    assert offer.fix and "systemctl start docker" in offer.fix and "apt install docker.io" in offer.fix
    assert offer.packages == ()
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.1:2375")
    offer = environment("docker").check(EnvironmentSpec("docker", "docker"))
    assert "only a daemon on this host" in (offer.reason or "")
    assert offer.fix


# --- /data -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_a_container_of_another_program_has_a_data_of_its_own(
    kind: str, tmp_path: Path, need: Callable[[str, Availability], None]
) -> None:
    """Bound for each sample, fresh, gone afterwards; or its own writable layer where that is asked for."""
    need(kind, environment(kind).check(EnvironmentSpec(kind, kind)))
    script = "busybox ls -A /data; busybox grep -c ' /data ' /proc/self/mountinfo; echo x >/data/f"
    with session(kind, tmp_path) as opened:
        places = (DataSpec(1 << 20), "bind of a fresh", "1"), (DataSpec(1 << 20, "layer"), "in its own layer", "0")
        for data, said, bound in places * 2:
            outcome = run(opened, shell(script, data=data))
            assert (outcome.status, outcome.output_tail.split()) == ("ok", [bound.encode()]), outcome.reason
            assert outcome.applied["data"].startswith(said)
            assert list((tmp_path / "scratch").glob("data-*")) == []
