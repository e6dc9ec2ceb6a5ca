"""Frames between host and agent: whatever goes in comes out, however it is cut, and nothing else does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchbox.errors import EnvironmentFailure
from benchbox.model import Command
from benchbox.virt import frames
from benchbox.virt.frames import COUNTS, Decoder, Frame, parse_facts, parse_fields, parse_numbers, run_request

some_frames = st.lists(
    st.builds(Frame, st.sampled_from([b"H", b"X", b"D", b"O", b"p"]), st.binary(max_size=200)), max_size=6
)


@given(some_frames, st.lists(st.integers(1, 40), min_size=1))
def test_frames_survive_any_cut(sent: list[Frame], sizes: list[int]) -> None:
    """A stream gives the same frames whatever pieces it arrives in."""
    stream, decoder = b"".join(frame.encoded() for frame in sent), Decoder()
    received: list[Frame] = []
    index = 0
    while stream:
        size = sizes[index % len(sizes)]
        received += decoder.feed(stream[:size])
        stream, index = stream[size:], index + 1

    assert received == sent


@given(st.binary(max_size=400))
def test_foreign_bytes_are_refused_or_wait(data: bytes) -> None:
    """Bytes that are not the protocol give frames, a wait for more or an EnvironmentFailure, never another error."""
    try:
        decoded = list(Decoder().feed(data))
    except EnvironmentFailure:
        return
    assert sum(5 + len(frame.payload) for frame in decoded) <= len(data)


def test_a_length_that_no_frame_has_is_refused() -> None:
    """A wrong length does not make the host wait for gigabytes."""
    with pytest.raises(EnvironmentFailure, match="not its protocol"):
        list(Decoder().feed(b"D\xff\xff\xff\xff"))


def test_a_request_names_everything_that_the_agent_needs() -> None:
    """Arguments, variables, working directory, user and group, each field ended by a NUL."""
    command = Command(("/bin/sh", "-c", "a=b"), env={"A": "1=2"}, cwd="/tmp")

    expected = b"argv=/bin/sh\0argv=-c\0argv=a=b\0env=A=1=2\0cwd=/tmp\0uid=0\0gid=0\0"
    assert run_request(command) == Frame(frames.RUN, expected)


@pytest.mark.parametrize(
    "command",
    [Command(()), Command(("",)), Command(("/bin/a", "b\0c")), Command(("a",) * 600), Command(("a" * 70000,))],
)
def test_what_the_agent_could_not_take_is_refused_before_it_is_sent(command: Command) -> None:
    """No program, a NUL, too many words, too long: an EnvironmentFailure on the host, not a hanging guest."""
    with pytest.raises(EnvironmentFailure):
        run_request(command).encoded()


def test_fields_that_are_none_are_left_out() -> None:
    """A payload from a broken guest gives what can be read of it."""
    assert parse_fields(b"a=1\0nonsense\0b=x=y\0\xff=2") == {"a": "1", "b": "x=y", "\ufffd": "2"}
    assert parse_numbers(b"a=1\0b=-2\0c=\xc2\xb2\0d=1e3\0e=") == {"a": 1, "b": -2}


@pytest.mark.parametrize("digits", [21, 5000])
def test_a_number_of_more_digits_than_anything_counts_is_refused(digits: int) -> None:
    """Python itself refuses to read 4301 digits, with an error that is not the protocol's."""
    with pytest.raises(EnvironmentFailure, match=f"a number of {digits} digits as 'run_ns': not its protocol"):
        parse_numbers(b"run_ns=" + b"9" * digits)
    for key in COUNTS:
        with pytest.raises(EnvironmentFailure, match=f"a number of {digits} digits as '{key}'"):
            parse_facts(f"{key}={'9' * digits}".encode())


@pytest.mark.parametrize("cpus", [b"0-4000000000", b"a", b"9" * 5000])
def test_what_is_no_list_of_cpus_is_refused(cpus: bytes) -> None:
    """A list of four thousand million is not even made."""
    with pytest.raises(EnvironmentFailure, match=r"cpus_online: expected a list of CPUs .*: not its protocol"):
        parse_facts(b"cpus_online=" + cpus)


def test_several_signs_make_no_number() -> None:
    """It is left out, as all that is none."""
    assert parse_numbers(b"a=--5\0b=-\0c=\xd9\xa3") == {}


def test_an_address_is_asked_for_where_there_is_a_card() -> None:
    """Guests without one are asked as ever."""
    assert b"address=" not in run_request(Command(("/bin/x",))).payload
    assert run_request(Command(("/bin/x",)), address="198.18.0.3/24").payload.endswith(b"address=198.18.0.3/24\0")
