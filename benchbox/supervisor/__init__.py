"""The parent of a run: it holds the host's lock, starts the measuring worker, and removes what is left behind."""

from benchbox.supervisor.supervise import Ending, supervise

__all__ = ["Ending", "supervise"]
