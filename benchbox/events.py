"""A run as JSON lines, for programs that watch it (docs/cli.md describes each event)."""

import contextlib
import json
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self, TextIO

from benchbox import terminal

#: The events of a run in the order in which they come; ``sample`` and ``abandoned`` as often as there are any.
EVENTS: Final = ("run", "prepare", "environment", "start", "sample", "abandoned", "end", "result")


class EventLines:
    """Writes each event of a run to ``stream`` at once, one JSON object a line; a stand-in for ``Progress``.

    A reader that has gone does not end the run: what it measures is wanted all the same.
    """

    def __init__(self, stream: TextIO, job: Mapping[str, Any]) -> None:
        self._stream: TextIO | None = stream
        self._job = job

    def __enter__(self) -> Self:
        cells = sorted({cell for names in self._job["order"] for cell in names})
        rounds = len(self._job["order"]) - 1
        first = {"run_id": self._job["run_id"], "scenario": self._job["scenario"]["name"], "rounds": rounds}
        self.on_event({"event": "run", **first, "first_round": self._job["first_round"], "cells": cells})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Write ``event``."""
        stream = self._stream
        if stream is None:
            return
        try:
            terminal.write(stream, json.dumps(event) + "\n")
        except BrokenPipeError:
            self._stream = None
            _forget(stream)


def _forget(stream: TextIO) -> None:
    """Let what ``stream`` still holds go nowhere: Python flushes it at its end, and would exit with 120."""
    with contextlib.suppress(OSError):  # a stream without a descriptor holds nothing back
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
