"""A run as JSON lines: what is written, and what becomes of it when nobody reads any more."""

import json
import subprocess
import sys
from typing import Any, Final

JOB: Final[dict[str, Any]] = {
    "run_id": "r1", "scenario": {"name": "s"}, "order": [["a", "b"], ["b", "a"]], "first_round": 1,
}  # fmt: skip

PROGRAM: Final = f"""
import sys
from benchbox.events import EventLines
with EventLines(sys.stdout, {JOB!r}) as lines:
    sys.stdin.readline()
    for number in range(3):
        lines.on_event({{"event": "sample", "number": number}})
"""


def test_a_reader_that_has_gone_changes_nothing() -> None:
    """The first line came; the rest is lost, and the program still ends with status 0 and without a word."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin and process.stdout and process.stderr
        first = json.loads(process.stdout.readline())
        process.stdout.close()
        process.stdin.write("go on\n")
        process.stdin.close()
        assert process.stderr.read() == ""
    assert (first["event"], first["cells"], first["rounds"]) == ("run", ["a", "b"], 1)
    assert process.returncode == 0
