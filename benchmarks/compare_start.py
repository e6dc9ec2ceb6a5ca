"""How close to the kernel's floor does benchbox start a container and a native process?

    sudo python benchmarks/compare_start.py [ROUNDS]

Each round does, in random order, one start by the floor (floor.c, the bare system calls) and one by ``launch``, of the
same program from the same root in the same hierarchies with the same limits and masked paths, each from the same state
of the host (``bench.warm_joins``). Only ``launch`` installs a filter of system calls. Prints medians and the ratio of
each pair.
"""

import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import bench

from benchbox import images
from benchbox.environments import environment, prepared
from benchbox.environments.launched import instance_limits
from benchbox.linux import cgroups
from benchbox.model import Command, EnvironmentSpec, Resources, Session, Workspace

READY = "/bin/ready"


def start_floor(folder: Path, root: Path, workspace: Workspace, resources: Resources) -> "subprocess.Popen[str]":
    program = folder / "floor"
    subprocess.run(["cc", "-O2", "-static", "-o", program, Path(__file__).with_name("floor.c")], check=True)
    layout = cgroups.detect()
    plan = cgroups.plan(layout, workspace.cgroup_name, "floor", instance_limits(resources), workspace.cpus)
    words = [str(program), str(root), READY, *(path for path in prepared.MASKED if Path(path).exists())]
    for group in plan.groups:
        words.append(f"{group.version}:{group.path.parent}")
        there = [write for write in group.writes if not write.optional or (group.path.parent / write.file).exists()]
        words += [f"{write.file}={write.value}" for write in there]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask_floor(floor: "subprocess.Popen[str]", letter: str) -> tuple[int, int, int]:
    assert floor.stdin and floor.stdout
    floor.stdin.write(letter)
    floor.stdin.flush()
    ready, reaped, cleaned = map(int, floor.stdout.readline().split())
    return ready, reaped, cleaned


def ask_launch(session: Session) -> tuple[int, int, int]:
    outcome = session.start(Command((READY,))).wait()
    assert outcome.status == "ok", outcome.reason
    stages, requested = outcome.stages, outcome.requested_ns
    return stages["ready"] - requested, stages["exited"] - stages["cgroups"], stages["cleaned"] - requested


def main(rounds: int) -> None:
    seen: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    image, resources, layout = images.open_image("minimal"), Resources(), cgroups.detect()
    with bench.workspace() as workspace, ExitStack() as stack:
        sessions = {
            kind: stack.enter_context(environment(kind).open(EnvironmentSpec(kind, kind), image, resources, workspace))
            for kind in ("native", "container")
        }
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with start_floor(folder, image.root, workspace, resources) as floor:
            steps = {
                "container: floor": lambda: ask_floor(floor, "c"),
                "container: launch": lambda: ask_launch(sessions["container"]),
                "native: floor": lambda: ask_floor(floor, "n"),
                "native: launch": lambda: ask_launch(sessions["native"]),
            }
            for number in range(-5, rounds):
                for name in random.sample(sorted(steps), len(steps)):
                    bench.warm_joins(layout)
                    found = steps[name]()
                    if number >= 0:
                        seen[name].append(found)
            assert floor.stdin
            floor.stdin.close()
    for index, title in enumerate(("requested to ready", "clone to reaped", "requested to cleaned")):
        rows = {name: [found[index] for found in seen[name]] for name in sorted(seen)}
        print(bench.table(title, rows))
        for kind in ("container", "native"):
            print(f"  {kind}: launch / floor = {bench.ratio(rows[f'{kind}: launch'], rows[f'{kind}: floor']):.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
