"""The A/A control by simulation: 200 runs through the real plan, engine, record and summary, with a fake environment.

No clock and no kernel; every run has its own fixed seed.
"""

import math
import random
from collections.abc import Callable

from benchbox import plan
from benchbox.analysis.summary import Summary, summarise
from benchbox.analysis.verdicts import ALPHA
from benchbox.caches import Seen
from benchbox.engine import Engine, PlannedCell
from benchbox.model import Command, Outcome, Running
from benchbox.record import Sample
from benchbox.scenario import Scenario, cells, loads, resolved
from benchbox.together import Sight
from tests.played import PlayedSession
from tests.report.records import environment, manifest

RUNS = 200
TEXT = "name: aa\ncontrol: true\nrounds: 20\nenvironments: [native]\nworkloads: [startup]\n"


class FakeRunning:
    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome

    def ready(self) -> bool:
        return True

    def wait(self) -> Outcome:
        return self._outcome

    def kill(self) -> None:
        raise AssertionError("nothing is to be killed")


class FakeHost:
    """A host with the noise of a real one: skewed, with a slow wave over the run and a bad sample now and then."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now_ns = 0

    def start_ns(self, factor: float) -> int:
        wave = 1 + 0.1 * math.sin(self.now_ns / 3e9)
        spike = self.chance.uniform(1.5, 4) if self.chance.random() < 0.03 else 1
        return round(1e6 * factor * wave * spike * self.chance.lognormvariate(0, 0.08))


class FakeSession(PlayedSession):
    def __init__(self, host: FakeHost, factor: float) -> None:
        self._host, self._factor = host, factor

    def start(self, command: Command) -> Running:
        requested_ns, took_ns = self._host.now_ns, self._host.start_ns(self._factor)
        self._host.now_ns += took_ns + 50_000_000
        stages = {"exec": requested_ns + took_ns // 2, "ready": requested_ns + took_ns}
        return FakeRunning(Outcome("ok", exit_code=0, requested_ns=requested_ns, stages=stages))


class Quiet:
    def settle(self) -> None: ...

    def cache(self, environment: str) -> Callable[[], Seen]:
        return Seen

    def noise(self) -> Callable[[], dict[str, float]]:
        return dict

    def occupancy(self) -> Callable[[], Sight]:
        return Sight


class Memory:
    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def append(self, sample: Sample) -> None:
        self.samples.append(sample)

    def sync(self) -> None: ...


def measured(seed: int, control_factor: float = 1.0) -> Summary:
    """Return the summary of one run whose control takes ``control_factor`` times as long as its baseline."""
    scenario: Scenario = loads(TEXT, "aa")
    host, sink = FakeHost(seed), Memory()
    planned = [
        PlannedCell(c.id, c.environment, c.workload, c.params, Command(("x",)), lambda o: ()) for c in cells(scenario)
    ]
    order = plan.order([cell.id for cell in planned], scenario.rounds, seed)
    sessions = {"native": FakeSession(host, 1.0), "native-control": FakeSession(host, control_factor)}
    assert Engine(planned, order, sessions, Quiet(), sink, lambda event: None).run() == "done"
    labels = [spec.label for spec in scenario.environments]
    records = [environment(label, kind="native") for label in labels]
    run = manifest(labels, scenario.rounds, records=records, scenario=resolved(scenario))
    return summarise(run, sink.samples)


def upper_bound(runs: int, alpha: float, probability: float) -> int:
    """Return the smallest k with P(B(runs, alpha) > k) <= probability."""
    tail, k = 1.0, -1
    while tail > probability:
        k += 1
        tail -= math.comb(runs, k) * alpha**k * (1 - alpha) ** (runs - k)
    return k


def test_the_control_fires_at_its_alpha_and_not_above() -> None:
    """Of 200 runs in which baseline and control are the same, about 1 in 20 is called untrusted.

    A control that fires with 5 % fires in more than 21 of 200 runs with a probability below 0.1 % (binomial), and in
    fewer than 2 with one of 0.04 %: so many would show a wrong interval, so few one that never fires.
    """
    assert upper_bound(RUNS, ALPHA, 0.001) == 21
    untrusted = sum(measured(seed).trusted is False for seed in range(RUNS))
    assert 2 <= untrusted <= 21


def test_the_control_fires_when_the_baseline_really_differs_from_itself() -> None:
    """A control that is a third slower: an interval that is right on 200 good runs must not be blind."""
    assert sum(measured(seed, 1.35).trusted is False for seed in range(40)) >= 36


def test_a_real_effect_above_the_smallest_one_is_seen_and_one_below_is_not_claimed() -> None:
    """What the summary says could have been shown is of the size of the noise that was put in."""
    effects = [measured(seed).control for seed in range(20)]
    shown = sorted(each.smallest_effect for each in effects if each and each.smallest_effect is not None)
    assert len(shown) == 20
    assert 0.03 < shown[10] < 0.3
