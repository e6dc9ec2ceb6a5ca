"""The picture in the README shows what a terminal would."""

import runpy
from pathlib import Path
from typing import Final

SCRIPT: Final = Path(__file__).parents[1] / "docs" / "make_screenshot.py"


def test_only_the_last_state_of_a_progress_bar_is_shown() -> None:
    """What was overwritten is gone, colours stay."""
    last_screen = runpy.run_path(str(SCRIPT))["last_screen"]
    written = "\x1b[?25lone 1\r\ntwo 1\r\x1b[2K\x1b[1A\x1b[2K\x1b[32mone 2\x1b[0m\r\ntwo 2\r\n\x1b[?25hend\r\n"
    assert last_screen(written) == "\x1b[32mone 2\x1b[0m\ntwo 2\nend"


def test_the_picture_asks_nobody_for_anything() -> None:
    """No font or picture comes from elsewhere."""
    svg = (SCRIPT.parent / "run.svg").read_text(encoding="utf-8")
    assert svg.startswith("<svg") and "benchbox run" in svg.replace("&#160;", " ")
    assert [line for line in svg.splitlines() if "url(http" in line] == []
