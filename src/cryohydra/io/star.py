"""STAR files: named blocks, each a table of text."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import gemmi
import numpy as np

from cryohydra._typing import Float, Int
from cryohydra.errors import UnreadableFile
from cryohydra.io.atomic import write_atomically

_HEAD_LENGTH = 4096


@dataclass(frozen=True, eq=False)
class StarTable:
    """Columns of text of one length, in order; names have no leading underscore."""

    columns: Mapping[str, np.ndarray]
    origin: str = "the table"
    """What messages call it."""

    def __post_init__(self) -> None:
        assert len({len(column) for column in self.columns.values()}) <= 1, "columns of different length"

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __getitem__(self, rows: Int[np.ndarray, "m"]) -> "StarTable":
        """The same columns of some rows."""
        return replace(self, columns={name: column[rows] for name, column in self.columns.items()})

    def having(self, columns: Mapping[str, np.ndarray]) -> "StarTable":
        """The same rows with some columns replaced in their places, or added at the end."""
        return replace(self, columns={**self.columns, **columns})

    def has(self, *names: str) -> bool:
        """Whether all these columns are there."""
        return all(name in self.columns for name in names)

    def column(self, name: str) -> np.ndarray:
        """The text of a column.

        Raises:
            UnreadableFile: If there is no such column.
        """
        if name not in self.columns:
            there = ", ".join("_" + other for other in self.columns)
            raise UnreadableFile(f"{self.origin} has no column _{name}; there are {there}.")
        return self.columns[name]

    def floats(self, name: str) -> Float[np.ndarray, "n"]:
        """A column as numbers.

        Raises:
            UnreadableFile: If there is no such column or it holds other things.
        """
        text = self.column(name)
        try:
            return text.astype(np.float64)
        except ValueError as error:
            raise UnreadableFile(
                f"{self.origin} holds something that is no number in column _{name} ({error}); correct it."
            ) from error


def read_star(path: Path) -> dict[str, StarTable]:
    """The blocks of a STAR file in order; the block `data_` is called "".

    Pairs outside a loop are a table of one row.

    Raises:
        UnreadableFile: If the file is missing or not a STAR file.
    """
    if not Path(path).is_file():
        raise UnreadableFile(f"{path} does not exist; give the path of a .star file.")
    try:
        document = gemmi.cif.read(str(path))
    except (ValueError, RuntimeError, OSError, UnicodeDecodeError) as error:
        raise UnreadableFile(
            f"{path} cannot be read as a STAR file ({str(error).strip()}); it may be truncated or of another format. "
            "Export it again."
        ) from error
    if not len(document):
        raise UnreadableFile(f"{path} is empty; wanted a STAR file. Export it again.")
    return {block.name.strip(): _table(block, str(path)) for block in document}


def star_version(path: Path) -> int | None:
    """The version that RELION wrote at the head of a file, 30001 for 3.1; None if there is none, as in 3.0."""
    with open(path, errors="replace") as file:
        match = re.search(r"^# version (\d+)", file.read(_HEAD_LENGTH), re.MULTILINE)
    return None if match is None else int(match.group(1))


def write_star(path: Path, blocks: Mapping[str, StarTable], version: int | None = 30001) -> None:
    """Write blocks as RELION reads them.

    Args:
        version: Stated above each block if there are optics groups. RELION takes a file without it as one of 3.0, and
            overlooks shifts in pixels in one that states it.
    """
    comment = f"# version {version}\n\n" if version is not None and "optics" in blocks else ""
    with write_atomically(path) as temporary, open(temporary, "w") as file:
        for name, table in blocks.items():
            file.write(f"\n{comment}data_{name}\n\nloop_\n")
            file.writelines(f"_{column} #{number}\n" for number, column in enumerate(table.columns, start=1))
            columns = [[_word(str(value)) for value in column] for column in table.columns.values()]
            file.writelines(" ".join(row) + "\n" for row in zip(*columns, strict=True))
            file.write("\n")


def _word(text: str) -> str:
    """A value, in quotes if it could not be read without."""
    # CIF reserves brackets at the start of a value, but lists such as [0.1,0.2] are everywhere in RELION's files.
    is_plain = text in {".", "?"} or (text.startswith("[") and not any(map(str.isspace, text)))
    return text if is_plain else str(gemmi.cif.quote(text))


def _table(block: gemmi.cif.Block, origin: str) -> StarTable:
    """The first loop of a block, or its pairs."""
    pairs: dict[str, np.ndarray] = {}
    for item in block:
        loop: gemmi.cif.Loop | None = item.loop
        if loop is not None:
            values, width = loop.values, loop.width()
            columns = {tag[1:]: _texts(values[i::width]) for i, tag in enumerate(loop.tags)}
            return StarTable(columns, origin)
        pair = item.pair
        if isinstance(pair, (list, tuple)):
            pairs[pair[0][1:]] = _texts([pair[1]])
    return StarTable(pairs, origin)


def _texts(values: list[str]) -> np.ndarray:
    """Values without the quotes that protect spaces."""
    return np.array([gemmi.cif.as_string(value) if value[:1] in "'\";" else value for value in values], dtype=str)
