"""What arrives on a guest's sockets, as state that grows with each piece of data. No I/O: tested on recorded bytes."""

from dataclasses import dataclass, field
from typing import Final

from benchbox.model import OUTPUT_TAIL_BYTES
from benchbox.virt import frames
from benchbox.virt.frames import Decoder, Frame

#: The first byte that the agent writes; no kernel message contains it.
AGENT_BYTE: Final = b"\1"

_PANIC: Final = b"Kernel panic - not syncing"
_AGENT_LINE: Final = "benchbox agent: "


@dataclass
class Tail:
    """The end of a stream of any length, and how long it was."""

    limit_bytes: int = OUTPUT_TAIL_BYTES
    kept: bytes = b""
    total_bytes: int = 0

    def feed(self, data: bytes) -> None:
        """Add ``data`` to the stream."""
        self.total_bytes += len(data)
        self.kept = (self.kept + data)[-self.limit_bytes :]


@dataclass
class Console:
    """The serial line: kernel messages, the agent's first byte, the agent's last words."""

    tail: Tail = field(default_factory=Tail)
    agent_seen: bool = False
    panicked: bool = False

    def feed(self, data: bytes) -> None:
        """Add ``data``; ``agent_seen`` and ``panicked`` say afterwards what has been on the line."""
        self.tail.feed(data)
        self.agent_seen = self.agent_seen or AGENT_BYTE in data
        if not self.panicked:
            # A message may arrive one byte at a time: look at the new bytes and what they may continue.
            self.panicked = _PANIC in self.tail.kept[-(len(data) + len(_PANIC)) :]

    def text(self) -> str:
        """Return the end of the console as text."""
        return self.tail.kept.replace(AGENT_BYTE, b"").decode(errors="replace").replace("\r\n", "\n")

    def complaint(self) -> str | None:
        """Return the line in which the kernel or the agent says why it gave up, None if there is none."""
        for line in self.text().splitlines():
            if _PANIC.decode() in line:
                return f"the guest's kernel panicked: {line[line.index(_PANIC.decode()) :]}"
            if line.startswith(_AGENT_LINE):
                return f"the guest's agent gave up: {line.removeprefix(_AGENT_LINE)}"
        return None


@dataclass
class Control:
    """The agent's frames: how far the command is and what came of it.

    ``ended`` and ``facts`` are the fields of the frames of the command's end and of the output's end.
    """

    decoder: Decoder = field(default_factory=Decoder)
    executed: bool = False
    failure: str | None = None
    ended: dict[str, int] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    pongs: int = 0

    def feed(self, data: bytes) -> None:
        """Add ``data``. Raises EnvironmentFailure for what is not the agent's protocol."""
        for frame in self.decoder.feed(data):
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        if frame.kind == frames.EXECUTED:
            self.executed = True
        elif frame.kind == frames.ENDED:
            self.ended = frames.parse_numbers(frame.payload)
        elif frame.kind == frames.OUTPUT_ENDED:
            self.facts = frames.parse_facts(frame.payload)
        elif frame.kind == frames.FAILED:
            self.failure = frame.payload.decode(errors="replace") or "no reason given"
        elif frame.kind == frames.PONG:
            self.pongs += 1

    def output_bytes(self) -> int | None:
        """Return how many bytes of output the agent has sent, None before the end of the output."""
        return frames.count(self.facts, "output_bytes")
