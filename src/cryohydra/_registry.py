"""Names for interchangeable parts: fields, searches, stages."""

import difflib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from cryohydra.errors import UnknownSetting

Part = TypeVar("Part")


class Registry(Generic[Part]):
    """The parts of one role, by the name a user writes in the settings."""

    def __init__(self, role: str):
        self.role = role
        self._parts: dict[str, type[Part]] = {}

    def register(self, name: str) -> Callable[[type[Part]], type[Part]]:
        """Decorate a class so that `name` finds it."""

        def add(part: type[Part]) -> type[Part]:
            assert name not in self._parts, f"two parts are called {name}"
            self._parts[name] = part
            return part

        return add

    def __getitem__(self, name: str) -> type[Part]:
        """The part called `name`.

        Raises:
            UnknownSetting: If no part has this name.
        """
        if name not in self._parts:
            close = difflib.get_close_matches(name, self._parts, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise UnknownSetting(f"Unknown {self.role} '{name}'; there are {', '.join(sorted(self._parts))}.{hint}")
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._parts))
