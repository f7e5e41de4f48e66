"""From maps on a lattice to neural fields, and from rigid maps to how they vary."""

import math

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.lattice import Lattice, enlarge
from cryohydra.model.fitting import FIT_STEPS, fit_field_to_lattice
from cryohydra.training.class_variation import ClassVariation, vary
from cryohydra.training.listener import Tell
from cryohydra.training.state import TrainingState

_LEAST_PROBABILITY = 0.01
"""Particles of less are no members of a class."""


def fit_fields(
    state: TrainingState,
    variations: list[ClassVariation] | None = None,
    steps: int = FIT_STEPS,
    tell: Tell = lambda _: None,
) -> list[float]:
    """Fit each class's field to its map.

    Args:
        variations: Of each class: the field learns the map plus z times its components, at the conformations of
            its members. None to learn the map alone, at their mean.

    Returns:
        What each field leaves of its map: root mean squares, one over the other.
    """
    assert state.maps is not None
    radius = max(state.maps.known_radius() + 2, 4)
    radius = min(radius, state.maps.lattice.radius)
    state.field_radius = radius
    lattice = Lattice(state.maps.lattice.box_size, radius)
    means = [state.mean_conformation(k) for k in range(state.num_classes)]
    if variations is None:
        variations = [ClassVariation(z.new_zeros(len(z), *lattice.shape), z[None]) for z in means]
    errors = []
    for k, z in enumerate(means):
        tell(f"fitting the field of class {k} to its map, {k + 1} of {len(means)}")
        errors.append(_fit(state, k, lattice, z, variations[k], steps))
    return errors


def find_variation(state: TrainingState, tell: Tell = lambda _: None) -> list[ClassVariation] | None:
    """Find the components of every class and put its particles' conformations along them.

    Returns:
        For `fit_fields`; None where there are none to find: classes are rigid, or conformations are given, or an
        encoder reads them off images.
    """
    assert state.maps is not None
    if not state.finds_conformations:
        return None
    conformations = state.conformations.all_means(state.images)
    found = []
    for k in range(state.num_classes):
        tell(f"looking for motion in class {k}, {k + 1} of {state.num_classes}")
        members = _members(state, k)
        variation = vary(state, state.maps, k, members, state.mixture.z_dim)
        conformations[members.to(state.device), k] = variation.coordinate
        found.append(variation)
    state.conformations.set_means(torch.arange(len(state), device=state.device), conformations)
    return found


def _members(state: TrainingState, class_index: int) -> Int[Tensor, "m"]:
    """Rows of a class's particles; of an empty class, its likeliest one."""
    log_probability = state.classes.log_posterior()[:, class_index]
    members = torch.nonzero(log_probability > math.log(_LEAST_PROBABILITY)).squeeze(-1)
    return (members if len(members) else log_probability.argmax()[None]).cpu()


def _fit(
    state: TrainingState,
    class_index: int,
    lattice: Lattice,
    z: Float[Tensor, "z"],
    variation: ClassVariation,
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
        z=z,
        components=enlarge(variation.components, lattice)[:, inner, inner, inner],
        conformations=variation.coordinate,
        generator=state.generator,
        steps=steps,
    )
