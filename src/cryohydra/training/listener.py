"""Who hears of a training's progress."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

Tell = Callable[[str], None]
"""Says what is going on, where that takes a while."""


@runtime_checkable
class Listener(Protocol):
    """Told what goes on; what it makes of that is its own affair."""

    def stage_begins(self, name: str, total_images: int) -> None: ...

    def advanced(self, images: int, note: str) -> None: ...

    def stage_ends(self, sentence: str) -> None: ...

    def says(self, sentence: str) -> None: ...


class Unheard:
    """The listener of a process for which another one speaks."""

    def stage_begins(self, name: str, total_images: int) -> None:
        """Nobody hears of it."""

    def advanced(self, images: int, note: str) -> None:
        """Nobody hears of it."""

    def stage_ends(self, sentence: str) -> None:
        """Nobody hears of it."""

    def says(self, sentence: str) -> None:
        """Nobody hears of it."""
