"""What workloads with a server have in common: how a server is started that a client outside will ask."""

from typing import Final

from benchbox.model import Command

FIRST_ANSWER: Final = "/usr/bin/first_answer"
#: How often it is looked whether the server listens, and how long in all.
_PAUSE_US: Final = 2000
_DEADLINE_MS: Final = 50_000
_SHOWN: Final = 200


def listening(port: int, server: tuple[str, ...]) -> Command:
    """Return the command that starts ``server`` and says that it is ready once it listens on the TCP port.

    It is not asked: some servers take any connection for their client.
    """
    pauses = ("--pause-us", str(_PAUSE_US), "--deadline-ms", str(_DEADLINE_MS))
    return Command((FIRST_ANSWER, "--listens", "--stay", *pauses, str(port), "--", *server), stays=True)


def shown(text: str) -> str:
    """Return the end of ``text`` on one line, for a message."""
    line = " ".join(text.split())
    return f"...{line[-_SHOWN:]}" if len(line) > _SHOWN else line or "nothing"
