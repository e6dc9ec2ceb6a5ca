"""Any command of the image."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchbox.workloads.command import WORKLOAD, Params

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10)


@given(st.lists(WORDS, max_size=4))
def test_words_survive_the_record(words: list[str]) -> None:
    """A record has them as one text in shell quoting, which gives the same words again."""
    argv = ["/bin/x", *words]
    stored = Params.model_validate({"argv": argv}).model_dump()["argv"]
    assert isinstance(stored, str)
    assert WORKLOAD.command({"argv": stored}).argv == tuple(argv)


def test_a_text_is_read_as_a_shell_reads_it() -> None:
    """But no shell runs it."""
    command = WORKLOAD.command({"argv": "/bin/sh -c 'exit 7; $HOME'", "signals_ready": "false"})
    assert command.argv == ("/bin/sh", "-c", "exit 7; $HOME")
    assert command.signals_ready is False


@pytest.mark.parametrize("argv", [[], "", "/bin/sh 'x", ["sh"], "sh -c x", ["/bin/x", 3], ["/bin/x", "a\0b"], None, 3])
def test_what_cannot_be_executed_is_refused(argv: object) -> None:
    """A program needs its full path: there is no PATH in an environment."""
    with pytest.raises(ValueError, match="expected"):
        WORKLOAD.command({"argv": argv})
