"""Reads the host into ``Facts``. Starts, writes and mounts nothing; what a host does not say is None.

Each reading is the one that a run makes itself (fingerprint, noise, availability of environments), so that doctor and
record cannot disagree. What no run reads has its readers here.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import psutil

from benchbox import host, native, record
from benchbox.doctor.facts import Activity, Busy, Facts, Guests, Place, Runs, Settings
from benchbox.environments import KINDS, environment, options_model, vm
from benchbox.errors import BenchboxError
from benchbox.images import kernels, packages
from benchbox.images.kernels import KernelSource
from benchbox.linux import cgroups
from benchbox.linux.state import cache_folder
from benchbox.model import Availability, EnvironmentSpec, Resources
from benchbox.noise import NoiseMeter, Snapshot, between
from benchbox.scenario import FORMAT
from benchbox.units import parse_cpu_list
from benchbox.virt import accelerator
from benchbox.worker import split_cpus

#: How long the doctor holds still and watches. Time that a hypervisor takes is counted in ticks of 10 ms.
INTERVAL_S: Final = 0.4
#: How long an environment may take to say whether it is there: a daemon that hangs must not hang the doctor.
_OFFER_TIMEOUT_S: Final = 1.0
#: Below this share of one CPU a process is left out.
_BUSY_SHARE: Final = 0.03
_BUSY_MOST: Final = 5
_PROGRAMS: Final = ("launch", "agent", "ready")
_HOST: Final = Path("/")

#: A pid, and when the process began: together they name one process.
_Process = tuple[int, float]


def look(results: Path, runs: Runs | None = None, interval_s: float = INTERVAL_S) -> Facts:
    """Return what this host is; takes ``interval_s`` and about half a second.

    ``results`` is the folder that runs would be written to, ``runs`` what the supervisor knows of other runs.
    """
    cpus, harness_cpus = split_cpus(sorted(os.sched_getaffinity(0)), Resources().cpus)
    offers = _offers()
    return Facts(
        host=host.fingerprint(),
        tools=host.tools(),
        settings=settings(_HOST, cpus),
        guests=_guests(),
        offers={kind: offers[kind] for kind in offers if kind not in ("overlay", "bind")},
        overlay=offers["overlay"],
        bind=offers["bind"],
        cgroups=_cgroups(),
        programs=_programs(),
        activity=watch(cpus, interval_s),
        places=_places(results),
        cpus=cpus,
        harness_cpus=harness_cpus,
        as_root=os.geteuid() == 0,
        runs=runs or Runs(),
    )


# --- the kernel's settings -------------------------------------------------------------------------------------------


def settings(root: Path, cpus: Sequence[int]) -> Settings:
    """Return what the kernel below ``root`` is set to; ``cpus`` are those that environments use."""
    meminfo = host.parse_meminfo(_text(root / "proc/meminfo"))
    total, free = meminfo.get("SwapTotal"), meminfo.get("SwapFree")
    return Settings(
        userns_max=_number(root / "proc/sys/user/max_user_namespaces"),
        userns_clone=_number(root / "proc/sys/kernel/unprivileged_userns_clone"),
        userns_apparmor=_number(root / "proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        aslr=_number(root / "proc/sys/kernel/randomize_va_space"),
        entropy_bits=_number(root / "proc/sys/kernel/random/entropy_avail"),
        clocks=tuple(_text(root / "sys/devices/system/clocksource/clocksource0/available_clocksource").split()),
        boot_options=tuple(_text(root / "proc/cmdline").split()),
        core_mates=_core_mates(root, cpus),
        memory_available_bytes=meminfo.get("MemAvailable"),
        swap_used_bytes=None if total is None or free is None else total - free,
    )


def _core_mates(root: Path, cpus: Sequence[int]) -> tuple[int, ...]:
    folder = root / "sys/devices/system/cpu"
    lists = (parse_cpu_list(_text(folder / f"cpu{cpu}/topology/thread_siblings_list")) for cpu in cpus)
    return tuple(sorted({mate for mates in lists for mate in mates} - set(cpus)))


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.lstrip("-").isdigit() else None


def _text(path: Path) -> str:
    """Return a file of the kernel; empty where it is not there or refuses to be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


# --- environments ----------------------------------------------------------------------------------------------------


def _offers() -> Mapping[str, Availability]:
    """Return whether each environment would open with its default options, and a container with either root."""
    specs = {kind: EnvironmentSpec(kind, kind, {}) for kind in KINDS if kind != FORMAT and _needs_no_option(kind)}
    specs |= {root: EnvironmentSpec("container", "container", {"root": root}) for root in ("overlay", "bind")}
    return answers({name: _asking(spec) for name, spec in specs.items()}, _OFFER_TIMEOUT_S)


def _needs_no_option(kind: str) -> bool:
    return not any(field.is_required() for field in options_model(kind).model_fields.values())


def _asking(spec: EnvironmentSpec) -> Callable[[], Availability]:
    return lambda: environment(spec.kind).check(spec)


def answers(questions: Mapping[str, Callable[[], Availability]], timeout_s: float) -> dict[str, Availability]:
    """Ask all at once; what raises or does not answer within ``timeout_s`` is not available, and says so."""
    given: dict[str, Availability] = {}

    def ask(name: str) -> None:
        given[name] = _answer(questions[name])

    threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in questions]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = Availability.no(f"it did not say within {timeout_s:g} s whether it is there", "look why it hangs")
    return {name: given.get(name, late) for name in questions}


