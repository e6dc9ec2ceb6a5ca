"""What the processor does in a second: tools that many know, one row of ``TOOLS`` each, on one thread or more.

sysbench counts how often it finds the primes up to 10,000; ``openssl speed`` hashes (SHA-256) and encrypts
(AES-128-GCM) blocks of 16 KiB; ``zstd -b3`` compresses and decompresses a text that ``micro data`` makes, the same
bytes everywhere; a loop in Python does arithmetic. Each is told how long to run, so a slow machine takes no longer.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from benchbox.model import Command, Metric, Outcome
from benchbox.workloads import batches
from benchbox.workloads.batches import MICRO
from benchbox.workloads.python import INTERPRETER
from benchbox.workloads.steady import steady_metric

ToolName = Literal["sysbench", "sha256", "aes", "zstd", "python"]

PRIMES: Final = 10_000
BLOCK_BYTES: Final = 16 * 1024
#: Two jobs for zstd's threads at level 3, and small enough for a guest of 256 MiB.
TEXT_BYTES: Final = 16 << 20
#: What ``micro data`` writes compresses to between these shares; outside of them it was another file.
_RATIO: Final = (2.5, 4.0)
_BATCHES: Final = 20
_SHOWN_BYTES: Final = 200

#: A linear congruential generator (its constants are those of ISO C's example of rand), restarted in each chunk of
#: 10,000 passes, so that its result is known. Its lines are those of ``batches``.
LOOP: Final = f"""\
import sys, time
def chunk():
    x = 1
    for i in range(10000):
        x = (x * 1103515245 + 12345 + i) & 0x7fffffff
    return x
clock = time.perf_counter_ns
length_ns = int(sys.argv[1]) * 10**9 // {_BATCHES}
print("micro operation=python page_bytes=0 bytes=0")
total = checks = 0
for batch in range(1, {_BATCHES} + 1):
    count, start = 0, clock()
    while True:
        if chunk() != 924988777:
            sys.exit("the loop's result is wrong")
        count += 10000
        checks += 1
        ns = clock() - start
        if ns >= length_ns:
            break
    total += count
    print(f"batch={{batch}} count={{count}} ns={{ns}}")
print(f"done batches={_BATCHES} count={{total}} checks={{checks}} faults=0 pages=0")
"""


class Params(BaseModel):
    """``tool`` is a row of TOOLS; ``threads`` how many threads or processes work, ``seconds`` for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tool: ToolName
    threads: int = Field(default=1, ge=1, le=4096, description="threads that work; resources.cpus is for how many CPUs")
    seconds: int = Field(default=1, ge=1, le=600, description="how long it works, in s")

    @model_validator(mode="after")
    def _one_thread(self) -> Self:
        if self.tool == "python" and self.threads != 1:
            raise ValueError("python works on one thread; expected threads: 1")
        return self


def _sysbench(params: Params) -> tuple[str, ...]:
    options = (f"--cpu-max-prime={PRIMES}", f"--threads={params.threads}", f"--time={params.seconds}")
    return ("/usr/bin/sysbench", "cpu", *options, "run")


def _openssl(algorithm: str) -> Callable[[Params], tuple[str, ...]]:
    def command(params: Params) -> tuple[str, ...]:
        # By the wall clock: by its own CPU time, which is openssl's default, time that was taken away does not count.
        how = ("-elapsed", "-mr", "-seconds", str(params.seconds), "-bytes", str(BLOCK_BYTES))
        several = ("-multi", str(params.threads)) if params.threads > 1 else ()
        return ("/usr/bin/openssl", "speed", *how, *several, "-evp", algorithm)

    return command


def _zstd(params: Params) -> tuple[str, ...]:
    script = (
        f"{MICRO} data --bytes {TEXT_BYTES} >/tmp/text.$$ && "
        f"/usr/bin/zstd -q -b3 -i{params.seconds} -T{params.threads} /tmp/text.$$; "
        "status=$?; rm -f /tmp/text.$$; exit $status"
    )
    return ("/bin/sh", "-c", script)


def _python(params: Params) -> tuple[str, ...]:
    return (INTERPRETER, "-c", LOOP, str(params.seconds))


_THREADS: Final = re.compile(rb"^Number of threads: (\d{1,6})$", re.MULTILINE)
_LIMIT: Final = re.compile(rb"^Prime numbers limit: (\d{1,12})$", re.MULTILINE)
_SPEED: Final = re.compile(rb"^ {1,40}events per second: {1,40}(\d{1,15}\.\d{1,6})$", re.MULTILINE)
_EVENTS: Final = re.compile(rb"^ {1,40}total number of events: {1,40}(\d{1,15})$", re.MULTILINE)


def _read_sysbench(output: bytes, params: Params) -> tuple[Metric, ...]:
    _same(int(_only(_THREADS, output)), params.threads, "threads")
    _same(int(_only(_LIMIT, output)), PRIMES, "as limit of the primes")
    events = int(_only(_EVENTS, output))
    return (
        Metric("cpu.sysbench", _above_zero(float(_only(_SPEED, output))), "1/s", "higher"),
        Metric("cpu.work", events, "1", "higher"),
    )


