"""Text of others, made harmless."""

import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as some

from benchbox.foreign import DOCUMENTS, plain, plain_lines, whole

HARMFUL = ("Cc", "Cf", "Cs", "Zl", "Zp")


@pytest.mark.parametrize(
    ("given_text", "line", "lines"),
    [
        ("a\x1b[31mb\r\nc\u202ed\u2028e\x9bf", "a [31mb cd e f", "a [31mb \ncd e f"),
        ("a\x1b[2J\nb\tc", "a [2J b c", "a [2J\nb\tc"),
        ("\x1b]0;title\x07 \x7f.", "]0;title .", " ]0;title   ."),
        ("\u2066x\u2069\u200b\U000e0041", "x", "x"),
        ("name-\udcff", "name-\ufffd", "name-\ufffd"),
        ("  ours,  laid out", "ours, laid out", "  ours,  laid out"),
    ],
)
def test_text_from_others_cannot_steer_a_terminal(given_text: str, line: str, lines: str) -> None:
    """Escape sequences, C1 controls, bidirectional and invisible characters and halves of surrogates are gone."""
    assert (plain(given_text), plain_lines(given_text)) == (line, lines)


@given(some.text(some.characters(), max_size=50))
def test_no_text_has_anything_harmful_left(text: str) -> None:
    """Whatever it was: line feeds and tabs are all that is kept, and only where the layout is ours."""
    assert not any(unicodedata.category(char) in HARMFUL for char in plain(text))
    assert not any(unicodedata.category(char) in HARMFUL for char in plain_lines(text) if char not in "\n\t")


@pytest.mark.parametrize("how", ["raise error", "import threading; threading.Thread(target=fail).start()"])
def test_a_traceback_cannot_steer_a_terminal(how: str) -> None:
    """Its last line quotes whatever the error is about; in threads as well."""
    program = (
        "from benchbox import foreign\nforeign.guard_tracebacks()\nerror = ValueError('a\\x1b]0;x\\x07\\x9b\\u202eb')\n"
        f"def fail(): raise error\n{how}\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "Traceback (most recent call last)" in done.stderr
    assert "ValueError: a ]0;x  b" in done.stderr


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("-7", -7),
        ("18446744073709551615", 2**64 - 1),
        ("", None),
        ("--5", None),
        ("1e3", None),
        ("\u0663", None),
    ],
)
def test_a_whole_number_is_read(text: str, number: int | None) -> None:
    """Whatever 64 bits hold; what is none is none."""
    assert whole(text) == number


@pytest.mark.parametrize("digits", [21, 4000, 5000, 60_000])
def test_a_number_of_too_many_digits_is_refused(digits: int) -> None:
    """With how many there were, whatever Python's own limit."""
    with pytest.raises(ValueError, match=f"a number of {digits} digits"):
        whole("9" * digits)
    with pytest.raises(ValueError, match=f"a number of {digits} digits"):
        DOCUMENTS.decode(f'{{"a": {"9" * digits}}}')


@pytest.mark.parametrize(
    "text", ["NaN", "[Infinity]", "-Infinity", "1e999", "-1e999", "1e20", "[" * 60_000, '{"a":' * 60_000, "", "[1"]
)
def test_a_document_with_what_is_no_number_is_refused(text: str) -> None:
    """ValueError is all that is raised, for the depth of it as well."""
    with pytest.raises(ValueError):
        DOCUMENTS.decode(text)


def test_a_document_of_numbers_is_read() -> None:
    """As any reader of JSON does."""
    assert DOCUMENTS.decode('{"a": [1, -2.5, 1e3, true, null, "x"]}') == {"a": [1, -2.5, 1000.0, True, None, "x"]}
