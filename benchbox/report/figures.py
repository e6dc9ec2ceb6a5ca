"""The figures of a page as plotly's plain data: pure functions of summary and samples.

Plain dictionaries and lists, not plotly's classes: those check every point and take longer than all the rest.
Text that others wrote goes through ``label`` first, because plotly reads a subset of HTML in what it draws.
"""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from benchbox.analysis.iterations import Unfolded, Unfolding
from benchbox.analysis.percentiles import Curve, Percentiles, Rung
from benchbox.analysis.samples import exclusion, metric_value
from benchbox.analysis.scaling import Scaling, Series
from benchbox.analysis.sizes import PARTS, Sizes
from benchbox.analysis.statistics import outliers
from benchbox.analysis.summary import Row, Table
from benchbox.foreign import plain
from benchbox.model import Signal
from benchbox.record import Iterations, Sample
from benchbox.report.words import format_value, ratio_text, rung_value, si_scale

#: What stands in a figure for a colour: the page's script puts in that of the reader's theme. No text that others wrote
#: can begin so, ``label`` lets no control character through.
_TOKEN: Final = "\x01"

#: Okabe and Ito's palette without its yellow, which a white page swallows, and with grey for its black; readable with
#: any colour vision. The dark one has the same hues, lighter, so that each is well above 3:1 on its ground.
_SERIES: Final = {
    "light": ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#767676"),
    "dark": ("#56b4f2", "#ff8f4a", "#33cc9e", "#e8a5cb", "#a3d9f7", "#f4bc4f", "#b4b4b4"),
}
THEMES: Final[Mapping[str, Mapping[str, str]]] = {
    name: {
        "ink": ink, "soft": soft, "grid": grid, "line": line, "bad": bad,
        **{f"s{number}": colour for number, colour in enumerate(_SERIES[name])},
    }
    for name, ink, soft, grid, line, bad in (
        ("light", "#1f2328", "#59636e", "#e3e6e9", "#8b949e", "#b00020"),
        ("dark", "#e6e8eb", "#a5adb6", "#2e343b", "#6b747e", "#ff8a80"),
    )
}  # fmt: skip
COLOURS: Final = tuple(f"{_TOKEN}s{number}" for number in range(len(_SERIES["light"])))
_INK: Final = f"{_TOKEN}ink"
_SOFT: Final = f"{_TOKEN}soft"
_LINE: Final = f"{_TOKEN}line"
_BAD: Final = f"{_TOKEN}bad"
SYMBOLS: Final = ("circle", "square", "diamond", "triangle-up", "pentagon", "star", "hexagon")

_STAGE_COLOURS: Final = {
    "cgroups": COLOURS[4], "started": COLOURS[0], "isolated": COLOURS[5], "agent": COLOURS[3], "exec": COLOURS[2],
    "ready": COLOURS[1], "served": COLOURS[1], "exited": COLOURS[6], "cleaned": _LINE,
}  # fmt: skip

#: Of an environment with more samples one in so many is drawn. All dots are vector elements, which a browser draws some
#: 20,000 of in a second; plotly's WebGL would draw more, but compiles code, which the page's policy does not allow.
DOTS: Final = 2_000
#: From so many on they are smaller.
_SMALL_DOTS: Final = 1_000

_LABEL_LENGTH: Final = 60
_FONT: Final = {"family": "system-ui, sans-serif", "size": 13, "color": _INK}
_GRID: Final = f"{_TOKEN}grid"

#: A distribution of more values is drawn by so many of its quantiles.
ECDF_STEPS: Final = 1_000

#: Of an environment, so many samples are drawn with their iterations at most, and with so many points in all.
ITERATION_SAMPLES: Final = 10
ITERATION_POINTS: Final = 2_000

Figure = dict[str, Any]


@dataclass(frozen=True)
class _Cell:
    """A row with its points: values of the valid samples, their rounds, and where in it they were taken (0 to 1).

    ``failed`` has round, place and reason of those without a value.
    """

    row: Row
    rounds: list[int]
    places: list[float]
    values: list[float]
    flagged: list[bool]
    failed: list[tuple[int, float, str]]


def label(text: object) -> str:
    """Return foreign text as plotly draws it letter by letter: one line, no tags or entities, no ``$`` formulas."""
    line = plain(text).replace("$", "\uff04")
    return html.escape(line if len(line) <= _LABEL_LENGTH else line[: _LABEL_LENGTH - 1] + "…", quote=False)


