"""Links and load clients on the real kernel: made, used, gone; all in namespaces of the tests' own."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from benchbox import images
from benchbox.environments import clients, container, environment
from benchbox.errors import ImageError
from benchbox.images import distribution
from benchbox.linux import links, processes, syscalls
from benchbox.linux.links import Links
from benchbox.model import Availability, EnvironmentSpec
from benchbox.record import Sample
from tests.conftest import skip_unless_available
from tests.integration import runs, sessions
from tests.integration.launching import launch, reported

pytestmark = pytest.mark.integration

NATIVE: Final = {"kind": "native", "link": "bridge"}
CONTAINER: Final = {"kind": "container", "link": "bridge"}
GUEST: Final = {"kind": "vm", "link": "bridge", "accelerator": "tcg"}
HOST: Final = {"kind": "native", "label": "native-host", "link": "host"}
CONTAINER_HOST: Final = {"kind": "container", "label": "container-host", "link": "host", "network": False}
PEERS: Final[list[dict[str, Any]]] = [
    {"kind": "oci", "link": "bridge"},
    {"kind": "docker", "link": "bridge"},
    {"kind": "oci", "label": "oci-host", "link": "host", "network": False},
    {"kind": "docker", "label": "docker-host", "link": "host", "network": "host"},
]
LATENCY: Final = {"name": "network-latency", "rate": 200, "seconds": 1}
#: Those whose number is a rate, so small that nobody waits for them.
APPLICATIONS: Final[list[dict[str, Any]]] = [
    {"name": "network-throughput", "direction": "in", "seconds": 1},
    {"name": "network-throughput", "direction": "out", "seconds": 1},
    {"name": "redis-requests", "operation": "get", "connections": 2, "requests": 1000},
    {"name": "nginx-requests", "connections": 2, "seconds": 1},
]

Need = Callable[[str, Availability], None]


@pytest.fixture(autouse=True)
def possible(need: Need) -> None:
    """Skip where this host can make neither links nor containers."""
    need("container", links.availability())
    need("container", environment("container").check(EnvironmentSpec("container", "container")))


@pytest.fixture
def guest(need: Need) -> None:
    need("vm", environment("vm").check(EnvironmentSpec("vm", "vm", {"link": "bridge"})))


@pytest.fixture
def peers(need: Need) -> None:
    for kind in ("oci", "docker"):
        need(kind, environment(kind).check(EnvironmentSpec(kind, kind)))


@pytest.fixture(scope="module")
def debian() -> str:
    """The image with the load generators; skipped where it cannot be had."""
    skip_unless_available("image", distribution.availability())
    if "debian" not in images.TABLE:
        skip_unless_available("image", Availability.no("there is no image debian", "add it"))
    try:
        return images.open_image("debian").name
    except ImageError as error:
        skip_unless_available("image", Availability.no(error.message, str(error.hint)))
        raise


def names(namespace: int | None) -> set[str]:
    found = socket.if_nameindex() if namespace is None else links.inside(namespace, socket.if_nameindex)
    return {name for _, name in found}


def gives_a_rate(sample: Sample) -> None:
    """Its first own metric is one, and no small one."""
    first = next(metric for name, metric in sample.metrics.items() if not name.startswith("startup."))
    assert first.direction == "higher" and first.value > 100


def measured(folder: Path, environments: list[dict[str, Any]], *workloads: dict[str, Any], **keys: Any) -> list[Sample]:
    """Run one round and return its samples, all of which must be ok."""
    path = folder / "network.yaml"
    data = {"name": "network", "rounds": 1, "environments": environments, "workloads": list(workloads), **keys}
    path.write_text(json.dumps(data))
    status, _, err = runs.benchbox(folder, "run", path)
    assert status == 0, err
    samples = [sample for sample in runs.read(folder)[1] if sample.round == 1]
    assert [(s.cell, s.reason) for s in samples if s.status != "ok"] == []
    assert len(samples) == len(environments) * len(workloads)
    return samples


def network(path: str) -> str:
    """Return the name that /proc gives a network namespace."""
    return str(Path(path).readlink())


def networks() -> dict[str, list[int]]:
    """Return the processes in each network namespace, by the name that /proc gives it."""
    found: dict[str, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                found.setdefault(str((entry / "ns/net").readlink()), []).append(int(entry.name))
    return found


def holders(namespace: str) -> list[int]:
    return networks().get(namespace, [])


def new_namespace() -> int:
    """Return a descriptor of a network namespace that nobody has set up."""

    def make() -> int:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(make).result()


def test_links_are_in_namespaces_of_their_own_and_gone_with_them() -> None:
    """The host's network has what it had all the time; closing the last descriptor removes everything."""
    before = names(None)
    with Links() as made:
        first, second, tap = made.veth(), made.veth(), made.tap()
        assert (first.path, first.end, tap.end) == ("bridge", "veth", "tap")
        assert len({first.address, second.address, tap.address, links.CLIENT_ADDRESS}) == 4
        assert names(first.namespace) == names(second.namespace) == names(first.client) == {"lo", "load0"}
        assert names(tap.namespace) == {"lo", "bridge0", "port1", "port2", "port3", "tap4"}
        assert first.client == second.client == tap.client
        assert names(None) == before
        namespaces = {network(f"/proc/self/fd/{fd}") for fd in (first.namespace, first.client, tap.namespace)}
    assert names(None) == before
    assert [pid for name in namespaces for pid in holders(name)] == []
    assert "nsfs" not in Path("/proc/self/mountinfo").read_text()


