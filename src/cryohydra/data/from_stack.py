"""Images from a .mrcs or .mrc stack, or a .txt that lists stacks; they say nothing of optics or poses."""

from pathlib import Path

import numpy as np

from cryohydra.data.table import ImageReferences, ImageTable, open_stacks
from cryohydra.errors import Complain, UnreadableFile, stop


def read_stack(path: Path, datadir: Path | None, complain: Complain = stop) -> ImageTable:
    """The images of one stack."""
    return _bare_table(path, [path], complain)


def read_stack_list(path: Path, datadir: Path | None, complain: Complain = stop) -> ImageTable:
    """The images of the stacks that a text file lists, one a line, relative to it.

    Raises:
        UserError: If it is missing or empty, or its stacks hold images of different sizes.
    """
    return _bare_table(path, listed_stacks(path, datadir), complain)


def listed_stacks(path: Path, datadir: Path | None) -> list[Path]:
    """The stacks that a text file lists.

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
    return [(datadir or path.parent) / name for name in names]


def every_image(
    origin: Path, paths: list[Path], complain: Complain = stop, *, wants_one_size: bool = True
) -> ImageReferences:
    """All images of some stacks, in order.

    Args:
        wants_one_size: As `open_stacks` takes it.

    Raises:
        UserError: If one cannot be used, unless `complain` goes on; if none can.
    """
    opened = open_stacks(paths, complain, wants_one_size=wants_one_size)
    stacks = tuple(stack for stack in opened if stack is not None)
    if not stacks:
        raise UnreadableFile(f"{origin} holds no image that can be read; wanted one at least.")
    counts = [stack.num_images for stack in stacks]
    stack = np.repeat(np.arange(len(stacks)), counts)
    row = np.concatenate([np.arange(count) for count in counts])
    return ImageReferences(stacks, stack, row, min(opened.box_size for opened in stacks))


def _bare_table(origin: Path, paths: list[Path], complain: Complain) -> ImageTable:
    references = every_image(origin, paths, complain)
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
