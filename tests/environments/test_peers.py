"""How an end is judged that another program tells, and what is read back of its containers."""

import os
import select
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import ValidationError

from benchbox.environments import bundle, docker, oci, peers
from benchbox.environments.launched import Requested, instance_limits
from benchbox.environments.peers import End, complaint, judged
from benchbox.linux.nest import Seen
from benchbox.model import Command, Counter, Outcome, Resources

APPLIED: Final = {"cpus": "1", "memory_bytes": 64 << 20, "pids": 40, "cpu_quota": None}
SEEN: Final = Seen((Counter("cpu.usage", 0.1, "s", "cgroup2 cpu.stat usage_usec"),), APPLIED, True)
REQUESTED: Final = Requested.of(instance_limits(Resources(1, 64 << 20, 40)), (1,))
FOUND: Final = Outcome("failed", requested_ns=5, stages={"ready": 7, "exited": 8}, output_tail=b"what it printed")


def judge(end: End, seen: Seen = SEEN, found: Outcome = FOUND, *, signals_ready: bool = True) -> Outcome:
    return judged(found, end, seen, REQUESTED, Command(("/bin/ready",), signals_ready=signals_ready))


def test_an_end_that_is_well_is_ok() -> None:
    """With account and limits; stages and output are left as they are."""
    outcome = judge(End("runc", 0))
    assert (outcome.status, outcome.reason, outcome.exit_code, outcome.signal) == ("ok", None, 0, None)
    assert (outcome.counters, outcome.applied) == (SEEN.counters, APPLIED)
    assert (outcome.stages, outcome.output_tail, outcome.requested_ns) == (FOUND.stages, FOUND.output_tail, 5)


@pytest.mark.parametrize(
    ("status", "exit_code", "number", "reason"),
    [
        (7, 7, None, "exit status 7"),
        (128, 128, None, "exit status 128"),
        (137, None, 9, "killed by SIGKILL"),
        (139, None, 11, "killed by SIGSEGV"),
        (255, 255, None, "exit status 255"),
    ],
)
def test_a_status_is_passed_on(status: int, exit_code: int | None, number: int | None, reason: str) -> None:
    """One that stands for a signal as that signal."""
    outcome = judge(End("runc", status))
    assert (outcome.status, outcome.exit_code, outcome.signal, outcome.reason) == ("failed", exit_code, number, reason)


def test_what_went_wrong_with_the_program_itself_is_not_the_workload_s_status() -> None:
    """Its own words are the reason."""
    outcome = judge(End("runc", 1, "exec: no such file"))
    assert (outcome.status, outcome.exit_code, outcome.reason) == ("failed", None, "runc: exec: no such file")


def test_a_program_that_says_all_is_well_and_ran_nothing_is_not_believed() -> None:
    """Nothing was ever in the cgroup; what it printed is said."""
    outcome = judge(End("liar", 0), replace(SEEN, ran=False))
    assert outcome.status == "failed"
    assert outcome.reason == "liar ended with status 0, but nothing ever ran in its cgroup: what it printed"


def test_a_program_that_hung_is_told_from_a_workload_that_did() -> None:
    """By whether anything ran."""
    end = End("runc", None, broken="not done after 1 s, killed")
    assert judge(end).reason == "not done after 1 s, killed"
    assert judge(end, replace(SEEN, ran=False)).reason == "not done after 1 s, killed; nothing ever ran in its cgroup"
    asked = End("runc", None, broken=peers.ENDED_BY_US)
    assert judge(asked, replace(SEEN, ran=False)).reason == "ended by benchbox"


def test_out_of_memory_comes_before_all_else() -> None:
    """Whatever the status is that it led to."""
    killed = replace(SEEN, counters=(Counter("memory.oom_kills", 2, "1", "x"),))
    for end in (End("runc", 137), End("runc", 0), End("runc", 1, "container init died")):
        assert (judge(end, killed).reason or "").startswith("out of memory: the kernel killed 2 process(es)")


def test_a_workload_that_never_said_ready_and_a_wrong_limit_are_invalid() -> None:
    """However well they end."""
    silent = replace(FOUND, stages={"exited": 8})
    assert judge(End("runc", 0), found=silent).status == "invalid"
    assert judge(End("runc", 0), found=silent, signals_ready=False).status == "ok"
    other = judge(End("runc", 0), replace(SEEN, applied={**APPLIED, "pids": 41}))
    assert (other.status, other.reason) == (
        "invalid",
        "a limit is not the one asked for: pids: asked for 40, in force 41",
    )


@pytest.mark.parametrize(
    ("launched", "left", "broken"),
    [
        ({"exit_code": 0}, None, None),
        ({"exit_code": 7, "reason": "exit status 7"}, None, None),
        ({"signal": 9, "reason": "killed by SIGKILL"}, None, "runc: killed by SIGKILL"),
        ({"reason": "not done after 1 s, killed"}, None, "not done after 1 s, killed"),
        ({"exit_code": 0}, "/cg: busy", "/cg: busy"),
    ],
)
def test_how_a_runtime_ended_is_read_from_its_launcher(launched: dict[str, Any], left: str | None, broken: str) -> None:
    """The runtime's own violent end is not the workload's; what could not be removed spoils the sample."""
    found = Outcome("failed", **launched)
    assert oci.ended(found, "runc", "words", left) == End("runc", launched.get("exit_code"), "words", broken)


