"""Makes docs/run.svg: a real run in a terminal of its own, as it looks when it has ended.

    sudo python docs/make_screenshot.py [ARGUMENTS OF benchbox...]

By default it measures scenarios/startup.yaml with 12 rounds. Nothing is drawn by hand: the program runs in a pty, what
it writes goes through a terminal just good enough for it, and rich turns the rest into an SVG without foreign fonts.
"""

import fcntl
import io
import os
import pty
import re
import struct
import sys
import tempfile
import termios
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

PROJECT: Final = Path(__file__).parents[1]
TARGET: Final = PROJECT / "docs" / "run.svg"
COLUMNS: Final = 92
DEFAULT: Final = ("run", "scenarios/startup.yaml", "--rounds", "12")
#: What moves the cursor or clears a line; colours stay in the text.
_CONTROL: Final = re.compile(r"\r|\n|\x1b\[(\d*)([AK])|\x1b\[\?25[lh]")
_FOREIGN_FONTS: Final = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def in_terminal(words: list[str]) -> str:
    """Run ``words`` in a pty and return all that it wrote."""
    child, descriptor = pty.fork()
    if child == 0:
        os.environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": str(COLUMNS), "LINES": "40"}
        os.environ.pop("NO_COLOR", None)
        os.execvp(words[0], words)
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    written = bytearray()
    while chunk := _read(descriptor):
        written += chunk
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        sys.exit(f"{' '.join(words)} ended with {status}:\n{written.decode(errors='replace')}")
    return written.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # EIO: the other end of the pty is closed
        return b""


def last_screen(written: str) -> str:
    """Return what stands on the screen at the end, colours included, of a program that clears whole lines only."""
    lines, row, at = [""], 0, 0
    for control in [*_CONTROL.finditer(written), None]:
        lines[row] += written[at : control.start() if control else None]
        if control is None:
            break
        at = control.end()
        if control[0] == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif control[2] == "A":
            row = max(0, row - int(control[1] or 1))
        elif control[2] == "K":
            lines[row] = ""
    return "\n".join(line.rstrip() for line in lines).rstrip()


def as_svg(prompt: str, screen: str) -> str:
    """Return the picture of a terminal in which ``prompt`` was typed and ``screen`` came of it."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.assemble(("$ ", "green"), (prompt, "bold")))
    console.print(Text.from_ansi(screen))
    return _FOREIGN_FONTS.sub("", console.export_svg(title="benchbox", theme=MONOKAI))


def main(words: list[str]) -> None:
    os.chdir(PROJECT)
    with tempfile.TemporaryDirectory() as folder:
        folders = ["--results", f"{folder}/results", "--reports", f"{folder}/reports"]
        screen = last_screen(in_terminal([sys.executable, "-m", "benchbox.cli", *words, *folders]))
    screen = screen.replace(f"{folder}/", "")
    TARGET.write_text(as_svg(f"benchbox {' '.join(words)}", screen), encoding="utf-8")
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:] or list(DEFAULT))
