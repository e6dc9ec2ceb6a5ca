"""A Redis server to its first answer: the byte is that of ``first_answer``, which asks it inside the environment.

On a Unix socket, because native shares the host's network; /tmp is fresh and the same everywhere.
"""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from benchbox.model import Command, Metric, Outcome

ASKER: Final = "/usr/bin/first_answer"
SERVER: Final = "/usr/bin/redis-server"
#: The asker puts its process id in, so that several can run side by side where they share /tmp.
SOCKET: Final = "/tmp/redis-{pid}.sock"
#: How often it is asked until it listens, and how long in all. The byte is late by a pause at most.
PAUSE_US: Final = 500
DEADLINE_MS: Final = 50_000

#: Nothing is loaded, nothing is saved, nobody else can connect.
_OPTIONS: Final = ("--port", "0", "--unixsocket", SOCKET, "--save", "", "--appendonly", "no", "--daemonize", "no")
_PAUSES: Final = ("--pause-us", str(PAUSE_US), "--deadline-ms", str(DEADLINE_MS))
#: In capitals or not: Redis 7.2 writes it otherwise than 7.0.
_SERVES: Final = b"ready to accept connections"
_SHOWN_BYTES: Final = 200


class Params(BaseModel):
    """It has none: what it does never changes, so that all its numbers can be compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Redis:
    """Time from the request to the server's first answer; its metrics are those of the stages, with ``served``."""

    def command(self, params: Mapping[str, Any]) -> Command:
        """Return the asker with the server that it starts; ``params`` is empty."""
        Params.model_validate(params)
        question = ("--ask", "PING\r\n", "--expect", "+PONG\r\n")
        return Command((ASKER, *question, *_PAUSES, SOCKET, "--", SERVER, *_OPTIONS), signals="served")

    def parse(self, outcome: Outcome) -> tuple[Metric, ...]:
        """Return nothing: see ``stages.stage_metrics``. Raises ValueError unless a Redis says that it served."""
        if _SERVES not in outcome.output_tail.lower():
            end = outcome.output_tail[-_SHOWN_BYTES:]
            raise ValueError(f"Redis did not log {_SERVES.decode()!r}; the end is {end!r}")
        return ()


WORKLOAD: Final = Redis()
