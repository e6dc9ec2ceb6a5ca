"""What a terminal can show, and the one way to it: whatever the program prints is written here, harmless.

Colours stand only where they are wanted, letters only where the encoding has them.
"""

import codecs
import io
import os
import shutil
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, TextIO

from benchbox.foreign import plain_lines

if TYPE_CHECKING:
    from _typeshed import SupportsWrite
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

#: What stands for a character that an encoding lacks (a terminal in an old locale, PYTHONIOENCODING=ascii).
_LOOKALIKES: Final = {
    "µ": "u", "×": "x", "–": "-", "−": "-", "—": "-", "’": "'", "“": '"', "”": '"', "…": "...", "→": "->",
    "²": "^2", "⁶": "^6", "─": "-", "│": "|", "━": "-",
}  # fmt: skip
_HANDLER: Final = "benchbox.legible"
_MAX_COLUMNS: Final = 100


def be_legible() -> None:
    """Make standard output and error write a lookalike for what their encoding lacks, instead of failing."""
    codecs.register_error(_HANDLER, _legible)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _legible(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_LOOKALIKES.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


def colourful(stream: TextIO) -> bool:
    """Say whether ``stream`` is a terminal whose user wants colours (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def columns() -> int:
    """Return how wide standard output is, within what can be read well; 80 where it is no terminal."""
    return min(shutil.get_terminal_size().columns, _MAX_COLUMNS) if sys.stdout.isatty() else 80


def say(text: object = "", *, err: bool = False, colour: str = "", end: str = "\n") -> None:
    """Write a statement to standard output, or error; in ``colour`` (an SGR code of ECMA-48) where that is wanted.

    Text of others may be part of it, see ``statement``.
    """
    stream = sys.stderr if err else sys.stdout
    shown = statement(text)
    stream.write(f"\x1b[{colour}m{shown}\x1b[0m{end}" if colour and colourful(stream) else f"{shown}{end}")
    stream.flush()


def statement(text: object) -> str:
    """Return ``text`` harmless, its further lines indented, so that none of others' begins like one of ours."""
    return plain_lines(text).replace("\n", "\n  ")


def show(text: str, *, err: bool = False) -> None:
    """Write ``text``, whose lines are ours, to standard output, or error."""
    write(sys.stderr if err else sys.stdout, f"{text}\n")


def write(stream: TextIO, text: str) -> None:
    """Write ``text`` to ``stream`` at once, without anything that would steer a terminal or reorder what is read."""
    stream.write(plain_lines(text))
    stream.flush()


def output() -> "SupportsWrite[str]":
    """Return where data go: standard output, and where that is a terminal what ``write`` makes of them."""
    return _Written(sys.stdout) if sys.stdout.isatty() else sys.stdout


class _Written:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        write(self._stream, text)


def console(stream: TextIO) -> "Console":
    """Return a rich console on ``stream`` that shows colours and bars of its own, and of texts what ``write`` does."""
    from rich.console import Console
    from rich.segment import Segment

    class Harmless(Console):
        def render(self, renderable: "RenderableType", options: "ConsoleOptions | None" = None) -> "Iterable[Segment]":
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(plain_lines(segment.text), segment.style)

    return Harmless(file=stream)
