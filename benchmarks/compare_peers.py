"""What do the environments ``oci`` and ``docker`` add to the peers' own commands?

    sudo python benchmarks/compare_peers.py [BATCHES]      needs hyperfine, runc; a Docker Engine (DOCKER_HOST) or not

OCI: a whole sample, from the call that starts it to the outcome that its removal has ended with, against the whole
``runc run``, process start and exit included, timed by ``hyperfine -N``. The bundle is the one that the environment
writes (mounts, capabilities, filter, limits), but that the overlay is mounted once and the cgroup's parent made once.

Docker: the same against the daemon's create, wait, start and remove, called one after the other with the same container
and nobody watching; and against ``docker run --rm`` with options that come to the same.

Why it is fair: the rows come in short batches whose order is shuffled. The runtime of both is held to the same CPU.
Before each start a tiny command takes the lock that the first move between v1 cgroups after a pause waits for
(``bench.warm_joins``). What the environment does meanwhile is planning, making, reading and removing the sample's
groups, overlay and bundle, and starting ``launch``.
"""

import contextlib
import itertools
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import bench

from benchbox import images
from benchbox.environments import bundle, docker, environment, oci
from benchbox.environments.container import KEPT_CAPABILITIES
from benchbox.environments.engine_api import Engine, Exchange
from benchbox.linux import cgroups, mounts, nest
from benchbox.model import Command, EnvironmentSpec, Image, Resources, Session, Workspace
from benchbox.units import format_cpu_list

COMMAND = Command(("/bin/ready",))
BATCH = 10
MOST_MS = 5.0

Measure = Callable[[], list[float]]


def sample(session: Session, layout: cgroups.Layout) -> float:
    """Return how long one whole sample takes, in ns."""
    bench.warm_joins(layout)
    begun_ns = time.monotonic_ns()
    outcome = session.start(COMMAND).wait()
    ended_ns = time.monotonic_ns()
    assert outcome.status == "ok", outcome.reason
    return ended_ns - begun_ns


def samples(session: Session, layout: cgroups.Layout) -> Measure:
    return lambda: [sample(session, layout) for _ in range(BATCH)]


@contextlib.contextmanager
def on_cpus(cpus: Sequence[int]) -> Iterator[None]:
    """Hold what is started inside to ``cpus``."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def opened(stack: ExitStack, kind: str, image: Image, workspace: Workspace) -> Session:
    return stack.enter_context(environment(kind).open(EnvironmentSpec(kind, kind), image, Resources(), workspace))


# --- OCI -------------------------------------------------------------------------------------------------------------


def oci_rows(stack: ExitStack, image: Image, workspace: Workspace) -> dict[str, Measure]:
    layout = cgroups.detect()
    session = opened(stack, "oci", image, workspace)
    makings = session._makings  # type: ignore[attr-defined]
    folder = bare_bundle(stack, makings)
    prepare = None if (path := bench.own_v1_procs(layout)) is None else f"sh -c 'echo 0 > {path}'"
    ids = (f"benchbox-bare-{number}" for number in itertools.count())

    def bare() -> list[float]:
        words = [makings.runtime, "--root", makings.state.parent / "bare", "run", "--bundle", folder, next(ids)]
        with on_cpus(workspace.cpus):
            return bench.hyperfine(words, BATCH, prepare)

    return {"oci, a whole sample": samples(session, layout), "runc run": bare}


def bare_bundle(stack: ExitStack, makings: oci.Makings) -> Path:
    """Return a bundle like a sample's, on an overlay and below groups that stay; its byte goes to its output."""
    groups = makings.nest("bare")
    nest.make(groups)
    stack.callback(nest.end, groups)
    assert makings.layers
    layer = makings.layers / "bare"
    layer.mkdir()
    mounts.overlay(makings.root, layer, layer / "root")
    stack.callback(shutil.rmtree, layer)
    stack.callback(mounts.detach, layer / "root")
    folder = makings.bundles / "bare"
    folder.mkdir()
    config = bundle.config(COMMAND, makings.basis, layer / "root", f"{groups.path}/bare", "1")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


# --- Docker ----------------------------------------------------------------------------------------------------------


