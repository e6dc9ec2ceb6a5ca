"""YAML as JSON with comments: what a file says, where, and what it may not do."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchbox.document import MAX_BYTES, Document, decode, format_key, parse


def texts(document: Document) -> list[tuple[int, str, str]]:
    return [(problem.line, format_key(problem.key), problem.text) for problem in document.problems]


def test_each_key_and_item_knows_its_line() -> None:
    """Lines count from 1; comments and blank lines count as well."""
    document = parse("# comment\n\nname: x\nitems:\n  - 1\n  - key: [2,\n      3]\n")
    assert document.value == {"name": "x", "items": [1, {"key": [2, 3]}]}
    assert document.problems == ()
    assert document.lines["name",] == 3
    assert document.lines["items", 1] == 6
    assert document.lines["items", 1, "key", 1] == 7


def test_a_place_that_the_file_does_not_have_gets_the_line_of_what_is_around_it() -> None:
    """A missing key is reported where its mapping begins."""
    document = parse("a: 1\nb:\n  c: 2\n")
    assert document.line_of(("b", "missing", 3)) == 2
    assert document.line_of(("missing",)) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("~", None), ("null", None), ("true", True), ("FALSE", False), ("12", 12), ("-3", -3), ("010", 10),
        ("0x1F", 31), ("1.5", 1.5), ("1e3", 1000.0), ("no", "no"), ("on", "on"), ("1:30", "1:30"),
        ("1_000", "1_000"), (".inf", ".inf"), (".nan", ".nan"), ("1e999", "1e999"), ("2024-01-01", "2024-01-01"),
        ("256MiB", "256MiB"), ("'12'", "12"), ('"true"', "true"), ("9" * 5000, "9" * 5000), ("=", "="),
    ],
)  # fmt: skip
def test_scalars_mean_what_they_look_like(text: str, value: object) -> None:
    """YAML 1.2's core schema: ``no`` is text, no number is infinite, quotes make text."""
    found = parse(f"key: {text}").value["key"]
    assert found == value
    assert type(found) is type(value)


def test_an_explicit_tag_is_refused_and_builds_nothing() -> None:
    """Neither Python objects nor the harmless tags of YAML itself."""
    document = parse("a: !!python/object/apply:os.system ['true']\nb: !!int '3'\nc: ! x\n")
    assert texts(document) == [
        (1, "a", "tag !!python/object/apply:os.system is not allowed"),
        (2, "b", "tag !!int is not allowed"),
        (3, "c", "tag ! is not allowed"),
    ]


def test_anchors_and_aliases_are_refused() -> None:
    """Without them no short file can mean a large one."""
    document = parse("a: &x [1, 2]\nb: [*x, *x]\n")
    assert texts(document) == [
        (1, "a", "anchor &x is not allowed"),
        (2, "b[0]", "alias *x is not allowed"),
        (2, "b[1]", "alias *x is not allowed"),
    ]


def test_a_bomb_of_aliases_is_refused_at_once() -> None:
    """Nine levels of nine would be a billion values."""
    levels = "".join(f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 9)}]\n" for level in range(1, 10))
    began = time.process_time()
    assert parse(f"l0: &l0 [x]\n{levels}").problems
    assert time.process_time() - began < 1


def test_a_bomb_of_brackets_is_refused_at_once() -> None:
    """Reading all of them takes the parser minutes, so it stops at the first that is too deep; a parser that has a
    limit of its own may say so before it is known where that is."""
    began = time.process_time()
    (problem,) = parse("[" * (MAX_BYTES - 1)).problems
    assert (problem.line, problem.text) == (1, "nested deeper than 24 levels")
    assert time.process_time() - began < 1


def test_a_duplicate_key_is_refused_and_names_the_first() -> None:
    """Of two values YAML readers keep the last in silence."""
    document = parse("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\na: 2\n")
    assert texts(document) == [
        (5, "b.c", "duplicate key; it is on line 3 already"),
        (6, "a", "duplicate key; it is on line 1 already"),
    ]


@pytest.mark.parametrize("text", ["? [a]\n: 1\n", "? {a: 1}\n: 1\n", "&x a: 1\n", "!!str a: 1\n", '"a\\x07": 1\n'])
def test_a_key_is_plain_text(text: str) -> None:
    """No list, mapping, anchor, tag or control character."""
    assert parse(text).problems


def test_keys_are_text_as_they_are_written() -> None:
    """``1``, ``null`` and ``true`` may be unknown keys, but they are no other values."""
    assert parse("1: a\nnull: b\ntrue: c\n").value == {"1": "a", "null": "b", "true": "c"}


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "~\n"])
def test_a_file_that_says_nothing_has_no_value(text: str) -> None:
    """Who needs something must look for it."""
    assert parse(text) == Document(None, parse(text).lines)


def test_a_second_document_is_refused_where_it_begins() -> None:
    """The rest of such a file would be ignored in silence."""
    assert texts(parse("a: 1\n---\nb: 2\n")) == [(2, "", "a second document starts here; expected one")]


@pytest.mark.parametrize(
    "text", ["a: [", "a: {b: 1", "a: 'x", "a: b: c", "%bad", "a: @x", "\x00", "a: \x1b", "- a\nb: c"]
)
def test_what_is_no_yaml_is_a_problem_with_a_line(text: str) -> None:
    """A broken file raises nothing."""
    (problem,) = parse(text).problems
    assert problem.line >= 1
    assert problem.text.startswith("not YAML: ")


def test_a_tab_as_indent_gets_a_hint() -> None:
    """The parser's own words do not name it."""
    (problem,) = parse("a:\n\tb: 1\n").problems
    assert (problem.line, problem.hint) == (2, "indent with spaces, not tabs")


def test_control_characters_are_refused() -> None:
    """A description must not be able to move the cursor of whoever reads it."""
    assert texts(parse('a: "\\e[2J"\nb: "\\0"\nc: "tab\\tand\\nline are fine"\n')) == [
        (1, "a", "control characters are not allowed"),
        (2, "b", "control characters are not allowed"),
    ]


def test_only_short_utf_8_is_decoded() -> None:
    """A byte order mark is taken off; all else that is no UTF-8 is refused with its place."""
    assert decode(b"\xef\xbb\xbfa: \xc3\xa9") == "a: é"
    assert len(decode(b"x" * MAX_BYTES)) == MAX_BYTES
    with pytest.raises(ValueError, match=r"longer than 256 KiB"):
        decode(b"x" * (MAX_BYTES + 1))
    with pytest.raises(ValueError, match=r"not UTF-8 text \(byte 3\)"):
        decode(b"a: \xff")


@given(st.text(alphabet="ab:-[]{}&*!'\"\n #?|>%@\t0", max_size=40))
def test_no_text_makes_the_reader_raise(text: str) -> None:
    """What it cannot read is always a problem in the result."""
    document = parse(text)
    assert document.value is not None or isinstance(document.problems, tuple)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text("abc é☃", min_size=1),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
        max_leaves=10,
    )
)
def test_json_means_itself(value: object) -> None:
    """Every JSON document is a document here, with the same value."""
    import json

    document = parse(json.dumps(value, ensure_ascii=False))
    assert document.value == value
    assert document.problems == ()
