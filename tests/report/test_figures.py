"""The figures show the samples, and foreign text only as text."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as some

from benchbox.analysis.iterations import unfolding
from benchbox.analysis.percentiles import percentiles
from benchbox.analysis.samples import take
from benchbox.analysis.summary import summarise
from benchbox.record import CellRecord, MetricValue, Sample
from benchbox.report import figures
from tests.report.records import failed, iterated_run, latency_run, manifest, sample, samples


def test_a_waterfalls_bars_follow_each_other_and_are_the_stage_medians() -> None:
    """Each bar begins where the one before ended, its length is the median of its stage."""
    row = summarise(manifest(), samples()).tables[0].rows[1]
    bars = figures.waterfall(row)["data"][0]
    assert bars["x"] == [stage.median_s for stage in row.stages]
    assert bars["y"] == ["cgroups", "started", "isolated", "exec", "ready", "exited", "cleaned"]
    for begin, length, following in zip(bars["base"], bars["x"], bars["base"][1:], strict=False):
        assert following == pytest.approx(begin + length)


def test_every_valid_sample_is_a_dot_with_its_exact_value() -> None:
    """All of them, in their round, none of the priming round."""
    taken = samples()
    summary = summarise(manifest(), taken)
    dots = figures.dots(summary.tables[0], take(taken).by_cell)
    drawn = [trace for trace in dots["data"] if trace["name"] == "valid"]
    for trace, row in zip(drawn, summary.tables[0].rows, strict=True):
        expected = {s.round: s.metrics["startup.ready"].value for s in taken if s.cell == row.cell and s.round > 0}
        assert dict(zip((round(x) for x in trace["x"]), trace["y"], strict=True)) == expected


def test_a_failed_sample_is_a_cross_in_its_round_with_its_reason() -> None:
    """It has no value, so it stands at the lower edge, inside the panel's range and below every dot."""
    taken = samples(replace=lambda e, n: failed(e, n, "exit status 7") if (e, n) == ("container", 3) else None)
    summary = summarise(manifest(), taken)
    dots = figures.dots(summary.tables[0], take(taken).by_cell)
    (cross,) = [trace for trace in dots["data"] if trace["name"] == "not valid"]
    valid = next(t for t in dots["data"] if t["name"] == "valid" and t["yaxis"] == cross["yaxis"])
    assert ([round(x) for x in cross["x"]], cross["text"]) == ([3], ["round 3: failed: exit status 7"])
    assert 10 ** dots["layout"]["yaxis2"]["range"][0] < cross["y"][0] < min(valid["y"])


@pytest.mark.parametrize("last", ["ready", "served"])
def test_the_dotted_line_of_a_waterfall_ends_what_is_measured(last: str) -> None:
    """At the workload's byte, whatever it means; what follows is clean-up."""
    stages = {"exec": 1_000_000, last: 4_000_000, "cleaned": 9_000_000}
    taken = [sample("native", number, stages=stages) for number in range(1, 8)]
    row = summarise(manifest(("native",), 7), taken).tables[0].rows[0]
    (line,) = figures.waterfall(row)["layout"]["shapes"]
    assert line["x0"] == line["x1"] == pytest.approx(0.004)


def test_all_panels_span_the_same_factor_on_logarithmic_axes_and_hold_their_dots() -> None:
    """Equal heights are equal ratios, and no dot is cut off."""
    taken = samples(replace=lambda e, n: sample(e, n, factor=7) if (e, n) == ("container", 3) else None)
    summary = summarise(manifest(), taken)
    dots = figures.dots(summary.tables[0], take(taken).by_cell)
    axes = [dots["layout"][name] for name in ("yaxis", "yaxis2", "yaxis3")]
    assert {axis["type"] for axis in axes} == {"log"}
    assert len({round(axis["range"][1] - axis["range"][0], 9) for axis in axes}) == 1
    for trace, axis in zip((t for t in dots["data"] if t["name"] == "valid"), axes, strict=True):
        assert 10 ** axis["range"][0] < min(trace["y"]) and max(trace["y"]) < 10 ** axis["range"][1]


def test_of_thousands_of_samples_one_in_so_many_is_drawn_and_every_outlier() -> None:
    """Thousands of vector elements make a browser slow, and what WebGL needs the page's policy does not allow."""
    far = {number: 30 for number in range(7, 6_000, 500)}

    def instead(label: str, number: int) -> Sample | None:
        if number % 100 == 3:
            return failed(label, number, "gone")
        return sample(label, number, factor=30) if number in far else None

    taken = samples(("native",), 6_000, replace=instead)
    summary = summarise(manifest(("native",), 6_000), taken)
    dots = figures.dots(summary.tables[0], take(taken).by_cell)
    traces = {trace["name"]: trace for trace in dots["data"]}
    assert {trace["type"] for trace in dots["data"]} == {"scatter"}
    assert figures.DOTS * 0.9 < len(traces["valid"]["y"]) < figures.DOTS * 1.1
    assert set(traces["outlier"]["y"]) <= set(traces["valid"]["y"]) and len(traces["outlier"]["y"]) >= len(far)
    assert len(traces["not valid"]["x"]) == 20
    assert dots["layout"]["annotations"][0]["text"] == "native, 5940 of 6000 (1 in 3)"


