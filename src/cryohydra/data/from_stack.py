"""Images from a .mrcs or .mrc stack, or a .txt that lists stacks; they say nothing of optics or poses."""

from pathlib import Path

import numpy as np

from cryohydra.data.table import ImageReferences, ImageTable, check_one_size
from cryohydra.errors import UnreadableFile
from cryohydra.io.mrc import MrcStack


def read_stack(path: Path, datadir: Path | None) -> ImageTable:
    """The images of one stack."""
    return _bare_table(path, (MrcStack(path),))


def read_stack_list(path: Path, datadir: Path | None) -> ImageTable:
    """The images of the stacks that a text file lists, one a line, relative to it.

    Raises:
        UserError: If it is missing or empty, or its stacks hold images of different sizes.
    """
    stacks = listed_stacks(path, datadir)
    check_one_size(stacks)
    return _bare_table(path, stacks)


def listed_stacks(path: Path, datadir: Path | None) -> tuple[MrcStack, ...]:
    """The stacks that a text file lists.

    Raises:
        UnreadableFile: If it or one of them is missing, or it is empty.
    """
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFile(f"{path} cannot be read ({error}); wanted a text file with one stack a line.") from error
    names = [line for line in lines if line]
    if not names:
        raise UnreadableFile(f"{path} is empty; wanted one .mrcs path a line.")
    return tuple(MrcStack((datadir or path.parent) / name) for name in names)


def every_image(stacks: tuple[MrcStack, ...]) -> ImageReferences:
    """All images of some stacks, in order."""
    counts = [stack.num_images for stack in stacks]
    stack = np.repeat(np.arange(len(stacks)), counts)
    row = np.concatenate([np.arange(count) for count in counts])
    return ImageReferences(stacks, stack, row, min(opened.box_size for opened in stacks))


def _bare_table(origin: Path, stacks: tuple[MrcStack, ...]) -> ImageTable:
    references = every_image(stacks)
    num_images = len(references)
    return ImageTable(
        origin=origin,
        references=references,
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
