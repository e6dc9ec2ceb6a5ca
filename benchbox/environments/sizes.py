"""A size among the options of a scenario: text such as ``256MiB``, or bytes."""

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, WithJsonSchema

from benchbox.units import parse_size

MIN_BYTES: Final = 1 << 20


def _size_bytes(value: Any) -> int:
    try:
        size_bytes = parse_size(value) if isinstance(value, str | int) and not isinstance(value, bool) else 0
    except (ValueError, OverflowError):
        size_bytes = 0
    if size_bytes < MIN_BYTES:
        raise ValueError("expected a size of at least 1MiB, such as 256MiB")
    return size_bytes


#: Bytes, at least MIN_BYTES.
Size = Annotated[
    int,
    BeforeValidator(_size_bytes),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": r"^\d"}, {"type": "integer", "minimum": MIN_BYTES}]}),
]