def _answer(question: Callable[[], Availability]) -> Availability:
    try:
        return question()
    except BenchboxError as error:
        return Availability(False, error.message, error.hint)
    except OSError as error:
        return Availability(False, str(error))


def _cgroups() -> Availability:
    limits = cgroups.Limits(memory_bytes=1, pids=1)
    return _answer(lambda: cgroups.availability(cgroups.detect(), limits))


def _programs() -> Availability:
    def ask() -> Availability:
        for name in _PROGRAMS:
            native.program(name)
        return Availability.yes()

    return _answer(ask)


# --- guests ----------------------------------------------------------------------------------------------------------


def _guests() -> Guests:
    device = accelerator.device_availability()
    kernel, source, path = _kernel()
    return Guests(
        device=device,
        api_version=accelerator.api_version() if device.available else None,
        package=vm.python_package(),
        emulator=vm.emulator_program(),
        driver=vm.libvirt_driver(),
        kernel=kernel,
        kernel_source=source,
        kernel_path=path,
        proof=_proof(),
    )


def _proof() -> accelerator.Proof | None:
    try:
        return accelerator.recalled(cache_folder("accelerator"), accelerator.host_facts())
    except (BenchboxError, OSError):
        return None


def _kernel() -> tuple[Availability, KernelSource | None, Path | None]:
    """Return whether guests have a kernel here, whose it is and where; neither where it would be downloaded."""
    try:
        return Availability.yes(), *kernels.at_hand()
    except BenchboxError as error:
        offer = packages.obtainable()
        if offer.available:
            return offer, None, None
        return Availability(False, f"{error.message}; {offer.reason}", offer.fix), None, None


# --- activity --------------------------------------------------------------------------------------------------------


def watch(cpus: Sequence[int], interval_s: float, root: Path = _HOST) -> Activity:
    """Hold still for ``interval_s`` and return what else went on, on ``cpus`` as far as processes are concerned."""
    spent_before = _cpu_times()
    with NoiseMeter(root) as meter:
        before = meter.snapshot()
        time.sleep(interval_s)
        after = meter.snapshot()
    elapsed_s = max(after.taken_ns - before.taken_ns, 1) / 1e9
    busy = shares(spent_before, _cpu_times(), elapsed_s)
    return Activity(
        elapsed_s,
        between(before, after),
        between(Snapshot(0, steal_ticks=0, total_ticks=0), after).get("steal_share"),
        tuple(named for pid, share in busy.items() if (named := _named(pid, share, set(cpus))))[:_BUSY_MOST],
    )


def _cpu_times() -> dict[_Process, float]:
    """Return the CPU time in s of each process, this one excepted."""
    found = psutil.process_iter(["pid", "create_time", "cpu_times"])
    return {
        (process.info["pid"], process.info["create_time"]): sum(process.info["cpu_times"][:2])
        for process in found
        if process.info["cpu_times"] and process.pid != os.getpid()
    }


def shares(before: Mapping[_Process, float], after: Mapping[_Process, float], elapsed_s: float) -> dict[int, float]:
    """Return the share of one CPU that each process took, by pid, the largest first; small ones are left out. Pure.

    A process that is not in both is not known well enough.
    """
    found = {key: (after[key] - before[key]) / elapsed_s for key in before.keys() & after.keys()}
    return {key[0]: found[key] for key in sorted(found, key=lambda key: -found[key]) if found[key] >= _BUSY_SHARE}


def _named(pid: int, share: float, cpus: set[int]) -> Busy | None:
    """Return the process with its name; None if it may not use ``cpus``, or has gone."""
    try:
        process = psutil.Process(pid)
        return Busy(pid, process.name(), share) if cpus & set(process.cpu_affinity() or ()) else None
    except (psutil.Error, OSError):
        return None


# --- places ----------------------------------------------------------------------------------------------------------


def _places(results: Path) -> dict[str, Place]:
    def in_results() -> Path:
        record.refuse_foreign(results)
        return results

    found = {"cache": cache_folder, "scratch": lambda: cache_folder("scratch"), "results": in_results}
    return {name: _place(find) for name, find in found.items()}


def _place(find: Callable[[], Path]) -> Place:
    try:
        return place(find())
    except BenchboxError as error:
        return Place(Path(), problem=f"{error.message} ({error.hint})")


def place(path: Path) -> Place:
    """Return what is known of the folder ``path``, which need not exist."""
    try:
        folder = _existing(path.absolute())
        partition = _partition(folder)
        return Place(
            path,
            partition and partition.fstype,
            partition and partition.device,
            shutil.disk_usage(folder).free,
            folder.is_dir() and os.access(folder, os.W_OK | os.X_OK),
        )
    except OSError as error:
        return Place(path, problem=f"{error.filename}: {error.strerror}")


def _existing(path: Path) -> Path:
    """Return ``path`` or the nearest of its parents that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path.resolve()


def _partition(folder: Path) -> Any:
    """Return the mount that ``folder`` is on: the last one of the deepest mount point above it."""
    mounts = psutil.disk_partitions(all=True)
    above = [mount for mount in mounts if folder.is_relative_to(mount.mountpoint)]
    return max(reversed(above), key=lambda mount: len(mount.mountpoint), default=None)
