"""The page in a real browser: it draws, complains about nothing, asks for nothing, and its numbers are the record's."""

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchbox.analysis.statistics import median
from benchbox.export import export_rows, write_csv
from benchbox.record import CellRecord, Sample
from benchbox.report.page import write_page
from tests.report.browser import EXECUTABLE, Browser, browser
from tests.report.records import STAGES_NS, environment, evil_run, failed, manifest, sample, samples, write_run

pytestmark = [pytest.mark.integration, pytest.mark.browser]


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    if EXECUTABLE is None:
        if "browser" in os.environ.get("BENCHBOX_REQUIRE", ""):
            pytest.fail("BENCHBOX_REQUIRE asks for a browser, and no Chromium was found")
        pytest.skip("no Chromium was found")
    with browser() as opened:
        yield opened


@pytest.fixture
def page(tmp_path: Path, tab: Browser) -> Path:
    """A page with all there is: three environments, failures, outliers; the tab's complaints are forgotten."""
    tab.problems.clear()
    tab.requests.clear()

    def instead(label: str, number: int) -> Sample | None:
        if label == "vm" and number in (4, 11):
            return failed(label, number, "guest paused: internal error", console_tail="panic")
        return sample(label, number, factor=3) if (label, number) == ("container", 9) else None

    folder = write_run(tmp_path / "run", manifest(), samples(replace=instead))
    return write_page(folder, tmp_path / "page.html")


@pytest.mark.parametrize("width", [1400, 400])
def test_the_page_draws_without_a_complaint_or_a_request(tab: Browser, page: Path, width: int) -> None:
    """Every figure has its dots or bars, nothing is on the console, only the file was loaded, nothing sticks out."""
    tab.open(page, width)
    points = tab.evaluate(
        "Object.fromEntries([...document.querySelectorAll('figure')].map(e =>"
        " [e.id, e.querySelectorAll('.point').length]))"
    )
    # In their order: 20 + 20 + 18 valid ones, 2 crosses, and the rings of what is flagged.
    assert points.pop("figure-order") >= 61
    assert points == {
        "figure-ratios": 2, "figure-distribution": 58, "figure-stages-1": 6, "figure-stages-2": 7, "figure-stages-3": 7,
    }  # fmt: skip
    assert tab.problems == []
    assert tab.requests == [page.absolute().as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [1400, 1000, 400])
def test_many_environments_stick_out_nowhere(tab: Browser, tmp_path: Path, width: int) -> None:
    """Sixteen parts of a container: wide tables are scrolled in their own place, none of a page's parts is lost."""
    labels = [f"a-part-of-the-whole-{number}" for number in range(16)]
    stages = STAGES_NS["container"]
    taken = [sample(label, number, stages_ns=stages) for number in range(1, 9) for label in labels]
    records = [environment(label, kind="container") for label in labels]
    folder = write_run(tmp_path / "run", manifest(labels, baseline=labels[0], records=records), taken)
    tab.open(write_page(folder, tmp_path / "page.html"), width)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("document.querySelectorAll('td[data-cell]').length") == len(labels) * len(stages)


def test_many_cells_with_long_names_stay_on_the_page(tab: Browser, tmp_path: Path) -> None:
    """What is wider than the page scrolls by itself."""
    names = [f"kernel-operation-{number}-seconds-0.5-batches-20" for number in range(8)]
    labels = ("native", "container", "vm")
    cells = [CellRecord(id=f"{label}/{name}", environment=label, workload=name) for name in names for label in labels]
    taken = [
        sample(label, number, workload=name, noise={"load1": 1.0})
        for number in range(1, 7)
        for name in names
        for label in labels
    ]
    folder = write_run(tmp_path / "run", manifest(rounds=6, cells=cells), taken)
    tab.open(write_page(folder, tmp_path / "page.html"), 1400)
    assert tab.problems == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= 1400