def docker_rows(stack: ExitStack, image: Image, workspace: Workspace) -> dict[str, Measure]:
    layout = cgroups.detect()
    session = opened(stack, "docker", image, workspace)
    makings = session._makings  # type: ignore[attr-defined]
    groups = makings.nest("bare")
    nest.make(groups)
    stack.callback(nest.end, groups)
    fifo = docker.peers.Fifo(makings.fifos / "bare")
    stack.callback(fifo.close)
    config = docker.container_config(
        COMMAND, makings.basis, makings.image, groups.path, makings.network, workspace.cgroup_name, fifo.path
    )
    rows: dict[str, Measure] = {
        "docker, a whole sample": samples(session, layout),
        "create, start, wait, remove": lambda: [calls(makings.engine, config, layout) for _ in range(BATCH)],
    }
    if client := shutil.which("docker"):
        words = client_words(stack, client, makings, config)
        rows["docker run --rm"] = lambda: [client_run(words, layout) for _ in range(BATCH)]
    stack.callback(fifo.drain)
    return rows


def calls(engine: Engine, config: Mapping[str, Any], layout: cgroups.Layout) -> float:
    """Return how long the bare calls take."""
    bench.warm_joins(layout)
    begun_ns = time.monotonic_ns()
    container = engine.create("benchbox-bare", config)
    with contextlib.closing(Exchange(engine.path, 15.0)) as end:
        end.send("POST", f"/containers/{container}/wait?condition=next-exit").head()
        engine.ask("POST", f"/containers/{container}/start")
        assert end.json()["StatusCode"] == 0
    engine.remove(container)
    return time.monotonic_ns() - begun_ns


def client_words(stack: ExitStack, client: str, makings: docker.Makings, config: Mapping[str, Any]) -> list[str]:
    host = config["HostConfig"]
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    profile = Path(folder, "seccomp.json")
    profile.write_text(json.dumps(makings.basis.seccomp))
    options = {
        "--network": "none", "--cgroup-parent": host["CgroupParent"], "--ipc": "private", "--log-driver": "none",
        "--memory": host["Memory"], "--pids-limit": host["PidsLimit"], "--cap-drop": "ALL", "--ulimit": "core=0",
        "--cpuset-cpus": format_cpu_list(makings.basis.cpus), "--env": "BENCHBOX_READY=1",
        "--tmpfs": "/tmp:exec,nosuid,nodev",
    }  # fmt: skip
    words = [client, "--host", f"unix://{makings.engine.path}", "run", "--rm"]
    words += [f"{name}={value}" for name, value in options.items()]
    words += [f"--cap-add={name}" for name in KEPT_CAPABILITIES]
    words += [f"--security-opt={value}" for value in ("no-new-privileges", f"seccomp={profile}")]
    return [*words, makings.image, *COMMAND.argv]


def client_run(words: Sequence[str], layout: cgroups.Layout) -> float:
    bench.warm_joins(layout)
    begun_ns = time.monotonic_ns()
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic_ns() - begun_ns


# --- both ------------------------------------------------------------------------------------------------------------


def alternate(rows: Mapping[str, Measure], batches: int) -> dict[str, list[float]]:
    seen: dict[str, list[float]] = defaultdict(list)
    for _ in range(batches):
        for name in random.sample(sorted(rows), len(rows)):
            seen[name] += rows[name]()
    return {name: seen[name] for name in rows}


def added_line(ours: str, theirs: str, seen: Mapping[str, Sequence[float]]) -> str:
    added_ms = (statistics.median(seen[ours]) - statistics.median(seen[theirs])) / 1e6
    return f"  {ours} - {theirs} = {added_ms:+.2f} ms   (at most {MOST_MS:+g} ms)"


def compare(title: str, rows: Mapping[str, Measure], batches: int) -> None:
    seen = alternate(rows, batches)
    print(bench.table(title, seen))
    ours, *others = seen
    for other in others:
        print(added_line(ours, other, seen))


def main(batches: int) -> None:
    image = images.open_image("minimal")
    for kind, rows in (("oci", oci_rows), ("docker", docker_rows)):
        offer = environment(kind).check(EnvironmentSpec(kind, kind))
        if not offer.available:
            print(f"{kind}: not here: {offer.reason} ({offer.fix})")
            continue
        with bench.workspace() as workspace, ExitStack() as stack:
            compare(f"{kind}, from the request to the end of its removal", rows(stack, image, workspace), batches)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
