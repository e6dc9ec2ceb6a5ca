"""What a terminal can show: colours only where they are wanted, and letters that its encoding has."""

import codecs
import io
import os
import shutil
import sys
from typing import Final, TextIO

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
