"""``oci``: a container by any OCI runtime (runc, crun, youki, runsc, ...), from the same image with the same limits.

Per sample: cgroups, an overlay, a bundle, and the runtime's own ``run``, which starts the container, waits for its end
and removes it. ``launch`` starts the runtime and stamps the ready byte as it does for benchbox's own container; what it
says of the runtime's own start (``started``, ``exec``) is not said of the workload. ``exited`` is the end of the
runtime, which is when it has removed the container.
"""

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from benchbox import native, remedies
from benchbox.environments import bundle, peers
from benchbox.environments.data import DataFolders, with_data
from benchbox.environments.disk import DiskWatch
from benchbox.environments.launched import (
    LaunchedCommand,
    Requested,
    channel_latency_ns,
    instance_limits,
)
from benchbox.environments.linked import (
    LINK_DESCRIPTION,
    LinkChoice,
    offered_link,
    open_link,
    require_network,
    told_link,
    told_network,
)
from benchbox.environments.stored import folder_of
from benchbox.errors import EnvironmentFailure
from benchbox.linux import cgroups, mounts, nest, processes, removal
from benchbox.linux.clock import monotonic_ns
from benchbox.linux.launch import HOST_ROOT, READY_FD, LaunchPlan
from benchbox.model import (
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

KIND: Final = "oci"
DEFAULT_RUNTIMES: Final = ("runc", "crun")

#: How long the runtime may take to say its version, and to delete what it left.
_ASKING_S: Final = 5.0
_DELETING_S: Final = 10.0
_PROBE_S: Final = 10.0
_ERROR_OUTPUT: Final = 2
_LOG_TAIL_BYTES: Final = 64 * 1024
#: What ``launch`` sees of the container. It starts the runtime, so its ``started`` and ``exec`` are the runtime's.
_OBSERVED: Final = ("cgroups", "ready", "exited")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Options(BaseModel):
    """Options of ``oci``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: str | None = Field(
        None, min_length=1, description="name on PATH or full path; without it the first of runc, crun"
    )
    network: bool = Field(True, description="a network namespace of its own, or the host's network")
    link: LinkChoice = Field("none", description=LINK_DESCRIPTION)
    root: Literal["overlay", "bind"] = Field(
        "overlay", description="a writable layer over the image, or the image read-only"
    )
    layer: Literal["tmpfs", "disk"] = Field("tmpfs", description="where the writable layer lies")
    seccomp: Literal["default", "off"] = Field("default", description="the filter of system calls, or none")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        require_network(self.link, self.network, own=True, host=False)
        return self


class Oci:
    """See the module."""

    def check(self, spec: EnvironmentSpec) -> Availability:
        options = Options(**spec.options)
        if os.geteuid() != 0:
            return Availability.no("an OCI runtime with limits and an overlay needs root", "run benchbox as root")
        found = find_runtime(options.runtime)
        if found is None:
            return _no_runtime(options.runtime)
        if found.name == "crun" and _is_mixed(cgroups.detect()):
            return Availability.no(
                "crun refuses a host with controllers in both cgroup v1 and v2",
                "set runtime: runc, or boot with pure v2",
            )
        offer = offered_link(options.link)
        return offer if not offer.available else peers.availability(filtered=options.seccomp == "default")

    @contextmanager
    def open(
        self, spec: EnvironmentSpec, image: Image, resources: Resources, workspace: Workspace
    ) -> Iterator[Session]:
        options = Options(**spec.options)
        runtime = find_runtime(options.runtime)
        if runtime is None:
            missing = _no_runtime(options.runtime)
            raise EnvironmentFailure(str(missing.reason), hint=missing.fix)
        link = open_link(options.link, workspace)
        with ExitStack() as stack:
            makings = _makings(spec.label, runtime, options, image, resources, workspace, link, stack)
            applied = {**_applied(makings, options), **told_link(link), **_read_back(makings, image)}
            yield OciSession(makings, applied, link, (folder_of(image),))


def _no_runtime(name: str | None) -> Availability:
    wanted = name or " or ".join(DEFAULT_RUNTIMES)
    otherwise = f"leave runtime: out, for {' or '.join(DEFAULT_RUNTIMES)}" if name else ""
    return remedies.lacking(f"there is no OCI runtime {wanted}", [name or DEFAULT_RUNTIMES[0]], otherwise=otherwise)


def find_runtime(name: str | None) -> Path | None:
    """Return the full path of the runtime called ``name``, of the first default one for None; None if there is none."""
    candidates = (name,) if name else DEFAULT_RUNTIMES
    found = next(filter(None, (shutil.which(candidate, path=_search_path()) for candidate in candidates)), None)
    return None if found is None else Path(found).absolute()


def _search_path() -> str:
    """A runtime is often in a folder that is on root's PATH only."""
    return f"{os.environ.get('PATH', '')}:{_PATH}"


def _is_mixed(layout: cgroups.Layout) -> bool:
    return layout.mode == "hybrid" and layout.v2 is not None and (layout.v2 / "cgroup.controllers").read_text() != "\n"


@dataclass(frozen=True)
class Makings(peers.Ground):
    """What all samples of a session are made of.

    ``state`` is where the runtime keeps its own, ``bundles`` and ``layers`` hold a folder a sample. ``by_descriptor``
    says whether it can pass the workload a descriptor to be ready on; else that is the workload's error output.
    ``seccomp`` is the text of the filter.
    """

    runtime: Path
    root: Path
    state: Path
    bundles: Path
    layers: Path | None
    by_descriptor: bool
    seccomp: str | None
    data: DataFolders
    disk: DiskWatch

    @property
    def ready(self) -> str:
        """What BENCHBOX_READY says inside."""
        return str(READY_FD if self.by_descriptor else _ERROR_OUTPUT)


def _makings(
    label: str,
    runtime: Path,
    options: Options,
    image: Image,
    resources: Resources,
    workspace: Workspace,
    link: Link | None,
    stack: ExitStack,
) -> Makings:
    mounts.enter_private()
    ground = peers.ground(
        label, resources, workspace, stack, own_network=options.network, read_only=options.root == "bind",
        filtered=options.seccomp == "default", runtime=True, joined=_joined(link),
    )  # fmt: skip
    state = stack.enter_context(_state(workspace, label))
    # The runtime makes mount points that the image lacks: not in the store.
    root = stack.enter_context(mounts.mount_point(workspace.scratch / f"root-{label}"))
    mounts.bind(image.root, root, read_only=True)
    layers = None
    if options.root == "overlay":
        layers = stack.enter_context(mounts.mount_point(workspace.scratch / f"layers-{label}"))
        if options.layer == "tmpfs":
            mounts.tmpfs(layers, mounts.tmpfs_bytes(resources.disk_bytes), mode="700")
    bundles = state.parent / "bundles"
    bundles.mkdir()
    return Makings(
        **vars(ground), runtime=runtime, root=root, state=state, bundles=bundles, layers=layers,
        by_descriptor=_passes_descriptors(runtime),
        seccomp=json.dumps(ground.basis.seccomp) if ground.basis.seccomp else None,
        data=DataFolders(workspace, label, image.root, layer=layers),
        disk=DiskWatch(resources.disk_bytes, layers if options.layer == "disk" else None),
    )  # fmt: skip


def _joined(link: Link | None) -> Path | None:
    """Return where the runtime finds the network namespace of ``link``: it has no name but a descriptor of ours."""
    return Path(f"/proc/{os.getpid()}/fd/{link.namespace}") if link and link.namespace is not None else None


@contextmanager
def _state(workspace: Workspace, label: str) -> Iterator[Path]:
    """Yield the folder where the runtime keeps its state, known to whoever cleans up.

    Of a worker that was killed it is all that the runtime leaves, once its processes have gone with their cgroups.
    """
    folder = workspace.runtime / f"oci-{label}"
    workspace.ledger.record("folder", str(folder))
    folder.mkdir(mode=0o700)
    try:
        yield folder / "state"
    finally:
        if removal.try_remove(folder):
            workspace.ledger.release("folder", str(folder))


def _passes_descriptors(runtime: Path) -> bool:
    """Ask the runtime; one that does not answer is taken for one like runc."""
    try:
        found = processes.run([runtime, "run", "--help"], timeout_s=_ASKING_S, check=False)
    except EnvironmentFailure:
        return True
    return "preserve-fds" in found.stdout + found.stderr or found.status != 0


def _version(runtime: Path) -> str:
    try:
        found = processes.run([runtime, "--version"], timeout_s=_ASKING_S)
    except EnvironmentFailure as error:
        return f"unknown: {error.message}"
    return found.stdout.strip().splitlines()[0] if found.stdout.strip() else "unknown"


def _applied(makings: Makings, options: Options) -> dict[str, Any]:
    latency_ns = channel_latency_ns(native.program("launch"), makings.basis.cpus)
    return {
        "runtime": str(makings.runtime),
        "versions": {makings.runtime.name: _version(makings.runtime)},
        "root": f"overlay, writable layer on {options.layer}" if options.root == "overlay" else "read-only bind",
        "cgroups": makings.where.layout.mode,
        "network": told_network(options.link, own=options.network),
        "seccomp": "default filter" if options.seccomp == "default" else "off",
        "ready_by": "a descriptor" if makings.by_descriptor else "its error output",
        "channel_latency_ns": latency_ns,
    }


class Instance:
    """What belongs to one sample: groups, root, bundle. Planned when it is constructed, there between ``make`` and
    ``remove``."""

    def __init__(
        self,
        makings: Makings,
        name: str,
        command: Command,
        ready: str,
        fifo: Path | None = None,
        data: Path | None = None,
    ) -> None:
        self.makings, self.nest = makings, makings.nest(name)
        self.id = f"{makings.workspace.cgroup_name}-{makings.label}-{name}"
        self.bundle = makings.bundles / name
        self._layer = makings.layers / name if makings.layers else None
        self._oom_kills = nest.oom_kills_of_host()
        root = self._layer / "root" if self._layer else makings.root
        found = bundle.config(command, makings.basis, root, f"{self.nest.path}/{self.id}", ready, fifo, data)
        self._config = bundle.text(found, makings.seccomp)

    def make(self) -> None:
        """Make all of it, or nothing. Raises EnvironmentFailure."""
        try:
            nest.make(self.nest)
            if self._layer:
                self._layer.mkdir()
                mounts.overlay(self.makings.root, self._layer, self._layer / "root")
            self.bundle.mkdir()
            (self.bundle / "config.json").write_text(self._config)
        except BaseException:
            self.remove()
            raise

    @property
    def box(self) -> Path:
        """The folder of the limits in the hierarchy that is used last."""
        return self.nest.box.groups[-1].path

    def read_log(self) -> bytes:
        """Return the end of what the runtime logged."""
        try:
            with (self.bundle / "log").open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_TAIL_BYTES))
                return file.read(_LOG_TAIL_BYTES)
        except OSError:
            return b""

    def words(self, *, signals_ready: bool) -> list[str]:
        """Return the runtime's command; with ``signals_ready`` it passes on the descriptor for that.

        One that cannot gets it as its error output, which is the container's.
        """
        to_ready = signals_ready and not self.makings.by_descriptor
        instead = ["/bin/sh", "-c", f'exec "$@" {_ERROR_OUTPUT}>&{READY_FD}', "sh"] if to_ready else []
        passing = ["--preserve-fds", "1"] if signals_ready and self.makings.by_descriptor else []
        return [*instead, *self._runtime(), "run", "--bundle", str(self.bundle), *passing, self.id]

    def plan(self, *, signals_ready: bool = False, announce: bool = False) -> LaunchPlan:
        """Return the start of the runtime; the rest as for a command."""
        return LaunchPlan(
            tuple(self.words(signals_ready=signals_ready)),
            HOST_ROOT,
            cgroups=self.nest.runtime,
            cpus=self.makings.basis.cpus,
            env={"PATH": _PATH},
            signals_ready=signals_ready,
            announce=announce,
        )

    def look(self) -> nest.Seen:
        return nest.look(self.nest, self._oom_kills)

    def remove(self) -> None:
        """End and remove whatever there still is of it. Raises EnvironmentFailure for what does not go."""
        if (self.makings.state / self.id).exists():
            for folder in self.nest.folders:
                cgroups.kill_tree(folder)
            with contextlib.suppress(EnvironmentFailure):
                processes.run([*self._runtime(), "delete", "--force", self.id], timeout_s=_DELETING_S, check=False)
            removal.try_remove(self.makings.state / self.id)
        nest.end(self.nest)
        if self._layer:
            mounts.detach(self._layer / "root")
            _remove(self._layer, "work/work", "work", "upper", "root")
        _remove(self.bundle, "config.json", "log")

    def _runtime(self) -> list[str]:
        log = ["--log", str(self.bundle / "log"), "--log-format", "json"]
        return [str(self.makings.runtime), "--root", str(self.makings.state), *log]


