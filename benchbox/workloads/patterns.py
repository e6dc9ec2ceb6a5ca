"""Metrics that a scenario describes itself: a pattern into a command's output, its unit and its direction.

Pattern and output are someone else's. The output is bounded (its last 64 KiB), and so is the time: a search that
takes longer than TIME_LIMIT_S is ended by an alarm, which Python's ``re`` looks for while it backtracks.
"""

import contextlib
import itertools
import math
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from benchbox.model import Metric
from benchbox.units import BASE_UNITS, to_base
from benchbox.workloads.steady import steady_metric

TIME_LIMIT_S: Final = 1.0
MAX_PATTERN: Final = 500
MAX_METRICS: Final = 20
_MAX_MATCHES: Final = 1000
#: Nothing that is measured is outside of it, and ratios of what is inside stay finite.
_LEAST, _MOST = 1e-18, 1e18
_SHOWN: Final = 40
_TAIL_BYTES: Final = 300
_NAME: Final = r"[a-z][a-z0-9_]{0,39}"


def _compiled(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text, re.MULTILINE)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"expected a regular expression ({error})") from error


def _pattern(text: str) -> str:
    if _compiled(text).groups != 1:
        raise ValueError("expected a regular expression with one group, the number: such as 'rate=([0-9.]+)'")
    return text


def _check(text: str) -> str:
    _compiled(text)
    return text


def _unit(value: Any) -> Any:
    if value not in BASE_UNITS:
        raise ValueError(f"expected one of {', '.join(BASE_UNITS)}")
    return value


_Text = Annotated[str, Field(min_length=1, max_length=MAX_PATTERN)]


class PatternMetric(BaseModel):
    """One metric: ``pattern`` has one group, the number, in ``unit``. ``check`` has to be found as well."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=f"^{_NAME}$", description="its name in results, after the workload's")]
    pattern: Annotated[_Text, AfterValidator(_pattern)]
    unit: Annotated[str, BeforeValidator(_unit), WithJsonSchema({"enum": list(BASE_UNITS)})] = "1"
    direction: Literal["lower", "higher"] = "lower"
    check: Annotated[_Text, AfterValidator(_check)] | None = None


def read(workload: str, metrics: Sequence[PatternMetric], output: bytes) -> tuple[Metric, ...]:
    """Return the metrics found in ``output``, called ``<workload>.<name>``; several matches are iterations.

    Raises ValueError, with the metric's name and the end of the output, where a pattern or a check is not found, is no
    number above zero, or takes too long.
    """
    text = output.decode(errors="replace")
    found = []
    for metric in metrics:
        try:
            found.append(_read_one(workload, metric, text))
        except ValueError as error:
            raise ValueError(f"metric {metric.name}: {error}; the output ends with {output[-_TAIL_BYTES:]!r}") from None
    return tuple(found)


def _read_one(workload: str, metric: PatternMetric, text: str) -> Metric:
    with _time_limit(TIME_LIMIT_S):
        if metric.check and not _compiled(metric.check).search(text):
            raise ValueError(f"its check {metric.check!r} is not found")
        found = itertools.islice(_compiled(metric.pattern).finditer(text), _MAX_MATCHES + 1)
        matches = [match[1] for match in found]
    if not matches:
        raise ValueError(f"its pattern {metric.pattern!r} matches nothing")
    if len(matches) > _MAX_MATCHES:
        raise ValueError(f"its pattern matches more than {_MAX_MATCHES} times")
    values = [to_base(_number(match), metric.unit) for match in matches]
    name, unit = f"{workload}.{metric.name}", BASE_UNITS[metric.unit][0]
    return Metric(name, values[0], unit, metric.direction) if len(values) == 1 else steady_metric(
        name, values, unit, metric.direction
    )  # fmt: skip


def _number(text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not value > 0:
        raise ValueError(f"expected a number above zero, found {(text or '')[:_SHOWN]!r}")
    if not _LEAST <= value <= _MOST:
        raise ValueError(f"expected a number from {_LEAST:g} to {_MOST:g}, found {(text or '')[:_SHOWN]!r}")
    return value


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise ValueError in the body when ``seconds`` are over. Only in the main thread: others cannot be interrupted."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("patterns are searched in the main thread only")

    def expired(*_: object) -> None:
        raise ValueError(f"the search took longer than {seconds:g} s: the pattern backtracks too much")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
