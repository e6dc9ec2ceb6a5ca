"""``docker``: a container by a Docker Engine, from an image imported from ours, with the same limits.

Per sample: cgroups, then the daemon's create, attach, wait and start, as its own command line client does them; after
the end, its removal. A thread a sample polls the daemon's answers and the ready byte, which comes by a named pipe that
is mounted into the container. ``exited`` is when the daemon says so.

With a link there is one container more a session, which stands still: the daemon joins no network namespace by its
path, but that of a container, so this one's is linked, and the servers among the samples join it.
"""

import contextlib
import itertools
import json
import os
import select
import shlex
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, model_validator

from benchbox import images, native
from benchbox.environments import bundle, peers
from benchbox.environments.container import KEPT_CAPABILITIES
from benchbox.environments.data import FOLDER, DataFolders, with_data
from benchbox.environments.disk import DiskWatch
from benchbox.environments.engine_api import RUN_LABEL, Demultiplexer, Engine, EngineError, Exchange
from benchbox.environments.launched import Requested, instance_limits
from benchbox.environments.linked import (
    LINK_DESCRIPTION,
    LinkChoice,
    offered_link,
    open_link,
    require_network,
    told_link,
    told_network,
)
from benchbox.environments.prepared import MASKED, READ_ONLY
from benchbox.environments.stored import stored
from benchbox.errors import BenchboxError, EnvironmentFailure, UnavailableError
from benchbox.images import oci
from benchbox.linux import nest
from benchbox.linux.clock import monotonic_ns
from benchbox.model import (
    IMAGE_STORED,
    OUTPUT_TAIL_BYTES,
    Availability,
    Command,
    Counter,
    EnvironmentSpec,
    Image,
    Link,
    Outcome,
    Resources,
    Running,
    Session,
    Workspace,
)
from benchbox.units import NS_PER_S, format_cpu_list

KIND: Final = "docker"
DEFAULT_SOCKET: Final = "/var/run/docker.sock"
#: Images of ours have this name, the image's own after it, and the digest of the tree as their tag.
REPOSITORY: Final = "benchbox"

_CHECKING_S: Final = 2.0
_PROBE_S: Final = 30.0
#: How long the daemon may take to end a container that was killed, and its output after the end.
_GRACE_S: Final = 10.0
_TAG_DIGITS: Final = 32
#: The network mode that is another container's.
_JOINED: Final = "container:"


class Options(BaseModel):
    """Options of ``docker``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    socket: str | None = Field(
        None, pattern="^/", description="the daemon's Unix socket; without it DOCKER_HOST, then /var/run/docker.sock"
    )
    network: Literal["none", "bridge", "host"] = Field(
        "none", description="loopback only, Docker's bridge, or the host's network"
    )
    link: LinkChoice = Field("none", description=LINK_DESCRIPTION)
    seccomp: Literal["default", "off"] = Field("default", description="the filter of system calls, or none")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        require_network(self.link, self.network, own="none", host="host")
        return self


class Docker:
    """See the module."""

    def check(self, spec: EnvironmentSpec) -> Availability:
        options = Options(**spec.options)
        if os.geteuid() != 0:
            return Availability.no("making the cgroups of its containers needs root", "run benchbox as root")
        try:
            Engine(socket_path(options.socket), _CHECKING_S).ping()
        except BenchboxError as error:
            return Availability.no(f"no Docker daemon: {error.message}", error.hint or "start dockerd")
        offer = offered_link(options.link)
        return offer if not offer.available else peers.availability(filtered=options.seccomp == "default")

    @contextmanager
    def open(
        self, spec: EnvironmentSpec, image: Image, resources: Resources, workspace: Workspace
    ) -> Iterator[Session]:
        options = Options(**spec.options)
        engine = Engine(socket_path(options.socket))
        info = engine.info()
        _require_ours(info)
        with ExitStack() as stack:
            makings = _makings(spec.label, engine, options, image, resources, workspace, stack)
            makings, link = _linked(makings, options.link, stack)
            applied = {**_applied(makings, options, info), **told_link(link), **_read_back(makings, image)}
            yield DockerSession(makings, applied, link)


def socket_path(option: str | None) -> Path:
    """Return the daemon's socket. Raises UnavailableError where DOCKER_HOST names something else."""
    host = os.environ.get("DOCKER_HOST", "")
    if option or not host:
        return Path(option or DEFAULT_SOCKET)
    if not host.startswith("unix:///"):
        raise UnavailableError(
            f"DOCKER_HOST is {host}: only a daemon on this host can be measured", hint="set socket: to its Unix socket"
        )
    return Path(host.removeprefix("unix://"))


