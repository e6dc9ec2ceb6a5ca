"""The network itself: how many bytes a second over TCP, how long a message takes to the environment and back.

The server is in the environment, the client outside, at the other end of its link.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from benchbox.foreign import DOCUMENTS
from benchbox.model import Command, Metric, Outcome
from benchbox.units import NS_PER_S
from benchbox.workloads.servers import listening, shown

IPERF: Final = "/usr/bin/iperf3"
IPERF_PORT: Final = 5201
#: Every kernel has it and lets everybody use it. What host and guest choose by default may differ.
CONGESTION_CONTROL: Final = "reno"
PINGPONG: Final = "/bin/pingpong"
PINGPONG_PORT: Final = 5202

#: An open loop that did not send what it was asked to is none: so much must have been sent, and answered.
_SENT_SHARE: Final = 0.95
_ANSWERED_SHARE: Final = 0.99
_LINE: Final = re.compile(rb"^([a-z0-9_.]+)=(\d{1,18})$", re.MULTILINE)
_PERCENTILES: Final = ("p50", "p75", "p90", "p95", "p99", "p99.9", "max")


class ThroughputParams(BaseModel):
    """``direction`` is seen from the environment: ``in`` it receives, ``out`` it sends."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    direction: Literal["in", "out"] = "in"
    seconds: int = Field(default=3, ge=1, le=600)
    streams: int = Field(default=1, ge=1, le=64)


class Throughput:
    """TCP throughput by iperf3: what arrived, not what was sent."""

    def command(self, params: Mapping[str, Any]) -> Command:
        """Return the server; it serves one test after the other until it is ended."""
        ThroughputParams.model_validate(params)
        return listening(IPERF_PORT, (IPERF, "--server", "--port", str(IPERF_PORT)))

    def client(self, params: Mapping[str, Any], address: str) -> Command:
        """Return the client, which prints a JSON document."""
        asked = ThroughputParams.model_validate(params)
        words = [IPERF, "--client", address, "--port", str(IPERF_PORT), "--json", "--interval", "0"]
        words += ["--time", str(asked.seconds), "--parallel", str(asked.streams)]
        words += ["--congestion", CONGESTION_CONTROL]
        return Command((*words, *(["--reverse"] if asked.direction == "out" else [])), signals_ready=False)

    def parse(self, outcome: Outcome) -> tuple[Metric, ...]:
        """Read iperf3's document. Raises ValueError for another text, an error of iperf3, nothing that arrived, or
        another congestion control than asked for."""
        document = _document(outcome.output_tail)
        if "error" in document:
            raise ValueError(f"iperf3 says: {shown(str(document['error']))}")
        try:
            received, sent = document["end"]["sum_received"], document["end"]["sum_sent"]
            rate, seconds = _number(received["bits_per_second"]) / 8, _number(received["seconds"])
            again = _number(sent.get("retransmits", 0))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"iperf3's document lacks what arrived ({error!r})") from error
        used = document["end"].get("sender_tcp_congestion", CONGESTION_CONTROL)
        if used != CONGESTION_CONTROL:
            raise ValueError(
                f"the sender's congestion control is {shown(str(used))}, asked for was {CONGESTION_CONTROL}"
            )
        if not rate > 0 or not seconds > 0:
            raise ValueError("nothing arrived")
        return (
            Metric("network.throughput", rate, "B/s", "higher"),
            Metric("network.retransmits", again / seconds, "1/s"),
        )


def _number(value: Any) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _document(output: bytes) -> dict[str, Any]:
    try:
        found = DOCUMENTS.decode(output.decode(errors="replace"))
    except ValueError as error:
        raise ValueError(f"no JSON of iperf3: {shown(output.decode(errors='replace'))} ({error})") from error
    if not isinstance(found, dict):
        raise ValueError("no JSON object of iperf3")
    return found


class LatencyParams(BaseModel):
    """``rate`` messages a second of ``size`` bytes for ``seconds``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: int = Field(default=1000, ge=1, le=100_000)
    seconds: int = Field(default=3, ge=1, le=600)
    size: int = Field(default=64, ge=16, le=1400)


class Latency:
    """Round trips of UDP messages in an open loop, by benchbox's own ``pingpong``.

    Not by sockperf: it spins between two messages, so that its client always takes its whole CPU, and on one CPU its
    receiving thread waits for the spinning one.
    """

    def command(self, params: Mapping[str, Any]) -> Command:
        """Return the server, which says by itself that it is ready."""
        LatencyParams.model_validate(params)
        return Command((PINGPONG, "server", str(PINGPONG_PORT)), stays=True)

    def client(self, params: Mapping[str, Any], address: str) -> Command:
        """Return the client, which prints ``name=value`` lines."""
        asked = LatencyParams.model_validate(params)
        numbers = map(str, (PINGPONG_PORT, asked.rate, asked.seconds, asked.size))
        return Command((PINGPONG, "client", address, *numbers), signals_ready=False)

    def parse(self, outcome: Outcome) -> tuple[Metric, ...]:
        """Read the times. Raises ValueError where lines are missing, or the loop was not the open one asked for."""
        found = {name.decode(): int(value) for name, value in _LINE.findall(outcome.output_tail)}
        missing = [
            name for name in ("asked", "sent", "received", "p50_ns", "late_p50_ns", "max_ns") if name not in found
        ]
        if missing:
            output = shown(outcome.output_tail.decode(errors="replace"))
            raise ValueError(f"pingpong did not print {', '.join(missing)}: {output}")
        asked, sent, received = found["asked"], found["sent"], found["received"]
        if sent < _SENT_SHARE * asked:
            raise ValueError(f"no open loop: {sent} of {asked} messages were sent in time")
        if received < _ANSWERED_SHARE * sent:
            raise ValueError(f"{received} of {sent} messages were answered")
        times = [(name, found[f"{name}_ns"]) for name in _PERCENTILES if f"{name}_ns" in found]
        return (
            *(Metric(f"network.latency.{name}", time_ns / NS_PER_S, "s") for name, time_ns in times),
            Metric("network.late", found["late_p50_ns"] / NS_PER_S, "s"),
            Metric("network.lost", (sent - received) / asked, "1"),
        )


THROUGHPUT: Final = Throughput()
LATENCY: Final = Latency()
