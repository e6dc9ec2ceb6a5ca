"""Sizes and durations: read what people write, print what people read."""

import re
from typing import Final

NS_PER_S: Final = 1_000_000_000

_SIZE_FACTORS: Final = {
    "": 1, "b": 1,
    "k": 1 << 10, "kib": 1 << 10, "kb": 1000,
    "m": 1 << 20, "mib": 1 << 20, "mb": 1000**2,
    "g": 1 << 30, "gib": 1 << 30, "gb": 1000**3,
    "t": 1 << 40, "tib": 1 << 40, "tb": 1000**4,
}  # fmt: skip
_SIZE: Final = re.compile(r"\s{0,9}(\d{1,18}(?:\.\d{1,18})?)\s{0,9}([A-Za-z]{0,3})\s{0,9}", re.ASCII)
_CPUS: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)
#: Linux is built for at most 8192 (arch/x86/Kconfig, NR_CPUS_RANGE_END).
_MAX_CPUS: Final = 1 << 16


#: Every unit of a metric -> its base unit, and how many of that it is.
BASE_UNITS: Final = {
    "s": ("s", 1.0), "ms": ("s", 1e-3), "us": ("s", 1e-6), "µs": ("s", 1e-6), "ns": ("s", 1e-9), "min": ("s", 60.0),
    "B": ("B", 1.0), "kB": ("B", 1e3), "MB": ("B", 1e6), "GB": ("B", 1e9),
    "KiB": ("B", 1024.0), "MiB": ("B", 1024.0**2), "GiB": ("B", 1024.0**3),
    "B/s": ("B/s", 1.0), "kB/s": ("B/s", 1e3), "MB/s": ("B/s", 1e6), "GB/s": ("B/s", 1e9),
    "KiB/s": ("B/s", 1024.0), "MiB/s": ("B/s", 1024.0**2), "GiB/s": ("B/s", 1024.0**3),
    "kbit/s": ("B/s", 125.0), "Mbit/s": ("B/s", 125e3), "Gbit/s": ("B/s", 125e6),
    "1/s": ("1/s", 1.0), "1/min": ("1/s", 1 / 60), "k/s": ("1/s", 1e3), "M/s": ("1/s", 1e6),
    "1": ("1", 1.0), "%": ("1", 0.01),
}  # fmt: skip


def to_base(value: float, unit: str) -> float:
    """Return ``value`` of ``unit`` in its base unit; KeyError for a unit that is not in BASE_UNITS."""
    return value * BASE_UNITS[unit][1]


def parse_size(text: str | int) -> int:
    """Return the bytes that ``text`` means: ``256MiB``, ``1.5G``, ``4096``.

    A bare K, M, G or T is binary, as in the kernel's interfaces; kB, MB, GB, TB are decimal.
    Raises ValueError for anything that is no positive size.
    """
    match = _SIZE.fullmatch(str(text))
    factor = _SIZE_FACTORS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f"expected a size such as 256MiB, got {text!r}")
    size_bytes = int(float(match[1]) * factor)
    if size_bytes <= 0:
        raise ValueError(f"expected a size above zero, got {text!r}")
    return size_bytes


def format_size(size_bytes: float) -> str:
    """Return ``size_bytes`` with a binary prefix: ``256 MiB``, ``1.5 GiB``, ``17 B``."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} TiB"


def format_duration(seconds: float) -> str:
    """Return ``seconds`` with three significant digits: ``0.0123`` is ``12.3 ms``."""
    if seconds == 0:
        return "0 s"
    for limit, factor, unit in ((1e-6, 1e9, "ns"), (1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (120.0, 1.0, "s")):
        if abs(seconds) < limit:
            return f"{_three_digits(seconds * factor)} {unit}"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


def _three_digits(value: float) -> str:
    magnitude = abs(value)
    return f"{value:.0f}" if magnitude >= 99.95 else f"{value:.1f}" if magnitude >= 9.995 else f"{value:.2f}"


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """Return the CPUs of a kernel list such as ``0-2,5`` in ascending order; empty text is no CPU.

    Raises ValueError for another text, and for more CPUs than any kernel has: a guest may have written it.
    """
    cpus: list[int] = []
    for part in filter(None, text.strip().split(",")):
        match = _CPUS.fullmatch(part)
        if match is None or len(cpus) > _MAX_CPUS:
            raise ValueError(f"expected a list of CPUs such as 0-2,5, got {text[:40]!r}")
        cpus += range(int(match[1]), int(match[2] or match[1]) + 1)
    return tuple(sorted(set(cpus)))


def format_cpu_list(cpus: tuple[int, ...]) -> str:
    """Return ``cpus`` as the kernel writes them, one number or range a part: ``0-2,5``."""
    parts: list[str] = []
    ordered = sorted(cpus)
    for index, cpu in enumerate(ordered):
        if index and cpu == ordered[index - 1] + 1:
            parts[-1] = f"{parts[-1].partition('-')[0]}-{cpu}"
        else:
            parts.append(str(cpu))
    return ",".join(parts)
