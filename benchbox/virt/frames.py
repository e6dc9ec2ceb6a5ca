"""The frames that host and agent exchange on the port ``benchbox.control``; ``native/agent.c`` is the other side.

A frame is a type byte, the payload's length (32 bits, little endian) and the payload. A payload of fields is
``key=value``, each ended by a NUL.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from benchbox import foreign
from benchbox.errors import EnvironmentFailure
from benchbox.model import Command
from benchbox.units import parse_cpu_list
from benchbox.virt.domain import DATA_SERIAL

PROTOCOL: Final = 1
MAX_PAYLOAD_BYTES: Final = 65536

RUN: Final = b"R"
PING: Final = b"P"
QUIT: Final = b"Q"
HELLO: Final = b"H"
EXECUTED: Final = b"X"
ENDED: Final = b"D"
OUTPUT_ENDED: Final = b"O"
FAILED: Final = b"F"
PONG: Final = b"p"

_HEADER: Final = struct.Struct("<cI")
_MAX_WORDS: Final = 512
#: The fields of the guest's facts that count something.
COUNTS: Final = ("output_bytes", "memory_bytes", "oom_kills", "steal_ms")
_SHOWN: Final = 40


@dataclass(frozen=True)
class Frame:
    """One frame; ``kind`` is its type byte."""

    kind: bytes
    payload: bytes = b""

    def encoded(self) -> bytes:
        """Return the frame as it goes over the port. Raises EnvironmentFailure when the payload is too long."""
        if len(self.payload) > MAX_PAYLOAD_BYTES:
            raise EnvironmentFailure(f"a frame of {len(self.payload)} bytes is too long for the guest's agent")
        return _HEADER.pack(self.kind, len(self.payload)) + self.payload


class Decoder:
    """Cuts a stream of bytes into frames, however they arrive."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield each frame that ``data`` completes. Raises EnvironmentFailure for a length no frame may have."""
        self._rest += data
        while len(self._rest) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._rest)
            if length > MAX_PAYLOAD_BYTES:
                raise EnvironmentFailure(f"the guest's agent sent a frame of {length} bytes: not its protocol")
            end = _HEADER.size + length
            if len(self._rest) < end:
                return
            payload, self._rest = self._rest[_HEADER.size : end], self._rest[end:]
            yield Frame(kind, payload)


def run_request(command: Command, *, uid: int = 0, gid: int = 0, address: str | None = None) -> Frame:
    """Return the frame that asks the agent to run ``command``, with ``address`` on its network card (``a.b.c.d/N``).

    Raises EnvironmentFailure for what cannot be handed over: a NUL, no program, too many words.
    """
    fields = [("argv", word) for word in command.argv]
    fields += [("env", f"{name}={value}") for name, value in command.env.items()]
    fields += [("cwd", command.cwd), ("uid", str(uid)), ("gid", str(gid))]
    fields += [("data", DATA_SERIAL)] if command.data else []
    fields += [("address", address)] if address else []
    if not command.argv or not command.argv[0]:
        raise EnvironmentFailure("a command needs a program")
    if max(len(command.argv), len(command.env)) > _MAX_WORDS:
        raise EnvironmentFailure(f"a command in a guest has at most {_MAX_WORDS} arguments and variables")
    return Frame(RUN, b"".join(map(_field, fields)))


def _field(pair: tuple[str, str]) -> bytes:
    text = "=".join(pair).encode(errors="surrogateescape")
    if b"\0" in text:
        raise EnvironmentFailure(f"{pair[0]}: a NUL byte cannot be part of a command")
    return text + b"\0"


def parse_fields(payload: bytes) -> dict[str, str]:
    """Return the fields of a payload; what is no field is left out, of a repeated key the last counts."""
    parts = (part.partition(b"=") for part in payload.split(b"\0"))
    return {key.decode(errors="replace"): value.decode(errors="replace") for key, found, value in parts if found}


def parse_facts(payload: bytes) -> dict[str, str]:
    """Return what the guest says of itself. Raises EnvironmentFailure where a count or a list of CPUs cannot be one."""
    facts = parse_fields(payload)
    for key in COUNTS:
        number(key, facts.get(key, ""))
    try:
        parse_cpu_list(facts.get("cpus_online", ""))
    except ValueError as error:
        raise EnvironmentFailure(f"the guest's agent sent as cpus_online: {error}: not its protocol") from error
    return facts


def parse_numbers(payload: bytes) -> dict[str, int]:
    """Return the fields of a payload that are whole numbers. Raises EnvironmentFailure for one of too many digits."""
    found = {key: number(key, text) for key, text in parse_fields(payload).items()}
    return {key: value for key, value in found.items() if value is not None}


def count(facts: Mapping[str, str], key: str) -> int | None:
    """Return what ``facts`` count as ``key``, one of COUNTS; None where they do not say."""
    value = number(key, facts.get(key, ""))
    return value if value is not None and value >= 0 else None


def number(key: str, text: str) -> int | None:
    """Return the whole number of the field ``key``, None for what is none. Raises EnvironmentFailure for too many
    digits."""
    try:
        return foreign.whole(text)
    except ValueError as error:
        raise EnvironmentFailure(f"the guest's agent sent {error} as {key[:_SHOWN]!r}: not its protocol") from error