def waterfall(row: Row) -> Figure:
    """Return the stages of one cell, each a bar that begins where the one before ended, on an axis of its own.

    An axis per cell, because a container's 2 ms would vanish beside a guest's 2 s, and a logarithmic axis would
    make the lengths of bars mean nothing. Lengths are medians of each stage alone, so their sum is near the median of
    the whole but need not be equal to it.
    """
    begins, total = [], 0.0
    for stage in row.stages:
        begins.append(total)
        total += stage.median_s
    lengths = [stage.median_s for stage in row.stages]
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": [label(stage.name) for stage in row.stages],
        "x": lengths,
        "base": begins,
        "text": [format_value(length, "s") for length in lengths],
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": [_STAGE_COLOURS.get(stage.name, _SOFT) for stage in row.stages]},
        "hovertemplate": "%{y}: %{text}, over at %{customdata}<extra></extra>",
        "customdata": [format_value(begin + length, "s") for begin, length in zip(begins, lengths, strict=True)],
    }
    return {
        "data": [bars],
        "layout": {
            **_base_layout(70 + 26 * len(row.stages)),
            "margin": {"l": 76, "r": 16, "t": 8, "b": 44},
            "yaxis": {"autorange": "reversed", "type": "category", "fixedrange": True},
            "xaxis": {
                **_time_axis(),
                "range": [0, (total or 1.0) * 1.2],
                "rangemode": "tozero",
                "title": {"text": "after the request", "font": {"size": 12}},
            },
            "shapes": _ready_line(row),
            "dragmode": False,
            "bargap": 0.25,
        },
    }


def dots(table: Table, by_cell: Mapping[str, Sequence[Sample]]) -> Figure:
    """Return every sample of a table as a dot in the order taken: rounds and the place in each to the right.

    One panel per environment, all logarithmic and all spanning the same factor: equal heights are equal ratios, so the
    spread of a 2 ms container can be compared with that of a 2 s guest. A cross at a panel's lower edge is a sample
    without a valid value. Of more than DOTS samples one in so many is drawn, and every outlier.
    """
    panels = _cells(table, by_cell)
    half_decades = _half_span(panels)
    last_round = max((number for panel in panels for number in _all_rounds(panel)), default=1)
    figure: Figure = {"data": [], "layout": _dots_layout(len(panels), last_round)}
    for position, panel in enumerate(panels):
        centre = _centre(panel.values)
        figure["data"] += _panel_traces(panel, position, 10 ** (centre - 0.88 * half_decades))
        figure["layout"][_axis("yaxis", position)] = _panel_axis(panel, position, len(panels), centre, half_decades)
        figure["layout"]["annotations"].append(_panel_title(panel, position, part=_every(panel)))
        figure["layout"]["shapes"] += _median_shapes(panel, position)
    return figure


def ecdf(table: Table, by_cell: Mapping[str, Sequence[Sample]]) -> Figure:
    """Return for each environment which share of its samples took at most how long, every sample a dot on its step.

    Panels and axes are as in ``dots``: logarithmic, all spanning the same factor, so that a steeper curve is a smaller
    relative spread. Above ECDF_STEPS values there are as many quantiles, and no dots.
    """
    panels = [panel for panel in _cells(table, by_cell) if panel.values]
    half_decades = _half_span(panels)
    figure: Figure = {"data": [], "layout": _ecdf_layout(len(panels))}
    for position, panel in enumerate(panels):
        centre, unit = _centre(panel.values), _hover_unit(panel.row.unit)
        number = table.rows.index(panel.row)
        values, shares = _steps(panel.values)
        figure["data"].append(
            {
                "type": "scatter",
                "mode": "lines+markers" if len(panel.values) <= ECDF_STEPS else "lines",
                "name": label(panel.row.display),
                "x": values,
                "y": shares,
                "line": {"shape": "hv", "width": 1.5, "color": COLOURS[number % len(COLOURS)]},
                "marker": {"symbol": SYMBOLS[number % len(SYMBOLS)], "size": 6},
                "xaxis": _axis("x", position),
                "yaxis": _axis("y", position),
                "hovertemplate": f"%{{y:.0%}} at most %{{x:.4s}}{label(unit)}<extra></extra>",
            }
        )
        figure["layout"] |= _ecdf_axes(panel, position, len(panels), centre, half_decades)
        figure["layout"]["annotations"].append(_panel_title(panel, position, number))
        figure["layout"]["shapes"] += _ecdf_median(panel, position, number)
    return figure


def iterations(found: Unfolding) -> Figure:
    """Return the iterations of samples, a line each: the warm-up dashed with hollow dots, what never settled dotted.

    Panels and axes are as in ``dots``. Of an environment, no more lines are drawn than have ITERATION_POINTS together.
    """
    rows = found.rows
    values = [[value for _, each in row.samples for value in each.values if value > 0] for row in rows]
    half_decades = _half_decades(values)
    figure: Figure = {"data": [], "layout": _iterations_layout(len(rows), found.longest)}
    for position, (row, drawn) in enumerate(zip(rows, values, strict=True)):
        centre = _centre(drawn)
        figure["data"] += _iteration_traces(row, position, _hover_unit(found.unit))
        axis = _axis("yaxis", position)
        figure["layout"][axis] = _log_panel(found.unit, position, len(rows), centre, half_decades)
        figure["layout"]["annotations"].append(_iterations_title(row, position))
    return figure


