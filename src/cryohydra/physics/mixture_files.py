"""Mixtures from atomic models, maps and the structures that the package carries."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from cryohydra._typing import Float, Tensor
from cryohydra.errors import UserError
from cryohydra.fourier.resampling import resample_map
from cryohydra.io.mrc import read_map
from cryohydra.physics.atoms import chain_names, read_atoms, read_traces
from cryohydra.physics.demo_structures import demo_class
from cryohydra.physics.mixture_classes import MixtureClass, class_of_atoms, morph, rigid_class, turning_class
from cryohydra.physics.symmetry import symmetry_of

_MAP_SUFFIXES = (".mrc", ".map", ".ccp4")


@dataclass(frozen=True)
class ModelFile:
    """An atomic model or a map in a file."""

    path: Path
    chains: tuple[str, ...] | None = None
    assembly: str | None = None

    @property
    def is_map(self) -> bool:
        return self.path.suffix.lower() in _MAP_SUFFIXES

    @property
    def name(self) -> str:
        """File name without endings, and the chains."""
        stem = self.path.name.split(".")[0]
        return stem if self.chains is None else f"{stem}:{','.join(self.chains)}"


@dataclass(frozen=True)
class CarriedStructure:
    """A structure that the package carries, one of `DEMO_CLASSES`, with its own motion."""

    name: str


@dataclass(frozen=True)
class Turning:
    """Some chains of a class turn about the line through the centres of both parts."""

    chains: tuple[str, ...]
    from_angle: float
    """Radians from the position in the model."""
    to_angle: float


@dataclass(frozen=True)
class Morphing:
    """The atoms of a class go in straight lines to those of another model."""

    end: ModelFile


@dataclass(frozen=True)
class MixtureFiles:
    """What a simulated mixture is made of."""

    models: tuple[ModelFile | CarriedStructure, ...]
    motions: dict[int, Turning | Morphing]
    """By class, counted from 0."""
    shares: tuple[float, ...] | None
    """One for each class; None for equal ones."""
    box_size: int
    pixel_size_angstrom: float
    resolution_angstrom: float | None = None
    """Of maps made from atoms; None for three pixels."""
    num_frames: int = 21


def build_classes(files: MixtureFiles) -> tuple[MixtureClass, ...]:
    """Read the models and make the densities.

    Raises:
        UserError: If a file cannot be used, or shares and motions do not fit the models.
    """
    count = len(files.models)
    if count == 0:
        raise UserError("No model was given; give atomic models or maps, one per class, or take those of the package.")
    if files.shares is not None and len(files.shares) != count:
        raise UserError(f"{len(files.shares)} shares were given for {count} models; give one for each.")
    if files.num_frames < 1:
        raise UserError(f"{files.num_frames} steps along a motion were asked for; at least one is wanted.")
    outside = sorted(set(files.motions) - set(range(count)))
    if outside:
        raise UserError(f"There is a motion of class {outside[0]}, but classes are numbered 0 to {count - 1}.")
    shares = files.shares or (1.0,) * count
    return tuple(
        _build(model, files.motions.get(k), files).with_share(share)
        for k, (model, share) in enumerate(zip(files.models, shares, strict=True))
    )


def _build(model: ModelFile | CarriedStructure, motion: Turning | Morphing | None, files: MixtureFiles) -> MixtureClass:
    box_size, pixel_size = files.box_size, files.pixel_size_angstrom
    resolution = files.resolution_angstrom or 3 * pixel_size
    if isinstance(model, CarriedStructure):
        if motion is not None:
            raise UserError(f"'{model.name}' brings its own motion; take --motion away, or give an atomic model.")
        return demo_class(model.name, box_size, pixel_size, resolution, files.num_frames)
    if model.is_map:
        if motion is not None:
            raise UserError(f"{model.path} is a map and cannot be moved; give an atomic model.")
        return rigid_class(model.name, _fitting_map(model.path, box_size, pixel_size))
    if motion is None:
        atoms = read_atoms(model.path, model.chains, model.assembly)
        traces = read_traces(model.path, model.chains, model.assembly)
        rigid = class_of_atoms(model.name, [atoms], box_size, pixel_size, resolution)
        return replace(rigid, symmetry=symmetry_of(traces, atoms.centre_angstrom))
    if isinstance(motion, Morphing):
        start = read_atoms(model.path, model.chains, model.assembly)
        end = read_atoms(motion.end.path, motion.end.chains, motion.end.assembly)
        return class_of_atoms(model.name, morph(start, end, files.num_frames), box_size, pixel_size, resolution)
    chains = chain_names(model.path, model.chains, model.assembly)
    turns = [name for name in chains if _matches(name, motion.chains)]
    rests = [name for name in chains if not _matches(name, motion.chains)]
    if not turns or not rests:
        raise UserError(
            f"Of the chains of {model.path} ({', '.join(chains)}), {', '.join(motion.chains)} means "
            f"{'none' if not turns else 'all'}; some must turn and some stay."
        )
    made = turning_class(
        model.name,
        read_atoms(model.path, rests, model.assembly),
        read_atoms(model.path, turns, model.assembly),
        torch.linspace(motion.from_angle, motion.to_angle, files.num_frames),
        box_size,
        pixel_size,
        resolution,
    )
    return replace(made, name=f"{model.name}, {','.join(motion.chains)} turning")


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _fitting_map(path: Path, box_size: int, pixel_size_angstrom: float) -> Float[Tensor, "d d d"]:
    """A map on the voxels of the images."""
    array, own_pixel_size = read_map(path)
    map_zyx = torch.from_numpy(array)
    centre = array.shape[0] // 2
    half_box = box_size * pixel_size_angstrom / 2 / own_pixel_size
    if half_box < centre:
        axis = (torch.arange(array.shape[0]) - centre).abs() > half_box
        is_outside = axis[:, None, None] | axis[:, None] | axis
        lost = float(map_zyx[is_outside].square().sum() / map_zyx.square().sum().clamp(min=1e-30))
        if lost > 0.02:
            raise UserError(
                f"{path} reaches beyond a box of {box_size} pixels of {pixel_size_angstrom:g} A: {lost:.0%} of its "
                f"power lies outside. Take a box of at least {math.ceil(box_size * centre / half_box / 2) * 2} pixels."
            )
        map_zyx = torch.where(is_outside, 0.0, map_zyx)
    return resample_map(map_zyx, own_pixel_size, box_size, pixel_size_angstrom)
