"""``format``: no place to run in, but a form that the image lies in; what a sample says is what it weighs.

It stands beside the environments because it is measured as they are: one row each, from the same image, on the same
host, recorded, with a baseline. Sizes are exact, so they have neither interval nor verdict.
"""

import contextlib
import json
import os
import selectors
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from benchbox import images, native, remedies
from benchbox.environments.sizes import Size as SizeOption
from benchbox.errors import BenchboxError, EnvironmentFailure
from benchbox.images import formats, tree
from benchbox.images.formats import Built
from benchbox.images.tree import Entry
from benchbox.linux import mounts, processes, removal
from benchbox.linux.clock import monotonic_ns
from benchbox.model import (
    Availability,
    Command,
    Counter,
    EnvironmentSpec,
    Image,
    Outcome,
    Resources,
    Session,
    Workspace,
)

KIND: Final = "format"
_POLL_S: Final = 0.1
_READ_BYTES: Final = 1 << 20
_QUERY_S: Final = 60.0
#: Numbers of instances that are told beside the largest.
_COUNTS: Final = (1, 2, 5, 10, 20)

Name = Literal[
    "directory", "oci", "squashfs", "erofs", "ext4", "qcow2", "qcow2-compressed", "qcow2-overlay",
    "kernel", "initramfs", "installed",
]  # fmt: skip