def _require_ours(info: Mapping[str, Any]) -> None:
    """Raise UnavailableError unless the daemon's containers run on this kernel, in cgroups of ours."""
    if info.get("KernelVersion") != os.uname().release:
        raise UnavailableError(
            f"the containers of this Docker run on another kernel ({info.get('KernelVersion')})",
            hint="use a Docker Engine that runs on this host itself",
        )
    if info.get("CgroupDriver") != "cgroupfs":
        raise UnavailableError(
            f"Docker's cgroup driver is {info.get('CgroupDriver')}: what its containers use could not be accounted",
            hint='set "exec-opts": ["native.cgroupdriver=cgroupfs"] in /etc/docker/daemon.json, or give socket: of a '
            "second dockerd",
        )


@dataclass(frozen=True)
class Makings(peers.Ground):
    """What all samples of a session are made of; ``fifos`` is a folder that the daemon sees as well, ``network`` what
    the daemon calls a mode, ``joined`` the mode of servers where theirs is another container's."""

    engine: Engine
    image: str
    fifos: Path
    network: str
    data: DataFolders
    disk: DiskWatch
    joined: str | None = None


def _makings(
    label: str,
    engine: Engine,
    options: Options,
    image: Image,
    resources: Resources,
    workspace: Workspace,
    stack: ExitStack,
) -> Makings:
    ground = peers.ground(
        label, resources, workspace, stack, own_network=options.network != "host", read_only=False,
        filtered=options.seccomp == "default", runtime=False,
    )  # fmt: skip
    stack.enter_context(_containers(engine, workspace))
    fifos = workspace.runtime / f"docker-{label}"
    fifos.mkdir(mode=0o700)
    stack.callback(fifos.rmdir)
    layers = Path(str(engine.info().get("DockerRootDir") or workspace.scratch))
    return Makings(
        **vars(ground), engine=engine, image=import_image(engine, image), fifos=fifos, network=options.network,
        data=DataFolders(workspace, label, image.root, layer=layers),
        disk=DiskWatch(resources.disk_bytes, beside=(layers,)),
    )  # fmt: skip


def _linked(makings: Makings, choice: LinkChoice, stack: ExitStack) -> tuple[Makings, Link | None]:
    """Return the link of the session, and ``makings`` of samples that have it. Raises BenchboxError."""
    if choice != "bridge":
        return makings, open_link(choice, makings.workspace)
    container, namespace = stack.enter_context(_holder(makings))
    return replace(makings, joined=f"{_JOINED}{container}"), open_link(choice, makings.workspace, namespace)


@contextmanager
def _holder(makings: Makings) -> Iterator[tuple[str, int]]:
    """Yield the id of a container that stands still, and a descriptor of its network namespace. Raises BenchboxError.

    It runs benchbox's own program, whatever the image has, and has a cgroup of its own. It ends when this process does:
    nobody can read then what it writes.
    """
    instance = Instance(makings, "holder", Command((peers.PROBE,)))
    instance.config["HostConfig"]["Mounts"].append(
        {"Type": "bind", "Source": str(native.program("ready")), "Target": peers.PROBE, "ReadOnly": True}
    )
    with ExitStack() as stack:
        stack.callback(_let_go, instance)
        container = instance.stand_still()
        pid = peers.standing(instance.box, lambda: True, _PROBE_S)
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, namespace)
        yield container, namespace


@contextmanager
def _containers(engine: Engine, workspace: Workspace) -> Iterator[None]:
    """Let whoever cleans up know of all containers of the run, before there is one."""
    ident = shlex.join([str(engine.path), workspace.cgroup_name])
    workspace.ledger.record("docker", ident)
    try:
        yield
    finally:
        # Those of a session that is still open are still in use: each of its samples has removed its own.
        with contextlib.suppress(EngineError):
            if not engine.containers(workspace.cgroup_name):
                workspace.ledger.release("docker", ident)


def import_image(engine: Engine, image: Image) -> str:
    """Return the daemon's name of ``image``, imported if it is not there yet."""
    repository, tag = f"{REPOSITORY}/{image.name}", image.digest[:_TAG_DIGITS]
    if not engine.has_image(f"{repository}:{tag}"):
        with oci.layer(images.derive_oci(image)).open("rb") as archive:
            engine.import_image(repository, tag, archive)
    return f"{repository}:{tag}"


