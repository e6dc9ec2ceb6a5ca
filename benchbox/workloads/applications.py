"""Applications under load: Redis and nginx with a client outside, SQLite inside alone."""

import csv
import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from benchbox.model import Command, Metric, Outcome
from benchbox.workloads.servers import listening, shown

_MS: Final = 1e-3

# ---- Redis ----------------------------------------------------------------------------------------------------------

REDIS_SERVER: Final = "/usr/bin/redis-server"
REDIS_BENCHMARK: Final = "/usr/bin/redis-benchmark"
REDIS_PORT: Final = 6379
#: Nothing is loaded or saved; whoever reaches it may ask, for only the client does.
_REDIS_OPTIONS: Final = ("--port", str(REDIS_PORT), "--save", "", "--appendonly", "no", "--protected-mode", "no")
#: Column of ``redis-benchmark --csv`` (ms) -> metric.
_REDIS_LATENCIES: Final = {
    "p50_latency_ms": "p50", "p95_latency_ms": "p95", "p99_latency_ms": "p99", "max_latency_ms": "max",
}  # fmt: skip


class RedisParams(BaseModel):
    """``requests`` of ``operation`` with ``connections`` at once, values of ``size`` bytes, no pipelining."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    operation: Literal["get", "set"] = "get"
    connections: int = Field(default=1, ge=1, le=1000)
    requests: int = Field(default=20_000, ge=100, le=100_000_000)
    size: int = Field(default=64, ge=1, le=1 << 20)


class RedisRequests:
    """Requests a second that one Redis answers, by redis-benchmark. Before a GET the value is SET, as often."""

    def command(self, params: Mapping[str, Any]) -> Command:
        RedisParams.model_validate(params)
        return listening(REDIS_PORT, (REDIS_SERVER, *_REDIS_OPTIONS))

    def client(self, params: Mapping[str, Any], address: str) -> Command:
        asked = RedisParams.model_validate(params)
        tests = "set,get" if asked.operation == "get" else "set"
        words = [REDIS_BENCHMARK, "-h", address, "-p", str(REDIS_PORT), "--csv", "-t", tests]
        words += ["-c", str(asked.connections), "-n", str(asked.requests), "-d", str(asked.size)]
        return Command(tuple(words), signals_ready=False)

    def parse(self, outcome: Outcome) -> tuple[Metric, ...]:
        """Read the last line of the table: that of the operation. Raises ValueError for what is no such table."""
        text = outcome.output_tail.decode(errors="replace")
        lines = [line for line in text.splitlines() if line.startswith('"')]
        rows = list(csv.DictReader(lines))
        if not rows or rows[-1].get("test") not in ("GET", "SET"):
            raise ValueError(f"no table of redis-benchmark: {shown(text)}")
        last = rows[-1]
        rate = _number(last, "rps")
        if not rate > 0:
            raise ValueError("not one request was answered")
        times = [(short, _number(last, column) * _MS) for column, short in _REDIS_LATENCIES.items() if column in last]
        return (
            Metric("redis.rate", rate, "1/s", "higher"),
            *(Metric(f"redis.latency.{short}", time_s, "s") for short, time_s in times),
        )


def _number(row: Mapping[str, str | None], column: str) -> float:
    text = row.get(column) or ""
    if not re.fullmatch(r"\d{1,15}(\.\d{1,9})?", text):
        raise ValueError(f"redis-benchmark: {column} is {shown(text)}, no number")
    return float(text)


# ---- nginx ----------------------------------------------------------------------------------------------------------

NGINX: Final = "/usr/sbin/nginx"
WRK: Final = "/usr/bin/wrk"
SHELL: Final = "/bin/sh"
NGINX_PORT: Final = 8080
#: The file is one of the package, 615 bytes. One process, for the CPUs of an environment are few; no log of requests.
_NGINX_CONFIGURATION: Final = f"""\
daemon off; worker_processes 1; user root; pid /tmp/nginx.pid; error_log stderr;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; default_type text/html;
  client_body_temp_path /tmp/nginx-body; proxy_temp_path /tmp/nginx-proxy; fastcgi_temp_path /tmp/nginx-fastcgi;
  uwsgi_temp_path /tmp/nginx-uwsgi; scgi_temp_path /tmp/nginx-scgi;
  server {{ listen {NGINX_PORT}; root /usr/share/nginx/html; }}
}}
"""
_NGINX_SCRIPT: Final = 'printf "%s" "$1" > /tmp/nginx.conf && exec "$0" -e stderr -c /tmp/nginx.conf'
_DURATION: Final = r"(\d{1,12}(?:\.\d{1,6})?)(us|ms|s|m)"
_UNITS_S: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_WRK_RATE: Final = re.compile(r"^Requests/sec: +(\d{1,12}(?:\.\d{1,6})?)$", re.MULTILINE)
_WRK_PERCENTILE: Final = re.compile(rf"^ +(50|75|90|99)% +{_DURATION}$", re.MULTILINE)
_WRK_LONGEST: Final = re.compile(rf"^ +Latency +{_DURATION} +{_DURATION} +{_DURATION} +[0-9.]{{1,9}}%$", re.MULTILINE)
_WRK_WRONG: Final = re.compile(r"^ +(Socket errors: .+|Non-2xx or 3xx responses: .+)$", re.MULTILINE)


class NginxParams(BaseModel):
    """``connections`` at once for ``seconds``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    connections: int = Field(default=50, ge=1, le=1000)
    seconds: int = Field(default=3, ge=1, le=600)


