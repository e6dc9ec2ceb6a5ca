"""Any command of the image; its metrics are what the scenario says, see ``patterns``."""

import shlex
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from benchbox.model import Command, Metric, Outcome
from benchbox.workloads import patterns
from benchbox.workloads.patterns import MAX_METRICS, PatternMetric


def _as_shell_words(value: Any) -> str:
    words = value if isinstance(value, list) else _split(value)
    if not words or not all(isinstance(word, str) and "\0" not in word for word in words):
        raise ValueError("expected a list of words, the first a program in the image")
    if not words[0].startswith("/"):
        raise ValueError("expected a program with its full path in the image, such as /bin/busybox")
    return shlex.join(words)


def _split(value: Any) -> list[str]:
    try:
        return shlex.split(value) if isinstance(value, str) else []
    except ValueError as error:
        raise ValueError(f"expected words as a shell reads them ({error})") from error


_ARGV_SCHEMA: Final = {"anyOf": [{"type": "array", "items": {"type": "string"}, "minItems": 1}, {"type": "string"}]}


def _named_once(metrics: list[PatternMetric]) -> list[PatternMetric]:
    names = [metric.name for metric in metrics]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two metrics are called {twice}; expected each name once")
    return metrics


class Params(BaseModel):
    """``argv`` is a list of words, kept in records as one text in shell quoting; ``metrics`` are read from its output.

    A command with metrics does not signal that it is ready unless it is said to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    argv: Annotated[str, BeforeValidator(_as_shell_words), WithJsonSchema(_ARGV_SCHEMA)]
    signals_ready: bool = True
    metrics: (
        Annotated[list[PatternMetric], Field(min_length=1, max_length=MAX_METRICS), AfterValidator(_named_once)] | None
    ) = None

    @model_validator(mode="before")
    @classmethod
    def _ready_or_measured(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("metrics") and "signals_ready" not in value:
            return {**value, "signals_ready": False}
        return value


class AnyCommand:
    """A command, measured by its stages and by what it prints."""

    def command(self, params: Mapping[str, Any]) -> Command:
        """Return the command of ``params``; raises ValueError (pydantic's) for what ``Params`` refuses."""
        checked = Params.model_validate(params)
        return Command(tuple(shlex.split(checked.argv)), signals_ready=checked.signals_ready)

    def parse(self, outcome: Outcome, params: Mapping[str, Any]) -> tuple[Metric, ...]:
        """Return the metrics of ``params``. Raises ValueError where one of them is not in the output."""
        return patterns.read("command", Params.model_validate(params).metrics or (), outcome.output_tail)


WORKLOAD: Final = AnyCommand()