_BLOCKS: Final = re.compile(rb"^\+R:(\d{1,15}):([A-Za-z0-9-]{1,40}):\d{1,9}\.\d{1,9}$", re.MULTILINE)
_RATE: Final = re.compile(rb"^\+F:\d{1,4}:([A-Za-z0-9-]{1,40}):(\d{1,18}\.\d{1,6})$", re.MULTILINE)


def _read_openssl(metric: str, algorithm: str) -> Callable[[bytes, Params], tuple[Metric, ...]]:
    def read(output: bytes, params: Params) -> tuple[Metric, ...]:
        blocks = [int(count) for count, name in _BLOCKS.findall(output) if name.lower() == algorithm.encode()]
        rates = [float(rate) for name, rate in _RATE.findall(output) if name.lower() == algorithm.encode()]
        if len(rates) != 1:
            raise ValueError(f"no rate of {algorithm}; the end is {output[-_SHOWN_BYTES:]!r}")
        _same(len(blocks), params.threads, "processes")
        return (
            Metric(metric, _above_zero(rates[0]), "B/s", "higher"),
            Metric("cpu.work", sum(blocks) * BLOCK_BYTES, "B", "higher"),
        )

    return read


_INPUT: Final = re.compile(rb"^bench [^:\n]{1,40}: input (\d{1,15}) bytes,", re.MULTILINE)
_ZSTD: Final = re.compile(
    rb"^-3 {1,20}\d{1,15} \((\d{1,6}\.\d{1,6})\) {1,20}(\d{1,9}\.\d{1,6}) MB/s {1,20}(\d{1,9}\.\d{1,6}) MB/s",
    re.MULTILINE,
)


def _read_zstd(output: bytes, params: Params) -> tuple[Metric, ...]:
    _same(int(_only(_INPUT, output)), TEXT_BYTES, "bytes of input")
    found = _ZSTD.findall(output)
    if len(found) != 1:
        raise ValueError(f"no speed of zstd; the end is {output[-_SHOWN_BYTES:]!r}")
    ratio, compress, decompress = map(float, found[0])
    if not _RATIO[0] <= ratio <= _RATIO[1]:
        raise ValueError(f"it was compressed {ratio} times, expected {_RATIO[0]} to {_RATIO[1]}")
    return (
        Metric("cpu.zstd", _above_zero(compress) * 1e6, "B/s", "higher"),
        Metric("cpu.zstd_decompress", _above_zero(decompress) * 1e6, "B/s", "higher"),
    )


def _read_python(output: bytes, params: Params) -> tuple[Metric, ...]:
    found = batches.read(output, "python", _BATCHES)
    return (
        steady_metric("cpu.python", found.rates, "1/s", "higher"),
        Metric("cpu.work", found.total, "1", "higher"),
    )


def _only(pattern: re.Pattern[bytes], output: bytes) -> bytes:
    found: list[bytes] = pattern.findall(output)
    if len(found) != 1:
        raise ValueError(
            f"{pattern.pattern.decode()!r} is found {len(found)} times; the end is {output[-_SHOWN_BYTES:]!r}"
        )
    return found[0]


def _same(found: int, expected: int, what: str) -> None:
    if found != expected:
        raise ValueError(f"expected {expected} {what}, found {found}")


def _above_zero(value: float) -> float:
    if value <= 0:
        raise ValueError("nothing was done: its speed is 0")
    return value


@dataclass(frozen=True)
class Tool:
    """A program of the distribution: its package, its command line, and what reads its output (ValueError)."""

    package: str
    command: Callable[[Params], tuple[str, ...]]
    read: Callable[[bytes, Params], tuple[Metric, ...]]


TOOLS: Final[Mapping[str, Tool]] = {
    "sysbench": Tool("sysbench", _sysbench, _read_sysbench),
    "sha256": Tool("openssl", _openssl("sha256"), _read_openssl("cpu.sha256", "sha256")),
    "aes": Tool("openssl", _openssl("aes-128-gcm"), _read_openssl("cpu.aes", "aes-128-gcm")),
    "zstd": Tool("zstd", _zstd, _read_zstd),
    "python": Tool("python3-minimal", _python, _read_python),
}

#: Tool -> the distribution's package that has it.
PACKAGES: Final[Mapping[str, str]] = {name: tool.package for name, tool in TOOLS.items()}


class Cpu:
    """``cpu.<tool>``, a rate: higher is better."""

    def command(self, params: Mapping[str, Any]) -> Command:
        """Return the tool's command; raises ValueError (pydantic's) for what ``Params`` refuses."""
        checked = Params.model_validate(params)
        return Command(TOOLS[checked.tool].command(checked), signals_ready=False)

    def parse(self, outcome: Outcome, params: Mapping[str, Any]) -> tuple[Metric, ...]:
        """Return the tool's metrics. Raises ValueError for an output that does not show that the work was done."""
        checked = Params.model_validate(params)
        return TOOLS[checked.tool].read(outcome.output_tail, checked)


WORKLOAD: Final = Cpu()
