"""How does the whole ``launch`` command compare with the launchers that people use, and native with a bare start?

    sudo python benchmarks/compare_launchers.py [BATCHES]        needs hyperfine, bwrap, runc

Containers: three whole commands, their own process start and exit included, timed from outside by ``hyperfine -N``:

- ``launch`` with the arguments of benchbox's container: 6 namespaces, overlay root, /proc, /dev, /tmp, /sys, masked
  paths, capabilities dropped, all cgroups with limits, and its report (to /dev/null);
- ``bwrap --unshare-all`` with the same root (writable, no overlay) and program, no cgroup, no limits, no /sys;
- ``runc run`` with a bundle from ``runc spec``, its root read-only, cut down to what ``launch`` makes: the same mounts,
  masked paths, capabilities and limits. It removes its container and cgroups before it ends, as ``launch`` does.

Native: from clone to reaped as ``launch`` stamps it, against ``hyperfine -N`` of the same program. Three rows, because
hyperfine's child joins no cgroup and runs on whatever CPU it likes: ``launch`` as in a run (in all cgroups, on its
CPU), without cgroups, and with neither cgroups nor CPU, which is the same work as hyperfine's.

Why it is fair: the rows come in short batches, their order is shuffled in each, so that all see the same host. All may
use all CPUs. Where the host has cgroup v1, the first move of a process between cgroups after a pause waits for a grace
period of the kernel, 5 to 20 ms (``bench.warm_joins``). ``launch`` moves a thread, which never waits, and bwrap moves
nothing; so that runc is not charged for it, the same tiny command that takes that lock runs before each run of each
row.
"""

import json
import os
import random
import secrets
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import bench

from benchbox import images, native
from benchbox.environments import container, environment, prepared
from benchbox.environments.launched import LaunchedCommand, Requested
from benchbox.environments.native import native_plan
from benchbox.linux import cgroups
from benchbox.linux.launch import LaunchPlan, arguments
from benchbox.model import Command, EnvironmentSpec, Image, Resources, Session, Workspace
from benchbox.units import format_cpu_list

READY = "/bin/ready"
COMMAND = Command((READY,))
#: Where the program writes its byte when nobody listens: its output, /dev/null or runc's own pipe.
TO_OUTPUT = {"BENCHBOX_READY": "1"}
BATCH = 10

Measure = Callable[[], list[float]]


def launch_words(stack: ExitStack, image: Image, workspace: Workspace) -> list[str]:
    """Return the command of a start as a session plans it, without the filter: the others install none either."""
    spec = EnvironmentSpec("container", "container", {"seccomp": "off"})
    session = stack.enter_context(environment("container").open(spec, image, Resources(), workspace))
    plan = session._planner(COMMAND, "hyperfine")  # type: ignore[attr-defined]
    return arguments(replace(plan, deadline_ms=round(COMMAND.timeout_s * 1000)), native.program("launch"), report_fd=1)


def bwrap_words(image: Image) -> list[str]:
    root = ["--bind", str(image.root), "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    return ["bwrap", "--unshare-all", *root, "--setenv", "BENCHBOX_READY", TO_OUTPUT["BENCHBOX_READY"], READY]


def write_bundle(folder: Path, image: Image, resources: Resources, cpus: tuple[int, ...]) -> None:
    """Write a bundle by ``runc spec`` and make it ask for what ``launch`` is asked for."""
    subprocess.run(["runc", "spec", "--bundle", folder], check=True)
    path = folder / "config.json"
    spec = json.loads(path.read_text())
    spec["root"] = {"path": str(image.root), "readonly": True}
    variables = [f"{name}={value}" for name, value in TO_OUTPUT.items()]
    kept = {key: list(container.KEPT_CAPABILITIES) for key in ("bounding", "effective", "permitted")}
    spec["process"].update(terminal=False, args=[READY], env=variables, capabilities=kept)
    tmp = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]}
    spec["mounts"] = [item for item in spec["mounts"] if item["destination"] in ("/proc", "/dev", "/sys")] + [tmp]
    spec["linux"].update(maskedPaths=list(prepared.MASKED), readonlyPaths=list(prepared.READ_ONLY))
    spec["linux"]["namespaces"].append({"type": "cgroup"})
    spec["linux"]["resources"].update(
        memory={"limit": resources.memory_bytes},
        pids={"limit": resources.pids},
        cpu={"cpus": format_cpu_list(cpus)},
    )
    path.write_text(json.dumps(spec))


