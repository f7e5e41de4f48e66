"""All classes of a run side by side: in one frame, of one hand, and what differs between them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from cryohydra._typing import Tensor
from cryohydra.analysis.maps import shrink_map
from cryohydra.fourier.alignment import Alignment, align_map, apply_alignment
from cryohydra.fourier.fsc import fourier_shell_correlation, resolution_at
from cryohydra.io.atomic import write_atomically
from cryohydra.io.latents import Latents
from cryohydra.io.mrc import write_map
from cryohydra.io.pose_file import write_pose_file
from cryohydra.physics.pose import Pose, follow_map

_ALIGNED_BOX_SIZE = 48
"""Enough for a rotation to a degree or so; the alignment of a pair takes half a second."""
_ALIKE = 0.5
"""Shell correlation down to which two maps count as alike."""


@dataclass(frozen=True)
class Placement:
    """One class in the frame of all."""

    class_index: int
    neighbour: int | None
    """The class, placed before, that it is most like and was laid on; None for the first."""
    alignment: Alignment
    """What brings its map, as the run has it, into the frame."""
    density: Float[Tensor, "d d d"]
    """In the frame."""
    difference: Float[Tensor, "d d d"]
    """Its density less its neighbour's."""
    alike_to_angstrom: float
    """Resolution at which the two maps' shell correlation falls below 0.5."""


def bring_together(
    maps: Mapping[int, Float[Tensor, "d d d"]],
    likeness: Float[np.ndarray, "k k"],
    first: int,
    pixel_size_angstrom: float,
    says: Callable[[str], None],
) -> tuple[Placement, ...]:
    """Lay all classes on one another, each on the one placed before it that it is most like.

    Args:
        maps: By class.
        likeness: How much the maps of every two classes correlate.
        first: The class whose frame and hand the others take.
    """
    density = maps[first]
    nothing = Alignment(torch.eye(3), torch.zeros(3), is_mirrored=False, correlation=1.0)
    placed = {first: Placement(first, None, nothing, density, torch.zeros_like(density), 2 * pixel_size_angstrom)}
    while len(placed) < len(maps):
        left = [index for index in maps if index not in placed]
        pairs = [(likeness[neighbour, index], neighbour, index) for neighbour in placed for index in left]
        _, neighbour, index = max(pairs)
        says(f"Laying class {index} on class {neighbour}, which it is most like.")
        placed[index] = _place(index, maps[index], placed[neighbour], pixel_size_angstrom)
    return tuple(placed[index] for index in maps)


def _place(index: int, density: Float[Tensor, "d d d"], onto: Placement, pixel_size_angstrom: float) -> Placement:
    full = density.shape[-1]
    small = min(full, _ALIGNED_BOX_SIZE)
    found = align_map(shrink_map(density, small), shrink_map(onto.density, small))
    alignment = replace(found, shift_px=found.shift_px * (full / small))
    moved = apply_alignment(density, alignment)
    fsc = fourier_shell_correlation(moved, onto.density)
    alike = resolution_at(fsc, _ALIKE, full, pixel_size_angstrom)
    return Placement(index, onto.class_index, alignment, moved, moved - onto.density, alike)


def poses_in_frame(latents: Latents, placements: tuple[Placement, ...]) -> Pose:
    """The poses of all particles in their best classes, as the maps in the frame want them.

    Particles of classes that were not placed keep theirs.
    """
    rotation, shift = torch.from_numpy(latents.rotation).float(), torch.from_numpy(latents.shift_px).float()
    best = torch.from_numpy(latents.best_class)
    for placement in placements:
        rows = best == placement.class_index
        pose = follow_map(Pose(rotation[rows][:, :, None], shift[rows][:, :, None]), placement.alignment)
        rotation[rows], shift[rows] = pose.rotation[:, :, 0], pose.shift_px[:, :, 0]
    return Pose(rotation[:, :, None], shift[:, :, None])


def write_frame(
    folder: Path,
    placements: tuple[Placement, ...],
    likeness: Float[np.ndarray, "k k"],
    latents: Latents,
    pixel_size_angstrom: float,
    sign: int,
) -> None:
    """Write maps, differences, poses, and how each class was laid.

    Args:
        sign: -1 for maps of negative density.
    """
    folder.mkdir(parents=True, exist_ok=True)
    box_size = placements[0].density.shape[-1]
    for placement in placements:
        index, neighbour = placement.class_index, placement.neighbour
        write_map(folder / f"class_{index}.mrc", sign * placement.density.numpy(), pixel_size_angstrom)
        if neighbour is not None:
            path = folder / f"class_{index}_minus_{neighbour}.mrc"
            write_map(path, sign * placement.difference.numpy(), pixel_size_angstrom)
    pose = poses_in_frame(latents, placements)
    rotation, shift = pose.rotation.flatten(0, 2).numpy(), pose.shift_px.flatten(0, 2).numpy()
    write_pose_file(folder / "pose.pkl", rotation.astype(np.float64), -shift.astype(np.float64) / box_size)
    content = {
        "likeness": [[None if np.isnan(value) else round(float(value), 4) for value in row] for row in likeness],
        "classes": [_as_plain(placement) for placement in placements],
    }
    with write_atomically(folder / "classes.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def _as_plain(placement: Placement) -> dict[str, object]:
    alignment = placement.alignment
    return {
        "class": placement.class_index,
        "laid_on": placement.neighbour,
        "is_mirrored": alignment.is_mirrored,
        "rotation": alignment.rotation.tolist(),
        "shift_px": alignment.shift_px.tolist(),
        "correlation": alignment.correlation,
        "alike_to_angstrom": placement.alike_to_angstrom,
    }
