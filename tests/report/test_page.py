"""The page is true to the record, complete in itself, and foreign text in it is text."""

import base64
import hashlib
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from benchbox.analysis.percentiles import percentiles
from benchbox.analysis.samples import take
from benchbox.analysis.summary import summarise
from benchbox.errors import RecordError
from benchbox.model import STAGES
from benchbox.record import AbandonedCell, CellRecord, Sample
from benchbox.report import definitions, raw
from benchbox.report.figures import THEMES
from benchbox.report.page import render_page, write_page
from tests.report.records import (
    COUNTERS,
    EVIL,
    LADDER,
    controlled_run,
    environment,
    evil_run,
    failed,
    iterated_run,
    latency_run,
    manifest,
    parallel_run,
    sample,
    samples,
    write_run,
)


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
            assert row.difference is not None and found["difference"] == row.difference.estimate
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
            assert (attributes.get(name) or "data:").startswith(("data:", "#")), (tag, attributes)
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
    assert re.findall(r"script-src ([^;]*)", policy) == [" ".join(re.findall(r"'sha256-[^']+'", policy))]


@pytest.mark.parametrize("rounds", [20, 2_000])
def test_no_text_becomes_code_however_large_the_page(rounds: int) -> None:
    """The policy has no ``unsafe-eval``: no figure is one of those for which plotly compiles code."""
    text = render_page(manifest(rounds=rounds), samples(rounds=rounds))
    page = Page(text)
    policy = next(a["content"] for t, a in page.elements if t == "meta" and a.get("http-equiv")) or ""
    assert "unsafe-eval" not in policy
    assert '"type":"scattergl"' not in text


def test_what_was_tried_with_kvm_is_in_the_section_of_the_host() -> None:
    """The note has the cause in a line, here is each attempt with the end of its console."""
    proof = {
        "reason": "no guest boots with KVM on this host: it hung",
        "attempts": ["first: \x1b[31mit hung", "second"],
    }
    records = [environment("native"), environment("vm", applied={"accelerator": "tcg", "accelerator_proof": proof})]
    taken = samples(("native", "vm"))
    text = render_page(manifest(("native", "vm"), records=records), taken)
    assert "VM with KVM: not measured here: no guest boots with KVM on this host: it hung" in text
    host = text[text.index('<section aria-labelledby="host">') :]
    assert "<li>first: [31mit hung</li>" in host and "<li>second</li>" in host
    summary = summarise(manifest(("native", "vm"), records=records), taken)
    assert summary.as_json()["kvm_attempts"] == tuple(proof["attempts"])


def test_plotly_is_inlined_once_and_the_page_stays_below_10_mb() -> None:
    """One copy of the library is most of the page."""
    text = render_page(manifest(), samples())
    assert text.count("Plotly.react(element") == 1
    assert 1_000_000 < len(text.encode()) < 10_000_000


def test_hostile_text_in_every_foreign_field_stays_text() -> None:
    """The page has only the elements of its template, no handlers, and the text is shown as it was written."""
    page = Page(render_page(*evil_run()))
    allowed = {"html", "head", "meta", "title", "link", "style", "body", "header", "h1", "h2", "h3", "p", "code",
               "main", "section", "div", "table", "thead", "tbody", "tr", "th", "td", "span", "ul", "li", "strong",
               "details", "summary", "pre", "script", "noscript", "nav", "a", "figure", "figcaption", "caption", "dl",
               "dt", "dd", "button", "footer", "em"}  # fmt: skip
    assert {tag for tag, _ in page.elements} <= allowed
    assert sum(tag == "script" for tag, _ in page.elements) == 6
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
    for ident in ("summary", "figures", "manifest", "samples"):
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


def test_a_page_is_not_written_through_a_link(tmp_path: Path) -> None:
    """Whoever may write into the folder of pages could have put one where the draft is made."""
    folder = write_run(tmp_path / "run", manifest(), samples())
    precious = tmp_path / "precious"
    precious.write_text("as it was")
    (tmp_path / f".run.html.{os.getpid()}").symlink_to(precious)
    out = write_page(folder, tmp_path / "run.html")
    assert precious.read_text() == "as it was"
    assert not out.is_symlink() and out.read_text().startswith("<!")
    assert list(tmp_path.glob(".run*")) == []