class Options(BaseModel):
    """``change`` is the size of the file that the second image and each instance adds. ``packages`` belong to
    ``installed``, the packages that a host must have for an environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Name = "directory"
    change: SizeOption = 1 << 20
    instances: int = Field(default=20, ge=0, le=20)
    packages: list[str] = Field(default=[])

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.format == "installed") != bool(self.packages):
            raise ValueError("expected packages beside format: installed, and only there")
        return self


@dataclass
class Numbers:
    """What is found of one format, by metric; ``told`` is for the record."""

    sizes: dict[str, tuple[float, str]] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, value: float, unit: str = "B") -> None:
        self.sizes[f"size.{name}"] = (value, unit)

    def add_size(self, found: formats.Size) -> None:
        self.add("apparent", found.apparent_bytes)
        self.add("allocated", found.allocated_bytes)

    def text(self) -> bytes:
        """Return them as the workload reads them: a JSON object, metric -> [value, unit]."""
        return json.dumps(self.sizes).encode()


class Formats:
    """See the module."""

    def check(self, spec: EnvironmentSpec) -> Availability:
        options = Options.model_validate(spec.options)
        if options.format == "installed":
            return _packages_availability(options.packages)
        missing = [name for name in formats.NEEDS[options.format] if shutil.which(name, path=_path()) is None]
        if not missing:
            return Availability.yes()
        return remedies.lacking(f"not installed: {', '.join(missing)}", missing)

    @contextmanager
    def open(
        self, spec: EnvironmentSpec, image: Image, resources: Resources, workspace: Workspace
    ) -> Iterator[Session]:
        options = Options.model_validate(spec.options)
        folder = workspace.scratch / f"format-{spec.label}"
        folder.mkdir()
        try:
            yield FormatSession(options, image, folder, workspace.cpus)
        finally:
            removal.try_remove(folder)


class FormatSession:
    """Builds and weighs the format anew for each sample."""

    def __init__(self, options: Options, image: Image, folder: Path, cpus: Sequence[int]) -> None:
        self._options, self._image, self._folder, self._cpus = options, image, folder, tuple(cpus)

    def start(self, command: Command) -> "Weighing":
        return Weighing(self._options, self._image, self._folder, self._cpus, command.timeout_s)

    def applied(self) -> Mapping[str, Any]:
        return {
            "format": self._options.format,
            "file_system": mounts.file_system(self._folder),
            "block_bytes": os.statvfs(self._folder).f_bsize,
            "transfer": f"{' '.join(formats.GZIP[:2])}, {' '.join(formats.ZSTD[:2])}",
        }

    def account(self) -> tuple[Counter, ...]:
        return ()

    def reads(self) -> tuple[Path, ...]:
        return (self._image.root,)


class Weighing:
    """One format on its way to be weighed, in the thread that waits for it; implements ``model.Running``."""

    def __init__(self, options: Options, image: Image, folder: Path, cpus: tuple[int, ...], timeout_s: float) -> None:
        self._options, self._image, self._folder, self._cpus = options, image, folder / "sample", cpus
        self._tools = ToolBox(time.monotonic() + timeout_s, timeout_s)

    def ready(self) -> bool:
        return False

    def kill(self) -> None:
        self._tools.stop()

    def wait(self) -> Outcome:
        requested_ns, numbers = monotonic_ns(), Numbers()
        allowed = os.sched_getaffinity(0)
        try:
            self._folder.mkdir()
            os.sched_setaffinity(0, self._cpus)
            _weigh(self._options, self._image, self._folder, self._tools, numbers)
        except (BenchboxError, OSError) as error:
            return Outcome("failed", str(error), requested_ns=requested_ns)
        finally:
            os.sched_setaffinity(0, allowed)
            removal.try_remove(self._folder)
        return Outcome(
            "ok", exit_code=0, requested_ns=requested_ns, applied=numbers.told, output_tail=numbers.text(),
            stages={},
        )  # fmt: skip


class ToolBox:
    """``formats.Tools`` that end at a deadline, or when they are told to."""

    def __init__(self, deadline_s: float, timeout_s: float) -> None:
        self._deadline_s, self._timeout_s = deadline_s, timeout_s
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def run(self, argv: Sequence[str | Path], stdin: str | None = None) -> None:
        self._follow(argv, lambda output: output.write((stdin or "").encode()))

    def count(self, argv: Sequence[str | Path], feed: Callable[[BinaryIO], Any]) -> int:
        return self._follow(argv, feed, keep_output=False)

    def _follow(self, argv: Sequence[str | Path], feed: Callable[[BinaryIO], Any], *, keep_output: bool = True) -> int:
        """Return how many bytes the program wrote. Raises EnvironmentFailure where it fails or is ended."""
        errors = subprocess.STDOUT if keep_output else subprocess.PIPE
        process = processes.spawn(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env={**_ENVIRONMENT, "PATH": _path()}
        )
        assert process.stdin is not None
        feeder = threading.Thread(target=_feed, args=(process.stdin, feed), daemon=True)
        feeder.start()
        try:
            written, tail = self._drain(process)
        finally:
            process.kill()
            process.wait()
            feeder.join()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        if process.returncode != 0:
            end = " ".join(tail[-500:].decode(errors="replace").split())
            raise EnvironmentFailure(f"{argv[0]}: {processes.describe_status(process.returncode)}: {end}")
        return written

    def _drain(self, process: "subprocess.Popen[bytes]") -> tuple[int, bytes]:
        """Read until the program has ended, its output counted and the end of it, or of its errors, kept."""
        written, tail = 0, b""
        with selectors.DefaultSelector() as selector:
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                self._go_on(process.args)
                for key, _ in selector.select(_POLL_S):
                    data = os.read(key.fd, _READ_BYTES)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is process.stdout:
                        written += len(data)
                    if process.stderr is None or key.fileobj is process.stderr:
                        tail = (tail + data)[-4096:]
        process.wait()
        return written, tail

    def _go_on(self, argv: Any) -> None:
        if self._stopped.is_set():
            raise EnvironmentFailure("ended by benchbox")
        if time.monotonic() > self._deadline_s:
            raise EnvironmentFailure(f"{argv[0]}: not done after {self._timeout_s:g} s, killed")


#: The tools' times and languages are the same everywhere; mke2fs takes its own time from the last two.
_ENVIRONMENT: Final[Mapping[str, str]] = {
    "LC_ALL": "C", "TZ": "UTC", "E2FSPROGS_FAKE_TIME": str(tree.MTIME_S),
}  # fmt: skip


def _path() -> str:
    """Return where programs are looked for: an ordinary user's PATH often leaves out where mke2fs is."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def _feed(output: Any, feed: Callable[[BinaryIO], Any]) -> None:
    # A program that ends before it has read all says why by its status.
    with contextlib.suppress(BrokenPipeError, ValueError):
        feed(output)
    with contextlib.suppress(BrokenPipeError):
        output.close()


