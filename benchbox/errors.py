"""Every error that benchbox raises on purpose.

Library code raises these; ``cli.py`` alone prints them and decides the exit code.
"""


class BenchboxError(Exception):
    """Something the user can act on.

    ``message`` names place and cause, ``hint`` the next step.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(BenchboxError):
    """The command line asks for something that does not exist or does not fit together."""


class ScenarioError(BenchboxError):
    """A scenario file is wrong; the message starts with ``file:line: key:``."""


class RecordError(BenchboxError):
    """A results folder is missing, unreadable, unwritable or written by a newer benchbox."""


class LockError(BenchboxError):
    """Another run holds this host."""


class TrustError(BenchboxError):
    """A file or folder could be the work of another user, so nothing is done by what it says."""


class UnavailableError(BenchboxError):
    """This host lacks a piece that an environment needs."""


class ImageError(BenchboxError):
    """A root file system or a guest kernel cannot be made or found."""


class EnvironmentFailure(BenchboxError):
    """An environment that should work on this host did not."""


class Interrupted(BenchboxError):
    """The user asked to stop; what was measured is kept."""
