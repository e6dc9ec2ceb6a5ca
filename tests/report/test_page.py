"""The page is true to the record, complete in itself, and foreign text in it is text."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from benchbox.analysis.summary import summarise
from benchbox.errors import RecordError
from benchbox.record import AbandonedCell, Sample
from benchbox.report.page import render_page, write_page
from tests.report.records import COUNTERS, EVIL, environment, evil_run, failed, manifest, sample, samples, write_run


class Page(HTMLParser):
    """What a browser would make of a page: elements with their attributes, texts of scripts, visible text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside: str | None = None
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else None
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside is None:
            self.text += data

    def embedded(self, ident: str) -> Any:
        scripts = [attributes for tag, attributes in self.elements if tag == "script"]
        position = next(n for n, attributes in enumerate(scripts) if attributes.get("id") == ident)
        return json.loads(self.scripts[position])


def test_every_number_in_the_table_is_the_summarys_to_the_last_digit() -> None:
    """data-value holds the exact value in the base unit; the page and the terminal cannot differ."""
    taken = samples()
    page = Page(render_page(manifest(), taken))
    summary = summarise(manifest(), taken)
    shown = _numbers(page)
    for row in summary.tables[0].rows:
        found = shown[row.cell]
        assert row.interval is not None
        assert found["ok"] == row.ok and found["attempted"] == row.attempted
        assert found["median"] == row.median and found["minimum"] == row.minimum and found["p90"] == row.p90
        assert found["interval"] == row.interval.low
        if row.ratio is not None:
            assert found["ratio"] == row.ratio.estimate and found["ratio-interval"] == row.ratio.low
    assert page.embedded("summary") == json.loads(json.dumps(summary.as_json()))


def _numbers(page: Page) -> dict[str, dict[str, float]]:
    """Return per cell what the main table's fields hold."""
    rows: dict[str, dict[str, float]] = {}
    for tag, attributes in page.elements:
        if tag == "tr" and (cell := attributes.get("data-cell")):
            rows[cell] = {}
        if field := attributes.get("data-field"):
            rows[list(rows)[-1]][field] = float(attributes["data-value"] or "nan")
    return rows


def test_stage_medians_are_in_the_page_to_the_last_digit() -> None:
    """The waterfall's numbers can be read without the figure."""
    taken = samples()
    page = Page(render_page(manifest(), taken))
    shown = {float(a["data-value"] or 0) for tag, a in page.elements if tag == "td" and a.get("data-cell")}
    medians = {stage.median_s for row in summarise(manifest(), taken).tables[0].rows for stage in row.stages}
    assert shown == medians


def test_the_account_is_on_the_page_with_its_sources_and_gaps() -> None:
    """What the kernel counted, where it was read, and why a number is missing."""
    page = Page(render_page(manifest(), samples()))
    assert {a["data-counter"] for _, a in page.elements if "data-counter" in a} == set(COUNTERS)
    flat = " ".join(page.text.split())
    assert "memory.peak 256 KiB 256 KiB 256 KiB cgroup1 memory.max_usage_in_bytes" in flat
    assert "io.write – – – cgroup v1 does not attribute buffered write-back" in flat


def test_the_page_asks_for_nothing_from_anywhere() -> None:
    """No element refers to anything outside of the file, and the policy forbids it."""
    page = Page(render_page(manifest(), samples()))
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
    policy = next(a["content"] for t, a in page.elements if t == "meta" and a.get("http-equiv")) or ""
    assert policy.startswith("default-src 'none';")
    style = re.search(r"<style>(.*?)</style>", render_page(manifest(), samples()), re.DOTALL)
    assert style is not None and "url(" not in style[1] and "@import" not in style[1]


def test_only_the_pages_own_scripts_may_run() -> None:
    """The policy names the hash of each script that is code, and nothing else is allowed inline."""
    page = Page(render_page(manifest(), samples()))
    policy = next(a["content"] for t, a in page.elements if t == "meta" and a.get("http-equiv")) or ""
    kinds = [attributes.get("type") for tag, attributes in page.elements if tag == "script"]
    code = [text for text, kind in zip(page.scripts, kinds, strict=True) if kind is None]
    hashes = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in code}
    assert len(code) == 2
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == hashes
    assert "script-src 'unsafe-inline'" not in policy


def test_plotly_is_inlined_once_and_the_page_stays_below_10_mb() -> None:
    """One copy of the library is most of the page."""
    text = render_page(manifest(), samples())
    assert text.count("Plotly.newPlot(element") == 1
    assert 1_000_000 < len(text.encode()) < 10_000_000


