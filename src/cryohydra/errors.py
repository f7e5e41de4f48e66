"""What goes wrong because of what the user gave, in one sentence each."""

from collections.abc import Callable
from typing import TypeVar


class UserError(ValueError):
    """Something the user gave cannot be used; the message says what came, what was wanted and what to do."""


class InputMismatch(UserError):
    """Two inputs do not describe the same particles."""


class UnreadableFile(UserError):
    """A file is missing, truncated or not of the format its name promises."""


class UnknownSetting(UserError):
    """A settings key or value that does not exist."""


class RunFolderBusy(UserError):
    """Another process is training in the run folder."""


class ProcessLost(UserError):
    """A process of the same training has stopped or failed."""


Complain = Callable[[UserError], None]
"""What a reader tells of a problem; it goes on with what is left if this returns."""

Read = TypeVar("Read")
Otherwise = TypeVar("Otherwise")


def stop(problem: UserError) -> None:
    """Go on with no problem at all."""
    raise problem


def attempt(complain: Complain, read: Callable[[], Read], otherwise: Otherwise) -> Read | Otherwise:
    """What is read, or something else where it cannot be."""
    try:
        return read()
    except UserError as problem:
        complain(problem)
        return otherwise
