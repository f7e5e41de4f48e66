"""What the explorer keeps in the run folder: selections, volumes, movies and exports, each under a name."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cryohydra._typing import Bool, Int
from cryohydra.errors import UnreadableFile, UserError
from cryohydra.io.atomic import write_atomically
from cryohydra.io.pickles import read_pickle, write_pickle

Kind = Literal["selections", "volumes", "movies", "exports"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*(?:[ .][A-Za-z0-9_+-]+)*")
_LONGEST_NAME = 60


@dataclass(frozen=True)
class SavedSelection:
    """What the list of saved selections shows."""

    name: str
    count: int
    about: str
    """How it was made, in words."""


class Shelf:
    """The folder `explorer` of a run, outside `out`, so that a new training leaves it in its place."""

    def __init__(self, run_path: Path):
        self._run = run_path.resolve()
        self.path = self._run / "explorer"

    def place(self, kind: Kind, name: str) -> Path:
        """Where something is kept, its folder made, what was there before moved to `old`.

        Raises:
            UserError: If the name is no file name of its own, or leads out of the run folder.
        """
        path = self.find(kind, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.move_aside(path)
        return path

    def find(self, kind: Kind, name: str) -> Path:
        """Where something of this name is, or would be, kept; refuses what `place` refuses."""
        stem = name.removesuffix(".gif").removesuffix(".mp4") if kind == "movies" else name
        if not _NAME.fullmatch(stem) or len(name) > _LONGEST_NAME:
            raise UserError(
                f"'{name[:80]}' cannot be a name; wanted at most {_LONGEST_NAME} letters, digits, '_', '-', '+', and "
                "single dots or blanks between them."
            )
        return self._inside(self.path / kind / name)

    def move_aside(self, path: Path) -> None:
        """Move something to `explorer/old/NNN_NAME`, the next free number, if it is there."""
        if not path.exists():
            return
        old = self._inside(self.path / "old")
        old.mkdir(exist_ok=True)
        taken = [re.match(r"(\d+)_", entry.name) for entry in old.iterdir()]
        number = max((int(match.group(1)) + 1 for match in taken if match), default=0)
        os.rename(path, old / f"{number:03d}_{path.name}")

    def _inside(self, path: Path) -> Path:
        if not path.resolve().is_relative_to(self._run):
            raise UserError(f"{path} leads out of the run folder by a link; remove the link.")
        return path

    def save_selection(
        self, name: str, about: str, chosen: Bool[np.ndarray, "n"], file_rows: Int[np.ndarray, "n t"]
    ) -> Path:
        """Write ind.pkl, ind_inverse.pkl and a word on them; give back the folder.

        Args:
            chosen: The particles that are selected, in the order of the explorer.
            file_rows: Rows of each particle's images in the particle file.

        Raises:
            UserError: If nothing is selected, or the name cannot be used.
        """
        if not chosen.any():
            raise UserError("No particle is selected; select some before saving.")
        folder = self.place("selections", name)
        folder.mkdir()
        write_pickle(folder / "ind.pkl", np.sort(file_rows[chosen].ravel()))
        write_pickle(folder / "ind_inverse.pkl", np.sort(file_rows[~chosen].ravel()))
        with write_atomically(folder / "selection.json") as temporary:
            temporary.write_text(json.dumps({"count": int(chosen.sum()), "about": about}, indent=1) + "\n")
        return folder

    def selections(self) -> list[SavedSelection]:
        """All that were saved whole, by name."""
        found = []
        for path in sorted(self.path.glob("selections/*/selection.json")):
            try:
                content = json.loads(path.read_text())
                found.append(SavedSelection(path.parent.name, int(content["count"]), str(content["about"])))
            except (ValueError, TypeError, KeyError) as error:
                raise UnreadableFile(
                    f"{path} cannot be read ({error}); save the selection again, or remove its folder."
                ) from error
        return found

    def read_selection(self, name: str, file_rows: Int[np.ndarray, "n t"]) -> Bool[np.ndarray, "n"]:
        """Which particles a saved selection holds."""
        return particles_in(self.find("selections", name) / "ind.pkl", file_rows)


def particles_in(path: Path, file_rows: Int[np.ndarray, "n t"]) -> Bool[np.ndarray, "n"]:
    """Which particles have images among the rows of the particle file that an `ind` file names.

    Raises:
        UserError: If it names no rows, or none of a particle of this run.
    """
    content = read_pickle(path)
    named = np.asarray(content) if isinstance(content, list | tuple | range | np.ndarray) else np.empty((0, 0))
    if named.ndim != 1 or named.dtype.kind not in "iu":
        raise UserError(f"{path} holds no list of whole numbers; wanted rows of the particle file, counted from 0.")
    chosen: Bool[np.ndarray, "n"] = np.asarray(np.isin(file_rows, named).any(axis=1))
    if not chosen.any():
        raise UserError(f"{path} names no particle of this run; wanted rows of its particle file, counted from 0.")
    return chosen


def pack(chosen: Bool[np.ndarray, "n"]) -> bytes:
    """A bit per particle, the first in the lowest bit of the first byte."""
    return np.packbits(chosen, bitorder="little").tobytes()


def unpack(content: bytes, count: int) -> Bool[np.ndarray, "n"]:
    """What was packed.

    Raises:
        UserError: If it is not of so many particles.
    """
    if len(content) != (count + 7) // 8:
        raise UserError(f"A selection of {len(content)} bytes came; wanted {(count + 7) // 8}, a bit per particle.")
    return np.unpackbits(np.frombuffer(content, dtype=np.uint8), count=count, bitorder="little").astype(bool)