class NginxRequests:
    """Requests a second for one small static file, by wrk: a closed loop, its latencies are those of full load."""

    def command(self, params: Mapping[str, Any]) -> Command:
        NginxParams.model_validate(params)
        return listening(NGINX_PORT, (SHELL, "-c", _NGINX_SCRIPT, NGINX, _NGINX_CONFIGURATION))

    def client(self, params: Mapping[str, Any], address: str) -> Command:
        asked = NginxParams.model_validate(params)
        words = (WRK, "--threads", "1", "--connections", str(asked.connections), "--duration", f"{asked.seconds}s")
        return Command((*words, "--latency", f"http://{address}:{NGINX_PORT}/index.html"), signals_ready=False)

    def parse(self, outcome: Outcome) -> tuple[Metric, ...]:
        """Read wrk's summary. Raises ValueError without one, and for answers that were errors."""
        text = outcome.output_tail.decode(errors="replace")
        rate = _WRK_RATE.search(text)
        if not rate:
            raise ValueError(f"no summary of wrk: {shown(text)}")
        if wrong := _WRK_WRONG.search(text):
            raise ValueError(f"wrk says: {shown(wrong[1])}")
        if not float(rate[1]) > 0:
            raise ValueError("not one request was answered")
        times = [(f"p{share}", float(value) * _UNITS_S[unit]) for share, value, unit in _WRK_PERCENTILE.findall(text)]
        if longest := _WRK_LONGEST.search(text):
            times.append(("max", float(longest[5]) * _UNITS_S[longest[6]]))
        return (
            Metric("nginx.rate", float(rate[1]), "1/s", "higher"),
            *(Metric(f"nginx.latency.{name}", time_s, "s") for name, time_s in times),
        )


# ---- SQLite ---------------------------------------------------------------------------------------------------------

SQLITE: Final = "/usr/bin/sqlite3"
#: $0 sqlite3, $1 how many: the statements are written down before the clock is asked, a transaction each.
_SQLITE_SCRIPT: Final = """\
set -e
{ echo "PRAGMA journal_mode=DELETE; PRAGMA synchronous=FULL; CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT);"
echo "SELECT 'began', printf('%.4f', (julianday('now')-2440587.5)*86400);"
yes "INSERT INTO t(v) VALUES(hex(randomblob(32)));" | head -n "$1"
echo "SELECT 'ended', printf('%.4f', (julianday('now')-2440587.5)*86400), count(*) FROM t;"; } > /tmp/transactions.sql
exec "$0" -batch -bail /tmp/transactions.db ".read /tmp/transactions.sql"
"""
_SQLITE_BEGAN: Final = re.compile(rb"^began\|(\d{1,12}\.\d{1,6})$", re.MULTILINE)
_SQLITE_ENDED: Final = re.compile(rb"^ended\|(\d{1,12}\.\d{1,6})\|(\d{1,9})$", re.MULTILINE)


class SqliteParams(BaseModel):
    """``transactions`` of one row each; the database is in /tmp, which is memory everywhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    transactions: int = Field(default=10_000, ge=100, le=10_000_000)


class SqliteTransactions:
    """Transactions a second of SQLite, with a journal that is made and removed by each: files, not disks."""

    def command(self, params: Mapping[str, Any]) -> Command:
        count = SqliteParams.model_validate(params).transactions
        return Command(
            (SHELL, "-c", _SQLITE_SCRIPT, SQLITE, str(count)), signals_ready=False, env={"PATH": "/usr/bin:/bin"}
        )

    def parse(self, outcome: Outcome) -> tuple[Metric, ...]:
        """Read the two times and the count. Raises ValueError where they are missing or cannot be."""
        began, ended = (pattern.search(outcome.output_tail) for pattern in (_SQLITE_BEGAN, _SQLITE_ENDED))
        if not began or not ended:
            raise ValueError(
                f"SQLite did not say when it began and ended: {shown(outcome.output_tail.decode(errors='replace'))}"
            )
        elapsed_s, count = float(ended[1]) - float(began[1]), int(ended[2])
        if elapsed_s <= 0 or count <= 0:
            raise ValueError(f"{count} rows in {elapsed_s:g} s")
        return (Metric("sqlite.rate", count / elapsed_s, "1/s", "higher"),)


REDIS: Final = RedisRequests()
NGINX_REQUESTS: Final = NginxRequests()
SQLITE_TRANSACTIONS: Final = SqliteTransactions()
