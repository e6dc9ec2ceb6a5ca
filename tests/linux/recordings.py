"""Recordings of real cgroup trees (``record_cgroups.sh`` makes them), unpacked as files."""

from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent / "recorded"
#: A system of each kind: Linux 6.1 with v1 only and with v2 only, Linux 6.18 with both.
KINDS: Final = ("v1", "v2", "hybrid")
_MARK: Final = "== "


def read(kind: str) -> dict[str, str]:
    """Return the text of each recorded file by its absolute path."""
    files: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in (_FOLDER / f"{kind}.txt").read_text().splitlines():
        if line.startswith(_MARK):
            lines = files[line.removeprefix(_MARK)] = []
        else:
            lines.append(line)
    return {path: "".join(f"{line}\n" for line in _without_separator(lines)) for path, lines in files.items()}


def unpack(kind: str, root: Path) -> Path:
    """Write the recorded files below ``root`` and return it."""
    for name, text in read(kind).items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def _without_separator(lines: list[str]) -> list[str]:
    """The script ends each file that it could read with an empty line."""
    return lines[:-1] if lines and not lines[-1] else lines
