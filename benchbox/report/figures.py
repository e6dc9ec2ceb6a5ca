"""The figures of a page as plotly's plain data: pure functions of summary and samples.

Plain dictionaries and lists, not plotly's classes: those check every point and take longer than all the rest.
Text that others wrote goes through ``label`` first, because plotly reads a subset of HTML in what it draws.
"""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchbox.analysis.samples import exclusion, metric_value
from benchbox.analysis.statistics import outliers
from benchbox.analysis.summary import Row, Table
from benchbox.record import Sample
from benchbox.report.words import format_value, plain

#: Okabe and Ito's palette without its yellow, which a white page swallows; readable with any colour vision.
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
SYMBOLS: Final = ("circle", "square", "diamond", "triangle-up", "pentagon", "star", "hexagon")

_STAGE_COLOURS: Final = {
    "cgroups": "#56b4e9", "started": "#0072b2", "isolated": "#e69f00", "agent": "#cc79a7", "exec": "#009e73",
    "ready": "#d55e00", "exited": "#999999", "cleaned": "#bbbbbb",
}  # fmt: skip

#: From so many points on they are drawn by the graphics processor: a browser's vector elements get slow there.
WEBGL_POINTS: Final = 5_000

_LABEL_LENGTH: Final = 60
_FONT: Final = {"family": "system-ui, sans-serif", "size": 13, "color": "#222222"}
_GRID: Final = "#e4e4e4"

Figure = dict[str, Any]


@dataclass(frozen=True)
class _Cell:
    """A row with its points: rounds and values of the valid samples, and those that have none."""

    row: Row
    rounds: list[int]
    values: list[float]
    flagged: list[bool]
    failed: list[tuple[int, str]]


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
        "marker": {"color": [_STAGE_COLOURS.get(stage.name, "#777777") for stage in row.stages]},
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


def dots(table: Table, by_cell: Mapping[str, Sequence[Sample]], metric: str) -> Figure:
    """Return every sample of a table as a dot: the round to the right, the value upwards.

    One panel per environment, all logarithmic and all spanning the same factor: equal heights are equal ratios, so the
    spread of a 2 ms container can be compared with that of a 2 s guest. A cross at a panel's lower edge is a sample
    without a valid value.
    """
    panels = [_cell(row, by_cell.get(row.cell, ()), metric) for row in table.rows]
    points = sum(len(panel.rounds) + len(panel.failed) for panel in panels)
    kind = "scattergl" if points > WEBGL_POINTS else "scatter"
    half_decades = _half_span(panels)
    last_round = max((number for panel in panels for number in _all_rounds(panel)), default=1)
    figure: Figure = {"data": [], "layout": _dots_layout(len(panels), last_round)}
    for position, panel in enumerate(panels):
        centre = _centre(panel.values)
        figure["data"] += _panel_traces(panel, position, kind, 10 ** (centre - 0.88 * half_decades))
        figure["layout"][_axis("yaxis", position)] = _panel_axis(panel, position, len(panels), centre, half_decades)
        figure["layout"]["annotations"].append(_panel_title(panel, position))
        figure["layout"]["shapes"] += _median_shapes(panel, position)
    return figure


def _cell(row: Row, samples: Iterable[Sample], metric: str) -> _Cell:
    rounds, values, failed = [], [], []
    for sample in samples:
        value = metric_value(sample, metric)
        if value is not None and value > 0 and row.ok:
            rounds.append(sample.round)
            values.append(value)
        else:
            status, reason = exclusion(sample, metric) or ("ok", f"a value of {value} has no place on this axis")
            failed.append((sample.round, f"{status}: {reason}"))
    return _Cell(row, rounds, values, outliers(values), failed)


def _all_rounds(panel: _Cell) -> list[int]:
    return [*panel.rounds, *(number for number, _ in panel.failed)]


def _base_layout(height: int) -> dict[str, Any]:
    return {
        "height": height,
        "font": _FONT,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "hoverlabel": {"align": "left"},
    }


def _time_axis() -> dict[str, Any]:
    """An axis in s whose ticks read 500µs, 2ms, 1.5s."""
    return {"tickformat": "~s", "ticksuffix": "s", "gridcolor": _GRID, "zerolinecolor": _GRID, "nticks": 6}


def _ready_line(row: Row) -> list[dict[str, Any]]:
    """Mark the end point of ``startup.ready``: what comes behind it is clean-up."""
    names = [stage.name for stage in row.stages]
    if "ready" not in names:
        return []
    end = sum(stage.median_s for stage in row.stages[: names.index("ready") + 1])
    line = {"color": "#444444", "width": 1, "dash": "dot"}
    return [{"type": "line", "yref": "paper", "x0": end, "x1": end, "y0": 0, "y1": 1, "line": line, "layer": "below"}]


def _axis(name: str, position: int) -> str:
    return name if position == 0 else f"{name}{position + 1}"


def _centre(values: Sequence[float]) -> float:
    """Return the decimal logarithm of the middle of what a panel shows."""
    return (math.log10(min(values)) + math.log10(max(values))) / 2 if values else 0.0


def _half_span(panels: Iterable[_Cell]) -> float:
    """Return half the decades that every panel spans: those of the widest, at least a factor 1.5, and some room."""
    widest = max((math.log10(max(p.values)) - math.log10(min(p.values)) for p in panels if p.values), default=0.0)
    return max(widest, math.log10(1.5)) * 0.65


