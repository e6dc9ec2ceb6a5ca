"""The client of the Docker API, against a daemon that is played: also one that is down, hangs or talks nonsense."""

import contextlib
import io
import json
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchbox.environments.engine_api import Demultiplexer, Engine, EngineError
from tests.environments.daemons import Answer, daemon, hang, raw, says


def test_what_the_daemon_says_is_returned() -> None:
    """As JSON; a name of a path is escaped."""
    with daemon({"GET /info": says({"Driver": "overlay2"}), "POST /containers/create": says({"Id": "abc"})}) as played:
        engine = Engine(played.path)
        assert engine.info() == {"Driver": "overlay2"}
        assert engine.create("a b", {"Image": "x"}) == "abc"
        assert played.asked == ["GET /info", "POST /containers/create?name=a+b"]
        assert json.loads(played.bodies[1]) == {"Image": "x"}


def test_a_refusal_is_said_in_the_daemon_s_words() -> None:
    """With the status, by which a caller may know what it means."""
    with daemon({"": says({"message": "no space left"}, 500)}) as played, pytest.raises(EngineError) as error:
        Engine(played.path).info()
    assert (error.value.message, error.value.status) == ("no space left", 500)


def test_a_daemon_that_is_down_is_said_with_what_to_do(tmp_path: Path) -> None:
    """Whether its socket is there or not."""
    dead = tmp_path / "dead"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(dead))
    for path in (dead, tmp_path / "nowhere"):
        with pytest.raises(EngineError, match=f"{path}: no daemon listens there") as error:
            Engine(path).ping()
        hint = str(error.value.hint)
        assert hint.startswith("start it (systemctl start docker)") and "apt install docker.io" in hint


def test_a_daemon_that_hangs_is_given_up() -> None:
    """After the time that it was given, whatever it was asked."""
    with daemon({"": hang}) as played:
        begun = time.monotonic()
        with pytest.raises(EngineError, match="does not answer"):
            Engine(played.path, timeout_s=0.2).ping()
        assert 0.2 <= time.monotonic() - begun < 2


@pytest.mark.parametrize(
    "answer",
    [
        raw(b"\x00\xff\xfe nonsense \r\n\r\n"),
        raw(b"220 mail.example ESMTP\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{not json"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        says([1, 2]),
        says(None),
        says({"Containers": "x" * (5 << 20)}),
    ],
)
def test_a_daemon_that_answers_nonsense_is_told_from_one_that_refuses(answer: Answer) -> None:
    """The socket is named; nothing else than that error comes out."""
    with daemon({"": answer}) as played, pytest.raises(EngineError, match="nonsense") as error:
        Engine(played.path, timeout_s=2).info()
    assert str(played.path) in error.value.message


def test_a_daemon_that_hangs_up_is_said() -> None:
    """It has crashed, perhaps."""
    with daemon({"": raw(b"")}) as played, pytest.raises(EngineError, match="closed the connection"):
        Engine(played.path).ping()


def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    """Four megabytes are enough."""

    def endless(connection: socket.socket, body: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(b"x" * 65536)

    with daemon({"": endless}) as played, pytest.raises(EngineError, match="more than 4 MiB"):
        Engine(played.path, timeout_s=2).info()


def test_an_import_that_fails_half_way_is_an_error() -> None:
    """The daemon has said 200 before it knew."""
    lines = b'{"status":"Importing"}\n{"error":"unexpected EOF"}\n'
    answer = raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(lines), lines))
    with daemon({"POST /images/create": answer}) as played:
        with pytest.raises(EngineError, match="cannot import the image: unexpected EOF"):
            Engine(played.path).import_image("benchbox/x", "abc", io.BytesIO(b"tar"))
        assert played.asked == ["POST /images/create?fromSrc=-&repo=benchbox%2Fx&tag=abc"]
        assert b"tar" in played.bodies[0]


def test_an_image_that_is_not_there_is_no_error() -> None:
    """Any other refusal is."""
    with daemon({"GET /images/there": says({}), "GET /images/broken": says({"message": "x"}, 500)}) as played:
        engine = Engine(played.path)
        assert engine.has_image("there:1")
        assert not engine.has_image("elsewhere:1")
        with pytest.raises(EngineError):
            engine.has_image("broken:1")


@pytest.mark.parametrize("status", [404, 409])
def test_to_remove_what_has_gone_is_no_error(status: int) -> None:
    """Nor to kill what does not run."""
    with daemon({"": says({"message": "x"}, status)}) as played:
        Engine(played.path).remove("abc")
        Engine(played.path).kill("abc")
        assert played.asked == ["DELETE /containers/abc?force=1&v=1", "POST /containers/abc/kill"]


def test_all_containers_of_a_run_are_removed_until_none_comes_after() -> None:
    """What the daemon had accepted before may come to be a little later."""
    there = [[], [{"Id": "late"}], [], []]

    def listed(connection: socket.socket, body: bytes) -> None:
        says(there.pop(0))(connection, body)

    with daemon({"GET /containers/json": listed, "DELETE": says()}) as played:
        assert Engine(played.path).remove_all("benchbox-1") == ["late"]
        assert "DELETE /containers/late?force=1&v=1" in played.asked
        assert "benchbox.run%3Dbenchbox-1" in played.asked[0]
    assert there == []


def test_a_list_that_is_none_is_nonsense() -> None:
    """Not an empty one: what is there would stay."""
    for answer in (says({"a": 1}), says([{"Name": "x"}]), says("x")):
        with daemon({"": answer}) as played, pytest.raises(EngineError, match="nonsense"):
            Engine(played.path).containers("r")


def test_output_is_read_as_it_comes_and_an_end_is_waited_for() -> None:
    """On connections of their own, each with a descriptor to poll."""

    def stream(connection: socket.socket, body: bytes) -> None:
        connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        time.sleep(0.05)
        connection.sendall(b"\x01\0\0\0\0\0\0\x02hi")

    with (
        daemon({"POST /containers/c/attach": stream}) as played,
        contextlib.closing(Engine(played.path).begin("POST", "/containers/c/attach").head()) as exchange,
    ):
        assert exchange.fileno() > 2
        assert Demultiplexer().feed(exchange.read_some()) == b"hi"
        assert exchange.read_some() == b""


FRAMES = st.lists(st.tuples(st.integers(1, 2), st.binary(max_size=40)), max_size=8)


@given(FRAMES, st.data())
def test_output_is_the_same_however_it_is_cut(frames: list[tuple[int, bytes]], data: st.DataObject) -> None:
    """The network cuts anywhere, in the head of a frame too."""
    content = b"".join(bytes([stream, 0, 0, 0]) + len(text).to_bytes(4, "big") + text for stream, text in frames)
    apart, output = Demultiplexer(), b""
    while content:
        cut = data.draw(st.integers(1, len(content)))
        output += apart.feed(content[:cut])
        content = content[cut:]
    assert output == b"".join(text for _, text in frames)


def test_what_is_no_frame_is_not_taken_for_a_length() -> None:
    """A length of anything could be waited for without end."""
    with pytest.raises(ValueError, match="no frame of output begins with 48656c6c6f2c2077"):
        Demultiplexer().feed(b"Hello, world, this is no frame")
