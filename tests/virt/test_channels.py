"""What arrives on a guest's sockets, piece by piece."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchbox.errors import EnvironmentFailure
from benchbox.virt.channels import Console, Control, Tail
from benchbox.virt.frames import Frame


@given(st.lists(st.binary(max_size=50)), st.integers(1, 60))
def test_a_tail_is_the_end_of_the_stream(pieces: list[bytes], limit: int) -> None:
    """However a stream is cut, its end is kept, its length counted, and no more than the limit held."""
    tail = Tail(limit)
    for piece in pieces:
        tail.feed(piece)

    whole = b"".join(pieces)
    assert (tail.kept, tail.total_bytes) == (whole[-limit:], len(whole))


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_panic_is_seen_however_the_line_is_cut(size: int) -> None:
    """An emulated serial line delivers single bytes."""
    text = b"[ 2.1] Kernel panic - not syncing: sysrq triggered crash\r\n[ 2.2] CPU: 0\r\n"
    console = Console()
    for start in range(0, len(text), size):
        console.feed(text[start : start + size])

    assert console.panicked
    assert console.complaint() == "the guest's kernel panicked: Kernel panic - not syncing: sysrq triggered crash"


def test_the_agents_byte_is_seen_among_kernel_messages_and_is_no_text() -> None:
    """A warning of the kernel may come before the agent."""
    console = Console()
    seen = []
    for piece in (b"[ 0.1] a warning\r\n", b"\1"):
        console.feed(piece)
        seen.append(console.agent_seen)

    assert seen == [False, True]
    assert console.text() == "[ 0.1] a warning\n"
    assert console.complaint() is None


def test_the_agents_last_words_are_a_complaint() -> None:
    """An agent that gives up says why on the console."""
    console = Console()
    console.feed(b"\1\r\nbenchbox agent: cannot load /modules/00-virtio.ko: Exec format error\r\n")

    assert console.complaint() == "the guest's agent gave up: cannot load /modules/00-virtio.ko: Exec format error"


def test_the_agents_frames_are_followed() -> None:
    """Hello, exec, end, output's end and pongs, each as far as it has come."""
    control = Control()
    frames = [(b"H", b"protocol=1\0"), (b"X", b""), (b"D", b"exit_code=7\0run_ns=5\0"), (b"O", b"output_bytes=12\0")]
    for kind, payload in frames:
        control.feed(Frame(kind, payload).encoded())
    control.feed(Frame(b"p").encoded() * 2)

    assert control.executed
    assert control.ended == {"exit_code": 7, "run_ns": 5}
    assert control.output_bytes() == 12
    assert control.pongs == 2


def test_a_command_that_cannot_run_is_a_failure_with_its_reason() -> None:
    """The agent's word is kept, and never empty."""
    named, unnamed = Control(), Control()
    named.feed(Frame(b"F", b"/bin/no: No such file or directory").encoded())
    unnamed.feed(Frame(b"F").encoded())

    assert named.failure == "/bin/no: No such file or directory"
    assert unnamed.failure


def test_foreign_bytes_on_the_control_port_are_an_error() -> None:
    """A guest whose port speaks something else is not waited for."""
    with pytest.raises(EnvironmentFailure):
        Control().feed(b"login: \xff\xff\xff\xff")
