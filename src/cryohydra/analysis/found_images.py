"""What an epoch of a run says of every image of its input, in any class."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryohydra._typing import Float, Int
from cryohydra.analysis.run import read_run_settings
from cryohydra.data.findings import ImageFindings
from cryohydra.data.particles import rows_of_tilts
from cryohydra.errors import InputMismatch, UserError
from cryohydra.inference.partition import half_of
from cryohydra.io.latents import read_latents
from cryohydra.io.run_folder import RunFolder
from cryohydra.model.checkpoint import load_checkpoint


@dataclass(frozen=True, eq=False)
class FoundImages:
    """Poses and probabilities of particles, and the rows of their images in the input of the run."""

    folder: RunFolder
    epoch: int
    settings: Mapping[str, Any]
    """As in train-configs.yaml."""
    row: Int[np.ndarray, "n t"]
    """Of each tilt of each particle, before any selection."""
    rotation: Float[np.ndarray, "n t k 3 3"]
    """Acts on lattice rows."""
    shift_px: Float[np.ndarray, "n t k 2"]
    """Where the particle is, (x, y), from the centre of the box that was trained on."""
    class_probability: Float[np.ndarray, "n k"]
    log_evidence: Float[np.ndarray, "n"]
    """Of each particle's images over that of noise alone: how well they are explained in the poses found."""
    box_size: int
    """That was trained on."""
    pixel_size_angstrom: float
    """Of that box."""

    @classmethod
    def open(cls, path: Path, epoch: int = -1) -> "FoundImages":
        """Read an epoch.

        Args:
            epoch: -1 means the last one saved.

        Raises:
            UserError: If there is nothing trained, or not at this epoch, or its files are not of one run.
        """
        folder = RunFolder(path)
        chosen = folder.saved_epoch(epoch)
        checkpoint = load_checkpoint(folder.weights_path(chosen))
        latents = read_latents(folder.latents_path(chosen))
        poses = checkpoint.extra.get("training", {}).get("poses")
        if poses is None or poses["rotation"].shape[0] != len(latents):
            raise UserError(
                f"{folder.weights_path(chosen)} does not hold the poses of the particles in "
                f"{folder.latents_path(chosen)}; wanted those of one run. Restore them, or train again."
            )
        settings = read_run_settings(folder.train_configs_path)
        return cls(
            folder=folder,
            epoch=chosen,
            settings=settings,
            row=_rows(settings, latents.particle_index, folder),
            rotation=poses["rotation"].numpy(),
            shift_px=poses["shift_px"].numpy(),
            class_probability=latents.class_probability.astype(np.float64),
            log_evidence=latents.log_evidence.astype(np.float64),
            box_size=checkpoint.box_size,
            pixel_size_angstrom=float(checkpoint.pixel_size_angstrom),
        )

    @property
    def num_classes(self) -> int:
        """K."""
        return self.class_probability.shape[1]

    def rows_of_best_explained(self, share: float) -> Int[np.ndarray, "m"]:
        """Rows of the images of each class's best explained particles.

        Args:
            share: Of the particles of a class that are wanted, in (0, 1].
        """
        best = self.class_probability.argmax(axis=1)
        is_wanted = np.zeros(len(best), dtype=bool)
        for k in range(self.num_classes):
            members = np.flatnonzero(best == k)
            order = np.argsort(-self.log_evidence[members], kind="stable")
            is_wanted[members[order[: math.ceil(share * len(members))]]] = True
        return self.row[is_wanted].reshape(-1)

    def in_best_class(self) -> ImageFindings:
        """Every image in the most probable class of its particle."""
        return self._in(self.class_probability.argmax(axis=1))

    def in_class(self, class_index: int) -> ImageFindings:
        """Every image as if it were of one class."""
        return self._in(np.full(len(self.row), class_index))

    def _in(self, class_index: Int[np.ndarray, "n"]) -> ImageFindings:
        """Tilts of a particle one after another."""
        particle = np.arange(len(self.row))
        num_tilts = self.row.shape[1]
        return ImageFindings(
            row=self.row.reshape(-1),
            rotation=self.rotation[particle, :, class_index].reshape(-1, 3, 3).astype(np.float64),
            shift_fraction=self.shift_px[particle, :, class_index].reshape(-1, 2).astype(np.float64) / self.box_size,
            class_index=class_index.repeat(num_tilts),
            class_probability=self.class_probability[particle, class_index].repeat(num_tilts),
            half=half_of(torch.from_numpy(particle)).numpy().repeat(num_tilts),
        )


def _rows(settings: Mapping[str, Any], particle_index: Int[np.ndarray, "n"], folder: RunFolder) -> np.ndarray:
    """The images of each particle."""
    if settings.get("particles") is None:
        raise UserError(
            f"{folder.train_configs_path} does not name the particles of the run; wanted the file that the training "
            "wrote. Restore it."
        )
    if not settings.get("subtomogram_averaging"):
        return particle_index[:, None]
    ind, datadir = settings.get("ind"), settings.get("datadir")
    selection = Path(ind) if isinstance(ind, str) else ind
    rows = rows_of_tilts(
        Path(settings["particles"]), selection, None if datadir is None else Path(datadir), settings["n_tilts"]
    )
    if len(rows) != len(particle_index):
        raise InputMismatch(
            f"{settings['particles']} now has {len(rows)} particles with {settings['n_tilts']} tilts but the run has "
            f"{len(particle_index)}; wanted the file that was trained on. Restore it."
        )
    return rows
