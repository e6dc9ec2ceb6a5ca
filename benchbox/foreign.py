"""Text of others (a guest's console, a file's name, a process's command line), made harmless before it is shown."""

import sys
import threading
import traceback
import unicodedata
from types import TracebackType
from typing import Final

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
        sys.stderr.write(plain_lines("".join(traceback.format_exception(kind, error, trace))))

    sys.excepthook = tell
    threading.excepthook = lambda given: tell(given.exc_type, given.exc_value, given.exc_traceback)
