"""From maps on a lattice to neural fields."""

import torch

from cryohydra.fourier.lattice import Lattice
from cryohydra.inference.reconstruction import ClassMaps
from cryohydra.model.fitting import fit_field_to_lattice
from cryohydra.training.state import TrainingState


def fit_fields(state: TrainingState, steps: int = 500) -> list[float]:
    """Fit each class's field to its map at its mean conformation.

    Returns:
        What each field leaves of its map: root mean squares, one over the other.
    """
    assert state.maps is not None
    radius = max(state.maps.known_radius() + 2, 4)
    radius = min(radius, state.maps.lattice.radius)
    state.field_radius = radius
    return [_fit(state, state.maps, k, radius, steps) for k in range(state.num_classes)]


def _fit(state: TrainingState, maps: ClassMaps, class_index: int, radius: int, steps: int) -> float:
    lattice: Lattice = maps.lattice
    margin = lattice.size // 2 - radius * lattice.oversampling
    inner = slice(margin, lattice.size - margin)
    target = maps.values[class_index][inner, inner, inner]
    return fit_field_to_lattice(
        state.mixture.field(class_index),
        target,
        torch.ones_like(target),
        lattice.box_size,
        radius,
        lattice.oversampling,
        z=state.mean_conformation(class_index),
        generator=state.generator,
        steps=steps,
    )
