"""Metrics that a scenario describes itself, on whatever a command may print."""

import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchbox.model import Metric, Outcome
from benchbox.units import BASE_UNITS
from benchbox.workloads import patterns
from benchbox.workloads.command import WORKLOAD, Params
from benchbox.workloads.patterns import PatternMetric

OUTPUT = b"warming up\nrate: 512.5 MiB/s\nlatency 120us\nresult ok\n"
RATE = {"name": "rate", "pattern": r"^rate: ([0-9.]+) MiB/s$", "unit": "MiB/s", "direction": "higher"}


def read(output: bytes, *metrics: dict[str, Any]) -> tuple[Metric, ...]:
    params = {"argv": ["/bin/x"], "metrics": list(metrics)}
    return WORKLOAD.parse(Outcome("ok", output_tail=output), params)


def test_a_metric_is_found_and_converted_to_its_base_unit() -> None:
    """In the order of the scenario, each after the name of the workload."""
    latency = {"name": "latency", "pattern": r"latency (\d+)us", "unit": "us", "check": "^result ok$"}
    first, second = read(OUTPUT, RATE, latency)
    assert first == Metric("command.rate", 512.5 * 2**20, "B/s", "higher")
    assert (second.name, second.unit, second.direction) == ("command.latency", "s", "lower")
    assert second.value == pytest.approx(120e-6)


def test_several_matches_are_iterations() -> None:
    """All are kept, the warm-up is marked and the median of the rest counts."""
    output = b"".join(b"pass %d ms\n" % value for value in (900, 400, *[100] * 20))
    (found,) = read(output, {"name": "pass", "pattern": r"pass (\d+) ms", "unit": "ms"})
    assert (found.value, found.warm_up, len(found.iterations)) == (0.1, 2, 22)


@pytest.mark.parametrize(
    ("output", "metric", "complaint"),
    [
        (
            OUTPUT,
            {"name": "m", "pattern": "speed=([0-9]+)"},
            r"metric m: its pattern 'speed=\(\[0-9\]\+\)' matches nothing",
        ),
        (b"", RATE, "matches nothing; the output ends with b''"),
        (OUTPUT, {**RATE, "check": "result bad"}, "metric rate: its check 'result bad' is not found"),
        (OUTPUT, {"name": "m", "pattern": "result ([a-z]+)"}, "expected a number above zero, found 'ok'"),
        (b"x=nan x=1", {"name": "m", "pattern": "x=([a-z0-9]+)"}, "expected a number above zero, found 'nan'"),
        (b"x=inf", {"name": "m", "pattern": "x=(.+)"}, "found 'inf'"),
        (b"x=1e999", {"name": "m", "pattern": "x=(.+)"}, "found '1e999'"),
        (b"x=1e300", {"name": "m", "pattern": "x=(.+)"}, r"expected a number from 1e-18 to 1e\+18, found '1e300'"),
        (b"x=1e-300", {"name": "m", "pattern": "x=(.+)"}, r"expected a number from 1e-18 to 1e\+18, found '1e-300'"),
        (
            b"x=" + b"9" * 5000,
            {"name": "m", "pattern": "x=(.+)"},
            "to 1e.18, found '9{40}'",
        ),
        (b"a" * 60_000, {"name": "m", "pattern": "(?=(.*))"}, "matches more than 1000 times"),
        (b"x=0", {"name": "m", "pattern": "x=(.+)"}, "found '0'"),
        (b"x=-3", {"name": "m", "pattern": "x=(.+)"}, "found '-3'"),
        (b"x=1,234.5", {"name": "m", "pattern": "x=(.+)"}, "found '1,234.5'"),
        (b"x", {"name": "m", "pattern": "x(=.+)?"}, "found ''"),
        (b"1 " * 2000, {"name": "m", "pattern": "([0-9])"}, "matches more than 1000 times"),
        (b"\xff\xfe\x1b[31m" * 9, RATE, r"the output ends with b'\\xff\\xfe\\x1b"),
    ],
)
def test_nonsense_names_the_metric_and_shows_the_end_of_the_output(
    output: bytes, metric: dict[str, Any], complaint: str
) -> None:
    """Harmless on a terminal, and short."""
    with pytest.raises(ValueError, match=complaint) as caught:
        read(output, metric)
    assert "\x1b" not in str(caught.value) and len(str(caught.value)) < 2000


@given(st.binary(max_size=500))
def test_no_output_does_more_than_that(output: bytes) -> None:
    """A number is found, or a ValueError says why not."""
    try:
        found = read(output, {"name": "m", "pattern": "([0-9.e+-]+)"})
    except ValueError:
        return
    assert found[0].value > 0


def test_a_pattern_that_backtracks_without_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the limit, with its name; a later search is not disturbed."""
    monkeypatch.setattr(patterns, "TIME_LIMIT_S", 0.2)
    began = time.monotonic()
    with pytest.raises(
        ValueError, match=r"metric m: the search took longer than 0\.2 s: the pattern backtracks too much"
    ):
        read(b"a" * 60_000, {"name": "m", "pattern": "(a+a+)+b"})
    assert time.monotonic() - began < 20
    time.sleep(0.25)
    assert read(OUTPUT, RATE)[0].value > 0


def test_another_thread_cannot_search() -> None:
    """There an alarm would not be heard: said, not risked."""
    caught: list[str] = []

    def search() -> None:
        try:
            read(OUTPUT, RATE)
        except RuntimeError as error:
            caught.append(str(error))

    thread = threading.Thread(target=search)
    thread.start()
    thread.join()
    assert caught == ["patterns are searched in the main thread only"]


@pytest.mark.parametrize(
    "changed",
    [
        {"pattern": "rate=[0-9]+"},
        {"pattern": "(a)(b)"},
        {"pattern": "(unclosed"},
        {"pattern": "(a{99999999999999999999})"},
        {"pattern": "(" * 200 + ")" * 200},
        {"pattern": ""},
        {"pattern": "(x)" + "y" * 600},
        {"name": "Rate"},
        {"name": "a.b"},
        {"name": ""},
        {"unit": "furlongs"},
        {"direction": "sideways"},
        {"check": "[z-a]"},
        {"colour": "red"},
    ],
)
def test_what_is_no_metric_is_refused_before_anything_starts(changed: dict[str, str]) -> None:
    """One group, a known unit, a name that a table can show."""
    with pytest.raises(ValueError):
        PatternMetric.model_validate(RATE | changed)


def test_a_command_with_metrics_signals_nothing_unless_it_is_said_to() -> None:
    """And two metrics are not called the same; none at all is no list."""
    words = {"argv": ["/bin/x"]}
    assert Params.model_validate(words).signals_ready
    assert not Params.model_validate({**words, "metrics": [RATE]}).signals_ready
    assert Params.model_validate({**words, "metrics": [RATE], "signals_ready": True}).signals_ready
    with pytest.raises(ValueError, match="two metrics are called rate"):
        Params.model_validate({**words, "metrics": [RATE, RATE]})
    with pytest.raises(ValueError):
        Params.model_validate({**words, "metrics": []})
    assert WORKLOAD.parse(Outcome("ok", output_tail=OUTPUT), words) == ()


def test_every_unit_has_a_base_unit_that_is_its_own() -> None:
    """The five of the record, and no chain."""
    for base, factor in BASE_UNITS.values():
        assert base in {"s", "B", "B/s", "1/s", "1"} and factor > 0
        assert BASE_UNITS[base] == (base, 1.0)