def test_rates_have_prefixes_on_axes_and_in_what_hovers() -> None:
    """As in the table: 7.68 G/s, and a round tick without zeros."""
    rate = {"rate": MetricValue(value=7.68e9, unit="1/s", direction="higher")}
    cells = [CellRecord(id="native/w", environment="native", workload="w")]
    taken = [
        sample("native", number, cell="native/w", workload="w", metrics=rate) for number in range(1, 9)
    ]  # fmt: skip
    summary = summarise(manifest(("native",), 8, cells=cells), taken, "rate")
    dots = figures.dots(summary.tables[0], take(taken).by_cell)
    assert dots["layout"]["yaxis"]["ticktext"] == ["6 G/s", "7 G/s", "8 G/s", "9 G/s"]
    assert dots["data"][0]["hovertemplate"].endswith("%{y:.4s}/s<extra></extra>")


def test_cells_without_any_value_still_make_a_figure() -> None:
    """Nothing valid, nothing attempted: axes, but no error."""
    for taken in ([], [failed("native", 1, "gone")]):
        summary = summarise(manifest(), taken)
        json.dumps(figures.dots(summary.tables[0], take(taken).by_cell), allow_nan=False)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (4.2e-4, 6.1e-4, [4.5e-4, 5e-4, 5.5e-4, 6e-4]),
        (1.5, 3.9, [1.5, 2.0, 2.5, 3.0, 3.5]),
        (5e-4, 1.4e-2, [5e-4, 1e-3, 2e-3, 5e-3, 1e-2]),
        (1e-6, 1e3, [1e-6, 1e-4, 1e-2, 1.0, 100.0]),
    ],
)
def test_ticks_of_a_logarithmic_axis_are_few_and_round(low: float, high: float, ticks: list[float]) -> None:
    """Whether the axis spans a factor of 1.5 or nine decades."""
    assert figures.log_ticks(low, high) == pytest.approx(ticks)


@given(some.floats(1e-9, 1e6), some.floats(1.2, 1e12))
def test_every_logarithmic_axis_has_two_to_ten_ticks_inside_of_it(low: float, factor: float) -> None:
    """No axis without a scale and none that is crowded."""
    ticks = figures.log_ticks(low, low * factor)
    assert 2 <= len(ticks) <= 10
    assert all(low * 0.999 <= tick <= low * factor * 1.001 for tick in ticks)


@given(some.text())
def test_a_label_has_no_tag_no_entity_and_no_formula(text: str) -> None:
    """What plotly would interpret is neutral, whatever the text."""
    label = figures.label(text)
    assert "<" not in label and ">" not in label and "$" not in label
    for part in label.split("&")[1:]:
        assert part.startswith(("lt;", "gt;", "amp;"))


def test_a_label_reads_as_it_was_written() -> None:
    """Neutral does not mean lost."""
    assert figures.label("<b>a</b> & c") == "&lt;b&gt;a&lt;/b&gt; &amp; c"
    assert len(figures.label("x" * 500)) == 60


def test_a_distribution_ends_at_all_and_each_sample_is_a_step() -> None:
    """Ordered values, shares from 1/n to 1, on log axes that say so."""
    taken = samples()
    summary = summarise(manifest(), taken)
    figure = figures.ecdf(summary.tables[0], take(taken).by_cell)
    for trace, row in zip(figure["data"], summary.tables[0].rows, strict=True):
        values = sorted(s.metrics["startup.ready"].value for s in taken if s.cell == row.cell and s.round > 0)
        assert trace["x"] == values
        assert trace["y"] == pytest.approx([rank / 20 for rank in range(1, 21)])
    axes = [figure["layout"][name] for name in ("xaxis", "xaxis2", "xaxis3")]
    assert {axis["type"] for axis in axes} == {"log"}
    assert len({round(axis["range"][1] - axis["range"][0], 9) for axis in axes}) == 1
    assert all("log axis" in note["text"] for note in figure["layout"]["annotations"])