@pytest.mark.parametrize(
    ("options", "given", "complaint"),
    [
        (oci.Options, {"link": "bridge", "network": False}, "expected network: true beside link: bridge"),
        (oci.Options, {"link": "host"}, "expected network: false beside link: host, which is the host's network"),
        (docker.Options, {"link": "bridge", "network": "bridge"}, "expected network: none beside link: bridge"),
        (docker.Options, {"link": "bridge", "network": "host"}, "expected network: none beside link: bridge"),
        (docker.Options, {"link": "host"}, "expected network: host beside link: host, which is the host's network"),
    ],
)
def test_a_network_that_contradicts_its_link_is_refused(options: Any, given: dict[str, Any], complaint: str) -> None:
    """When the scenario is read, in the words that our own container has."""
    with pytest.raises(ValidationError, match=complaint):
        options(**given)


@pytest.mark.parametrize(
    ("options", "given"),
    [
        (oci.Options, {"link": "bridge"}),
        (oci.Options, {"link": "host", "network": False}),
        (docker.Options, {"link": "bridge"}),
        (docker.Options, {"link": "host", "network": "host"}),
    ],
)
def test_a_link_goes_with_the_network_that_it_needs(options: Any, given: dict[str, Any]) -> None:
    """The default for a bridge, the host's for loopback."""
    assert options(**given).link == given["link"]


BASIS: Final = bundle.Basis(Resources(1, 64 << 20, 40), (1,), "0", True, True, False, None, 1 << 30)


@pytest.mark.parametrize(
    ("network", "hostname"), [("none", "benchbox"), ("bridge", "benchbox"), ("host", None), ("container:abc", None)]
)
def test_a_container_is_called_benchbox_where_its_name_is_its_own(network: str, hostname: str | None) -> None:
    """The daemon refuses a name beside another's network, whose name comes with it."""
    made = docker.container_config(Command(("/bin/ready",)), BASIS, "image", "/cg", network, "run", Path("/fifo"))
    assert made["HostConfig"]["NetworkMode"] == network
    assert made.get("Hostname") == hostname


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (b"", None),
        (b'{"level":"warning","msg":"careful"}\n', None),
        (b'{"level":"error","msg":"first"}\n{"level":"error","msg":" last "}\n{"level":"info","msg":"x"}\n', "last"),
        (b'{"level":"fatal"}\n', "an error without words"),
        (b'[1]\n"x"\nnull\n{"level":\n\xff\xfe\n', None),
    ],
)
def test_the_last_error_of_a_log_is_found(log: bytes, expected: str | None) -> None:
    """In whatever else there is."""
    assert complaint(log) == expected


STATUS: Final = """Name:\tready
Uid:\t{uid}\t0\t0\t0
CapEff:\t00000000000005fb
NoNewPrivs:\t{privs}
Seccomp:\t{mode}
Cpus_allowed_list:\t1
"""


def test_privileges_are_read_from_the_kernel_s_status() -> None:
    """In the words that samples of our own container have."""
    assert peers.status(STATUS.format(uid=0, privs=1, mode=2)) == {
        "affinity": "1", "capabilities": "5fb", "no_new_privs": True, "seccomp": "filter", "user": "root",
    }  # fmt: skip
    found = peers.status(STATUS.format(uid=100000, privs=0, mode=0))
    assert (found["user"], found["no_new_privs"], found["seccomp"]) == ("user 100000 of the host", False, "off")


def test_who_writes_to_a_full_pipe_waits(tmp_path: Path) -> None:
    """Until it is drained; then it takes a byte, which wakes whoever polls."""
    fifo = peers.Fifo(tmp_path / "fifo")
    writer = os.open(fifo.path, os.O_WRONLY | os.O_NONBLOCK)
    fifo.fill()
    with pytest.raises(BlockingIOError):
        os.write(writer, b"!")
    fifo.drain()
    os.write(writer, b"!")
    assert select.select([fifo.descriptor], [], [], 1)[0]
    assert (fifo.drain(), fifo.drain()) == (b"!", b"")
    os.close(writer)
    fifo.close()
    assert not fifo.path.exists()


def test_a_runtime_is_found_by_name_or_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first default one that is there; a path must be that of a program."""
    for name in ("crun", "runc"):
        (tmp_path / name).touch(mode=0o755)
        monkeypatch.setattr(oci, "_search_path", lambda: str(tmp_path))
        assert oci.find_runtime(None) == tmp_path / name
    assert oci.find_runtime("crun") == tmp_path / "crun"
    assert oci.find_runtime(str(tmp_path / "crun")) == tmp_path / "crun"
    (tmp_path / "plain").touch(mode=0o644)
    assert [oci.find_runtime(name) for name in ("youki", str(tmp_path / "plain"), "/nowhere")] == [None] * 3