def test_a_page_that_cannot_be_written_is_an_error_with_its_path(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    folder = write_run(tmp_path / "run", manifest(("native",), 1), samples(("native",), 1))
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match=r"run\.html: cannot write the page"):
        write_page(folder, tmp_path / "file" / "run.html")


# --- the report as a reader meets it ---------------------------------------------------------------------------------


def headings(page: Page) -> list[str]:
    """Return the anchors of the sections in their order."""
    return [str(a["id"]) for tag, a in page.elements if tag in ("h2", "section") and a.get("id")]


def test_the_answer_comes_first_and_the_raw_samples_last() -> None:
    """What a reader wants to know, then what it rests on."""
    found = headings(Page(render_page(manifest(), samples())))
    assert found == [
        "answer", "verdicts", "stages", "distribution", "order", "used", "alike", "noise", "host", "method",
        "definitions", "raw",
    ]  # fmt: skip


def test_every_deep_link_leads_to_one_place() -> None:
    """With several workloads and failures as well: anchors are unique, and none is missing."""
    cells = [
        CellRecord(id=f"{e}/{w}", environment=e, workload=w) for e in ("native", "container") for w in ("one", "two")
    ]
    taken = [sample(c.environment, n, workload=c.workload) for n in range(1, 9) for c in cells]
    taken.append(failed("native", 9, "gone", workload="one"))
    for text in (
        render_page(manifest(cells=cells), taken),
        render_page(manifest(), samples()),
        render_page(*evil_run()),
        render_page(*parallel_run()),
        render_page(*latency_run()),
        render_page(*iterated_run()),
        render_page(manifest(("native",), records=[]), []),
    ):
        page = Page(text)
        ids = [a["id"] for _, a in page.elements if a.get("id")]
        links = {str(a["href"]) for tag, a in page.elements if tag == "a"}
        assert len(ids) == len(set(ids))
        assert links and {link.removeprefix("#") for link in links} <= set(ids)


def test_several_at_once_stand_side_by_side() -> None:
    """In a table and a figure of their own, right below the answer; a run of one number has neither."""
    run, taken = parallel_run((1, 2, 4))
    text = render_page(run, taken)
    page = Page(text)
    assert headings(page)[:2] == ["answer", "at-once"]
    flat = " ".join(page.text.split())
    assert "environment1 at once2 at once4 at once" in flat
    medians = [row.median or 0 for table in summarise(run, taken).tables for row in table.rows]
    shown = [
        float(a["data-value"] or 0) for tag, a in page.elements if tag == "td" and "at once" in str(a.get("data-label"))
    ]
    assert sorted(shown) == sorted(medians)
    assert "at-once" not in headings(Page(render_page(manifest(), samples())))


def test_latencies_by_percentile_are_a_figure_and_a_table() -> None:
    """With a text for who sees no figure; a run without percentiles has neither."""
    run, taken = latency_run()
    page = Page(render_page(run, taken))
    assert headings(page)[:3] == ["answer", "verdicts", "percentiles"]
    shown = [float(a["data-value"] or 0) for _, a in page.elements if "data-percentile" in a]
    (found,) = percentiles(summarise(run, taken).tables[0], take(taken).by_cell)
    assert shown == [rung.median for curve in found.curves for rung in curve.rungs] and len(shown) == 2 * len(LADDER)
    alts = [a["aria-label"] for _, a in page.elements if "data-figure" in a]
    assert any(
        (alt or "").startswith(
            "Percentiles of network.latency, medians over the samples: native p50 106 µs, p90 318 µs"
        )
        for alt in alts
    )
    assert "From when a message was due until its answer was there (network.latency)" in " ".join(page.text.split())
    assert "percentiles" not in headings(Page(render_page(manifest(), samples())))