def test_a_distribution_of_many_samples_is_drawn_by_its_quantiles() -> None:
    """The page of 100,000 samples must stay one that a browser opens."""
    taken = samples(("native",), 5_000)
    summary = summarise(manifest(("native",), 5_000), taken)
    (trace,) = figures.ecdf(summary.tables[0], take(taken).by_cell)["data"]
    row = summary.tables[0].rows[0]
    assert len(trace["x"]) == figures.ECDF_STEPS and trace["mode"] == "lines"
    assert (trace["x"][-1], trace["y"][-1]) == (row.maximum, 1.0)
    assert trace["x"][figures.ECDF_STEPS // 2 - 1] == pytest.approx(row.median, rel=0.01)


def test_ratios_have_their_intervals_and_emulation_is_hollow() -> None:
    """The bar's ends are those of the interval; without a ratio there is no figure."""
    summary = summarise(manifest(), samples())
    figure = figures.ratios(summary.tables[0])
    assert figure is not None
    container, vm = figure["data"]
    ratio = summary.tables[0].rows[1].ratio
    assert ratio is not None and ratio.high is not None and ratio.low is not None
    assert container["x"][0] + container["error_x"]["array"][0] == pytest.approx(ratio.high)
    assert container["x"][0] - container["error_x"]["arrayminus"][0] == pytest.approx(ratio.low)
    assert vm["marker"]["symbol"].endswith("-open") and not container["marker"]["symbol"].endswith("-open")
    assert figures.ratios(summarise(manifest(("native",)), samples(("native",))).tables[0]) is None


def test_percentiles_get_the_more_room_the_farther_out_they_are() -> None:
    """90, 99 and 99.9 are equally far apart; the slowest of all stands beyond, hollow, on a dotted line."""
    run, taken = latency_run()
    (found,) = percentiles(summarise(run, taken).tables[0], take(taken).by_cell)
    figure = figures.percentiles(found)
    axis = figure["layout"]["xaxis"]
    assert (axis["type"], axis["ticktext"]) == ("log", ["50", "90", "99", "99.9", "max"])
    assert axis["tickvals"][:4] == pytest.approx([2, 10, 100, 1000])
    bands, lines, rests = (figure["data"][start::3] for start in range(3))
    assert len(figure["data"]) == 6
    for band, line, rest, curve in zip(bands, lines, rests, found.curves, strict=True):
        assert line["y"] == [rung.median for rung in curve.rungs[:-1]] and line["x"] == axis["tickvals"][:4]
        lows, highs = zip(*((r.interval.low, r.interval.high) for r in curve.rungs[:-1] if r.interval), strict=True)
        assert band["fill"] == "toself" and band["y"] == [*highs, *reversed(lows)]
        assert rest["x"] == axis["tickvals"][3:] and rest["y"][-1] == curve.rungs[-1].median
        assert rest["line"]["dash"] == "dot" and rest["marker"]["symbol"][-1].endswith("-open")
        low, high = figure["layout"]["yaxis"]["range"]
        assert 10**low < min(lows) and rest["y"][-1] < 10**high
    assert [trace["name"] for trace in figure["data"] if trace["showlegend"]] == ["native", "container"]


def test_percentiles_of_few_samples_have_no_band() -> None:
    """There is no interval to show."""
    run, taken = latency_run(3)
    (found,) = percentiles(summarise(run, taken).tables[0], take(taken).by_cell)
    assert not [trace for trace in figures.percentiles(found)["data"] if "fill" in trace]


def test_a_warm_up_is_dashed_and_what_never_settles_is_dotted() -> None:
    """Every iteration of the samples drawn has its place on a line; hollow dots are the warm-up and nothing else."""
    run, taken = iterated_run()
    found = unfolding(summarise(run, taken).tables[0], take(taken).by_cell)
    assert found is not None
    figure = figures.iterations(found)
    kinds = {(trace["name"], trace["yaxis"]): trace for trace in figure["data"]}
    assert set(kinds) == {("steady", "y"), ("warm-up", "y"), ("steady", "y2"), ("warm-up", "y2"), ("not steady", "y2")}
    warm_up, dotted = kinds["warm-up", "y"], kinds["not steady", "y2"]
    assert warm_up["line"]["dash"] == "dash" and dotted["line"]["dash"] == "dot"
    assert warm_up["x"][:4] == [1, 2, 3, None] and warm_up["marker"]["size"][:4] == [6, 6, 0, 0]
    assert warm_up["y"][:3] == pytest.approx([2.02e-6, 2.02e-6, 1.01e-6])
    assert dotted["x"][:21] == [*range(1, 21), None]
    steady = kinds["steady", "y"]
    assert steady["x"][:19] == [*range(3, 21), None] and steady["x"][19:40] == [*range(1, 21), None]
    assert all(len(trace["x"]) == len(trace["y"]) == len(trace["text"]) for trace in figure["data"])
    assert "the first 10 of 12 samples" in figure["layout"]["annotations"][0]["text"]


def test_many_iterations_are_drawn_of_few_samples() -> None:
    """The page stays one that a browser opens; at least one sample is drawn."""
    for count, shown in ((1000, 2), (5000, 1)):
        run, taken = iterated_run(count=count)
        found = unfolding(summarise(run, taken).tables[0], take(taken).by_cell)
        assert found is not None and len(figures.drawn_iterations(found.rows[0])) == shown


def test_every_colour_is_one_of_the_themes() -> None:
    """A figure has no colour of its own: in the dark, ink on ink cannot be read."""
    taken = samples(replace=lambda e, n: failed(e, n, "gone") if n == 3 else None)
    summary = summarise(manifest(), taken)
    table, by_cell = summary.tables[0], take(taken).by_cell
    drawn = [figures.dots(table, by_cell), figures.ecdf(table, by_cell),
             figures.ratios(table), *map(figures.waterfall, table.rows)]  # fmt: skip
    text = json.dumps(drawn)
    assert not re.search(r'"#[0-9a-f]{3,6}"', text)
    names = set(re.findall(r'"\\u0001(\w+)"', text))
    assert {"ink", "grid", "bad", "s0", "s1", "s2"} <= names <= set(figures.THEMES["light"])