def _iterations_layout(panels: int, longest: int) -> dict[str, Any]:
    layout = _dots_layout(panels, longest)
    return layout | {"xaxis": {**layout["xaxis"], "title": {"text": "iteration", "font": {"size": 12}}}}


def _iterations_title(row: Unfolded, position: int) -> dict[str, Any]:
    shown = len(drawn_iterations(row))
    which = f"{shown} samples" if shown == len(row.samples) else f"the first {shown} of {len(row.samples)} samples"
    return _title_above(f"{label(row.row.display)}, {which}, log axis", position, row.number)


def drawn_iterations(row: Unfolded) -> tuple[tuple[int, Iterations], ...]:
    """Return the samples of an environment whose iterations are drawn: the first so many."""
    longest = max((len(each.values) for _, each in row.samples), default=1)
    return row.samples[: max(1, min(ITERATION_SAMPLES, ITERATION_POINTS // longest))]


def _iteration_traces(row: Unfolded, position: int, unit: str) -> list[dict[str, Any]]:
    """Return up to three traces; the lines of a kind are one trace with gaps between them."""
    colour, symbol = COLOURS[row.number % len(COLOURS)], SYMBOLS[row.number % len(SYMBOLS)]
    kinds: dict[str, list[tuple[int, Iterations, int, int]]] = {"steady": [], "warm-up": [], "not steady": []}
    for number, each in drawn_iterations(row):
        count, warm_up = len(each.values), each.warm_up
        kinds["not steady" if warm_up is None else "steady"].append((number, each, warm_up or 0, count))
        if warm_up:
            kinds["warm-up"].append((number, each, 0, min(warm_up + 1, count)))
    looks = {
        "steady": {"mode": "lines", "line": {"color": colour, "width": 1.2}},
        "warm-up": {
            "mode": "lines+markers", "line": {"color": colour, "width": 1.2, "dash": "dash"},
            "marker": {"color": colour, "size": _hollow_sizes(kinds["warm-up"]), "symbol": f"{symbol}-open"},
        },
        "not steady": {"mode": "lines", "line": {"color": colour, "width": 1.6, "dash": "dot"}},
    }  # fmt: skip
    return [
        {
            "type": "scatter",
            "name": kind,
            "opacity": 0.6,
            "xaxis": "x",
            "yaxis": _axis("y", position),
            **looks[kind],
            **_stretches(stretches),
            "hovertemplate": f"%{{text}}, iteration %{{x}}, {kind}: %{{y:.4s}}{label(unit)}<extra></extra>",
        }
        for kind, stretches in kinds.items()
        if stretches
    ]


def _hollow_sizes(stretches: Sequence[tuple[int, Iterations, int, int]]) -> list[int]:
    """Return the size of each dot of warm-ups: the iteration at which the line goes on belongs to the number."""
    sizes: list[int] = []
    for _, each, first, last in stretches:
        sizes += [6 if at < (each.warm_up or 0) else 0 for at in range(first, last)] + [0]
    return sizes


def _stretches(stretches: Sequence[tuple[int, Iterations, int, int]]) -> dict[str, Any]:
    """Return the points of several lines, each from its first to before its last iteration, with a gap behind it."""
    x: list[int | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for number, each, first, last in stretches:
        x += [*range(first + 1, last + 1), None]
        y += [*(value if value > 0 else None for value in each.values[first:last]), None]
        text += [f"round {number}"] * (last - first + 1)
    return {"x": x, "y": y, "text": text}


def _steps(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return the ordered values and the share of values up to each, of many values ECDF_STEPS quantiles."""
    ordered, count = sorted(values), len(values)
    steps = min(count, ECDF_STEPS)
    ranks = [-(-step * count // steps) for step in range(1, steps + 1)]
    return [ordered[rank - 1] for rank in ranks], [round(rank / count, 6) for rank in ranks]


def _ecdf_layout(panels: int) -> dict[str, Any]:
    return {
        **_base_layout(30 + 165 * max(panels, 1)),
        "margin": {"l": 52, "r": 16, "t": 26, "b": 34},
        "hovermode": "closest",
        "annotations": [],
        "shapes": [],
    }


def _ecdf_axes(panel: _Cell, position: int, panels: int, centre: float, half_decades: float) -> dict[str, Any]:
    height = 1 / (panels - 0.32)
    top = 1 - position * height
    ticks = log_ticks(10 ** (centre - half_decades), 10 ** (centre + half_decades))
    across = {
        "type": "log",
        "range": [centre - half_decades, centre + half_decades],
        "tickvals": ticks,
        "ticktext": [label(_tick_text(tick, panel.row.unit)) for tick in ticks],
        "anchor": _axis("y", position),
        "gridcolor": _GRID,
        "linecolor": _LINE,
        "showline": True,
        "zeroline": False,
    }
    up = {
        "range": [-0.03, 1.05],
        "domain": [max(0.0, top - height * 0.68), top],
        "tickvals": [0, 0.5, 1],
        "ticktext": ["0%", "50%", "100%"],
        "anchor": _axis("x", position),
        "fixedrange": True,
        "gridcolor": _GRID,
        "zeroline": False,
    }
    return {_axis("xaxis", position): across, _axis("yaxis", position): up}


def _ecdf_median(panel: _Cell, position: int, number: int) -> list[dict[str, Any]]:
    """The median as a line, its interval as a band."""
    where = {"xref": _axis("x", position), "yref": f"{_axis('y', position)} domain", "y0": 0, "y1": 1, "layer": "below"}
    return _marked(panel.row, "x", COLOURS[number % len(COLOURS)], where)


def ratios(table: Table) -> Figure | None:
    """Return how many times the baseline each environment takes, as a dot with its interval; None without a ratio.

    The axis is logarithmic, so that half and twice lie equally far from 1. What is not judged is hollow.
    """
    rows = [row for row in table.rows if row.ratio is not None]
    if not rows:
        return None
    ends = [end for row in rows if row.ratio for end in (row.ratio.low, row.ratio.estimate, row.ratio.high) if end]
    low, high = min(0.8, *ends) / 1.25, max(1.25, *ends) * 1.6
    ticks = log_ticks(low, high)
    return {
        "data": [_ratio_trace(row, table.rows.index(row), len(rows) - 1 - place) for place, row in enumerate(rows)],
        "layout": {
            **_base_layout(74 + 40 * len(rows)),
            "margin": {"l": 16, "r": 16, "t": 8, "b": 44},
            "hovermode": "closest",
            "dragmode": False,
            "yaxis": {"range": [-0.6, len(rows) - 0.2], "visible": False, "fixedrange": True},
            "xaxis": {
                "type": "log",
                "range": [math.log10(low), math.log10(high)],
                "tickvals": ticks,
                "ticktext": [f"{tick:,g}×" for tick in ticks],
                "gridcolor": _GRID,
                "zeroline": False,
                "fixedrange": True,
                "title": {"text": "times the baseline, log axis", "font": {"size": 12}},
            },
            "shapes": [_unity()],
            "annotations": [_ratio_label(row, len(rows) - 1 - place) for place, row in enumerate(rows)],
        },
    }


def scaling(found: Scaling) -> Figure:
    """Return what each environment takes by how many start at once: a line each with intervals, on logarithmic axes."""
    medians = [row.median for series in found.series for _, row in series.rows if row.median and row.median > 0]
    unit = next((row.unit for series in found.series for _, row in series.rows), "s")
    ticks_of = byte_log_ticks if unit == "B" else log_ticks
    ticks = ticks_of(min(medians, default=1) / 1.3, max(medians, default=1) * 1.3)
    return {
        "data": [_scaling_trace(series) for series in found.series],
        "layout": {
            **_base_layout(320),
            "margin": {"l": 76, "r": 16, "t": 8, "b": 74},
            "hovermode": "closest",
            "showlegend": True,
            "legend": {"orientation": "h", "x": 0, "y": -0.22},
            "xaxis": {
                "type": "log",
                "tickvals": list(found.counts),
                "ticktext": [str(count) for count in found.counts],
                "title": {"text": "started at once", "font": {"size": 12}},
                "gridcolor": _GRID,
                "fixedrange": True,
            },
            "yaxis": {
                "type": "log",
                "tickvals": ticks,
                "ticktext": [label(_tick_text(tick, unit)) for tick in ticks],
                "gridcolor": _GRID,
                "fixedrange": True,
            },
        },
    }


#: How far beyond the last percentile the slowest of all stands, as a factor on the axis: it has no share of its own.
_BEYOND: Final = 10**0.5


def percentiles(found: Percentiles) -> Figure:
    """Return how slow which share of the operations is: a line an environment through medians over its samples.

    The farther out a percentile is, the more room it gets: it stands at 1 / (1 - share) of a logarithmic axis, so that
    nine times out of ten, 99 of 100 and 999 of 1,000 are equally far apart. The interval is a band; the slowest of all
    stands beyond, on a dotted line.
    """
    places = _rung_places(found)
    rungs = [rung for curve in found.curves for rung in curve.rungs]
    ends = [end for rung in rungs for end in _rung_ends(rung)]
    low, high = min(ends, default=1.0) / 1.3, max(ends, default=1.0) * 1.3
    ticks = log_ticks(low, high)
    return {
        "data": [trace for curve in found.curves for trace in _curve_traces(curve, places, found.unit)],
        "layout": {
            **_base_layout(340),
            "margin": {"l": 76, "r": 16, "t": 8, "b": 92},
            "hovermode": "closest",
            "dragmode": False,
            "showlegend": True,
            "legend": {"orientation": "h", "x": 0, "y": -0.3},
            "xaxis": {
                "type": "log",
                "range": [math.log10(min(places.values())) - 0.1, math.log10(max(places.values())) + 0.1],
                "tickvals": list(places.values()),
                "ticktext": [label(name.removeprefix("p")) for name in places],
                "tickangle": 0,
                "title": {"text": "% of the operations, as fast or faster", "font": {"size": 12}},
                "gridcolor": _GRID,
                "zeroline": False,
                "fixedrange": True,
            },
            "yaxis": {
                "type": "log",
                "range": [math.log10(low), math.log10(high)],
                "tickvals": ticks,
                "ticktext": [label(_tick_text(tick, found.unit)) for tick in ticks],
                "gridcolor": _GRID,
                "zeroline": False,
                "fixedrange": True,
            },
        },
    }


def _rung_places(found: Percentiles) -> dict[str, float]:
    """Return where on the axis each percentile stands."""
    shares = {rung.name: rung.share for curve in found.curves for rung in curve.rungs}
    places = {name: round(1 / (1 - shares[name]), 4) for name in found.names if shares[name] < 1}
    beyond = {name: round(max(places.values(), default=1.0) * _BEYOND, 4) for name in found.names if shares[name] == 1}
    return places | beyond


def _rung_ends(rung: Rung) -> tuple[float, ...]:
    return (rung.median,) if rung.interval is None else (rung.interval.low, rung.median, rung.interval.high)


def _curve_traces(curve: Curve, places: Mapping[str, float], unit: str) -> list[dict[str, Any]]:
    """Return the band of the intervals where there are any, the line, and the dotted rest to the slowest of all."""
    colour = COLOURS[curve.number % len(COLOURS)]
    symbol = SYMBOLS[curve.number % len(SYMBOLS)]
    line = [rung for rung in curve.rungs if rung.share < 1]
    rest = [*line[-1:], *(rung for rung in curve.rungs if rung.share == 1)]
    group = {"type": "scatter", "legendgroup": f"{curve.number}", "name": label(curve.display)}

    def points(rungs: Sequence[Rung]) -> dict[str, Any]:
        return {
            "x": [places[rung.name] for rung in rungs],
            "y": [rung.median for rung in rungs],
            "text": [_rung_text(rung, curve, unit) for rung in rungs],
            "hovertemplate": "%{text}<extra></extra>",
        }

    traces = [{**group, **_band(line, places), "fillcolor": colour}] if any(rung.interval for rung in line) else []
    traces.append(
        {
            **group, **points(line), "mode": "lines+markers", "showlegend": True,
            "marker": {"color": colour, "size": 8, "symbol": symbol}, "line": {"color": colour, "width": 1.5},
        }
    )  # fmt: skip
    if any(rung.share == 1 for rung in rest):
        open_ones = [symbol if rung.share < 1 else f"{symbol}-open" for rung in rest]
        traces.append(
            {
                **group, **points(rest), "mode": "lines+markers", "showlegend": not line,
                "marker": {"color": colour, "size": 8, "symbol": open_ones},
                "line": {"color": colour, "width": 1.5, "dash": "dot"},
            }
        )  # fmt: skip
    return traces


def _band(line: Sequence[Rung], places: Mapping[str, float]) -> dict[str, Any]:
    """Return the outline of the intervals: there along their upper ends, back along the lower ones."""
    known = [(places[rung.name], rung.interval) for rung in line if rung.interval is not None]
    return {
        "mode": "lines",
        "fill": "toself",
        "x": [place for place, _ in known] + [place for place, _ in reversed(known)],
        "y": [interval.high for _, interval in known] + [interval.low for _, interval in reversed(known)],
        "line": {"width": 0},
        "opacity": 0.15,
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _rung_text(rung: Rung, curve: Curve, unit: str) -> str:
    return label(f"{curve.display} {rung.name}: {rung_value(rung, unit)}, {rung.count} samples")


_PART_COLOURS: Final = {
    "base": COLOURS[6], "format": COLOURS[1], "content": COLOURS[0], "kernel": COLOURS[2], "initramfs": COLOURS[3],
}  # fmt: skip


def sizes(found: Sizes) -> Figure:
    """Return what each format takes on the disk: a stacked bar each, on a linear axis, so that lengths can be added."""
    weights = [weight for weight in found.weights if weight.parts]
    names = [label(weight.display) for weight in weights]
    largest = max((sum(weight.parts.values()) for weight in weights), default=0.0)
    ticks = byte_ticks(largest * 1.05)
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "name": part,
                "y": names,
                "x": [weight.parts.get(part, 0.0) for weight in weights],
                "text": [label(format_value(weight.parts.get(part), "B")) for weight in weights],
                "textposition": "none",
                "marker": {"color": _PART_COLOURS[part]},
                "hovertemplate": f"%{{y}}, {part}: %{{text}}<extra></extra>",
            }
            for part in PARTS
            if any(weight.parts.get(part) for weight in weights)
        ],
        "layout": {
            **_base_layout(110 + 30 * len(weights)),
            "margin": {"l": 128, "r": 16, "t": 8, "b": 66},
            "barmode": "stack",
            "showlegend": True,
            "legend": {"orientation": "h", "x": 0, "y": -0.16, "traceorder": "normal"},
            "yaxis": {"autorange": "reversed", "type": "category", "fixedrange": True},
            "xaxis": {
                "range": [0, largest * 1.05 or 1.0],
                "tickvals": ticks,
                "ticktext": [label(format_value(tick, "B")) for tick in ticks],
                "gridcolor": _GRID,
                "zeroline": False,
                "fixedrange": True,
            },
            "dragmode": False,
            "bargap": 0.3,
        },
    }


def byte_ticks(high: float) -> list[float]:
    """Return three to six round sizes from 0 to ``high`` for a linear axis: steps are powers of two."""
    step = 2.0 ** math.floor(math.log2(high / 3)) if high > 0 else 1.0
    return [step * number for number in range(int(high / step) + 1)]


def byte_log_ticks(low: float, high: float) -> list[float]:
    """Return at most some eight powers of two from ``low`` to ``high``, both above zero, for a logarithmic axis."""
    first, last = math.floor(math.log2(low)), math.ceil(math.log2(high))
    every = max(1, -(-(last - first) // 8))
    return [2.0**power for power in range(-(-first // every) * every, last + 1, every) if low <= 2.0**power <= high]


def _scaling_trace(series: Series) -> dict[str, Any]:
    colour = COLOURS[series.number % len(COLOURS)]
    medians = [row.median or 0.0 for _, row in series.rows]
    ends = [(r.interval.low, r.interval.high) if r.interval else (r.median or 0.0,) * 2 for _, r in series.rows]
    bar = {"type": "data", "symmetric": False, "color": colour, "thickness": 1.5, "width": 4}
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": label(series.display),
        "x": [count for count, _ in series.rows],
        "y": medians,
        "text": [label(format_value(row.median, row.unit)) for _, row in series.rows],
        "marker": {"color": colour, "size": 8, "symbol": SYMBOLS[series.number % len(SYMBOLS)]},
        "line": {"color": colour, "width": 1.5},
        "error_y": {
            **bar,
            "array": [high - median for (_, high), median in zip(ends, medians, strict=True)],
            "arrayminus": [median - low for (low, _), median in zip(ends, medians, strict=True)],
        },
        "hovertemplate": "%{x} at once: %{text}<extra></extra>",
    }


def _ratio_trace(row: Row, number: int, height: int) -> dict[str, Any]:
    assert row.ratio is not None
    ratio, colour = row.ratio, COLOURS[number % len(COLOURS)]
    judged = row.verdict is not None and row.verdict.kind != "not judged"
    symbol = SYMBOLS[number % len(SYMBOLS)]
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "name": label(row.display),
        "x": [ratio.estimate],
        "y": [height],
        "marker": {"color": colour, "size": 10, "symbol": symbol if judged else f"{symbol}-open"},
        "hovertemplate": f"{label(ratio_text(ratio))}<extra></extra>",
    }
    if ratio.low is not None and ratio.high is not None:
        plus, minus = ratio.high - ratio.estimate, ratio.estimate - ratio.low
        bar = {"type": "data", "symmetric": False, "array": [plus], "arrayminus": [minus]}
        trace["error_x"] = {**bar, "color": colour, "thickness": 2, "width": 5}
    return trace


def _unity() -> dict[str, Any]:
    line = {"color": _INK, "width": 1, "dash": "dot"}
    return {"type": "line", "yref": "paper", "x0": 1, "x1": 1, "y0": 0, "y1": 1, "line": line, "layer": "below"}


def _ratio_label(row: Row, place: int) -> dict[str, Any]:
    return {
        "text": label(row.display),
        "xref": "paper",
        "x": 0,
        "y": place + 0.38,
        "xanchor": "left",
        "yanchor": "middle",
        "showarrow": False,
        "font": {"size": 13},
    }


def _cells(table: Table, by_cell: Mapping[str, Sequence[Sample]]) -> list[_Cell]:
    size = max((s.position + 1 for row in table.rows for s in by_cell.get(row.cell, ())), default=1)
    return [_cell(row, by_cell.get(row.cell, ()), size) for row in table.rows]


def _cell(row: Row, samples: Iterable[Sample], size: int) -> _Cell:
    """Return the points of a row; ``size`` is how many cells a round has."""
    found = _Cell(row, [], [], [], [], [])
    for sample in samples:
        value, place = metric_value(sample, row.metric), (sample.position + 0.5) / size
        if value is not None and value > 0 and row.ok:
            found.rounds.append(sample.round)
            found.places.append(round(sample.round - 0.5 + place, 3))
            found.values.append(value)
        else:
            status, reason = exclusion(sample, row.metric) or ("ok", f"a value of {value} has no place on this axis")
            found.failed.append((sample.round, round(sample.round - 0.5 + place, 3), f"{status}: {reason}"))
    found.flagged.extend(outliers(found.values))
    return found


def _all_rounds(panel: _Cell) -> list[int]:
    return [*panel.rounds, *(number for number, _, _ in panel.failed)]


def _base_layout(height: int) -> dict[str, Any]:
    return {
        "height": height,
        "font": _FONT,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "hoverlabel": {"align": "left"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": _LINE, "activecolor": _INK},
    }


def _time_axis() -> dict[str, Any]:
    """An axis in s whose ticks read 500µs, 2ms, 1.5s."""
    return {
        "tickformat": "~s",
        "ticksuffix": "s",
        "gridcolor": _GRID,
        "zerolinecolor": _GRID,
        "nticks": 5,
        "tickangle": 0,
    }


def _ready_line(row: Row) -> list[dict[str, Any]]:
    """Mark the end point of ``startup.ready`` or ``startup.served``: what comes behind it is clean-up."""
    names = [stage.name for stage in row.stages]
    last = next((number for number, name in enumerate(names) if name in get_args(Signal)), None)
    if last is None:
        return []
    end = sum(stage.median_s for stage in row.stages[: last + 1])
    line = {"color": _INK, "width": 1, "dash": "dot"}
    return [{"type": "line", "yref": "paper", "x0": end, "x1": end, "y0": 0, "y1": 1, "line": line, "layer": "below"}]


def _axis(name: str, position: int) -> str:
    return name if position == 0 else f"{name}{position + 1}"


def _centre(values: Sequence[float]) -> float:
    """Return the decimal logarithm of the middle of what a panel shows."""
    return (math.log10(min(values)) + math.log10(max(values))) / 2 if values else 0.0


def _half_span(panels: Iterable[_Cell]) -> float:
    """Return half the decades that every panel spans: those of the widest, at least a factor 1.5, and some room."""
    return _half_decades([panel.values for panel in panels])


def _half_decades(values: Iterable[Sequence[float]]) -> float:
    widest = max((math.log10(max(each)) - math.log10(min(each)) for each in values if each), default=0.0)
    return max(widest, math.log10(1.5)) * 0.65


def _dots_layout(panels: int, last_round: int) -> dict[str, Any]:
    return {
        **_base_layout(56 + 170 * panels),
        "margin": {"l": 76, "r": 16, "t": 30, "b": 44},
        "hovermode": "closest",
        "annotations": [],
        "shapes": [],
        "xaxis": {
            "title": {"text": "round, in the order taken", "font": {"size": 12}},
            "range": [0.5 - last_round * 0.01, last_round * 1.01 + 0.5],
            "gridcolor": _GRID,
            "zeroline": False,
            "tickformat": "d",
            "nticks": 12,
            "anchor": _axis("y", panels - 1) if panels else "y",
        },
    }


def _panel_axis(panel: _Cell, position: int, panels: int, centre: float, half_decades: float) -> dict[str, Any]:
    axis = _log_panel(panel.row.unit, position, panels, centre, half_decades)
    return axis | {"showticklabels": bool(panel.values)}


def _log_panel(unit: str, position: int, panels: int, centre: float, half_decades: float) -> dict[str, Any]:
    height = 1 / (panels - 0.16)
    top = 1 - position * height
    ticks = log_ticks(10 ** (centre - half_decades), 10 ** (centre + half_decades))
    return {
        "type": "log",
        "range": [centre - half_decades, centre + half_decades],
        "fixedrange": True,
        "tickvals": ticks,
        "ticktext": [label(_tick_text(tick, unit)) for tick in ticks],
        "gridcolor": _GRID,
        "domain": [max(0.0, top - height * 0.84), top],
        "linecolor": _LINE,
        "showline": True,
        "zeroline": False,
    }


def _every(panel: _Cell) -> int:
    """Return of how many samples of a panel one is drawn."""
    return max(1, -(-(len(panel.values) + len(panel.failed)) // DOTS))


def _panel_title(panel: _Cell, position: int, number: int | None = None, part: int = 1) -> dict[str, Any]:
    """Return what stands above a panel; ``number`` is that of its row in the table, where panels are left out.

    Of ``part`` samples one is drawn.
    """
    how = f" (1 in {part})" if part > 1 else ", log axis"
    text = f"{label(panel.row.display)}, {panel.row.ok} of {panel.row.attempted}{how}"
    return _title_above(text, position, position if number is None else number)


def _title_above(text: str, position: int, number: int) -> dict[str, Any]:
    return {
        "text": text,
        "xref": "paper",
        "yref": f"{_axis('y', position)} domain",
        "x": 0,
        "y": 1,
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 13, "color": COLOURS[number % len(COLOURS)]},
    }


def log_ticks(low: float, high: float) -> list[float]:
    """Return at most some nine round values from ``low`` to ``high``, both above zero, for a logarithmic axis.

    Plotly's own are crowded over one or two decades, and it leaves the unit out of every other one.
    """
    if high / low < 5:
        step = _nice_step((high - low) / 5)
        return [float(f"{n * step:.6g}") for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    mantissas: tuple[float, ...] = (1, 1.5, 2, 3, 5, 7) if high / low < 12 else (1, 2, 5) if last - first <= 3 else (1,)
    every = 1 + (last - first) // 9
    ticks = [float(f"{mantissa}e{power}") for power in range(first, last + 1, every) for mantissa in mantissas]
    return [tick for tick in ticks if low <= tick <= high]


def _nice_step(rough: float) -> float:
    """Return that of 1, 2 and 5 times a power of ten which is nearest to ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return power * min((1, 2, 5, 10), key=lambda factor: abs(math.log(factor * power / rough)))


def _hover_unit(unit: str) -> str:
    """Return what stands behind a number that plotly has given a prefix: ``7.680G/s``."""
    return unit.removeprefix("1")


def _tick_text(value: float, unit: str) -> str:
    """Return a round value without the zeros that a measured one would keep: ``2 ms``."""
    if unit in ("B", "B/s", "1", ""):
        return format_value(value, unit)
    if unit != "s":
        factor, name = si_scale(value, unit)
        return f"{value / factor:g} {name}"
    for factor, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= factor:
            return f"{value / factor:g} {name}"
    return f"{value / 1e-9:g} ns"


def _panel_traces(panel: _Cell, position: int, floor: float) -> list[dict[str, Any]]:
    colour, axis = COLOURS[position % len(COLOURS)], _axis("y", position)
    unit = _hover_unit(panel.row.unit)
    every, size = _every(panel), 7 if len(panel.values) < _SMALL_DOTS else 4
    shown = [at for at, flagged in enumerate(panel.flagged) if flagged or at % every == 0]
    failed = panel.failed[::every]
    common = {"type": "scatter", "mode": "markers", "xaxis": "x", "yaxis": axis}
    traces = [
        {
            **common,
            "name": "valid",
            "x": [panel.places[at] for at in shown],
            "y": [panel.values[at] for at in shown],
            "text": [f"round {panel.rounds[at]}" for at in shown],
            "marker": {"color": colour, "symbol": SYMBOLS[position % len(SYMBOLS)], "size": size, "opacity": 0.75},
            "hovertemplate": f"%{{text}}: %{{y:.4s}}{label(unit)}<extra></extra>",
        }
    ]
    ringed = [(r, v) for r, v, flag in zip(panel.places, panel.values, panel.flagged, strict=True) if flag]
    if ringed:
        traces.append(
            {
                **common,
                "name": "outlier",
                "x": [number for number, _ in ringed],
                "y": [value for _, value in ringed],
                "marker": {"color": _INK, "symbol": "circle-open", "size": size + 6},
                "hoverinfo": "skip",
            }
        )
    if failed:
        traces.append(
            {
                **common,
                "name": "not valid",
                "x": [place for _, place, _ in failed],
                "y": [floor] * len(failed),
                "text": [f"round {number}: {label(reason)}" for number, _, reason in failed],
                "marker": {"color": _BAD, "symbol": "x", "size": size + 2},
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    return traces


def _median_shapes(panel: _Cell, position: int) -> list[dict[str, Any]]:
    """The median as a line and its interval as a band behind the dots."""
    where = {"xref": "x domain", "yref": _axis("y", position), "x0": 0, "x1": 1, "layer": "below"}
    return _marked(panel.row, "y", COLOURS[position % len(COLOURS)], where)


def _marked(row: Row, along: str, colour: str, where: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the shapes of median and interval; ``along`` is the axis on which the values lie."""
    if row.median is None or row.median <= 0:
        return []
    first, last = f"{along}0", f"{along}1"
    line = {"color": colour, "width": 1}
    shapes: list[dict[str, Any]] = [{"type": "line", first: row.median, last: row.median, "line": line, **where}]
    if row.interval is not None and row.interval.low > 0:
        band = {"fillcolor": colour, "opacity": 0.15, "line": {"width": 0}}
        shapes.append({"type": "rect", first: row.interval.low, last: row.interval.high, **band, **where})
    return shapes