def test_iterations_are_a_figure_with_a_sentence_about_their_warm_up() -> None:
    """Where samples have any."""
    page = Page(render_page(*iterated_run()))
    assert headings(page)[:6] == ["answer", "verdicts", "stages", "distribution", "order", "iterations"]
    said = "No steady state was reached in 4 of 12 samples of container: all iterations of these are in their number."
    assert said in page.text
    alts = [a["aria-label"] or "" for _, a in page.elements if "data-figure" in a]
    assert any(
        alt.startswith("Iterations of loop.each in their order: native 12 samples") and said in alt for alt in alts
    )
    assert "iterations" not in headings(Page(render_page(manifest(), samples())))


def test_cold_or_warm_stands_at_the_top_and_in_the_method() -> None:
    """Nobody has to guess."""
    cold = " ".join(
        Page(render_page(manifest(scenario=manifest().scenario | {"cache": "cold"}), samples())).text.split()
    )
    assert "20 rounds, cold page cache" in cold and "page cachecold: what a start reads was dropped" in cold
    assert "20 rounds, warm page cache" in " ".join(Page(render_page(manifest(), samples())).text.split())


def test_the_verdict_stands_in_words_beside_its_numbers() -> None:
    """Three values, and no judgement of an emulated guest."""
    flat = " ".join(Page(render_page(manifest(), samples())).text.split())
    assert "container slower by 4.4–4.8x 2.26 ms" in flat
    assert "vm (emulated, TCG) not judged: emulation says nothing about virtual machines 2.43 s" in flat


def test_an_untrusted_run_says_so_before_all_else() -> None:
    """In red, at the top of the page, and nothing is judged."""
    page = Page(render_page(*controlled_run(1.2)))
    alarm = [tag for tag, a in page.elements if a.get("role") == "alert"]
    flat = " ".join(page.text.split())
    assert alarm == ["p"]
    assert flat.index("UNTRUSTED: native was measured twice and differs from itself") < flat.index("benchbox report")
    assert "not judged: the run is not trusted" in flat
    assert re.search(r"\.alarm \{[^}]*color: var\(--bad\)", render_page(*controlled_run(1.2)))


def test_a_trusted_run_says_what_it_could_have_shown() -> None:
    """Without an alarm."""
    page = Page(render_page(*controlled_run()))
    assert not [tag for tag, a in page.elements if a.get("role") == "alert"]
    assert "the smallest effect that this host could show today is" in page.text


def test_like_for_like_and_noise_are_on_the_page() -> None:
    """Each difference, unknown and finding."""

    def instead(label: str, number: int) -> Sample | None:
        odd = (label, number) == ("container", 9)
        return sample(label, number, factor=4, noise={"psi.cpu.some_share": 0.9}) if odd else None

    flat = " ".join(Page(render_page(manifest(), samples(replace=instead))).text.split())
    assert "Like for like: no: vm in execution" in flat
    assert "≠differs: emulated in software (TCG)" in flat
    assert (
        "Outliers. container: 1 of 20 samples is an outlier, which counts like any other; cause: waiting for a CPU"
        in flat
    )
    assert "round 9: 9.20 ms, waiting for a CPU" in flat


def test_noise_has_a_row_for_each_cell_and_a_column_for_each_kind() -> None:
    """Scenarios have many cells, and kinds of noise are few."""
    flat = " ".join(Page(render_page(*parallel_run())).text.replace("\u200b", "").split())
    assert "cellload1psi.cpu.some_sharepsi.io.some_share" in flat
    assert "native, startup[parallel=2] 0.2 1.0% 0%" in flat


def test_the_parameters_of_a_table_are_all_on_the_page() -> None:
    """Its title names only some."""
    assert "With parallel=4." in Page(render_page(*parallel_run())).text


def test_every_stage_metric_counter_and_noise_is_defined() -> None:
    """Whatever the code can record has its line, and the page shows it."""
    text = Page(render_page(manifest(), samples())).text
    assert set(definitions.STAGES) == set(STAGES)
    for meanings in (definitions.STAGES, definitions.COUNTERS, definitions.NOISE):
        assert not [name for name, meaning in meanings.items() if meaning not in text]
    assert "From the request until the workload has ended" in text