def _remove(folder: Path, *usual: str) -> None:
    """Remove ``folder``; quickly where there is nothing in it but what there ``usual``ly is."""
    try:
        for path in (folder / name for name in usual):
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        folder.rmdir()
    except OSError:
        removal.try_remove(folder)


class OciSession:
    """Starts a container for each command."""

    def __init__(
        self, makings: Makings, applied: Mapping[str, Any], link: Link | None, account: tuple[Counter, ...]
    ) -> None:
        self.link, self._account = link, account
        self._makings, self._applied_values = makings, applied
        self._numbers = itertools.count(1)

    def start(self, command: Command) -> Running:
        name, data = f"s{next(self._numbers)}", self._makings.data
        source = data.source(command.data, name)

        def launched() -> Running:
            return OciCommand(self._makings, name, command, source)

        return with_data(data, command.data, name, lambda: self._makings.disk.around(name, source, launched))

    def applied(self) -> Mapping[str, Any]:
        return self._applied_values

    def account(self) -> tuple[Counter, ...]:
        return self._account

    def reads(self) -> tuple[Path, ...]:
        return (self._makings.root,)


class OciCommand:
    """One container on its way."""

    def __init__(self, makings: Makings, name: str, command: Command, data: Path | None = None) -> None:
        self._command = command
        self._requested = Requested.of(instance_limits(makings.basis.resources), makings.basis.cpus)
        self._runtime = makings.runtime.name
        self._outcome: Outcome | None = None
        self._instance = Instance(makings, name, command, makings.ready, data=data)
        plan = self._instance.plan(signals_ready=command.signals_ready, announce=command.stays)
        self._requested_ns = monotonic_ns()
        self._instance.make()
        try:
            self._launched = LaunchedCommand(plan, native.program("launch"), Requested({}), command.timeout_s)
        except BaseException:
            self._instance.remove()
            raise

    def ready(self) -> bool:
        return self._launched.ready()

    def kill(self) -> None:
        self._launched.kill()

    def wait(self) -> Outcome:
        self._outcome = self._outcome or self._ended()
        return self._outcome

    def _ended(self) -> Outcome:
        found = self._launched.wait()
        seen, complaint = self._instance.look(), peers.complaint(self._instance.read_log())
        left = None
        try:
            self._instance.remove()
        except EnvironmentFailure as error:
            left = error.message
        cleaned_ns = monotonic_ns()
        stages = {name: found.stages[name] for name in _OBSERVED if name in found.stages} | {"cleaned": cleaned_ns}
        found = replace(found, requested_ns=self._requested_ns, spawn_ns=None, stages=stages)
        end = ended(found, self._runtime, complaint, left)
        return peers.judged(found, end, seen, self._requested, self._command)


