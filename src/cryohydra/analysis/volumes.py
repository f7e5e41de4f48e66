"""Volumes of a class at chosen conformations, written for other programs to open."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cryohydra._typing import Tensor
from cryohydra.analysis.maps import SHOWN_BOX_SIZE, shrink_map
from cryohydra.analysis.run import Run
from cryohydra.io.atomic import write_atomically
from cryohydra.io.mrc import write_map

_SECONDS_BETWEEN_WORDS = 5.0


@dataclass(frozen=True)
class VolumeWriter:
    """Draws conformations of one class of a run and writes them as MRC files."""

    run: Run
    class_index: int
    is_inverted: bool
    """Whether what is written has its sign flipped: positive density becomes negative."""
    says: Callable[[str], None]

    def draw(self, conformation: Float[np.ndarray, "z"]) -> Float[Tensor, "d d d"]:
        """The density in one conformation, positive, on the CPU."""
        return self.run.draw(self.class_index, conformation)

    def write(self, folder: Path, conformations: Float[np.ndarray, "v z"]) -> list[Float[Tensor, "n n n"]]:
        """Write vol_000.mrc, vol_001.mrc, ... and z_values.txt; give back the densities, positive and shrunk.

        Volumes that an earlier analysis drew at other conformations are moved to `old-volumes_NNN`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        _keep_earlier(folder, conformations)
        if conformations.shape[1]:
            write_text_table(folder / "z_values.txt", conformations)
        densities, last_word = [], time.monotonic()
        for number, conformation in enumerate(conformations):
            density = self.draw(conformation)
            sign = -1 if self.is_inverted else 1
            write_map(volume_path(folder, number), sign * density.numpy(), self.run.pixel_size_angstrom)
            densities.append(shrink_map(density, SHOWN_BOX_SIZE))
            if time.monotonic() - last_word > _SECONDS_BETWEEN_WORDS:
                last_word = time.monotonic()
                where = f"class_{self.class_index}" if folder.name == f"class_{self.class_index}" else folder.name
                self.says(f"Class {self.class_index}, {where}: {number + 1} of {len(conformations)} volumes written.")
        return densities


def volume_path(folder: Path, number: int) -> Path:
    """The file of one volume of a series."""
    return folder / f"vol_{number:03d}.mrc"


def write_text_table(path: Path, table: Float[np.ndarray, "r c"]) -> None:
    """Write numbers as text, a row per line."""
    with write_atomically(path) as temporary:
        np.savetxt(temporary, table, fmt="%.7g")


def _keep_earlier(folder: Path, conformations: Float[np.ndarray, "v z"]) -> None:
    """Move a series aside unless the new one takes its place conformation by conformation."""
    earlier = sorted(folder.glob("vol_[0-9]*.mrc"))
    listed = folder / "z_values.txt"
    if not earlier:
        return
    if listed.exists():
        known = np.loadtxt(listed, ndmin=2)
        if known.shape == conformations.shape and np.allclose(known, conformations, rtol=1e-5, atol=1e-6):
            return
    elif len(earlier) == len(conformations):
        return
    number = len(list(folder.glob("old-volumes_*")))
    aside = folder / f"old-volumes_{number:03d}"
    aside.mkdir()
    for file in [*earlier, *([listed] if listed.exists() else [])]:
        file.rename(aside / file.name)
