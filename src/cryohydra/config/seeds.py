"""The maps and labels that settings name to start classes from."""

from pathlib import Path

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.config.settings import Settings
from cryohydra.data.particles import ParticleSet
from cryohydra.data.selection import read_integers
from cryohydra.errors import InputMismatch, UnreadableFile
from cryohydra.fourier.lattice import Lattice
from cryohydra.fourier.resampling import resample_map
from cryohydra.io.mrc import MrcStack, read_map
from cryohydra.training.seed_maps import seed_of_density, seed_of_members
from cryohydra.training.seeds import Seeds
from cryohydra.training.state import TrainingState

_NARROWEST, _WIDEST = 0.4, 2.5
"""Fields of view of a map, over that of the images, that a particle in both leaves possible."""
_EDGE = 0.05


def read_seeds(settings: Settings, particles: ParticleSet, state: TrainingState, radius: int) -> Seeds | None:
    """What the settings give classes to start from, up to `radius` Fourier pixels; None if that is nothing.

    Raises:
        UserError: If a file cannot be read, or does not go with the images.
    """
    if not settings.initial_volumes and settings.initial_labels is None:
        return None
    lattice = Lattice(state.images.box_size, radius)
    label = _labels(settings, particles).to(state.device)
    values = torch.zeros(state.num_classes, *lattice.shape, device=state.device)
    has_map = torch.zeros(state.num_classes, dtype=torch.bool, device=state.device)
    for k, path in enumerate(settings.initial_volumes or ()):
        density = _in_pixels_of(path, state.images.box_size, state.images.pixel_size_angstrom)
        values[k], has_map[k] = seed_of_density(state, density, lattice), True
    if particles.poses is not None:
        for k in torch.nonzero(~has_map)[:, 0].tolist():
            members = torch.nonzero(label == k)[:, 0].cpu()
            if len(members):
                values[k], has_map[k] = seed_of_members(state, members, particles.poses, lattice), True
    return Seeds(lattice, values, has_map, label)


def _labels(settings: Settings, particles: ParticleSet) -> Int[Tensor, "n"]:
    """Class of each particle, -1 where it is not known."""
    path = settings.initial_labels
    if path is None:
        return torch.full((len(particles.index),), -1)
    given = torch.from_numpy(read_integers(path, "class labels"))
    num_described = int(particles.index.max()) + 1
    if len(given) < num_described:
        raise InputMismatch(
            f"{path} labels {len(given)} particles but there are {num_described}; wanted one label for each, "
            "-1 where the class is not known."
        )
    wrong = given[(given < -1) | (given >= settings.n_classes)]
    if len(wrong):
        raise InputMismatch(
            f"{path} has the label {int(wrong[0])} but n_classes is {settings.n_classes}; wanted classes counted from "
            "0, and -1 where the class is not known."
        )
    return given[particles.index]


def _in_pixels_of(path: Path, box_size: int, pixel_size_angstrom: float) -> Float[Tensor, "d d d"]:
    """A map in the pixels of the images.

    Raises:
        UserError: If it is no map, or none of a particle in such images.
    """
    density, pixel_size = read_map(path)
    across, wanted = len(density) * pixel_size, box_size * pixel_size_angstrom
    if MrcStack(path).pixel_size_angstrom is None or not _NARROWEST <= across / wanted <= _WIDEST:
        raise InputMismatch(
            f"{path} says that its {len(density)} voxels are of {pixel_size:.4g} Å, {across:.0f} Å across, but the "
            f"images are {wanted:.0f} Å across; wanted a map of a particle in them. Correct the voxel size in "
            "its header."
        )
    found = torch.from_numpy(density)
    if not found.isfinite().all() or found.amin() == found.amax():
        raise UnreadableFile(f"{path} has no density, or values that are not finite; give the map of a structure.")
    # What lies outside the images' box would be folded into it.
    axis = (torch.arange(len(found)) - len(found) // 2) * (pixel_size / wanted)
    distance = (axis[:, None, None].square() + axis[:, None].square() + axis.square()).sqrt()
    return resample_map(found * ((0.5 - distance) / _EDGE).clamp(0, 1), pixel_size, box_size, pixel_size_angstrom)