def stored_image(engine: Engine, image: str) -> Counter:
    """Return what the daemon's copy of ``image`` takes on the disk; None where the daemon does not say where it is."""
    found: Any = engine.ask("GET", f"/images/{quote(image)}/json")
    for key in ("GraphDriver", "Data", "UpperDir"):
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, str):
        return Counter(IMAGE_STORED, None, "B", "the daemon does not say where its layer is")
    return stored(IMAGE_STORED, Path(found), "the layer in the daemon's store")


def container_config(
    command: Command,
    basis: bundle.Basis,
    image: str,
    parent: str,
    network: str,
    run: str,
    fifo: Path,
    data: Path | None = None,
) -> dict[str, Any]:
    """Return what the daemon is asked to create; ``parent`` is the cgroup that its own is made in. Pure.

    The share of CPU time is the parent's limit, as in ``bundle``.
    """
    limit = basis.resources.memory_bytes
    profile = "unconfined" if basis.seccomp is None else json.dumps(basis.seccomp)
    return {
        "Image": image,
        "Cmd": list(command.argv),
        "Env": [f"{name}={value}" for name, value in bundle.variables(command, bundle.FIFO).items()],
        "WorkingDir": command.cwd,
        "AttachStdout": True,
        "AttachStderr": True,
        "Labels": {RUN_LABEL: run},
        # The name comes with the network where that is another's.
        **({} if network == "host" or network.startswith(_JOINED) else {"Hostname": bundle.HOSTNAME}),
        "HostConfig": {
            "CgroupParent": parent,
            "CgroupnsMode": "private",
            "CpusetCpus": format_cpu_list(basis.cpus),
            "CpusetMems": basis.mems,
            "Memory": limit,
            **({"MemorySwap": limit} if basis.swap else {}),
            "PidsLimit": basis.resources.pids,
            "CapDrop": ["ALL"],
            "CapAdd": list(KEPT_CAPABILITIES),
            "SecurityOpt": ["no-new-privileges", f"seccomp={profile}"],
            "MaskedPaths": list(MASKED),
            "ReadonlyPaths": list(READ_ONLY),
            "NetworkMode": network,
            "IpcMode": "private",
            "Tmpfs": {"/tmp": ",".join(("exec", *bundle.tmp_options(basis)))},
            "Mounts": [
                {"Type": "bind", "Source": str(source), "Target": inside}
                for inside, source in ((bundle.FIFO, fifo), (FOLDER, data))
                if source
            ],
            "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
            "LogConfig": {"Type": "none"},
        },
    }


def _applied(makings: Makings, options: Options, info: Mapping[str, Any]) -> dict[str, Any]:
    own = told_network(options.link, own=options.network != "host")
    return {
        "socket": str(makings.engine.path),
        "versions": {"docker": info.get("ServerVersion"), "runtime": info.get("DefaultRuntime")},
        "root": f"{info.get('Driver')}, writable layer by Docker",
        "cgroups": makings.where.layout.mode,
        "network": "Docker's bridge" if options.network == "bridge" else own,
        "seccomp": "default filter" if options.seccomp == "default" else "off",
        "security_options": info.get("SecurityOptions"),
        "ready_by": "a named pipe",
        "memory_outside": "the daemon's own process for each container (containerd-shim), in no group of the run",
        "channel_latency_ns": channel_latency_ns(makings.fifos / "latency"),
    }


