"""Say in benchbox's words what pydantic found wrong: the place, what is expected, what was found, what was meant."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from benchbox.document import Document, KeyPath, Problem, format_key, resolve

_EXPECTED: Final = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
    "string_too_short": "text that is not empty",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "text that matches {pattern}",
    "path_type": "a path",
}
_CHOICES: Final = {"literal_error": "expected", "enum": "expected", "union_tag_invalid": "expected_tags"}
#: What YAML 1.1 took for true and false.
_OLD_BOOLEANS: Final = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_GOT_CHARACTERS: Final = 60


def problems(
    errors: Iterable[Mapping[str, Any]],
    document: Document,
    known: Mapping[KeyPath, Iterable[str]],
    owners: Mapping[str, str],
) -> list[Problem]:
    """Return one problem for each of pydantic's ``errors`` about ``document``.

    ``known`` names the keys that a mapping at a path may have, for the nearest right spelling of an unknown one;
    ``owners`` has a hint for a key that is right elsewhere.
    """
    return [_problem(error, document, known, owners) for error in errors]


def near(word: object, choices: Iterable[str]) -> str | None:
    """Return a hint that names the choice nearest to ``word``, None if none is near."""
    lower = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(str(word).lower(), lower, n=1, cutoff=0.5)
    return f"did you mean '{lower[found[0]]}'?" if found else None


def shown(value: Any) -> str:
    """Return ``value`` as a message shows it: short, on one line, text in quotes."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, dict)):
        return f"{'a' if value else 'an empty'} {'list' if isinstance(value, list) else 'mapping'}"
    text = repr(value)
    return text if len(text) <= _GOT_CHARACTERS else f"{text[:_GOT_CHARACTERS]}..."


def not_one_of(value: Any, choices: Iterable[str]) -> str:
    """Return the text of the problem that ``value`` is none of ``choices``."""
    return f"expected one of {', '.join(choices)}; got {shown(value)}"


def _problem(
    error: Mapping[str, Any],
    document: Document,
    known: Mapping[KeyPath, Iterable[str]],
    owners: Mapping[str, str],
) -> Problem:
    kind, got = str(error["type"]), error.get("input")
    key = _place(error["loc"], document.value, missing=kind == "missing")
    line = document.line_of(key)
    if kind == "missing":
        return Problem(line, key, "this key is missing", f"add '{key[-1]}: ...'" if key else None)
    if kind == "union_tag_not_found":
        return Problem(line, key, f"expected text or a mapping with {error['ctx']['discriminator']}; got {shown(got)}")
    if kind == "extra_forbidden":
        return _unknown_key(line, key, tuple(known.get(key[:-1], ())), owners)
    if kind in _CHOICES:
        return _no_choice(document, key, error)
    return Problem(line, key, f"{_expectation(kind, error)}; got {shown(got)}", _type_hint(kind, got))


def _place(location: Iterable[str | int], value: Any, *, missing: bool) -> KeyPath:
    """Return where in ``value`` an error is: pydantic's location without the names of union members."""
    *around, last = location or ("",)
    key: list[str | int] = []
    for part in (*around, last):
        in_mapping = isinstance(value, dict) and part in value
        in_list = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if in_mapping or in_list:
            value = value[part]
            key.append(part)
    return (*key, last) if missing else tuple(key)


def _unknown_key(line: int, key: KeyPath, known: tuple[str, ...], owners: Mapping[str, str]) -> Problem:
    hint = near(key[-1], known) or owners.get(str(key[-1]))
    return Problem(line, key, f"unknown key; expected one of {', '.join(known)}" if known else "unknown key", hint)


def _no_choice(document: Document, key: KeyPath, error: Mapping[str, Any]) -> Problem:
    context, got = error["ctx"], error.get("input")
    if error["type"] == "union_tag_invalid":
        name = str(context["discriminator"]).strip("'")
        got = context["tag"]
        key = (*key, name) if (*key, name) in document.lines else key
    choices = re.findall(r"'([^']*)'", str(context[_CHOICES[error["type"]]]))
    return Problem(document.line_of(key), key, not_one_of(got, choices), near(got, choices))


def _expectation(kind: str, error: Mapping[str, Any]) -> str:
    if kind in _EXPECTED:
        context = {name: _tidy(value) for name, value in error.get("ctx", {}).items()}
        return f"expected {_EXPECTED[kind].format_map(context)}"
    text = str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "expected")
    return text.partition("; got ")[0].partition(", got ")[0]


def _tidy(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _type_hint(kind: str, got: Any) -> str | None:
    if kind in ("int_type", "float_type") and isinstance(got, str) and isinstance(resolve(got), int | float):
        return "write it without quotes"
    if kind == "bool_type" and isinstance(got, str) and got.lower() in _OLD_BOOLEANS:
        return f"write {_OLD_BOOLEANS[got.lower()]}"
    return None


def report(file: str, problems: Iterable[Problem]) -> tuple[str, str | None]:
    """Return message and hint for ``problems`` of ``file``: one line each, ``file:line: key: text``, in their order.

    The hint of a single problem is returned apart, those of several stand in their lines.
    """
    found = sorted(set(problems), key=lambda problem: (problem.line, format_key(problem.key), problem.text))
    if len(found) == 1:
        return _line(file, found[0]), found[0].hint
    return "\n".join(_line(file, each) + (f" ({each.hint})" if each.hint else "") for each in found), None


def _line(file: str, problem: Problem) -> str:
    key = f"{format_key(problem.key)}: " if problem.key else ""
    return f"{file}:{problem.line}: {key}{problem.text}"
