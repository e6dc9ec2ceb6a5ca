"""Throughput and latency: what is asked, and what is read from what iperf3 and pingpong really printed."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from benchbox.linux import links
from benchbox.model import Outcome
from benchbox.workloads import network
from benchbox.workloads.network import LATENCY, THROUGHPUT

IPERF = (Path(__file__).parent / "recorded" / "iperf3.json").read_bytes()
PINGPONG = b"""\
asked=2000
sent=2000
received=2000
late_p50_ns=12260
late_max_ns=60892199
min_ns=39916
p50_ns=68461
p75_ns=2553089
p90_ns=9384680
p95_ns=17493827
p99_ns=53131147
max_ns=73118233
"""


def values(workload: network.Throughput | network.Latency, output: bytes) -> dict[str, float]:
    return {metric.name: metric.value for metric in workload.parse(Outcome("ok", output_tail=output))}


def test_throughput_is_what_arrived() -> None:
    """In bytes a second, first; what had to be sent again beside it."""
    first, again = THROUGHPUT.parse(Outcome("ok", output_tail=IPERF))
    assert (first.name, first.unit, first.direction) == ("network.throughput", "B/s", "higher")
    assert first.value == 4109203808.039649 / 8
    assert (again.name, again.value) == ("network.retransmits", 388 / 2.007227)


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        (b"", "no JSON of iperf3: nothing"),
        (IPERF[:-200], "no JSON of iperf3: "),
        (b"[]", "no JSON object of iperf3"),
        (b'{"error": "error - unable to connect"}', "iperf3 says: error - unable to connect"),
        (b'{"end": {"sum_sent": {}}}', "iperf3's document lacks what arrived"),
        (b'{"end": 7}', "iperf3's document lacks what arrived"),
        (IPERF.replace(b"4109203808.039649", b'"fast"'), "iperf3's document lacks what arrived"),
        (IPERF.replace(b"4109203808.039649", b"0"), "nothing arrived"),
        (IPERF.replace(b"4109203808.039649", b"NaN"), r"no JSON of iperf3: .*\(NaN is no number that can be measured"),
        (IPERF.replace(b"4109203808.039649", b"1e999"), r"no JSON of iperf3: .*\(1e999 is no number"),
        (IPERF.replace(b"4109203808.039649", b'"1e999"'), "iperf3's document lacks what arrived"),
        (IPERF.replace(b"4109203808.039649", b"9" * 5000), r"no JSON of iperf3: .*\(a number of 5000 digits"),
        (b"[" * 60_000, r"no JSON of iperf3: .*\(nested too deeply"),
    ],
)
def test_a_document_that_is_cut_empty_foreign_or_an_error_is_no_throughput(output: bytes, complaint: str) -> None:
    """The sample is invalid, and says what was there."""
    with pytest.raises(ValueError, match=complaint):
        THROUGHPUT.parse(Outcome("ok", output_tail=output))


def test_another_congestion_control_is_not_like_for_like() -> None:
    """Guest and host may choose different ones by default: what iperf3 used is held against what it was to use."""
    with pytest.raises(ValueError, match="the sender's congestion control is bbr, asked for was reno"):
        THROUGHPUT.parse(Outcome("ok", output_tail=IPERF.replace(b'"reno"', b'"bbr"')))
    assert network.CONGESTION_CONTROL == links.CONGESTION_CONTROL


def test_the_direction_is_seen_from_the_environment() -> None:
    """The client is outside: it sends what comes in."""
    to_it, from_it = (THROUGHPUT.client({"direction": way, "streams": 2}, "198.18.0.2").argv for way in ("in", "out"))
    assert to_it[:5] == ("/usr/bin/iperf3", "--client", "198.18.0.2", "--port", "5201")
    assert set(from_it) - set(to_it) == {"--reverse"}
    server = THROUGHPUT.command({})
    assert server.stays and server.signals_ready
    assert server.argv[-4:] == ("/usr/bin/iperf3", "--server", "--port", "5201")


def test_latencies_are_read_in_order() -> None:
    """The median comes first: it is what the table is about."""
    metrics = LATENCY.parse(Outcome("ok", output_tail=PINGPONG))
    assert [m.name for m in metrics] == [
        *(f"network.latency.{name}" for name in ("p50", "p75", "p90", "p95", "p99", "max")),
        "network.late",
        "network.lost",
    ]
    assert values(LATENCY, PINGPONG)["network.latency.p50"] == pytest.approx(68.461e-6)
    assert values(LATENCY, PINGPONG)["network.lost"] == 0


def test_a_loop_that_was_not_open_is_no_measurement() -> None:
    """A client that could not send what it was asked to hides the stalls that it waited for."""
    with pytest.raises(ValueError, match="no open loop: 1800 of 2000 messages were sent in time"):
        values(LATENCY, PINGPONG.replace(b"sent=2000", b"sent=1800"))
    with pytest.raises(ValueError, match="1900 of 2000 messages were answered"):
        values(LATENCY, PINGPONG.replace(b"received=2000", b"received=1900"))
    assert values(LATENCY, PINGPONG.replace(b"received=2000", b"received=1990"))["network.lost"] == 0.005


@pytest.mark.parametrize("output", [b"", b"hello\n", PINGPONG[:60], PINGPONG.replace(b"=68461", b"=fast")])
def test_output_that_is_no_latency_names_what_is_missing(output: bytes) -> None:
    """And shows what was there."""
    with pytest.raises(ValueError, match=r"pingpong did not print .*p50_ns"):
        values(LATENCY, output)


@pytest.mark.parametrize("bad", [{"rate": 0}, {"size": 1401}, {"seconds": "3"}, {"speed": 1}])
def test_parameters_out_of_range_are_refused(bad: dict[str, object]) -> None:
    """Before anything starts."""
    with pytest.raises(ValidationError):
        network.LatencyParams.model_validate(bad, strict=True)


def test_the_recording_is_a_document() -> None:
    """Were it none, the tests of broken ones would say nothing."""
    assert json.loads(IPERF)["end"]["sum_received"]["bytes"] == 1031013104