# --- what is weighed -------------------------------------------------------------------------------------------------


def _weigh(options: Options, image: Image, folder: Path, tools: ToolBox, numbers: Numbers) -> None:
    name = options.format
    if name == "installed":
        _weigh_packages(options.packages, numbers)
    elif name in ("kernel", "initramfs"):
        _weigh_boot_file(name, folder, tools, numbers)
    else:
        entries = tree.scan(image.root)
        numbers.told["content_bytes"] = formats.content_bytes(entries)
        numbers.told["image"] = image.digest
        weigh = _weigh_overlay if name == "qcow2-overlay" else _weigh_format
        weigh(options, entries, folder, tools, numbers)


def _weigh_format(options: Options, entries: Sequence[Entry], folder: Path, tools: ToolBox, numbers: Numbers) -> None:
    name, room_bytes = options.format, options.change
    built = formats.build(name, entries, folder / "whole", tools, room_bytes)
    whole = formats.measure(built.path)
    numbers.add_size(whole)
    _add_times(built, numbers)
    _add_transfer(name, built.path, entries, tools, numbers)
    empty = formats.build(name, formats.skeleton(entries), folder / "empty", tools, _same_room(entries, room_bytes))
    _add_parts(numbers, whole.allocated_bytes, formats.measure(empty.path).allocated_bytes)
    removal.remove(folder / "empty")
    changed = formats.changed(entries, options.change)
    if name == "oci":
        _add_layers(changed, entries, built.path, folder, numbers)
        _add_instances(options.instances, numbers, _writable_layers(entries, options.change, folder))
    else:
        again = formats.build(name, changed, folder / "changed", tools)
        numbers.add("incremental", formats.measure(again.path).allocated_bytes)


def _same_room(entries: Sequence[Entry], room_bytes: int) -> int:
    """Return the room that makes a file system for the skeleton about as large as that for the tree."""
    return room_bytes + formats.content_bytes(entries) * 11 // 10


def _add_times(built: Built, numbers: Numbers) -> None:
    numbers.add("build", built.build_s, "s")
    if built.convert_s is not None:
        numbers.add("convert", built.convert_s, "s")


def _add_parts(numbers: Numbers, whole_bytes: int, empty_bytes: int, base_bytes: int = 0) -> None:
    numbers.add("part.base", base_bytes)
    numbers.add("part.format", empty_bytes)
    numbers.add("part.content", max(0, whole_bytes - empty_bytes))


def _add_transfer(name: str, path: Path, entries: Sequence[Entry], tools: ToolBox, numbers: Numbers) -> None:
    gzipped, zstd = formats.transfer_bytes(name, path, entries, tools)
    numbers.add("gzip", gzipped)
    numbers.add("zstd", zstd)


def _add_layers(
    changed: Sequence[Entry], entries: Sequence[Entry], first: Path, folder: Path, numbers: Numbers
) -> None:
    """A second image has the first one's layer and one of its own, with its own manifest and configuration."""
    both = folder / "both"
    layers = formats.write_layout(both, [entries, changed[len(entries) :]])
    for number, size_bytes in enumerate(layers, start=1):
        numbers.add(f"layer.{number}", size_bytes)
    shared = {path.name for path in (first / "blobs" / "sha256").iterdir()}
    new = [path for path in (both / "blobs" / "sha256").iterdir() if path.name not in shared]
    numbers.add("incremental", sum(formats.measure(path).allocated_bytes for path in new))


def _writable_layers(entries: Sequence[Entry], change: int, folder: Path) -> Callable[[int], Path] | str:
    """Return what makes the writable layer of one more container that ran, or why that cannot be had here."""
    if os.geteuid() != 0:
        return "a container's writable layer needs root here"
    mounts.enter_private()
    lower = folder / "lower"
    tree.write(entries, lower)

    def make(number: int) -> Path:
        scratch, target = folder / f"instance-{number}", folder / f"root-{number}"
        scratch.mkdir()
        mounts.overlay(lower, scratch, target)
        try:
            (target / formats.CHANGE).write_bytes(formats.noise(change))
        finally:
            mounts.detach(target)
        return scratch

    return make


