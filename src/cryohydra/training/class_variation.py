"""How the particles of one class differ, at the poses that the tables hold."""

from dataclasses import dataclass

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.hartley import shift_hartley
from cryohydra.fourier.lattice import Lattice, enlarge
from cryohydra.inference.reconstruction import ClassMaps, density_mask, particle_mask
from cryohydra.inference.variation import PosedImages, find_components, locate_images
from cryohydra.training.state import TrainingState

MOST_VARIED = 4000
"""From which components are found, and held at a time; all are then located along them."""
_AT_ONCE = 256
_WELL_KNOWN = 0.5
"""Half-map correlation of the mean down to which its variation, which is much weaker, can be told from noise."""


@dataclass(frozen=True)
class ClassVariation:
    """Linear components of a class, and where its members lie along them."""

    components: Float[Tensor, "z n n n"]
    """On the lattice of the class's map."""
    coordinate: Float[Tensor, "m z"]


def vary(
    state: TrainingState,
    maps: ClassMaps,
    class_index: int,
    members: Int[Tensor, "m"],
    num_components: int,
    generator: torch.Generator,
) -> ClassVariation:
    """Find the components along which some particles differ most from their class's map.

    Args:
        members: Rows, on the CPU.
        num_components: At least one.
        generator: On the CPU.
    """
    radius = min(max(maps.known_radius(_WELL_KNOWN), 4), maps.lattice.radius)
    lattice, band = Lattice(maps.lattice.box_size, radius), state.band(radius)
    mean = enlarge(maps.values[class_index][None], lattice)
    mask = particle_mask(lattice, state.device) * density_mask(lattice, mean)[0]
    mean = mean[0]
    teachers = members[~state.is_held_out(members)]
    if not len(teachers):
        teachers = members
    chosen = teachers[torch.randperm(len(teachers), generator=generator)[:MOST_VARIED]]
    images = posed_images(state, chosen, class_index, band)
    components = find_components(images, band, lattice, mean, mask, num_components, generator)
    located = locate_members(state, class_index, members, band, lattice, mean, components)
    return ClassVariation(enlarge(components, maps.lattice), located)


def locate_members(
    state: TrainingState,
    class_index: int,
    members: Int[Tensor, "m"],
    band: Band,
    lattice: Lattice,
    mean: Float[Tensor, "n n n"],
    components: Float[Tensor, "z n n n"],
) -> Float[Tensor, "m z"]:
    """Where particles lie along components of a class, were they of it; a few thousand are held at a time.

    Args:
        members: Rows, on the CPU; at least one.
    """
    located = [
        locate_images(posed_images(state, some, class_index, band), band, lattice, mean, components)
        for some in members.split(MOST_VARIED)
    ]
    return torch.cat(located)


def posed_images(state: TrainingState, index: Int[Tensor, "m"], class_index: int, band: Band) -> PosedImages:
    """Particles as members of a class, at the poses that they have in it, their shifts undone."""
    parts = [state.weighted(rows, band) for rows in index.split(_AT_ONCE)]
    score, power = torch.cat([part.score for part in parts]), torch.cat([part.power for part in parts])
    rows = index.to(state.device)
    pose = state.poses.pose(rows)
    # Known shifts were undone already, with the images' scores.
    shift = pose.shift_px[:, :, class_index] - state.known_shift_px[rows][:, None]
    return PosedImages(
        score=shift_hartley(score, band.frequencies, -shift),
        power=power,
        rotation=pose.rotation[:, :, class_index],
        weight=state.classes.log_posterior(rows).exp()[:, class_index],
    )