def test_hostile_text_in_every_foreign_field_stays_text() -> None:
    """The page has only the elements of its template, no handlers, and the text is shown as it was written."""
    page = Page(render_page(*evil_run()))
    allowed = {"html", "head", "meta", "title", "link", "style", "body", "header", "h1", "h2", "h3", "p", "code",
               "main", "section", "div", "table", "thead", "tbody", "tr", "th", "td", "span", "ul", "li", "strong",
               "details", "summary", "pre", "script", "noscript"}  # fmt: skip
    assert {tag for tag, _ in page.elements} <= allowed
    assert sum(tag == "script" for tag, _ in page.elements) == 4
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    assert page.text.count("<img src=x onerror=alert(2)>") > 20
    assert "{{7*7}}" in page.text and "49" not in re.findall(r"\d+", page.text.replace("{{7*7}}", ""))


def test_hostile_text_reaches_plotly_neutralised() -> None:
    """No string in a figure holds a tag: plotly reads a subset of HTML in text."""
    figures = Page(render_page(*evil_run())).embedded("figures")

    def strings(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [text for inner in value.values() for text in strings(inner)]
        if isinstance(value, list):
            return [text for inner in value for text in strings(inner)]
        return [value] if isinstance(value, str) else []

    found = [text.replace("<extra></extra>", "") for text in strings(figures)]
    assert any("&lt;script" in text for text in found)
    assert not [text for text in found if "<" in text or "$" in text]


def test_embedded_json_cannot_end_its_script() -> None:
    """Neither a closing tag nor a comment nor a line separator is in there, and it reads back the same."""
    text = render_page(*evil_run())
    for ident in ("summary", "figures"):
        start = text.index(f'id="{ident}">') + len(f'id="{ident}">')
        inner = text[start : text.index("</script>", start)]
        assert not set("<>&\u2028\u2029") & set(inner)
        json.loads(inner)
    assert Page(text).embedded("summary")["name"] == EVIL


def test_what_is_missing_is_on_the_page() -> None:
    """Skips with their fix, failures with output, abandoned cells, torn lines: a reader sees them all."""
    records = [
        environment("native"),
        environment("container"),
        environment("vm", state="skipped", reason="no QEMU was found", fix="apt-get install qemu-system-x86"),
    ]
    taken = samples(
        ("native", "container"),
        replace=lambda e, n: (
            failed(e, n, "exit status 7", exit_code=7, output_tail="cannot open /data\nbye") if n == 3 else None
        ),
    )
    gone = AbandonedCell(cell="container/startup", reason="no more", after_round=4)
    page = Page(render_page(manifest(records=records, abandoned=[gone]), taken, ["line 61 is torn"]))
    flat = " ".join(page.text.split())
    for text in (
        "skipped: no QEMU was found → apt-get install qemu-system-x86",
        "container: 1 of 20 failed: exit status 7",
        "Exit status 7",
        "cannot open /data bye",
        "container/startup was abandoned after round 4: no more",
        "line 61 is torn",
    ):
        assert text in flat


def test_what_differs_between_samples_is_told() -> None:
    """A limit that was changed behind the tool's back shows under what was applied."""

    def instead(label: str, number: int) -> Sample:
        return sample(label, number, applied={"memory": 128 if number == 5 else 256})

    text = Page(render_page(manifest(("native",)), samples(("native",), replace=instead))).text
    assert "differs: 256 (19 samples); 128 (1 samples)" in text


def test_host_image_and_plan_are_on_the_page() -> None:
    """What it was measured on and how."""
    text = Page(render_page(manifest(), samples())).text
    for fact in ("AMD EPYC 7B13", "hybrid", "Mitigation: Retpolines", "0" * 64, "2.0 ms between samples", "9.0.0"):
        assert fact in text


def test_a_run_in_which_nothing_could_be_measured_has_a_page() -> None:
    """All environments skipped: the page says so instead of failing."""
    records = [environment("native", state="skipped", reason="no root", fix="sudo")]
    text = Page(render_page(manifest(("native",), records=records), [])).text
    assert "Nothing was measured." in text and "no root → sudo" in " ".join(text.split())


def test_a_page_depends_on_its_input_alone() -> None:
    """No clock, no chance: the same record gives the same bytes."""
    assert render_page(manifest(), samples()) == render_page(manifest(), samples())


def test_write_page_reads_a_run_and_makes_the_folder(tmp_path: Path) -> None:
    """From disk to disk."""
    folder = write_run(tmp_path / "run", manifest(), samples())
    out = write_page(folder, tmp_path / "reports" / "run.html")
    assert out.read_text(encoding="utf-8") == render_page(manifest(), samples())


def test_a_page_that_cannot_be_written_is_an_error_with_its_path(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    folder = write_run(tmp_path / "run", manifest(("native",), 1), samples(("native",), 1))
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match=r"run\.html: cannot write the page"):
        write_page(folder, tmp_path / "file" / "run.html")