def test_numbers_on_the_page_are_the_records(tab: Browser, page: Path) -> None:
    """The median that the browser shows is that of the lines in samples.jsonl, and so are the drawn dots."""
    tab.open(page)
    lines = (page.parent / "run" / "samples.jsonl").read_text().splitlines()
    shown = tab.evaluate(
        "Object.fromEntries([...document.querySelectorAll('tr[data-cell]')].map(row =>"
        " [row.dataset.cell, Number(row.querySelector('[data-field=median]').dataset.value)]))"
    )
    drawn = tab.evaluate(
        "document.querySelector('#figure-order [data-figure]').data"
        ".filter(t => t.name === 'valid').map(t => Array.from(t.y))"
    )
    taken = [json.loads(line) for line in lines]
    for cell, values in zip(shown, drawn, strict=True):
        recorded = [
            one["metrics"]["startup.ready"]["value"]
            for one in taken
            if one["cell"] == cell and one["round"] > 0 and one["status"] == "ok"
        ]
        assert shown[cell] == median(recorded)
        assert sorted(values) == sorted(recorded)


def test_hostile_text_runs_nothing(tab: Browser, page: Path) -> None:
    """Scripts in names, labels and outputs are shown, not run; plotly draws their letters."""
    run, taken, _ = evil_run()
    folder = write_run(page.parent / "evil", run, taken)
    tab.call("Page.addScriptToEvaluateOnNewDocument", source="window.alert = (n) => { window.harmed = n; };")
    tab.open(write_page(folder, page.parent / "evil.html"))
    assert tab.evaluate("window.harmed === undefined")
    assert tab.problems == []
    assert len(tab.requests) == 1
    assert tab.evaluate("document.querySelectorAll('img, iframe, a:not([href^=\"#\"])').length") == 0
    assert tab.evaluate("document.querySelector('#figure-order').textContent.includes('<script>')")


def test_a_script_that_got_into_the_page_is_refused_by_its_policy(tab: Browser, page: Path) -> None:
    """Should escaping ever fail: the browser runs only the scripts whose hashes the page names."""
    text = page.read_text(encoding="utf-8")
    broken = page.with_name("broken.html")
    broken.write_text(text.replace("<main>", "<main><script>window.harmed = 1</script>", 1), encoding="utf-8")
    tab.open(broken)
    assert tab.evaluate("window.harmed === undefined")
    assert any("Content Security Policy" in problem for problem in tab.problems)


def test_thousands_of_samples_are_drawn(tab: Browser, page: Path) -> None:
    """Thousands of dots as vector elements: no canvas, and nothing that the policy forbids is even tried."""
    watch = "window.tried = 0; document.addEventListener('securitypolicyviolation', () => { window.tried += 1; });"
    tab.call("Page.addScriptToEvaluateOnNewDocument", source=watch)
    folder = write_run(page.parent / "many", manifest(rounds=2_000), samples(rounds=2_000))
    tab.open(write_page(folder, page.parent / "many.html"))
    assert tab.evaluate("document.querySelectorAll('#figure-order .point').length") >= 6_000
    assert tab.evaluate("document.querySelectorAll('[data-figure] canvas').length") == 0
    assert tab.evaluate("window.tried") == 0
    assert tab.problems == []


def test_the_pages_csv_is_that_of_the_program(tab: Browser, page: Path) -> None:
    """Also of hostile text: what a spreadsheet would compute stands behind an apostrophe in both."""
    run, taken, _ = evil_run("=1+\x1b[31m\u202e\u2028 1")
    folder = write_run(page.parent / "evil", run, taken)
    keep = "window.kept = []; URL.createObjectURL = (blob) => { window.kept.push(blob); return 'data:,'; };"
    tab.call("Page.addScriptToEvaluateOnNewDocument", source=keep)
    tab.open(write_page(folder, page.parent / "evil.html"))
    tab.evaluate("document.querySelector('[data-download=csv]').click()")
    expected = io.StringIO()
    write_csv(export_rows(run, taken), expected)
    shown, written = tab.evaluate("window.kept[0].text()"), expected.getvalue()
    rows, own = ([cells(row) for row in csv.reader(io.StringIO(text))] for text in (shown, written))
    assert rows == own
    assert "\n'=1+" in written


def cells(row: list[str]) -> list[str | float]:
    """Return a row of a CSV with its value as a number: 1e-06 and 0.000001 are the same."""
    return [float(cell) if at == 9 and cell not in ("", "value") else cell for at, cell in enumerate(row)]
