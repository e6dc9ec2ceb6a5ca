"""Read untrusted YAML strictly, remembering the line of every key.

YAML is used as JSON with comments: one document of mappings, lists and scalars. What makes YAML dangerous or
surprising is refused (tags, anchors and aliases, duplicate keys, deep nesting) or never happens (``no`` is text, as in
YAML 1.2's core schema; a number that a float cannot hold stays text).
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

#: Where a value is: keys of mappings and indexes of lists, from the outside in.
KeyPath = tuple[str | int, ...]

MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 24
_TOO_DEEP: Final = f"nested deeper than {MAX_DEPTH} levels"
#: What is wrong with a file that says nothing.
EMPTY: Final = "the file is empty"

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL: Final = re.compile(r"~|null|Null|NULL|")
_TRUE: Final = re.compile(r"true|True|TRUE")
_FALSE: Final = re.compile(r"false|False|FALSE")
_INT: Final = re.compile(r"[-+]?[0-9]{1,18}")
_HEX: Final = re.compile(r"0x[0-9a-fA-F]{1,15}")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]{1,18}|[0-9]{1,18}(\.[0-9]{0,18})?)([eE][-+]?[0-9]{1,2})?")


@dataclass(frozen=True)
class Problem:
    """Something wrong at one place; ``line`` counts from 1."""

    line: int
    key: KeyPath
    text: str
    hint: str | None = None


@dataclass(frozen=True)
class Document:
    """What a file says, where it says it, and what is wrong with the way it does.

    ``lines`` maps the path of each key and list item to its line, ``()`` to that of the first one. ``value`` is
    only as good as ``problems`` allow: an alias leaves None in its place.
    """

    value: Any
    lines: Mapping[KeyPath, int]
    problems: tuple[Problem, ...] = ()

    def line_of(self, key: KeyPath) -> int:
        """Return the line of ``key``, or of the nearest thing around it that the file has."""
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key, 1)


class _StopReading(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.text)
        self.problem = problem


def decode(data: bytes) -> str:
    """Return the text of ``data``. Raises ValueError, naming the cause, where it is too long or no UTF-8."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"longer than {MAX_BYTES // 1024} KiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text (byte {error.start})") from error


def parse(text: str) -> Document:
    """Return what ``text`` says. Never raises for what is in it: that is in ``problems``."""
    reader = _Reader(text)
    try:
        value = reader.document()
    except _StopReading as stop:
        return Document(None, reader.lines, (*reader.problems, stop.problem))
    except yaml.YAMLError as error:
        return Document(None, reader.lines, (*reader.problems, _syntax_problem(error, text)))
    return Document(value, reader.lines, tuple(reader.problems))


def format_key(key: KeyPath) -> str:
    """Return ``key`` as people write it: ``environments[1].accelerator``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return "".join(parts).removeprefix(".")


@dataclass
class _Reader:
    text: str
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def document(self) -> Any:
        self._events: Iterator[yaml.Event] = yaml.parse(self.text, Loader=_LOADER)
        next(self._events)
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        value = self._node(next(self._events), ())
        next(self._events)
        following = next(self._events)
        if not isinstance(following, yaml.StreamEndEvent):
            raise _StopReading(Problem(_line(following), (), "a second document starts here; expected one"))
        return value

    def _node(self, event: Any, key: KeyPath) -> Any:
        self.lines.setdefault(key, _line(event))
        if isinstance(event, yaml.AliasEvent):
            return self._refuse(event, key, f"alias *{event.anchor} is not allowed", "write the value out")
        if event.anchor is not None:
            self._refuse(event, key, f"anchor &{event.anchor} is not allowed", "write the value out")
        if event.tag is not None:
            self._refuse(event, key, f"tag {_short(event.tag)} is not allowed", "write plain YAML")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, key)
        if len(key) >= MAX_DEPTH:
            raise _StopReading(Problem(_line(event), key[:3], _TOO_DEEP))
        return self._mapping(key) if isinstance(event, yaml.MappingStartEvent) else self._list(key)

    def _mapping(self, key: KeyPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            name = self._name(event, key)
            here = (*key, name)
            first_line = self.lines.setdefault(here, _line(event))
            value = self._node(next(self._events), here)
            if name in found:
                self._refuse(event, here, f"duplicate key; it is on line {first_line} already", "keep one of them")
            found.setdefault(name, value)
        return found

    def _name(self, event: Any, key: KeyPath) -> str:
        """Return a key as it is written: ``1`` and ``null`` are text here."""
        if not isinstance(event, yaml.ScalarEvent):
            raise _StopReading(Problem(_line(event), key, "expected text as key", "write 'key: value'"))
        if event.anchor is not None or event.tag is not None or not _printable(event.value):
            self._refuse(event, key, "keys are plain text: no anchor, tag or control character", None)
        return str(event.value)

    def _list(self, key: KeyPath) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            found.append(self._node(event, (*key, len(found))))
        return found

    def _scalar(self, event: yaml.ScalarEvent, key: KeyPath) -> Any:
        if not _printable(event.value):
            return self._refuse(event, key, "control characters are not allowed", None)
        plain = event.implicit[0] and event.style in (None, "")
        return resolve(event.value) if plain else event.value

    def _refuse(self, event: Any, key: KeyPath, text: str, hint: str | None) -> None:
        self.problems.append(Problem(_line(event), key, text, hint))


def resolve(text: str) -> Any:
    """Return what an unquoted scalar means: null, true, false, a number, else text (YAML 1.2.2, 10.3.2)."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return text[0] in "tT"
    if _INT.fullmatch(text):
        return int(text)
    if _HEX.fullmatch(text):
        return int(text, 16)
    return float(text) if _FLOAT.fullmatch(text) else text


def _printable(text: str) -> bool:
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in text if character not in "\n\t")


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _short(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")


def _syntax_problem(error: yaml.YAMLError, text: str) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
    line = mark.line + 1 if mark else 1
    if "nesting depth" in what:
        # libyaml from 0.2.6 on has a limit of its own, which it can reach before it hands out the first event.
        return Problem(line, (), _TOO_DEEP)
    culprit = text.splitlines()[line - 1 : line]
    tab = any(each[: len(each) - len(each.lstrip())].count("\t") for each in culprit)
    return Problem(line, (), f"not YAML: {what}", "indent with spaces, not tabs" if tab else None)
