"""The report as people and programs read it."""

import json
import re

import pytest

from benchbox.doctor import examine, text
from benchbox.doctor.findings import Report
from tests.doctor.hosts import BROKEN, PERFECT, guests

_COMMAND = re.compile(r"^  > ")


def as_text(report: Report, width: int = 80) -> str:
    return "\n".join(line.text for line in text.as_lines(report, width))


@pytest.mark.parametrize("width", [60, 80, 100])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """But for a word that is, such as the path in a command."""
    for line in as_text(examine(BROKEN), width).splitlines():
        assert len(line) <= width or " " not in line.strip().removeprefix("> "), line


def test_every_fix_is_there_to_be_copied() -> None:
    """At 80 columns a command stands in one line, behind the only mark."""
    report = examine(BROKEN)
    written = as_text(report)
    commands = [item.fix for item in report.findings if item.fix and re.match(r"(echo|sysctl|swapoff|kill) ", item.fix)]
    assert len(commands) >= 8
    assert [command for command in commands if f"\n  > {command}\n" not in written] == []


def test_it_goes_from_the_worst_to_the_verdict() -> None:
    """A heading for each group, a count, and in the last line what can be measured."""
    lines = as_text(examine(BROKEN)).splitlines()
    headings = [line for line in lines if line.isupper() and not line.startswith(" ")]
    assert headings == ["BLOCKERS", "WARNINGS", "WORTH KNOWING", "IN ORDER"]
    assert re.fullmatch(r"\d+ blockers, \d+ warnings", lines[-2])
    assert lines[-1] == "this host can measure: nothing"


def test_findings_of_a_group_are_aligned() -> None:
    """Each is at the same column."""
    report = examine(PERFECT)
    rows = as_text(report).splitlines()[1:-3]
    columns = {len(row) - len(row[2:].lstrip().partition("  ")[2].lstrip()) for row in rows if row[2] != " "}
    assert len(columns) == 1


def test_why_is_said_where_something_is_to_be_done() -> None:
    """What is in order takes a line."""
    written = as_text(examine(PERFECT))
    assert "no blockers, no warnings" in written
    assert len(written.splitlines()) <= len(examine(PERFECT).findings) + 6
    warned = " ".join(as_text(examine(guests(api_version=None))).split())
    assert "QEMU speaks this version of it and no other. > use another host" in warned


def test_the_worst_is_coloured_as_such() -> None:
    """Colours stand beside the text, which has none of its own: the terminal decides on them."""
    lines = list(text.as_lines(examine(BROKEN)))
    assert text.Line("BLOCKERS", "1;31") in lines
    assert not any("\x1b" in line.text for line in lines)


def test_what_others_wrote_cannot_command_the_terminal() -> None:
    """The name of a process and the end of a console have control characters; none is shown."""
    written = as_text(examine(BROKEN))
    assert "cc1 ]0;title (123) 102 %" in written
    assert not [each for each in written if not each.isprintable() and each != "\n"]


def test_a_console_is_cut_but_not_for_programs() -> None:
    """The text refers to JSON for the rest, which has all of it."""
    report = examine(BROKEN)
    assert "... (--json has all of it)" in as_text(report)
    long = {item["id"]: item["found"] for item in text.as_dict(report)["findings"]}["kvm.guest"]
    assert long.count("words") == 200


def test_the_json_says_all_of_it() -> None:
    """Every finding with every field, the verdict, and what was asked."""
    report = examine(PERFECT, ("vm:kvm",))
    data = json.loads(json.dumps(text.as_dict(report, ("vm:kvm",))))
    assert (data["format"], data["blocked"], data["required"]) == (text.FORMAT_VERSION, False, ["vm:kvm"])
    assert data["measurable"] == {"native": None, "container": None, "vm": "KVM"}
    assert data["verdict"] == report.verdict
    assert [set(item) for item in data["findings"]] == [{"id", "title", "severity", "found", "why", "fix"}] * len(
        report.findings
    )