def test_a_namespace_that_is_there_is_linked_like_a_new_one() -> None:
    """With the same settings; it stays its owner's, and its link goes with it."""
    with Links() as made, contextlib.ExitStack() as stack:
        bridge, own = made.tap().namespace, made.veth()
        theirs = new_namespace()
        stack.callback(os.close, theirs)
        link = made.veth(theirs)
        assert (link.namespace, link.client, link.path, link.end) == (theirs, own.client, "bridge", "veth")
        assert names(theirs) == {"lo", "load0"}
        for setting in ("ipv6/conf/default/disable_ipv6", "ipv4/tcp_congestion_control", "ipv4/tcp_no_metrics_save"):
            ends = [links.inside(end, Path("/proc/sys/net", setting).read_text) for end in (theirs, own.namespace or 0)]
            assert ends[0] == ends[1]
        server = links.inside(theirs, lambda: socket.create_server((link.address, 7)))
        with server, links.inside(link.client or 0, lambda: socket.create_connection((link.address, 7), 5)):
            assert "port4" in names(bridge)
        stack.close()
        runs.eventually(lambda: "port4" not in names(bridge))


def test_both_ends_reach_each_other_and_nobody_else_does() -> None:
    """From the client to an end, and from the host not at all."""
    with Links() as made:
        link = made.veth()
        assert link.namespace is not None and link.client is not None
        server = links.inside(link.namespace, lambda: socket.create_server((link.address, 7)))
        with server, links.inside(link.client, lambda: socket.create_connection((link.address, 7), 5)) as asking:
            assert asking.getpeername()[0] == link.address
            assert asking.getsockname()[0] == links.CLIENT_ADDRESS
            assert asking.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0") == b"reno"
            server.accept()[0].close()
            # Some networks answer for every address there is: what counts is that nothing of it arrives here.
            with contextlib.suppress(OSError):
                socket.create_connection((link.address, 7), 0.2).close()
            server.settimeout(0.2)
            with pytest.raises(TimeoutError):
                server.accept()


def test_launch_joins_a_namespace_by_its_descriptor() -> None:
    """It says so in its report; what is no namespace is an error, and goes with no new one."""
    with Links() as made:
        link = made.veth()
        assert link.namespace is not None
        words = ["--join-net", str(link.namespace)]
        told = reported(*words, "--", "/bin/readlink", "/proc/self/ns/net", pass_fds=(link.namespace,))
        assert told.report is not None and told.report.applied["namespaces"] == "net"
        assert told.out.strip() == network(f"/proc/self/fd/{link.namespace}")
    assert launch("--join-net", "0", "--", "/bin/true").status == 125
    refused = launch("--join-net", "0", "--unshare-net", "--", "/bin/true")
    assert refused.status == 125 and "neither" in refused.err


def test_latency_is_measured_over_the_bridge_and_by_loopback(tmp_path: Path) -> None:
    """Native and container alike; the client's account, its CPU and what it was asked are in each sample."""
    samples = measured(tmp_path, [NATIVE, CONTAINER, HOST, CONTAINER_HOST], LATENCY)
    for sample in samples:
        assert 1e-6 < sample.metrics["network.latency.p50"].value < 0.2
        assert sample.applied["client"]["argv"][:2] == ["/bin/pingpong", "client"]
        assert 0 < float(sample.counters["client.cpu.share"].value or 0) < 1
        assert "startup.ready" not in sample.metrics and "startup.stage.ready" in sample.metrics
    by_label = {sample.environment: sample for sample in samples}
    assert "net" in by_label["native"].applied["namespaces"]
    assert "net" in by_label["container"].applied["namespaces"]
    records = {each.label: each.applied["link"]["path"] for each in runs.read(tmp_path)[0].environments}
    assert records == {"native": "bridge", "container": "bridge", "native-host": "host", "container-host": "host"}