def _add_instances(count: int, numbers: Numbers, make: Callable[[int], Path] | str) -> None:
    """Make ``count`` instances, each of which wrote the same file, and add what the first so many take together."""
    if isinstance(make, str):
        numbers.told["instances_not_measured"] = make
        return
    made = [make(number) for number in range(1, count + 1)]
    total_bytes = 0
    for number, path in enumerate(made, start=1):
        formats.settle(path)
        total_bytes += formats.measure(path).allocated_bytes
        if number in _COUNTS or number == count:
            numbers.add(f"instances.{number}", total_bytes)


def _weigh_overlay(options: Options, entries: Sequence[Entry], folder: Path, tools: ToolBox, numbers: Numbers) -> None:
    """A qcow2 file over a raw one that many share: empty, and after its guest wrote one file."""
    base = formats.build("ext4", entries, folder / "base", tools, options.change).path
    after, content = folder / "after", folder / "content"
    shutil.copyfile(base, after)
    content.write_bytes(formats.noise(options.change))
    formats.write_into_ext4(after, content, tools)
    offsets = list(formats.differing(base, after))

    def make(name: str, clusters: Sequence[int]) -> Path:
        formats.make_overlay(base, after, folder / name, clusters, tools)
        return folder / name

    begun_s = time.monotonic()
    empty_bytes = formats.measure(make("empty", ())).allocated_bytes
    numbers.add("build", time.monotonic() - begun_s, "s")
    used = make("used", offsets)
    formats.settle(used)
    found = formats.measure(used)
    numbers.add_size(found)
    _add_transfer(options.format, used, entries, tools, numbers)
    _add_parts(numbers, found.allocated_bytes, empty_bytes, formats.measure(base).allocated_bytes)
    numbers.add("incremental", found.allocated_bytes)
    _add_instances(options.instances, numbers, lambda number: make(f"instance-{number}", offsets))


def _weigh_boot_file(name: str, folder: Path, tools: ToolBox, numbers: Numbers) -> None:
    """The guest's kernel as it came, and an initramfs with the agent, its modules and an image of nothing."""
    kernel = images.find_kernel()
    path = kernel.original
    numbers.told["kernel"] = {"release": kernel.release, "source": kernel.source, "format": kernel.format}
    if name == "initramfs":
        (folder / "nothing").mkdir()
        nothing = Image("nothing", tree.digest([], {}), folder / "nothing")
        path = images.derive_initramfs(nothing, kernel, native.program("agent"))
    found = formats.measure(path)
    numbers.add_size(found)
    _add_transfer(name, path, (), tools, numbers)
    numbers.add(f"part.{name}", found.allocated_bytes)


# --- packages --------------------------------------------------------------------------------------------------------


def _packages_availability(wanted: Sequence[str]) -> Availability:
    if shutil.which("dpkg-query") is None:
        return Availability.no("this host's packages are not dpkg's", "sizes of other package systems are not read yet")
    missing = [name for name in wanted if name not in _installed()]
    if not missing:
        return Availability.yes()
    names = " ".join(missing)
    fix = f"Debian, Ubuntu: apt install {names}"
    return Availability(False, f"not installed from packages: {names}", fix, remedies.called(missing))


def _installed() -> dict[str, formats.Package]:
    words = ["dpkg-query", "-W", f"--showformat={formats.DPKG_FORMAT}"]
    return formats.parse_packages(processes.run(words, timeout_s=_QUERY_S).stdout)


def _weigh_packages(wanted: Sequence[str], numbers: Numbers) -> None:
    packages = _installed()
    alone, all_of_it = formats.only_needed(packages, wanted), formats.needed(packages, wanted)
    sizes = {name: package.size_bytes for name, package in packages.items()}
    numbers.add("apparent", sum(sizes[name] for name in wanted))
    numbers.add("allocated", sum(sizes[name] for name in alone))
    numbers.add("with_shared", sum(sizes[name] for name in all_of_it))
    numbers.add("part.packages", sum(sizes[name] for name in alone))
    numbers.told["packages"] = {"asked_for": sorted(wanted), "only_for_them": len(alone), "with_shared": len(all_of_it)}


ENVIRONMENT: Final = Formats()