def channel_latency_ns(path: Path, rounds: int = 50) -> int:
    """Return how late a byte in a named pipe is stamped by a thread that polls it: the median of ``rounds``."""
    fifo = peers.Fifo(path)
    found = []
    stamps: list[int] = []
    try:
        for _ in range(rounds):
            thread = threading.Thread(target=lambda: stamps.append(_stamped(fifo)))
            thread.start()
            time.sleep(0.001)
            written_ns = monotonic_ns()
            os.write(fifo.descriptor, b"!")
            thread.join()
            found.append(stamps.pop() - written_ns)
    finally:
        fifo.close()
    return sorted(found)[rounds // 2]


def _stamped(fifo: peers.Fifo) -> int:
    select.select([fifo.descriptor], [], [])
    stamp_ns = monotonic_ns()
    fifo.drain()
    return stamp_ns


def _read_back(makings: Makings, image: Image) -> dict[str, Any]:
    """Start one container that stands still, and read what the kernel says of it; a failure is only noted."""
    if not (image.root / peers.PROBE.lstrip("/")).is_file():
        return {"not_read_back": f"the image has no {peers.PROBE}"}
    instance = Instance(makings, "probe", Command((peers.PROBE,)))
    try:
        instance.stand_still()
        return {"read_back": peers.read_back(instance.box, lambda: True, _PROBE_S)}
    except EnvironmentFailure as error:
        return {"not_read_back": error.message}
    finally:
        _let_go(instance)


def _let_go(instance: "Instance") -> None:
    """Remove what is no sample; the ledger names what does not go."""
    with contextlib.suppress(EnvironmentFailure):
        instance.remove()


class DockerSession:
    """Starts a container for each command."""

    def __init__(self, makings: Makings, applied: Mapping[str, Any], link: Link | None = None) -> None:
        self.link = link
        self._makings, self._applied_values = makings, applied
        self._stored = stored_image(makings.engine, makings.image)
        self._numbers = itertools.count(1)

    def start(self, command: Command) -> Running:
        name, data = f"s{next(self._numbers)}", self._makings.data
        source = data.source(command.data, name)

        def started() -> Running:
            return DockerCommand(Instance(self._makings, name, command, source), command)

        return with_data(data, command.data, name, lambda: self._makings.disk.around(name, source, started))

    def applied(self) -> Mapping[str, Any]:
        return self._applied_values

    def account(self) -> tuple[Counter, ...]:
        return (self._stored,)

    def reads(self) -> tuple[Path, ...]:
        """Where the daemon keeps its images is its own affair."""
        return ()


class Instance:
    """What belongs to one sample: groups, named pipe, container. Planned when it is constructed, there between ``make``
    and ``remove`` (the container when it is created)."""

    fifo: peers.Fifo

    def __init__(self, makings: Makings, name: str, command: Command, data: Path | None = None) -> None:
        run = makings.workspace.cgroup_name
        self.makings, self.nest = makings, makings.nest(name)
        self.engine, self.name = makings.engine, f"{run}-{makings.label}-{name}"
        self._fifo_path = makings.fifos / name
        self._oom_kills = nest.oom_kills_of_host()
        network = makings.joined if command.serves and makings.joined else makings.network
        self.config = container_config(
            command, makings.basis, makings.image, self.nest.path, network, run, self._fifo_path, data
        )

    @property
    def box(self) -> Path:
        """The folder of the limits in the hierarchy that is used last."""
        return self.nest.box.groups[-1].path

    def make(self) -> None:
        """Make all but the container. Raises EnvironmentFailure."""
        self.fifo = peers.Fifo(self._fifo_path)
        nest.make(self.nest)

    def stand_still(self) -> str:
        """Make all of it and start the container, whose ready byte nobody takes; return its id.

        Raises EnvironmentFailure.
        """
        self.make()
        self.fifo.fill()
        container = self.engine.create(self.name, self.config)
        self.engine.ask("POST", f"/containers/{container}/start")
        return container

    def look(self) -> nest.Seen:
        return nest.look(self.nest, self._oom_kills)

    def remove(self) -> None:
        """End and remove whatever there is of it. Raises EnvironmentFailure for what does not go."""
        try:
            self.engine.remove(self.name)
        finally:
            self.fifo.drain()
            nest.end(self.nest)
            self.fifo.close()


class DockerCommand:
    """One container on its way, watched by a thread of its own."""

    def __init__(self, instance: Instance, command: Command) -> None:
        self._instance, self._command = instance, command
        self._stages: dict[str, int] = {}
        self._output, self._frames = bytearray(), Demultiplexer()
        self._ready_or_ended = threading.Event()
        self._stop, self._reason = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK), ""
        self._exit_status: int | None = None
        self._outcome: Outcome | None = None
        self._thread = threading.Thread(target=self._live, name=instance.name, daemon=True)
        self._thread.start()

    def ready(self) -> bool:
        self._ready_or_ended.wait()
        return "ready" in self._stages

    def wait(self) -> Outcome:
        self._thread.join()
        assert self._outcome
        return self._outcome

    def kill(self) -> None:
        with contextlib.suppress(OSError):  # it has ended
            os.eventfd_write(self._stop, 1)

    def _live(self) -> None:
        requested_ns = monotonic_ns()
        self._deadline_ns = requested_ns + round(self._command.timeout_s * NS_PER_S)
        complaint = None
        try:
            self._instance.make()
            self._stages["cgroups"] = monotonic_ns()
            self._run()
        except (EnvironmentFailure, ValueError, OSError) as error:
            complaint = error.message if isinstance(error, EnvironmentFailure) else str(error)
        self._outcome = self._ended(requested_ns, complaint)
        self._ready_or_ended.set()

    def _run(self) -> None:
        engine = self._instance.engine
        target = f"/containers/{engine.create(self._instance.name, self._instance.config)}"
        with ExitStack() as stack:

            def begin(path: str, **headers: str) -> Exchange:
                return stack.enter_context(
                    contextlib.closing(engine.begin("POST", f"{target}/{path}", None, **headers))
                )

            output = begin("attach?stream=1&stdout=1&stderr=1", Connection="Upgrade", Upgrade="tcp").head()
            # Its head says that the daemon has begun to wait.
            end = begin("wait?condition=next-exit").head()
            if not self._has_to_end(monotonic_ns()):
                self._watch(output, end, begin("start"))
                self._drain(output)

    def _watch(self, output: Exchange, end: Exchange, start: Exchange) -> None:
        """Poll until the daemon says that the container has ended, or can say no more."""
        fifo, started = self._instance.fifo, False
        poll = select.poll()
        for descriptor in (fifo.descriptor, self._stop, output.fileno(), end.fileno(), start.fileno()):
            poll.register(descriptor, select.POLLIN)
        while "exited" not in self._stages:
            found = {descriptor for descriptor, _ in poll.poll(self._patience_ms())}
            now_ns = monotonic_ns()
            if fifo.descriptor in found:
                self._note_ready(now_ns)
                poll.unregister(fifo.descriptor)
            if output.fileno() in found and not self._hear(output):
                poll.unregister(output.fileno())
            if start.fileno() in found:
                start.whole()
                started = True
                poll.unregister(start.fileno())
            if end.fileno() in found:
                self._note_end(end)
            elif self._has_to_end(now_ns) and started:
                self._instance.engine.kill(self._instance.name)

    def _has_to_end(self, now_ns: int) -> bool:
        """Say whether it is to be killed (again, where the daemon was just starting it)."""
        asked = bool(select.select([self._stop], [], [], 0)[0])
        if asked:
            os.eventfd_read(self._stop)
        if not asked and now_ns < self._deadline_ns:
            return bool(self._reason)
        if self._reason and not asked:
            raise EngineError(f"the daemon did not end the container within {_GRACE_S:g} s")
        late = f"not done after {self._command.timeout_s:g} s, killed"
        self._reason = self._reason or (peers.ENDED_BY_US if asked else late)
        self._deadline_ns = now_ns + round(_GRACE_S * NS_PER_S)
        return True

    def _patience_ms(self) -> float:
        return max(0.0, (self._deadline_ns - monotonic_ns()) / 1e6)

    def _note_ready(self, now_ns: int) -> None:
        self._instance.fifo.drain()
        self._stages.setdefault("ready", now_ns)
        self._ready_or_ended.set()

    def _hear(self, output: Exchange) -> bool:
        chunk = output.read_some()
        self._output += self._frames.feed(chunk)
        del self._output[:-OUTPUT_TAIL_BYTES]
        return bool(chunk)

    def _note_end(self, end: Exchange) -> None:
        found = end.json()
        now_ns = monotonic_ns()
        if select.select([self._instance.fifo.descriptor], [], [], 0)[0]:
            self._note_ready(now_ns)
        self._stages["exited"] = now_ns
        if not isinstance(found, dict) or not isinstance(found.get("StatusCode"), int):
            raise ValueError("the daemon answers nonsense (an end without a status)")
        self._exit_status = found["StatusCode"]

    def _drain(self, output: Exchange) -> None:
        """Read the output to its end, which comes with that of the container unless a daemon forgets it."""
        deadline = time.monotonic() + _GRACE_S
        while time.monotonic() < deadline and select.select([output.fileno()], [], [], _GRACE_S)[0]:
            if not self._hear(output):
                return

    def _ended(self, requested_ns: int, complaint: str | None) -> Outcome:
        basis = self._instance.makings.basis
        requested = Requested.of(instance_limits(basis.resources), basis.cpus)
        seen = self._instance.look()
        try:
            self._instance.remove()
        except EnvironmentFailure as error:
            complaint = complaint or error.message
        finally:
            os.close(self._stop)
        self._stages["cleaned"] = monotonic_ns()
        broken = self._reason and f"{self._reason}; docker: {complaint}" if complaint else self._reason
        end = peers.End("docker", self._exit_status, complaint, broken or None)
        found = Outcome("failed", requested_ns=requested_ns, stages=self._stages, output_tail=bytes(self._output))
        return peers.judged(found, end, seen, requested, self._command)


ENVIRONMENT: Final = Docker()