def test_loopback_is_shown_beside_a_bridge_and_not_judged(tmp_path: Path) -> None:
    """However many rounds say so."""
    path = tmp_path / "x.yaml"
    data = {"name": "x", "rounds": 6, "environments": [NATIVE, HOST], "workloads": [{**LATENCY, "rate": 50}]}
    path.write_text(json.dumps(data))
    assert runs.benchbox(tmp_path, "run", path)[0] == 0
    status, out, _ = runs.benchbox(tmp_path, "show", "latest", "--json")
    assert status == 0
    (row,) = [row for row in json.loads(out)["tables"][0]["rows"] if row["label"] == "native-host"]
    assert row["ok"] == 6
    assert row["verdict"]["kind"] == "not judged"
    assert row["verdict"]["reason"] == "void, because it has another way to the client than the baseline"


@pytest.mark.usefixtures("guest")
def test_a_guest_answers_behind_a_tap_on_the_same_bridge(tmp_path: Path) -> None:
    """Its card is the one of the link, read back from the live domain, and it was ended well."""
    (sample,) = measured(tmp_path, [GUEST], LATENCY)
    assert sample.applied["domain"]["nics"] == ["virtio, ethernet, link up"]
    assert sample.metrics["network.latency.p50"].value > 0
    assert sample.flags["accelerator"] == "tcg"
    assert runs.read(tmp_path)[0].environments[0].applied["link"]["end"] == "tap"


def test_throughput_and_applications_in_native_and_container(tmp_path: Path, debian: str) -> None:
    """Each prints what its parser reads; nothing of the host's is used."""
    for sample in measured(tmp_path, [NATIVE, CONTAINER], *APPLICATIONS, image=debian):
        gives_a_rate(sample)


@pytest.mark.peers
@pytest.mark.usefixtures("peers")
def test_a_client_reaches_containers_of_other_programs(tmp_path: Path) -> None:
    """Over the same bridge or by loopback, from outside; no network and no process of theirs is left."""
    before = networks()
    samples = measured(tmp_path, [NATIVE, *PEERS], LATENCY)
    for sample in samples:
        assert 1e-6 < sample.metrics["network.latency.p50"].value < 0.2
        assert sample.applied["client"]["argv"][:2] == ["/bin/pingpong", "client"]
        assert 0 < float(sample.counters["client.cpu.share"].value or 0) < 1
    applied = {each.label: each.applied for each in runs.read(tmp_path)[0].environments}
    ends = {label: (found["link"]["path"], found["link"]["end"]) for label, found in applied.items()}
    assert ends["oci"] == ends["docker"] == ends["native"] == ("bridge", "veth")
    assert ends["oci-host"] == ends["docker-host"] == ("host", "loopback")
    addresses = [found["link"]["address"] for found in applied.values() if found["link"]["path"] == "bridge"]
    assert len(set(addresses)) == 3
    assert applied["oci"]["network"] == applied["docker"]["network"] == "namespace of its own, linked to a bridge"
    assert applied["oci-host"]["network"] == applied["docker-host"]["network"] == "the host's"
    assert "read_back" in applied["docker"] and "read_back" in applied["oci"]
    runs.eventually(lambda: set(networks()) <= set(before))


@pytest.mark.peers
@pytest.mark.usefixtures("peers")
def test_throughput_and_applications_in_containers_of_other_programs(tmp_path: Path, debian: str) -> None:
    """Each prints what its parser reads."""
    for sample in measured(tmp_path, PEERS[:2], *APPLICATIONS, image=debian, resources={"memory": "512MiB"}):
        gives_a_rate(sample)


def test_sqlite_runs_alone(tmp_path: Path, debian: str) -> None:
    """Without a client, and so without a link."""
    environments: list[dict[str, Any]] = [{"kind": "native"}, {"kind": "container"}]
    for sample in measured(tmp_path, environments, {"name": "sqlite", "transactions": 500}, image=debian):
        assert sample.metrics["sqlite.rate"].value > 10


@pytest.mark.usefixtures("guest")
def test_throughput_and_redis_in_a_guest(tmp_path: Path, debian: str) -> None:
    """Over the tap, from the same client."""
    workloads = [
        {"name": "network-throughput", "seconds": 1},
        {"name": "redis-requests", "connections": 2, "requests": 500},
    ]
    throughput, redis = measured(
        tmp_path, [GUEST], *workloads, image=debian, resources={"cpus": 1, "memory": "512MiB"}, timeout_s=120
    )
    assert {"network.throughput", "redis.rate"} <= set(throughput.metrics) | set(redis.metrics)


#: As a server it listens for whoever asks. As a client it tries to get at the host, the ways that root natively has,
#: and prints what it found.
HOSTILE_CLIENT: Final = """#!/bin/busybox sh
if [ "$1" = --server ]; then exec busybox nc -l -p 5201; fi
for pid in /proc/[0-9]*; do echo x >"$pid/root/{outside}/taken"; done 2>/dev/null
echo x >/usr/taken
busybox kill -0 {victim} && echo victim-seen
busybox grep -E "CapEff|NoNewPrivs|Seccomp:" /proc/self/status
busybox ls -d /proc/[0-9]* | busybox wc -l
"""