def test_a_reader_who_sees_nothing_misses_nothing() -> None:
    """Landmarks, headings of columns and rows, a name for each table and section, a text for each figure."""
    page = Page(render_page(manifest(), samples()))
    tags = [tag for tag, _ in page.elements]
    assert all(tags.count(tag) == 1 for tag in ("header", "nav", "main", "footer", "h1"))
    assert ("html", {"lang": "en"}) in page.elements
    assert not [a for tag, a in page.elements if tag == "th" and a.get("scope") not in ("col", "row")]
    assert not [a for tag, a in page.elements if tag == "table" and not a.get("aria-label")]
    figures = [a for _, a in page.elements if "data-figure" in a]
    assert len(figures) == len([tag for tag in tags if tag == "figcaption"]) == 6
    assert all(a["role"] == "img" and a["aria-label"] for a in figures)
    native = next(a["aria-label"] for a in figures if (a["aria-label"] or "").startswith("Every sample"))
    assert native is not None and "native 20 samples from" in native and "median 495 µs" in native
    sections = [a for tag, a in page.elements if tag == "section"]
    ids = {a.get("id") for _, a in page.elements}
    assert all(a.get("aria-label") or a.get("aria-labelledby") in ids for a in sections)


def test_the_record_is_in_the_page_line_by_line() -> None:
    """Priming, failures, hostile text and all."""
    for run, taken, notes in ((manifest(), samples(), []), evil_run()):
        page = Page(render_page(run, taken, notes))
        assert page.embedded("manifest") == json.loads(run.model_dump_json())
        assert page.embedded("samples") == [json.loads(one.model_dump_json()) for one in taken]


def test_a_page_that_would_be_too_large_is_a_light_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has all but the record, says so, and stays below the limit; one byte more and it is whole."""
    whole = render_page(manifest(), samples())
    size = len(whole.encode())
    monkeypatch.setattr(raw, "PAGE_LIMIT_BYTES", size - 200)
    light = render_page(manifest(), samples())
    assert len(light.encode()) < size - 200
    assert 'id="samples"' not in light and 'id="manifest"' not in light
    assert "This page is a light one" in light
    monkeypatch.undo()
    assert 'id="samples"' in whole


def test_large_consoles_make_a_page_light() -> None:
    """Not only many samples do."""
    taken = samples(replace=lambda e, n: failed(e, n, "hung", console_tail="<" * 64_000) if e == "vm" else None)
    many = [one.model_copy(update={"round": one.round + 21 * k}) for k in range(3) for one in taken]
    text = render_page(manifest(), many)
    assert 'id="samples"' not in text
    assert len(text.encode()) < raw.PAGE_LIMIT_BYTES


@pytest.mark.parametrize("text", ["a<b>&", "é", "\u2028", "😀", "</script>"])
def test_embedded_text_means_the_same_and_is_plain_ascii(text: str) -> None:
    """Also beyond the first plane, where JSON needs two halves."""
    escaped = raw.escaped(json.dumps(text, ensure_ascii=False))
    assert json.loads(escaped) == text
    assert escaped.isascii() and not set("<>&") & set(escaped)


def test_both_themes_have_every_colour_and_the_style_has_the_same_ones() -> None:
    """What a figure is drawn in is what the table's symbols have."""
    style = (Path(raw.__file__).parent / "templates" / "page.css").read_text()
    light, dark = (THEMES[name] for name in ("light", "dark"))
    assert light.keys() == dark.keys()
    screen, _, rest = style.partition("@media (prefers-color-scheme: dark)")
    for number in range(7):
        assert f"--s{number}: {light[f's{number}']};" in screen
        assert f"--s{number}: {dark[f's{number}']};" in rest.partition("@media print")[0]


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2.2."""
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("theme", "paper"), [("light", "#ffffff"), ("dark", "#14181d")])
def test_text_has_the_contrast_that_tired_eyes_need(theme: str, paper: str) -> None:
    """WCAG AA: 4.5 to 1 for text."""
    for name in ("ink", "soft", "bad"):
        high, low = sorted((luminance(THEMES[theme][name]), luminance(paper)), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, name