def ended(launched: Outcome, runtime: str, complaint: str | None, left: str | None) -> peers.End:
    """Return how the container ended, by what ``launch`` says of the runtime. Pure.

    ``complaint`` is from the runtime's log, ``left`` what could not be removed.
    """
    broken = left
    if broken is None and launched.exit_code is None:
        broken = f"{runtime}: {launched.reason}" if launched.signal else launched.reason or peers.ENDED_BY_US
    return peers.End(runtime, launched.exit_code, complaint, broken)


def _read_back(makings: Makings, image: Image) -> dict[str, Any]:
    """Start one container that stands still, and read what the kernel says of it; a failure is only noted."""
    if not (image.root / peers.PROBE.lstrip("/")).is_file():
        return {"not_read_back": f"the image has no {peers.PROBE}"}
    try:
        return {"read_back": _probe(makings)}
    except EnvironmentFailure as error:
        return {"not_read_back": error.message}


def _probe(makings: Makings) -> dict[str, Any]:
    fifo = peers.Fifo(makings.bundles / "fifo")
    try:
        fifo.fill()
        instance = Instance(makings, "probe", Command((peers.PROBE,)), bundle.FIFO, fifo.path)
        instance.make()
        try:
            return _look_at(instance, fifo)
        finally:
            instance.remove()
    finally:
        fifo.close()


def _look_at(instance: Instance, fifo: peers.Fifo) -> dict[str, Any]:
    launched = LaunchedCommand(instance.plan(), native.program("launch"), Requested({}), _PROBE_S)
    try:
        found = peers.read_back(instance.box, lambda: not launched.has_ended(), _PROBE_S)
    except EnvironmentFailure as error:
        launched.kill()
        raise EnvironmentFailure(peers.complaint(instance.read_log()) or error.message) from error
    finally:
        fifo.drain()
        launched.wait()
    return found


ENVIRONMENT: Final = Oci()
