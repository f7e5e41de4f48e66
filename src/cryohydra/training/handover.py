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
    """Fit each class's field to its map; the classes are dealt out to the members of a team.

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
    generators, fitted = _one_each(state.generator, len(means)), []
    for k in state.team.share(range(len(means))):
        tell(f"fitting the field of class {k} to its map, {k + 1} of {len(means)}")
        error = _fit(state, k, lattice, means[k], variations[k], steps, generators[k])
        fitted.append((error, state.mixture.field(k).state_dict()))
    fitted = state.team.all_of(fitted, len(means))
    for k, (_, weights) in enumerate(fitted):
        state.mixture.field(k).load_state_dict(weights)
    return [error for error, _ in fitted]


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
    generators, found = _one_each(state.generator, state.num_classes), []
    for k in state.team.share(range(state.num_classes)):
        tell(f"looking for motion in class {k}, {k + 1} of {state.num_classes}")
        found.append(vary(state, state.maps, k, _members(state, k), state.mixture.z_dim, generators[k]))
    found = state.team.all_of(found, state.num_classes)
    for k, variation in enumerate(found):
        conformations[_members(state, k).to(state.device), k] = variation.coordinate
    state.conformations.set_means(torch.arange(len(state), device=state.device), conformations)
    return found


def _one_each(generator: torch.Generator, num_classes: int) -> list[torch.Generator]:
    """A generator for each class: what one draws is no matter to the others, wherever they are worked out."""
    seeds = torch.randint(2**62, (num_classes,), generator=generator).tolist()
    return [torch.Generator().manual_seed(seed) for seed in seeds]


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
    generator: torch.Generator,
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
        generator=generator,
        steps=steps,
    )