def _dots_layout(panels: int, last_round: int) -> dict[str, Any]:
    return {
        **_base_layout(56 + 170 * panels),
        "margin": {"l": 76, "r": 16, "t": 30, "b": 44},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#999999", "activecolor": "#222222"},
        "hovermode": "closest",
        "annotations": [],
        "shapes": [],
        "xaxis": {
            "title": {"text": "round", "font": {"size": 12}},
            "range": [0.5 - last_round * 0.01, last_round * 1.01 + 0.5],
            "gridcolor": _GRID,
            "zeroline": False,
            "tickformat": "d",
            "nticks": 12,
            "anchor": _axis("y", panels - 1) if panels else "y",
        },
    }


def _panel_axis(panel: _Cell, position: int, panels: int, centre: float, half_decades: float) -> dict[str, Any]:
    height = 1 / panels
    top = 1 - position * height
    ticks = log_ticks(10 ** (centre - half_decades), 10 ** (centre + half_decades))
    return {
        "type": "log",
        "range": [centre - half_decades, centre + half_decades],
        "fixedrange": True,
        "tickvals": ticks,
        "ticktext": [label(_tick_text(tick, panel.row.unit)) for tick in ticks],
        "gridcolor": _GRID,
        "domain": [top - height * 0.84, top],
        "showticklabels": bool(panel.values),
        "linecolor": "#999999",
        "showline": True,
        "zeroline": False,
    }


def _panel_title(panel: _Cell, position: int) -> dict[str, Any]:
    return {
        "text": f"{label(panel.row.display)}, {panel.row.ok} of {panel.row.attempted}, log axis",
        "xref": "paper",
        "yref": f"{_axis('y', position)} domain",
        "x": 0,
        "y": 1,
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 12, "color": COLOURS[position % len(COLOURS)]},
    }


def log_ticks(low: float, high: float) -> list[float]:
    """Return at most some nine round values from ``low`` to ``high``, both above zero, for a logarithmic axis.

    Plotly's own are crowded over one or two decades, and it leaves the unit out of every other one.
    """
    if high / low < 5:
        step = _nice_step((high - low) / 5)
        return [float(f"{n * step:.6g}") for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    mantissas = (1, 2, 5) if last - first <= 3 else (1,)
    every = 1 + (last - first) // 9
    ticks = [float(f"{mantissa}e{power}") for power in range(first, last + 1, every) for mantissa in mantissas]
    return [tick for tick in ticks if low <= tick <= high]


def _nice_step(rough: float) -> float:
    """Return that of 1, 2 and 5 times a power of ten which is nearest to ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return power * min((1, 2, 5, 10), key=lambda factor: abs(math.log(factor * power / rough)))


def _tick_text(value: float, unit: str) -> str:
    """Return a round value without the zeros that a measured one would keep: ``2 ms``."""
    if unit != "s":
        return format_value(value, unit)
    for factor, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= factor:
            return f"{value / factor:g} {name}"
    return f"{value / 1e-9:g} ns"


def _panel_traces(panel: _Cell, position: int, kind: str, floor: float) -> list[dict[str, Any]]:
    colour, axis = COLOURS[position % len(COLOURS)], _axis("y", position)
    unit = "" if panel.row.unit == "1" else panel.row.unit
    size = 7 if kind == "scatter" else 4
    common = {"type": kind, "mode": "markers", "xaxis": "x", "yaxis": axis}
    traces = [
        {
            **common,
            "name": "valid",
            "x": panel.rounds,
            "y": panel.values,
            "marker": {"color": colour, "symbol": SYMBOLS[position % len(SYMBOLS)], "size": size, "opacity": 0.75},
            "hovertemplate": f"round %{{x}}: %{{y:.4s}}{label(unit)}<extra></extra>",
        }
    ]
    ringed = [(r, v) for r, v, flag in zip(panel.rounds, panel.values, panel.flagged, strict=True) if flag]
    if ringed:
        traces.append(
            {
                **common,
                "name": "outlier",
                "x": [number for number, _ in ringed],
                "y": [value for _, value in ringed],
                "marker": {"color": "#000000", "symbol": "circle-open", "size": size + 6},
                "hoverinfo": "skip",
            }
        )
    if panel.failed:
        traces.append(
            {
                **common,
                "name": "not valid",
                "x": [number for number, _ in panel.failed],
                "y": [floor] * len(panel.failed),
                "text": [label(reason) for _, reason in panel.failed],
                "marker": {"color": "#b00020", "symbol": "x", "size": size + 2},
                "hovertemplate": "round %{x}: %{text}<extra></extra>",
            }
        )
    return traces


def _median_shapes(panel: _Cell, position: int) -> list[dict[str, Any]]:
    """The median as a line and its interval as a band behind the dots."""
    row, where = panel.row, {"xref": "x domain", "yref": _axis("y", position), "x0": 0, "x1": 1, "layer": "below"}
    if row.median is None or row.median <= 0:
        return []
    colour = COLOURS[position % len(COLOURS)]
    shapes: list[dict[str, Any]] = [
        {"type": "line", "y0": row.median, "y1": row.median, "line": {"color": colour, "width": 1}, **where}
    ]
    if row.interval is not None and row.interval.low > 0:
        band = {"fillcolor": colour, "opacity": 0.12, "line": {"width": 0}}
        shapes.append({"type": "rect", "y0": row.interval.low, "y1": row.interval.high, **band, **where})
    return shapes