def prepare_command(layout: cgroups.Layout) -> str | None:
    """Return a command that does what ``bench.warm_joins`` does; none is needed where the host has no cgroup v1."""
    path = bench.own_v1_procs(layout)
    return None if path is None else f"sh -c 'echo 0 > {path}'"


def measure_launch(session: Session, layout: cgroups.Layout) -> list[float]:
    return [session_sample(session, layout) for _ in range(BATCH)]


def session_sample(session: Session, layout: cgroups.Layout) -> float:
    bench.warm_joins(layout)
    outcome = session.start(COMMAND).wait()
    assert outcome.status == "ok", outcome.reason
    return outcome.stages["exited"] - outcome.stages["cgroups"]


def measure_plan(plan: LaunchPlan, layout: cgroups.Layout) -> list[float]:
    return [plan_sample(plan, layout) for _ in range(BATCH)]


def plan_sample(plan: LaunchPlan, layout: cgroups.Layout) -> float:
    """Return the ns from the request to reaped; without cgroups nothing but arguments comes between it and clone."""
    bench.warm_joins(layout)
    outcome = LaunchedCommand(plan, native.program("launch"), Requested({}), COMMAND.timeout_s).wait()
    assert outcome.status == "ok", outcome.reason
    return outcome.stages["exited"] - outcome.requested_ns


def container_rows(stack: ExitStack, image: Image, workspace: Workspace, prepare: str | None) -> dict[str, Measure]:
    bundle = workspace.scratch / "bundle"
    bundle.mkdir()
    write_bundle(bundle, image, Resources(), workspace.cpus)
    launch, bwrap = launch_words(stack, image, workspace), bwrap_words(image)
    return {
        "launch (overlay, all cgroups, limits)": lambda: bench.hyperfine(launch, BATCH, prepare),
        "bwrap --unshare-all": lambda: bench.hyperfine(bwrap, BATCH, prepare),
        "runc run": lambda: bench.hyperfine(
            ["runc", "run", "--bundle", bundle, f"benchbox-{secrets.token_hex(4)}"], BATCH, prepare
        ),
    }


def native_rows(stack: ExitStack, image: Image, workspace: Workspace, prepare: str | None) -> dict[str, Measure]:
    layout, spec = cgroups.detect(), EnvironmentSpec("native", "native")
    session = stack.enter_context(environment("native").open(spec, image, Resources(), workspace))
    root = workspace.scratch / "root-native"  # made and bound by the session
    nowhere = cgroups.CgroupPlan(())
    program = image.root / READY.lstrip("/")
    return {
        "launch, in all cgroups, on its CPU": partial(measure_launch, session, layout),
        "launch, on its CPU": partial(measure_plan, native_plan(COMMAND, root, nowhere, workspace.cpus), layout),
        "launch": partial(measure_plan, native_plan(COMMAND, root, nowhere, ()), layout),
        "hyperfine -N": lambda: bench.hyperfine([program], BATCH, prepare, TO_OUTPUT),
    }


def alternate(rows: dict[str, Measure], batches: int) -> dict[str, list[float]]:
    seen: dict[str, list[float]] = defaultdict(list)
    for _ in range(batches):
        for name in random.sample(sorted(rows), len(rows)):
            seen[name] += rows[name]()
    return {name: seen[name] for name in rows}


def main(batches: int) -> None:
    image, prepare = images.open_image("minimal"), prepare_command(cgroups.detect())
    allowed = os.sched_getaffinity(0)
    with bench.workspace() as workspace, ExitStack() as stack:
        os.sched_setaffinity(0, allowed)
        containers = alternate(container_rows(stack, image, workspace, prepare), batches)
        natives = alternate(native_rows(stack, image, workspace, prepare), batches)
    print(bench.table("container, the whole command", containers))
    ours, bwrap, runc = containers.values()
    print(bench.ratio_line("launch / bwrap", ours, bwrap, 0.8))
    print(bench.ratio_line("launch / runc", ours, runc, 0.15))
    print(bench.table("native, clone to reaped", natives))
    *variants, bare = natives.items()
    for name, values in variants:
        print(bench.ratio_line(f"{name} / hyperfine", values, bare[1], 1.1))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
