"""A server to its first answer."""

from typing import Final

import pytest

from benchbox.model import Outcome
from benchbox.workloads import workload

REDIS = workload("redis")

#: What Redis 7.0.15 printed in a container, its warning about overcommitted memory cut short.
PRINTED: Final = b"""\
2:C 24 Nov 2026 07:14:58.841 # oO0OoO0OoO0Oo Redis is starting oO0OoO0OoO0Oo
2:C 24 Nov 2026 07:14:58.842 # Redis version=7.0.15, bits=64, commit=00000000, modified=0, pid=2, just started
2:C 24 Nov 2026 07:14:58.842 # Configuration loaded
2:M 24 Nov 2026 07:14:58.842 * monotonic clock: POSIX clock_gettime
2:M 24 Nov 2026 07:14:58.842 * Running mode=standalone, port=0.
2:M 24 Nov 2026 07:14:58.842 # Server initialized
2:M 24 Nov 2026 07:14:58.842 # WARNING Memory overcommit must be enabled!
2:M 24 Nov 2026 07:14:58.843 * The server is now ready to accept connections at /tmp/redis-1.sock
2:signal-handler (1795504498) Received SIGTERM scheduling shutdown...
2:M 24 Nov 2026 07:14:58.844 # User requested shutdown...
2:M 24 Nov 2026 07:14:58.844 * Removing the unix socket file.
2:M 24 Nov 2026 07:14:58.844 # Redis is now ready to exit, bye bye...
"""


def test_the_asker_runs_the_server_and_its_byte_means_served() -> None:
    """Both are told the same socket, and no port is opened: native has the host's network."""
    command = REDIS.command({})
    assert (command.signals_ready, command.signals) == (True, "served")
    asker, server = command.argv[: command.argv.index("--")], command.argv[command.argv.index("--") + 1 :]
    assert (asker[0], server[0]) == ("/usr/bin/first_answer", "/usr/bin/redis-server")
    assert server[server.index("--unixsocket") + 1] == asker[-1]
    assert server[server.index("--port") + 1] == "0"


def test_nothing_is_saved() -> None:
    """The image is read-only, and a snapshot would be measured with the end."""
    words = REDIS.command({}).argv
    assert (words[words.index("--save") + 1], words[words.index("--appendonly") + 1]) == ("", "no")


@pytest.mark.parametrize(
    "printed", [PRINTED, PRINTED.replace(b"The server is now ready", b"Ready")], ids=["7.0", "as 7.2 words it"]
)
def test_a_server_that_served_has_the_metrics_of_its_stages(printed: bytes) -> None:
    """It has none of its own."""
    assert REDIS.parse(Outcome("ok", output_tail=printed)) == ()


@pytest.mark.parametrize("printed", [b"", PRINTED[:300], b"hello\n", b"\x1b[31m\xff<script>" * 500])
def test_another_output_is_no_sample(printed: bytes) -> None:
    """Empty, cut or foreign: something else answered. Its end is shown, harmless on a terminal."""
    with pytest.raises(ValueError, match="Redis did not log 'ready to accept connections'; the end is b'") as caught:
        REDIS.parse(Outcome("ok", output_tail=printed))
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 1200


def test_it_takes_no_parameter() -> None:
    """It never changes."""
    with pytest.raises(ValueError, match="port"):
        REDIS.command({"port": 6379})
