"""Images from a .mrcs or .mrc stack, or a .txt that lists stacks; they say nothing of optics or poses."""

from pathlib import Path

import numpy as np

from cryohydra.data.table import ImageReferences, ImageTable, open_stacks
from cryohydra.errors import UnreadableFile
from cryohydra.io.mrc import MrcStack


def read_stack(path: Path, datadir: Path | None) -> ImageTable:
    """The images of one stack."""
    return _bare_table(path, open_stacks([path]))


def read_stack_list(path: Path, datadir: Path | None) -> ImageTable:
    """The images of the stacks that a text file lists, one a line, relative to it.

    Raises:
        UnreadableFile: If it is missing or empty.
    """
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFile(f"{path} cannot be read ({error}); wanted a text file with one stack a line.") from error
    names = [line for line in lines if line]
    if not names:
        raise UnreadableFile(f"{path} is empty; wanted one .mrcs path a line.")
    return _bare_table(path, open_stacks([(datadir or path.parent) / name for name in names]))


def _bare_table(origin: Path, stacks: tuple[MrcStack, ...]) -> ImageTable:
    counts = [stack.num_images for stack in stacks]
    num_images = sum(counts)
    stack = np.repeat(np.arange(len(stacks)), counts)
    row = np.concatenate([np.arange(count) for count in counts])
    return ImageTable(
        origin=origin,
        references=ImageReferences(stacks, stack, row),
        ctf=None,
        scale=np.ones(num_images),
        dose=None,
        group=np.zeros(num_images, dtype=np.int64),
        rotation=None,
        shift_px=None,
        particle=None,
        is_white=None,
        habit_is_white=True,
        notes=(),
    )
