"""Any command of the image, for trying things out and for tests that sabotage a sample."""

import shlex
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

from benchbox.model import Command, Metric, Outcome


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


class Params(BaseModel):
    """``argv`` is a list of words, kept in records as one text in shell quoting."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    argv: Annotated[str, BeforeValidator(_as_shell_words), WithJsonSchema(_ARGV_SCHEMA)]
    signals_ready: bool = True


class AnyCommand:
    """A command, measured by its stages only."""

    def command(self, params: Mapping[str, Any]) -> Command:
        """Return the command of ``params``; raises ValueError (pydantic's) for what ``Params`` refuses."""
        checked = Params.model_validate(params)
        return Command(tuple(shlex.split(checked.argv)), signals_ready=checked.signals_ready)

    def parse(self, outcome: Outcome) -> tuple[Metric, ...]:
        """Return nothing: see ``stages.stage_metrics``."""
        return ()


WORKLOAD: Final = AnyCommand()
