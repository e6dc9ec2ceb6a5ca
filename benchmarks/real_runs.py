"""Runs of any length whose samples have the shape of real ones, for what must not get slow with their number.

``recorded/`` holds a run of scenarios/startup.yaml with one round: a sample of native, of a container and of an
emulated guest with everything that a run writes, 4 KB each. They are multiplied: every number that varies in a real run
varies (seeded), and the values give each part of the analysis something to find: ties, two modes, drift, an effect of
what ran before, outliers with their cause, failures, and rounds that an interruption broke off.
"""

import datetime
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchbox import plan
from benchbox.record import MANIFEST_FILE, SAMPLES_FILE, Manifest

RECORDED: Final = Path(__file__).parent / "recorded"

#: Shares of samples that are an outlier, that fail, that were throttled; how often a run is interrupted and resumed.
_OUTLIERS: Final = 0.01
_FAILURES: Final = 0.003
_THROTTLED: Final = 0.01
_INTERRUPTIONS: Final = 4

_REASONS: Final = ("exit code {} instead of 0", "the ready byte did not come within {} s")
_BEGUN: Final = datetime.datetime(2026, 5, 1, 10, tzinfo=datetime.UTC)
_BEGUN_NS: Final = 1_000_000_000_000
_BETWEEN_NS: Final = 15_000_000

Line = dict[str, Any]


def write_run(folder: Path, rounds: int, seed: int = 1) -> Path:
    """Write a run of so many rounds, three samples each, into the new ``folder`` and return it."""
    manifest = json.loads((RECORDED / MANIFEST_FILE).read_bytes())
    order = plan.order([cell["id"] for cell in manifest["cells"]], rounds, seed)
    manifest |= {"rounds": rounds, "order": order, "seed": seed, "resumed": _INTERRUPTIONS}
    manifest["scenario"] |= {"rounds": rounds, "seed": seed}
    folder.mkdir(parents=True)
    written = Manifest.model_validate(manifest).model_dump_json(indent=1)
    (folder / MANIFEST_FILE).write_text(f"{written}\n", encoding="utf-8")
    with (folder / SAMPLES_FILE).open("w", encoding="utf-8") as out:
        out.writelines(f"{json.dumps(line, separators=(',', ':'))}\n" for line in _lines(order, seed))
    return folder


def _lines(order: tuple[tuple[str, ...], ...], seed: int) -> Iterator[Line]:
    """Yield the samples in the order taken; an interrupted round is measured again, behind another priming round."""
    texts = (RECORDED / SAMPLES_FILE).read_text(encoding="utf-8").splitlines()
    recorded = {json.loads(text)["cell"]: text for text in texts}
    chance = random.Random(seed)
    step = max(1, len(order) // (_INTERRUPTIONS + 1))
    interrupted = {step * number for number in range(1, _INTERRUPTIONS + 1)}
    before, at_ns = None, _BEGUN_NS
    for number, cells in enumerate(order):
        attempts = [(number, cells)]
        if number in interrupted:
            attempts = [(number, cells[:1]), (0, order[0]), (number, cells)]
        for round_number, names in attempts:
            for position, cell in enumerate(names):
                line = json.loads(recorded[cell])
                line |= {"round": round_number, "position": position, "predecessor": before, "requested_ns": at_ns}
                line["started_at"] = _clock(at_ns)
                _vary(line, number / len(order), chance)
                yield line
                before, at_ns = cell, at_ns + _BETWEEN_NS + max(line["stages"].values(), default=0)


def _clock(at_ns: int) -> str:
    return (_BEGUN + datetime.timedelta(microseconds=(at_ns - _BEGUN_NS) // 1000)).isoformat(timespec="milliseconds")


def _vary(line: Line, progress: float, chance: random.Random) -> None:
    """Give a sample numbers of its own; ``progress`` is how far the run had come."""
    factor = chance.lognormvariate(0, 0.08) * _effect(line, progress, chance)
    _vary_noise(line, chance)
    if line["round"] == 0:
        factor *= 5
    if chance.random() < _OUTLIERS:
        factor *= 4
        line["noise"]["psi.cpu.some_share"] += 0.5 * chance.randrange(2)
    _scale(line, factor, coarse_ns=10_000 if line["environment"] == "native" else 1)
    line["applied"]["channel_latency_ns"] = round(chance.lognormvariate(11, 0.3))
    if line["console_tail"]:
        line["console_tail"] = f"[{line['stages']['cleaned'] / 1e9:12.6f}] reboot: Power down\n"
    if chance.random() < _THROTTLED:
        line["flags"]["throttled"] = "yes"
    if chance.random() < _FAILURES:
        _fail(line, chance)


def _effect(line: Line, progress: float, chance: random.Random) -> float:
    """Return what disturbs a cell: native by what ran before, the container by two modes, the guest by drift."""
    if line["environment"] == "native":
        return 1.03 if line["predecessor"] == "vm/startup" else 1.0
    if line["environment"] == "container":
        return 2.5 if chance.random() < 0.4 else 1.0
    return 1 + 0.4 * progress


def _scale(line: Line, factor: float, coarse_ns: int) -> None:
    """Let everything take ``factor`` times as long; ``coarse_ns`` is the resolution, a coarse one makes ties."""
    stages = {name: round(at_ns * factor / coarse_ns) * coarse_ns for name, at_ns in line["stages"].items()}
    line["stages"] = stages
    line["guest"] = {name: round(taken_ns * factor) for name, taken_ns in line["guest"].items()}
    for name, metric in line["metrics"].items():
        at_ns = stages.get(name.rpartition(".")[2])
        metric["value"] = at_ns / 1e9 if at_ns is not None else round(metric["value"] * factor, 9)
    if line["spawn_ns"] is not None:
        line["spawn_ns"] = round(line["metrics"]["startup.spawn"]["value"] * 1e9)
    for counter in line["counters"].values():
        if counter["value"] and counter["unit"] == "s":
            counter["value"] = round(counter["value"] * factor, 6)
        elif counter["value"] and counter["unit"] == "B":
            counter["value"] = float(round(counter["value"] * factor / 4096) * 4096)


def _vary_noise(line: Line, chance: random.Random) -> None:
    line["noise"] |= {
        "load1": round(chance.lognormvariate(0, 0.5), 2),
        "psi.cpu.some_share": chance.betavariate(1, 50),
        "psi.io.some_share": chance.betavariate(1, 200),
        "steal_share": chance.betavariate(1, 500),
    }


def _fail(line: Line, chance: random.Random) -> None:
    number = chance.randrange(1, 20)
    line |= {
        "status": chance.choice(("failed", "invalid")),
        "reason": chance.choice(_REASONS).format(number),
        "exit_code": number,
        "metrics": {},
        "output_tail": f"what it printed before it ended with {number}\n" * number,
    }
