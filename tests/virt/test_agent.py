"""The agent's own code, compiled for the host: its frames and requests, its refusal to be anything but the first."""

import hashlib
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchbox.errors import EnvironmentFailure
from benchbox.model import Command, DataSpec
from benchbox.virt.frames import MAX_PAYLOAD_BYTES, RUN, Frame, run_request

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "benchbox" / "native" / "agent.c"
COMPILERS = [name for name in ("musl-gcc", "gcc", "clang") if shutil.which(name)]

words = st.binary(max_size=30).map(lambda raw: raw.replace(b"\0", b""))


@pytest.fixture(scope="module")
def parser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent's parser, reading one frame from standard input and printing what it understood, with sanitizers."""
    return built("agent_parser.c", tmp_path_factory.mktemp("agent") / "parser")


def built(source: str, program: Path) -> Path:
    """Return ``program``, made of ``source`` beside this file and the agent's own code."""
    if "gcc" not in COMPILERS:
        pytest.skip("gcc is not installed")
    checks = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")
    argv = ["gcc", "-std=gnu11", *checks, "-o", str(program), f'-DAGENT="{SOURCE}"', str(HERE / source)]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode and "sanitize" in done.stderr:
        argv = [word for word in argv if word not in checks]
        done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


def parse(parser: Path, stream: bytes) -> list[bytes] | None:
    """Return the lines that the agent's parser made of ``stream``, None where it refused it."""
    done = subprocess.run([parser], input=stream, capture_output=True, timeout=20)
    assert done.returncode in (0, 1), done.stderr.decode()
    return done.stdout.split(b"\0")[:-1] if done.returncode == 0 else None


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(words, min_size=1, max_size=5).filter(lambda argv: argv[0] != b""),
    st.dictionaries(words.filter(lambda name: name and b"=" not in name), words, max_size=4),
)
def test_the_agent_understands_what_the_host_asks(parser: Path, argv: list[bytes], env: dict[bytes, bytes]) -> None:
    """Every request that the host can make arrives word for word."""
    text = {
        name.decode(errors="surrogateescape"): value.decode(errors="surrogateescape") for name, value in env.items()
    }
    command = Command(tuple(word.decode(errors="surrogateescape") for word in argv), env=text, cwd="/tmp")

    expected = [b"argv=" + word for word in argv] + [b"env=" + name + b"=" + env[name] for name in env]
    assert parse(parser, run_request(command, uid=1, gid=2).encoded()) == [*expected, b"cwd=/tmp", b"uid=1", b"gid=2"]


def test_the_agent_understands_which_disk_is_data(parser: Path) -> None:
    """By its serial number, and only where the command asks for one; an empty one is none."""
    request = run_request(Command(("/x",), data=DataSpec(1 << 20)))
    assert parse(parser, request.encoded()) == [b"argv=/x", b"cwd=/", b"uid=0", b"gid=0", b"data=benchbox-data"]
    assert parse(parser, Frame(RUN, b"argv=/x\0data=\0").encoded()) is None


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=120))
def test_no_bytes_lead_the_agent_astray(parser: Path, payload: bytes) -> None:
    """Whatever a payload holds, the parser takes it or refuses it and touches nothing beside it."""
    parse(parser, b"R" + struct.pack("<I", len(payload)) + payload)


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"R\x01",
        b"R" + struct.pack("<I", MAX_PAYLOAD_BYTES + 1) + b"a" * 100,
        b"R" + struct.pack("<I", 10) + b"argv=a\0",
        b"R" + struct.pack("<I", 6) + b"argv=a",
        b"R" + struct.pack("<I", 7) + b"argv=a\0\0\0\0"[:7].replace(b"a\0", b"\0\0"),
        b"R" + struct.pack("<I", 14) + b"argv=a\0uid=-1\0",
        b"R" + struct.pack("<I", 14) + b"argv=a\0what=1\0",
        b"R" + struct.pack("<I", 12) + b"argv=a\0env=\0",
        b"R" + struct.pack("<I", 7 * 513) + b"argv=a\0" * 513,
    ],
    ids=["empty", "torn", "too long", "short", "no end", "no program", "uid", "unknown", "variable", "too many"],
)
def test_a_request_that_is_none_is_refused(parser: Path, stream: bytes) -> None:
    """A frame that is torn, too long or holds what a request may not is refused."""
    assert parse(parser, stream) is None


def test_the_largest_request_fits(parser: Path) -> None:
    """The agent takes what the host lets pass, up to the last byte and word."""
    room = MAX_PAYLOAD_BYTES - len(run_request(Command(("",) and ("x", ""))).payload)
    command = Command(("x", "a" * room))
    assert parse(parser, run_request(command).encoded()) is not None
    assert parse(parser, run_request(Command(("x",) * 512)).encoded()) is not None
    with pytest.raises(EnvironmentFailure):
        run_request(Command(("x", "a" * (room + 1)))).encoded()


@pytest.mark.parametrize("compiler", COMPILERS)
def test_the_agent_compiles_without_a_warning_and_runs_only_as_the_first_process(compiler: str, tmp_path: Path) -> None:
    """With each compiler there is; started by hand it says what it is for and changes nothing."""
    program = tmp_path / "agent"
    argv = [compiler, "-std=c11", "-O2", "-static", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(SOURCE)]
    built = subprocess.run(argv, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    done = subprocess.run([program], capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (2, "")
    assert "only as the first process" in done.stderr


def test_the_agent_s_sum_of_a_file_is_sha256(tmp_path: Path) -> None:
    """At every length around the ends of its blocks and of its buffer."""
    program, file = built("agent_sum.c", tmp_path / "sum"), tmp_path / "file"
    for length in (0, 1, 55, 56, 57, 63, 64, 65, 119, 120, 128, 65535, 65536, 65537, 200_000):
        content = bytes(number * 7 % 251 for number in range(length))
        file.write_bytes(content)
        done = subprocess.run([program, file], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == hashlib.sha256(content).hexdigest(), length
    assert subprocess.run([program, tmp_path], capture_output=True).returncode == 1
