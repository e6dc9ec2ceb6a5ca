"""Redis, nginx and SQLite: what is asked, and what is read from what their load generators really printed."""

from typing import Any

import pytest

from benchbox.model import Metric, Outcome, Workload
from benchbox.workloads.applications import NGINX_REQUESTS, REDIS, SQLITE_TRANSACTIONS

REDIS_OUTPUT = b"""\
"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
"SET","10504.20","4.482","0.136","0.455","12.847","20.127","181.375"
"GET","10952.90","4.270","0.120","0.535","13.487","36.127","50.111"
"""
WRK_OUTPUT = b"""\
Running 2s test @ http://198.18.0.2:8080/index.html
  1 threads and 50 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     8.70ms   18.24ms 122.28ms   92.14%
    Req/Sec    14.08k     5.66k   25.13k    80.00%
  Latency Distribution
     50%    2.83ms
     75%    6.65ms
     90%   20.06ms
     99%   99.42ms
  28647 requests in 2.06s, 23.30MB read
Requests/sec:  13913.72
Transfer/sec:     11.32MB
"""
SQLITE_OUTPUT = b"delete\nbegan|1795508203.2890\nended|1795508204.0110|5000\n"


def parse(workload: Workload, output: bytes) -> dict[str, Metric]:
    return {metric.name: metric for metric in workload.parse(Outcome("ok", output_tail=output))}


def test_the_last_operation_of_redis_is_the_one_asked_for() -> None:
    """Rates first, times in s."""
    found = parse(REDIS, REDIS_OUTPUT)
    assert next(iter(found)) == "redis.rate"
    assert (found["redis.rate"].value, found["redis.rate"].direction) == (10952.90, "higher")
    assert found["redis.latency.p99"].value == pytest.approx(0.036127)
    only_set = parse(REDIS, b"\n".join(REDIS_OUTPUT.splitlines()[:2]))
    assert only_set["redis.rate"].value == 10504.20


def test_a_value_is_set_before_it_is_got() -> None:
    """A GET of nothing is another answer."""
    asked: dict[str, Any] = {"connections": 50, "requests": 1000, "size": 3}
    for operation, tests in (("get", "set,get"), ("set", "set")):
        words = REDIS.client({**asked, "operation": operation}, "198.18.0.9").argv
        assert words == (
            "/usr/bin/redis-benchmark", "-h", "198.18.0.9", "-p", "6379", "--csv", "-t", tests,
            "-c", "50", "-n", "1000", "-d", "3",
        )  # fmt: skip


def test_times_of_wrk_are_read_in_their_units() -> None:
    """It writes each in the unit that fits."""
    found = parse(NGINX_REQUESTS, WRK_OUTPUT.replace(b"2.83ms", b"830.00us").replace(b"99.42ms", b"1.50s"))
    assert found["nginx.rate"].value == 13913.72
    assert [found[f"nginx.latency.p{share}"].value for share in (50, 75, 90, 99)] == pytest.approx(
        [830e-6, 6.65e-3, 20.06e-3, 1.5]
    )
    assert found["nginx.latency.max"].value == pytest.approx(122.28e-3)


def test_answers_that_are_errors_are_not_requests_served() -> None:
    """A server that refuses quickly would look fast."""
    wrong = b"  Non-2xx or 3xx responses: 28647\nRequests/sec: "
    with pytest.raises(ValueError, match="wrk says: Non-2xx or 3xx responses: 28647"):
        parse(NGINX_REQUESTS, WRK_OUTPUT.replace(b"Requests/sec: ", wrong))
    with pytest.raises(ValueError, match="wrk says: Socket errors: connect 0, read 3"):
        parse(NGINX_REQUESTS, WRK_OUTPUT + b"  Socket errors: connect 0, read 3, write 0, timeout 0\n")


def test_transactions_are_those_that_are_in_the_table() -> None:
    """Between two readings of the clock inside, which gives a duration and nothing else."""
    assert parse(SQLITE_TRANSACTIONS, SQLITE_OUTPUT)["sqlite.rate"].value == pytest.approx(5000 / 0.722)
    command = SQLITE_TRANSACTIONS.command({"transactions": 700})
    assert command.argv[-2:] == ("/usr/bin/sqlite3", "700")
    assert not command.stays


@pytest.mark.parametrize(
    ("workload", "output", "complaint"),
    [
        (REDIS, b"", "no table of redis-benchmark: nothing"),
        (REDIS, b"Could not connect to Redis at 198.18.0.2:6379", "no table of redis-benchmark: Could not connect"),
        (REDIS, REDIS_OUTPUT.splitlines()[0], "no table of redis-benchmark"),
        (REDIS, REDIS_OUTPUT.replace(b'"10952.90"', b'"inf"'), "redis-benchmark: rps is inf, no number"),
        (REDIS, REDIS_OUTPUT.replace(b'"10952.90"', b'"0.00"'), "not one request was answered"),
        (REDIS, REDIS_OUTPUT[:-40], "redis-benchmark: "),
        (NGINX_REQUESTS, b"", "no summary of wrk: nothing"),
        (NGINX_REQUESTS, WRK_OUTPUT[:-60], "no summary of wrk"),
        (NGINX_REQUESTS, WRK_OUTPUT.replace(b"13913.72", b"    0.00"), "not one request was answered"),
        (SQLITE_TRANSACTIONS, b"", "SQLite did not say when it began and ended: nothing"),
        (SQLITE_TRANSACTIONS, SQLITE_OUTPUT[:40], "SQLite did not say when it began and ended"),
        (SQLITE_TRANSACTIONS, SQLITE_OUTPUT.replace(b"|5000", b"|0"), "0 rows in "),
        (SQLITE_TRANSACTIONS, SQLITE_OUTPUT.replace(b"204.0110", b"203.2890"), "5000 rows in 0 s"),
        (SQLITE_TRANSACTIONS, b"Error: database is locked\n", "database is locked"),
    ],
)
def test_output_that_is_cut_empty_or_an_error_is_no_number(workload: Workload, output: bytes, complaint: str) -> None:
    """The sample is invalid, and says what was there."""
    with pytest.raises(ValueError, match=complaint):
        parse(workload, output)