@pytest.mark.parametrize("link", [CONTAINER, CONTAINER_HOST], ids=["bridge", "host"])
def test_a_client_of_a_hostile_image_is_held_as_a_container_is(tmp_path: Path, link: dict[str, Any]) -> None:
    """Where no environment is native, no program of the image runs natively: not as a client either."""
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    shutil.copytree(images.open_image("minimal").root, root, symlinks=True)
    client = root / "usr/bin/iperf3"
    client.parent.mkdir(parents=True, exist_ok=True)
    client.write_text(HOSTILE_CLIENT.format(outside=outside, victim=os.getpid()))
    client.chmod(0o755)
    data = {
        "name": "hostile", "rounds": 1, "image": {"directory": str(root)}, "environments": [link],
        "workloads": [{"name": "network-throughput", "seconds": 1}],
    }  # fmt: skip
    (tmp_path / "x.yaml").write_text(json.dumps(data))
    runs.benchbox(tmp_path, "run", tmp_path / "x.yaml")  # what it prints is no JSON of iperf3
    (sample,) = [sample for sample in runs.read(tmp_path)[1] if sample.round == 1]
    assert list(outside.iterdir()) == [], sample.output_tail
    kept = sum(1 << number for number in container.KEPT_CAPABILITIES.values())
    said = sample.output_tail.split()
    assert said[said.index("CapEff:") + 1] == f"{kept:016x}", sample.output_tail
    assert said[said.index("NoNewPrivs:") + 1] == "1" and said[said.index("Seccomp:") + 1] == "2"
    assert "victim-seen" not in said and int(said[-1]) < 5
    assert "Read-only file system" in sample.output_tail


def test_a_client_has_limits_of_its_own(tmp_path: Path) -> None:
    """Of memory and of processes, beside its CPU: what an image's client takes, the host keeps."""
    image = images.open_image("minimal")
    with Links() as made, sessions.workspace(tmp_path, made) as place, clients.opened(image, place) as opened:
        outcome = opened.start(sessions.shell("busybox cat /proc/self/cgroup"), made.veth()).wait()
    assert outcome.status == "ok", (outcome.reason, outcome.output_tail)
    assert outcome.applied["memory_bytes"] == clients.LIMITS.memory_bytes
    assert outcome.applied["pids"] == clients.LIMITS.pids


def own(part: str) -> int | None:
    """Return the pid of pingpong itself, once it runs; launch has the same words among its own.

    It need not be below the run: a daemon starts its containers.
    """
    for pid in processes.with_argument(f"/bin/pingpong\0{part}"):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/bin/pingpong\0"):
                return pid
    return None


@pytest.fixture(
    params=["native", pytest.param("oci", marks=pytest.mark.peers), pytest.param("docker", marks=pytest.mark.peers)]
)
def serving(tmp_path: Path, request: pytest.FixtureRequest, need: Need) -> Iterator["subprocess.Popen[str]"]:
    """A run whose client asks for a long time."""
    need(request.param, environment(request.param).check(EnvironmentSpec(request.param, request.param)))
    path = tmp_path / "x.yaml"
    entry, workload = {"kind": request.param, "link": "bridge"}, {**LATENCY, "seconds": 50}
    path.write_text(json.dumps({"name": "x", "environments": [entry], "workloads": [workload], "timeout_s": 90}))
    process = runs.start(tmp_path, "run", path)
    yield process
    process.kill()
    process.communicate()


def test_a_worker_that_is_killed_leaves_no_link(serving: "subprocess.Popen[str]") -> None:
    """Server, client and namespaces go with it, though no link is in the ledger."""
    before, others = names(None), set(networks())
    ends = [runs.eventually(partial(own, part)) for part in ("server", "client")]
    namespaces = {network(f"/proc/{pid}/ns/net") for pid in ends}
    assert len(namespaces) == 2 and network("/proc/self/ns/net") not in namespaces
    runs.kill(runs.worker_of(serving))
    assert serving.wait(30) == 2
    assert [pid for name in namespaces for pid in holders(name)] == []
    assert names(None) == before
    runs.eventually(lambda: set(networks()) <= others)


def test_a_server_that_cannot_take_its_port_is_the_reason(tmp_path: Path) -> None:
    """In the host's own network somebody else may have it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 5202))
        path = tmp_path / "x.yaml"
        path.write_text(json.dumps({"name": "x", "rounds": 1, "environments": [HOST], "workloads": [LATENCY]}))
        assert runs.benchbox(tmp_path, "run", path)[0] == 2
    (sample,) = [sample for sample in runs.read(tmp_path)[1] if sample.round == 1]
    assert (sample.status, sample.reason) == ("failed", "exit status 1")
    assert "cannot take the port" in sample.output_tail
