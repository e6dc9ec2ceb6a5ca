"""The record inside of its page: every line of it, so that a page that was sent alone can still be checked.

Above a limit the page is a light one, without it: a page that no browser opens helps nobody.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchbox.record import Manifest, Sample

#: The largest page that carries its record.
PAGE_LIMIT_BYTES: Final = 15_000_000


@dataclass(frozen=True)
class Raw:
    """JSON for script elements: the manifest as it is on disk, and a list of the samples' lines."""

    manifest: str
    samples: str


def embedded(manifest: Manifest, samples: Sequence[Sample], room_bytes: int) -> Raw | None:
    """Return the record as JSON that can stand inside a script element; None where it takes more than the room."""
    head = escaped(manifest.model_dump_json())
    used, lines = len(head), []
    for sample in samples:
        line = escaped(sample.model_dump_json())
        used += len(line) + 2
        if used > room_bytes:
            return None
        lines.append(line)
    return Raw(head, f"[{','.join(lines)}]") if used <= room_bytes else None


def escaped(json_text: str) -> str:
    """Return ``json_text`` in pure ASCII without a character that HTML knows; it means the same."""
    text = json_text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return text if text.isascii() else "".join(map(_ascii, text))


def _ascii(char: str) -> str:
    if char.isascii():
        return char
    code = ord(char)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
