"""From maps on a lattice to neural fields, and from rigid maps to how they vary."""

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.lattice import Lattice
from cryohydra.inference.reconstruction import enlarge, particle_mask
from cryohydra.inference.variation import find_components, locate_images
from cryohydra.model.fitting import fit_field_to_lattice
from cryohydra.training.posed import posed_images
from cryohydra.training.state import TrainingState

_MOST_IMAGES = 4000
"""Of a class, from which its components are found; all are then located along them."""
_LEAST_PROBABILITY = 0.01
"""Particles of less are no members of a class."""
_WELL_KNOWN = 0.5
"""Half-map correlation of the mean down to which its variation, which is much weaker, can be told from noise."""
_AT_ONCE = 256


def fit_fields(
    state: TrainingState, components: list[Float[Tensor, "z n n n"]] | None = None, steps: int = 500
) -> list[float]:
    """Fit each class's field to its map.

    Args:
        components: Of each class, on the maps' lattice: the field learns the map plus z times these at the
            conformations of the class's particles. None to learn the map alone, at their mean.

    Returns:
        What each field leaves of its map: root mean squares, one over the other.
    """
    assert state.maps is not None
    radius = max(state.maps.known_radius() + 2, 4)
    radius = min(radius, state.maps.lattice.radius)
    state.field_radius = radius
    errors = []
    for k in range(state.num_classes):
        lattice = Lattice(state.maps.lattice.box_size, radius)
        mean = state.mean_conformation(k)
        of_class = mean.new_zeros(len(mean), *lattice.shape)
        conformations = mean[None]
        if components is not None and _members(state, k).numel():
            of_class = enlarge(components[k], lattice)
            conformations = state.conformations.all_means(state.images)[_members(state, k), k]
        errors.append(_fit(state, k, lattice, of_class, conformations, steps))
    return errors


def find_variation(state: TrainingState, particle_radius: float = 0.45) -> list[Float[Tensor, "z n n n"]] | None:
    """Find the components of every class and put its particles' conformations along them.

    Returns:
        For `fit_fields`; None where there are none to find: classes are rigid, or conformations are given, or an
        encoder reads them off images.
    """
    assert state.maps is not None
    if not state.finds_conformations:
        return None
    radius = min(max(state.maps.known_radius(_WELL_KNOWN), 4), state.maps.lattice.radius)
    lattice, band = Lattice(state.images.box_size, radius), state.band(radius)
    mask = particle_mask(lattice, particle_radius, state.device)
    means = enlarge(state.maps.values, lattice)
    conformations = state.conformations.all_means(state.images)
    found = []
    for k in range(state.num_classes):
        members = _members(state, k)
        chosen = members[torch.randperm(len(members), generator=state.generator)[:_MOST_IMAGES]]
        images = posed_images(state, chosen, k, band)
        z_dim = state.mixture.z_dim
        components = find_components(images, band, lattice, means[k], mask, z_dim, state.generator)
        for some in members.split(_AT_ONCE):
            located = locate_images(posed_images(state, some, k, band), band, lattice, means[k], components)
            conformations[some.to(state.device), k] = located
        found.append(enlarge(components, state.maps.lattice))
    state.conformations.set_means(torch.arange(len(state), device=state.device), conformations)
    return found


def _members(state: TrainingState, class_index: int) -> Int[Tensor, "m"]:
    probability = state.classes.log_posterior().exp()[:, class_index]
    return torch.nonzero(probability > _LEAST_PROBABILITY).squeeze(-1).cpu()


def _fit(
    state: TrainingState,
    class_index: int,
    lattice: Lattice,
    components: Float[Tensor, "z n n n"],
    conformations: Float[Tensor, "m z"],
    steps: int,
) -> float:
    assert state.maps is not None
    target = enlarge(state.maps.values[class_index][None], lattice)[0]
    # The lattice keeps a margin beyond its radius that fields are not asked for.
    margin = lattice.size // 2 - lattice.radius * lattice.oversampling
    inner = slice(margin, lattice.size - margin)
    return fit_field_to_lattice(
        state.mixture.field(class_index),
        target[inner, inner, inner],
        torch.ones_like(target[inner, inner, inner]),
        lattice.box_size,
        lattice.radius,
        lattice.oversampling,
        z=state.mean_conformation(class_index),
        components=components[:, inner, inner, inner],
        conformations=conformations,
        generator=state.generator,
        steps=steps,
    )
