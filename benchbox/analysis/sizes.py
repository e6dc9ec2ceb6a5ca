"""What an image weighs in each format: the exact numbers of a run, by format."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchbox.analysis import statistics as st
from benchbox.analysis.samples import metric_value
from benchbox.model import EXACT
from benchbox.record import Sample

if TYPE_CHECKING:
    from benchbox.analysis.summary import Row

#: What a bar is made of, in the order in which it is stacked.
PARTS: Final = ("base", "format", "content", "kernel", "initramfs")
_PART: Final = "part."
_INSTANCES: Final = "instances."
_LAYER: Final = "layer."
_PACKAGES: Final = "part.packages"


@dataclass(frozen=True)
class Weight:
    """One format, sizes in B by name without their prefix; ``number`` is its place in the table.

    ``parts`` is what its bar is made of, ``instances`` what so many take together besides what they share, ``layers``
    the blobs of an OCI image.
    """

    display: str
    number: int
    numbers: dict[str, float]
    parts: dict[str, float]
    instances: dict[int, float]
    layers: tuple[float, ...]

    @property
    def is_host(self) -> bool:
        """Say whether it is what a host has installed, and no format."""
        return _PACKAGES in self.numbers

    @property
    def is_format(self) -> bool:
        """Say whether the image is in it: neither a kernel nor packages."""
        return "content" in self.parts


@dataclass(frozen=True)
class Sizes:
    """All formats of a run; ``content_bytes`` is the length of the image's files, None where nothing says."""

    weights: tuple[Weight, ...]
    content_bytes: int | None


def sizes(rows: Sequence["Row"], by_cell: Mapping[str, Sequence[Sample]]) -> Sizes | None:
    """Return what the samples of exact rows say; None where there are none."""
    exact = [row for row in rows if row.metric.startswith(EXACT) and row.ok]
    if not exact:
        return None
    weights = tuple(_weight(number, row, by_cell.get(row.cell, ())) for number, row in enumerate(exact))
    told = (sample.applied.get("content_bytes") for row in exact for sample in by_cell.get(row.cell, ()))
    return Sizes(weights, next((found for found in told if isinstance(found, int)), None))


def _weight(number: int, row: "Row", samples: Sequence[Sample]) -> Weight:
    names = sorted({name for sample in samples for name in sample.metrics if name.startswith(EXACT)})
    found = {name.removeprefix(EXACT): _value(samples, name) for name in names}
    layers = _counted(found, _LAYER)
    return Weight(
        row.display,
        number,
        found,
        {part: found[_PART + part] for part in PARTS if _PART + part in found},
        _counted(found, _INSTANCES),
        tuple(layers.values()),
    )


def _counted(numbers: Mapping[str, float], prefix: str) -> dict[int, float]:
    """Return those whose name is ``prefix`` and a number, by that number, the smallest first."""
    ends = ((name.removeprefix(prefix), value) for name, value in numbers.items() if name.startswith(prefix))
    return dict(sorted((int(end), value) for end, value in ends if end.isdecimal()))


def _value(samples: Sequence[Sample], name: str) -> float:
    """Return the median: of exact numbers all are the same, of times the middle one."""
    values = [value for sample in samples if (value := metric_value(sample, name)) is not None]
    return st.median(values)
