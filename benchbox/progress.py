"""Shows a run while it goes: bars with medians and an ETA on a terminal, plain lines elsewhere."""

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from benchbox import terminal
from benchbox.foreign import plain
from benchbox.plan import eta_s, remaining
from benchbox.units import format_duration

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

#: What a sample costs beside its stages (settling, the record), for the ETA.
_BETWEEN_S = 0.015


class _RunningMedian:
    """The median of all values so far: each costs the logarithm of their number, where sorting anew costs all of them.

    The lower half is a heap with its signs turned, the upper half a heap; the lower one has the odd value.
    """

    def __init__(self) -> None:
        self._lower: list[float] = []
        self._upper: list[float] = []

    def __bool__(self) -> bool:
        return bool(self._lower)

    def add(self, value: float) -> None:
        heapq.heappush(self._upper, -heapq.heappushpop(self._lower, -value))
        if len(self._upper) > len(self._lower):
            heapq.heappush(self._lower, -heapq.heappop(self._upper))

    def value(self) -> float:
        """Return what ``statistics.median`` does. Raises IndexError without values."""
        low = -self._lower[0]
        return low if len(self._lower) > len(self._upper) else (low + self._upper[0]) / 2


class Tally:
    """What is done and what is left, for medians and the ETA. Pure: fed with events, asked for numbers."""

    def __init__(self, order: Sequence[Sequence[str]], first_round: int) -> None:
        self.left = remaining([*order[:1], *order[first_round:]], 0)
        self.total = dict(self.left)
        self._medians = {cell: _RunningMedian() for cell in self.left}
        self._units: dict[str, str] = {}
        self._elapsed_s: dict[str, list[float]] = {cell: [] for cell in self.left}
        self._failed = dict.fromkeys(self.left, 0)

    def keep_only(self, environments: Sequence[str]) -> None:
        """Forget the cells of environments that are not measured."""
        for cell in [name for name in self.left if name.partition("/")[0] not in environments]:
            self.drop(cell)

    def drop(self, cell: str) -> None:
        self.left.pop(cell, None)

    def note(self, event: Mapping[str, Any]) -> None:
        cell = event["cell"]
        self.left[cell] = max(0, self.left.get(cell, 0) - 1)
        self._elapsed_s[cell].append(event["elapsed_s"] + _BETWEEN_S)
        if event["status"] != "ok":
            self._failed[cell] += 1
        elif event.get("headline") is not None and event["round"] > 0:
            self._medians[cell].add(event["headline"]["value"])
            self._units[cell] = event["headline"]["unit"]

    def median_text(self, cell: str) -> str:
        """Return the median of what the cell is about, and how many samples failed; nothing while there is neither."""
        from benchbox.report.words import format_value

        median, failed = self._medians[cell], self._failed[cell]
        texts = [f"median {format_value(median.value(), self._units[cell])}"] if median else []
        return ", ".join([*texts, *([f"{failed} failed"] if failed else [])])

    def left_text(self) -> str:
        seconds = eta_s(self._elapsed_s, self.left)
        if seconds is None:
            return ""
        # No tenths: it is a guess.
        return f"{format_duration(seconds) if seconds > 120 else f'{math.ceil(seconds)} s'} left"


class Progress:
    """Takes the events of a run and shows them on ``stream``."""

    def __init__(self, stream: TextIO, job: Mapping[str, Any], *, quiet: bool = False) -> None:
        self._stream, self._quiet = stream, quiet
        self._job = job
        self._tally = Tally(job["order"], job["first_round"])
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last_round = -1
        self._handlers: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "prepare": self._on_prepare,
            "environment": self._on_environment,
            "start": self._on_start,
            "sample": self._on_sample,
            "abandoned": self._on_abandoned,
        }

    def __enter__(self) -> Self:
        if not self._quiet and self._stream.isatty():
            self._bars = _bars(self._stream)
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Show ``event``; kinds that need no showing are passed over."""
        handler = self._handlers.get(event["event"])
        if handler and not self._quiet:
            handler(event)

    def _say(self, text: str) -> None:
        shown = terminal.statement(text)
        if self._bars:
            self._bars.console.print(shown, markup=False, highlight=False)
        else:
            terminal.write(self._stream, f"{shown}\n")

    def _on_prepare(self, event: Mapping[str, Any]) -> None:
        self._say(f"preparing {event['what']}")

    def _on_environment(self, event: Mapping[str, Any]) -> None:
        if event["state"] == "measured":
            accelerator = event["applied"].get("accelerator")
            if accelerator:
                self._say(f"{event['label']}: accelerator {accelerator}")
            return
        self._say(f"{event['label']}: {event['state']}: {plain(event['reason'])}")
        if event["fix"]:
            self._say(f"  next: {plain(event['fix'])}")

    def _on_start(self, event: Mapping[str, Any]) -> None:
        self._tally.keep_only(event["measured"])
        self._say(f"run {self._job['run_id']}: {_rounds(len(self._job['order']) - 1)}, and one to prime")
        if self._bars:
            for cell in self._tally.left:
                total = self._tally.total[cell]
                self._tasks[cell] = self._bars.add_task(cell, total=total, median="")
            self._tasks[""] = self._bars.add_task("all", total=sum(self._tally.left.values()), median="")

    def _on_sample(self, event: Mapping[str, Any]) -> None:
        self._tally.note(event)
        if event["status"] != "ok":
            self._say(f"round {event['round']}: {event['cell']} {event['status']}: {plain(event['reason'])}")
        if self._bars:
            self._advance(event["cell"])
        elif event["round"] != self._last_round:
            self._last_round = event["round"]
            self._say(self._line(event["round"]))

    def _advance(self, cell: str) -> None:
        assert self._bars
        self._bars.update(self._tasks[cell], advance=1, median=self._tally.median_text(cell))
        self._bars.update(self._tasks[""], advance=1, median=self._tally.left_text())

    def _on_abandoned(self, event: Mapping[str, Any]) -> None:
        self._tally.drop(event["cell"])
        self._say(f"{event['cell']}: abandoned after failing in the same way: {plain(event['reason'])}")

    def _line(self, number: int) -> str:
        if not number:
            return "priming round"
        medians = "; ".join(f"{cell} {self._tally.median_text(cell)}".rstrip() for cell in self._tally.left)
        return f"round {number} of {len(self._job['order']) - 1}, {self._tally.left_text()}: {medians}"


def _rounds(count: int) -> str:
    return "1 round" if count == 1 else f"{count} rounds"


def _bars(stream: TextIO) -> "Bars":
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[median]}"),
    )
    # Four times a second: the display shares the harness's CPUs, and must not be a load of its own.
    return Bars(*columns, console=terminal.console(stream), refresh_per_second=4)
