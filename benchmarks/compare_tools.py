"""Does a tool say the same by benchbox as by hand, and in a container as natively?

    sudo python benchmarks/compare_tools.py [PAIRS]

Each round runs, in random order, the same command from the same root on the same CPU: by hand (``taskset``,
``chroot``), natively by benchbox, in benchbox's container. The tools are sysbench (CPU, from the image debian) and the
triad of ``micro`` (memory bandwidth, from the image minimal), with the commands of the workloads and read as those are.
Prints the median of the ratios of each round's pair: work by the second, and work by the second of CPU time that was
used, which says the same on a host that others use as well.
"""

import os
import random
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import bench

from benchbox import images
from benchbox.environments import environment
from benchbox.model import Command, EnvironmentSpec, Image, Metric, Outcome, Resources, Session, Workspace
from benchbox.workloads import bound

WITHIN = 0.02
RESOURCES = Resources(cpus=1, memory_bytes=512 << 20)
KINDS = ("native", "container")


@dataclass(frozen=True)
class Tool:
    image: str
    workload: str
    params: Mapping[str, Any]


TOOLS = {
    "sysbench cpu": Tool("debian", "cpu", {"tool": "sysbench", "threads": 1, "seconds": 2}),
    "memory bandwidth": Tool("minimal", "memory", {"operation": "bandwidth", "working_set": "192MiB", "seconds": 2}),
}

#: Work by the second, and by the second of CPU time.
Speed = tuple[float, float]
Parse = Callable[[Outcome], tuple[Metric, ...]]


def found(program: str) -> str:
    path = shutil.which(program)
    assert path, f"{program} is not installed"
    return path


def by_hand(image: Image, command: Command, parse: Parse, cpu: int) -> Speed:
    """Run ``command`` as one would without benchbox."""
    words = [found("taskset"), "-c", str(cpu), found("chroot"), str(image.root), *command.argv]
    with subprocess.Popen(words, env={}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, output
    return speed(parse(Outcome("ok", output_tail=output)), usage.ru_utime + usage.ru_stime)


def by_benchbox(session: Session, command: Command, parse: Parse) -> Speed:
    outcome = session.start(command).wait()
    assert outcome.status == "ok", (outcome.reason, outcome.output_tail)
    used_s = next(counter.value for counter in outcome.counters if counter.name == "cpu.usage")
    assert used_s
    return speed(parse(outcome), used_s)


def speed(metrics: Sequence[Metric], used_s: float) -> Speed:
    """Return the tool's rate, and its work by CPU time; the first metric is a rate, one is the work."""
    work = next(metric for metric in metrics if metric.name.endswith(".work"))
    return metrics[0].value, work.value / used_s


def pairs_of(tool: Tool, workspace: Workspace, rounds: int) -> dict[str, list[Speed]]:
    """Return the speeds by how it was run, one of each a round."""
    image, (command, parse) = images.open_image(tool.image), bound(tool.workload, tool.params)
    seen: dict[str, list[Speed]] = defaultdict(list)
    with ExitStack() as stack:
        steps: dict[str, Callable[[], Speed]] = {}
        for kind in KINDS:
            opened = environment(kind).open(EnvironmentSpec(kind, kind), image, RESOURCES, workspace)
            session = stack.enter_context(opened)
            steps[kind] = lambda session=session: by_benchbox(session, command, parse)  # type: ignore[misc]
        steps["by hand"] = lambda: by_hand(image, command, parse, workspace.cpus[0])
        for number in range(-1, rounds):
            for name in random.sample(sorted(steps), len(steps)):
                one = steps[name]()
                if number >= 0:
                    seen[name].append(one)
    return seen


def line(what: str, ours: Sequence[Speed], theirs: Sequence[Speed]) -> str:
    wall, cpu = (median(our[at] / their[at] for our, their in zip(ours, theirs, strict=True)) for at in (0, 1))
    return f"  {what:<24} {wall:.4f} by the second   {cpu:.4f} by CPU time   (within {WITHIN:.0%} of 1)"


def main(rounds: int) -> None:
    os.chdir(Path("/"))
    with bench.workspace() as workspace:
        for name, tool in TOOLS.items():
            seen = pairs_of(tool, workspace, rounds)
            print(
                f"{name}: medians " + ", ".join(f"{how} {median(v[0] for v in seen[how]):.4g}" for how in sorted(seen))
            )
            print(line("native / by hand", seen["native"], seen["by hand"]))
            print(line("container / native", seen["container"], seen["native"]))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
