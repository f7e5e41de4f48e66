"""What is known of each particle after training, beside the older .pkl files."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from cryohydra._typing import Bool, Float, Int
from cryohydra.errors import UnreadableFile
from cryohydra.io.atomic import write_atomically


@dataclass(frozen=True)
class Latents:
    """Pose, class and conformation of each particle."""

    rotation: Float[np.ndarray, "n t 3 3"]
    """Of the best class; acts on lattice rows."""
    shift_px: Float[np.ndarray, "n t 2"]
    """Of the best class: where the particle is, (x, y), from the centre."""
    class_probability: Float[np.ndarray, "n k"]
    """Rows sum to one."""
    conformation: Float[np.ndarray, "n z"]
    """Of the best class."""
    conformation_std: Float[np.ndarray, "n std"]
    """Of the best class; no columns unless conformations are variational."""
    log_evidence: Float[np.ndarray, "n"]
    """Natural logarithm of the probability of each particle's images over that of noise alone, classes summed out."""
    particle_index: Int[np.ndarray, "n"]
    """Row in the input before any selection."""

    @property
    def best_class(self) -> Int[np.ndarray, "n"]:
        """The most probable class of each particle, from 0."""
        return self.class_probability.argmax(axis=1)

    def of(self, chosen: Bool[np.ndarray, "n"]) -> "Latents":
        """Those of some of the particles."""
        return Latents(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})

    def __len__(self) -> int:
        return len(self.rotation)


def write_latents(path: Path, latents: Latents) -> None:
    """Write latents as .npz."""
    with write_atomically(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **{field.name: getattr(latents, field.name) for field in fields(latents)})


def read_latents(path: Path) -> Latents:
    """Read latents from .npz.

    Raises:
        UnreadableFile: If the file is missing, damaged or lacks a part.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return Latents(**{field.name: archive[field.name] for field in fields(Latents)})
    except FileNotFoundError as error:
        raise UnreadableFile(f"{path} does not exist; wanted the latents of an epoch that was saved.") from error
    except Exception as error:  # zipfile, zlib and numpy each have their own
        raise UnreadableFile(
            f"{path} cannot be read as latents ({type(error).__name__}: {error}); wanted a latents.E.npz of a run. "
            "Choose another epoch, or continue the run to write it again."
        ) from error
