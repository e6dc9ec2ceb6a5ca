"""Text of others (a guest's console, a file's name, a workload's output): shown harmless, read with bounds."""

import json
import re
import sys
import threading
import unicodedata
from types import TracebackType
from typing import Any, Final

#: Unicode's general categories: control characters and separators of lines become a space ...
_SPACES: Final = frozenset({"Cc", "Zl", "Zp"})
#: ... format characters (bidirectional overrides, zero widths) vanish ...
_NOTHING: Final = frozenset({"Cf"})
#: ... and halves of surrogate pairs (bytes of a file's name that are no text) become the replacement character.
_BROKEN: Final = frozenset({"Cs"})


def plain(text: object) -> str:
    """Return ``text`` on one line without anything that could steer a terminal or reorder what is read."""
    return " ".join(_harmless(str(text)).split())


def plain_lines(text: object) -> str:
    """Return ``text`` as ``plain`` does, but with its spaces, tabs and line feeds: for what is laid out by us."""
    return "\n".join("\t".join(map(_harmless, line.split("\t"))) for line in str(text).split("\n"))


def _harmless(text: str) -> str:
    return text if text.isprintable() else "".join(map(_replaced, text))


def _replaced(char: str) -> str:
    category = unicodedata.category(char)
    return " " if category in _SPACES else "" if category in _NOTHING else "\ufffd" if category in _BROKEN else char


def guard_tracebacks() -> None:
    """Write this process's tracebacks from now on as ``plain_lines``: their last line may quote anybody."""

    def tell(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        import traceback

        if issubclass(kind, SystemExit):  # of a thread: it only ends that
            return
        sys.stderr.write(plain_lines("".join(traceback.format_exception(kind, error, trace))))

    sys.excepthook = tell
    threading.excepthook = lambda given: tell(given.exc_type, given.exc_value, given.exc_traceback)


#: More digits than anything has that is counted here: those of 2**64.
_MAX_DIGITS: Final = 20
_LARGEST: Final = 2.0**64
_WHOLE: Final = re.compile(r"-?[0-9]+")


def whole(text: str) -> int | None:
    """Return the whole number that ``text`` is, None for what is none. Raises ValueError for one of too many digits.

    Python itself refuses those of more than 4300, and takes a time that grows by their square for fewer.
    """
    if not _WHOLE.fullmatch(text):
        return None
    if len(text.removeprefix("-")) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


class _Documents(json.JSONDecoder):
    """Reads JSON of others. ValueError is all that it raises: for what is none, is too deep, or has a number that is
    none (``NaN``, ``Infinity``, 1e999) or beyond 2**64."""

    def __init__(self) -> None:
        super().__init__(parse_int=whole, parse_float=_real, parse_constant=_no_number)

    def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
        try:
            return super().raw_decode(s, idx)
        except RecursionError:
            raise ValueError("nested too deeply") from None


def _real(text: str) -> float:
    value = float(text)
    if not abs(value) < _LARGEST:
        return _no_number(text)
    return value


def _no_number(text: str) -> float:
    raise ValueError(f"{text[:_MAX_DIGITS]} is no number that can be measured")


DOCUMENTS: Final = _Documents()
