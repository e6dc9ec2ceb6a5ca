"""What an OCI runtime is told is a function of command, image and resources, and asks for what our container has."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchbox.environments import bundle
from benchbox.environments.bundle import FIFO, Basis
from benchbox.environments.container import KEPT_CAPABILITIES
from benchbox.environments.prepared import MASKED, READ_ONLY
from benchbox.model import Command, Resources

COMMAND: Final = Command(("/bin/ready", "-x"), {"A": "b c"}, "/data")
BASIS: Final = Basis(
    Resources(2, 64 << 20, 40), (1, 3), "0", True, True, False, {"defaultAction": "SCMP_ACT_ERRNO"}, 1 << 30
)


def told(command: Command = COMMAND, basis: Basis = BASIS, fifo: Path | None = None) -> dict[str, Any]:
    return bundle.config(command, basis, Path("/root"), "/run/leaf/box/id", "3", fifo)


def changed(**values: Any) -> Basis:
    return Basis(**{**vars(BASIS), **values})


def test_the_command_is_told_as_it_is() -> None:
    """With no variable but its own and the way to say ready, and no terminal."""
    process = told()["process"]
    assert process["args"] == ["/bin/ready", "-x"]
    assert process["env"] == ["A=b c", "BENCHBOX_READY=3"]
    assert (process["cwd"], process["terminal"], process["user"]) == ("/data", False, {"uid": 0, "gid": 0})


def test_a_command_that_signals_nothing_is_told_no_way() -> None:
    """It would be a difference to what it gets elsewhere."""
    assert told(Command(("/bin/x",), signals_ready=False))["process"]["env"] == []


def test_the_limits_are_the_asked_ones() -> None:
    """Swap only where the host can limit it; the quota is the business of the group around it."""
    basis = changed(resources=Resources(2, 64 << 20, 40, cpu_quota=0.5))
    resources = told(basis=basis)["linux"]["resources"]
    assert resources["memory"] == {"limit": 64 << 20, "swap": 64 << 20}
    assert resources["pids"] == {"limit": 40}
    assert resources["cpu"] == {"cpus": "1,3", "mems": "0"}
    assert told(basis=changed(swap=False))["linux"]["resources"]["memory"] == {"limit": 64 << 20}


def test_it_is_protected_like_a_container_of_ours() -> None:
    """Capabilities, paths, privileges, core files, devices."""
    found = told()
    kept = sorted(KEPT_CAPABILITIES)
    assert {name: sorted(kind) for name, kind in found["process"]["capabilities"].items()} == {
        "bounding": kept, "effective": kept, "permitted": kept,
    }  # fmt: skip
    assert found["process"]["noNewPrivileges"] is True
    assert found["process"]["rlimits"] == [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    assert (found["linux"]["maskedPaths"], found["linux"]["readonlyPaths"]) == (list(MASKED), list(READ_ONLY))
    assert found["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    assert found["linux"]["seccomp"] == {"defaultAction": "SCMP_ACT_ERRNO"}
    assert "seccomp" not in told(basis=changed(seccomp=None))["linux"]
    (sys,) = [mount for mount in found["mounts"] if mount["destination"] == "/sys"]
    assert "ro" in sys["options"]


def test_options_decide_about_network_and_root() -> None:
    """Everything else stays."""
    assert [item["type"] for item in told()["linux"]["namespaces"]] == [
        "pid",
        "mount",
        "uts",
        "ipc",
        "cgroup",
        "network",
    ]
    assert {"type": "network"} not in told(basis=changed(network=False))["linux"]["namespaces"]
    assert told()["root"] == {"path": "/root", "readonly": False}
    assert told(basis=changed(read_only=True))["root"]["readonly"] is True


def test_a_network_namespace_that_is_there_is_joined_by_its_path() -> None:
    """By a server, in place of a new one; the others are new. What has no client starts as it does without a link."""
    joining = changed(joined=Path("/proc/7/fd/9"))
    kinds = told()["linux"]["namespaces"]
    assert {"type": "network"} in kinds
    assert told(basis=joining)["linux"]["namespaces"] == kinds
    assert told(replace(COMMAND, serves=True), joining)["linux"]["namespaces"] == [
        {"type": "network", "path": "/proc/7/fd/9"} if kind["type"] == "network" else kind for kind in kinds
    ]


def test_a_named_pipe_is_bound_where_the_command_is_told() -> None:
    """After /dev, which would hide it."""
    destinations = [mount["destination"] for mount in told(fifo=Path("/host/fifo"))["mounts"]]
    assert destinations.index(FIFO) > destinations.index("/dev")
    assert FIFO not in [mount["destination"] for mount in told()["mounts"]]


def test_the_file_says_what_the_configuration_says() -> None:
    """Though the filter's text is made once for all."""
    for basis in (BASIS, changed(seccomp=None)):
        seccomp = None if basis.seccomp is None else json.dumps(basis.seccomp)
        assert json.loads(bundle.text(told(basis=basis), seccomp)) == told(basis=basis)


def test_tmp_is_as_large_as_the_session_says() -> None:
    """It is in the limit of memory as well, which may be larger."""
    (tmp,) = [mount for mount in told(basis=changed(tmp_bytes=4096))["mounts"] if mount["destination"] == "/tmp"]
    assert tmp["options"] == ["nosuid", "nodev", "mode=1777", "size=4096"]


def test_data_is_one_bind_more() -> None:
    """At /data, for whoever asks for it."""
    found = bundle.config(COMMAND, BASIS, Path("/root"), "/run/leaf", "3", None, Path("/scratch/data"))
    added = [mount for mount in found["mounts"] if mount not in told()["mounts"]]
    assert added == [
        {"destination": "/data", "type": "bind", "source": "/scratch/data", "options": ["bind", "nosuid", "nodev"]}
    ]
