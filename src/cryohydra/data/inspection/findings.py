"""What was noticed of a set of particles, and what to do about it."""

from dataclasses import dataclass
from typing import Literal

from cryohydra.errors import UserError

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that a user should know before training."""

    severity: Severity
    """error: cannot be trained on. warning: can be, but look at it first. note: what was understood."""
    sentence: str
    """What came, and what was wanted."""
    advice: str = ""
    """What to do."""

    @classmethod
    def of(cls, text: UserError | str, severity: Severity = "error") -> "Finding":
        """From a message whose last sentence, or last clause, says what to do."""
        message = str(text)
        for mark in (". ", "; "):
            sentence, found, advice = message.rpartition(mark)
            if found:
                return cls(severity, sentence.rstrip(".") + ".", advice[:1].upper() + advice[1:])
        return cls(severity, message)


def rows_named(rows: list[int]) -> str:
    """A few of many rows, counted from 0."""
    return ", ".join(str(row) for row in rows[:5]) + (", ..." if len(rows) > 5 else "")


def counted(count: int, noun: str, verbs: tuple[str, str] = ("", "")) -> str:
    """A number with its noun and verb: 1 image is, 3 images are."""
    verb = verbs[0] if count == 1 else verbs[1]
    return f"{count:,} {noun}{'' if count == 1 else 's'}{' ' if verb else ''}{verb}"
