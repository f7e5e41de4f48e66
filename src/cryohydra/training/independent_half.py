"""One half of the particles, refined with no knowledge of the other beyond a common low-passed start."""

from collections.abc import Iterator

import torch

from cryohydra._typing import Float, Tensor
from cryohydra.fourier.lattice import Lattice
from cryohydra.fourier.lattice_density import density_on_lattice
from cryohydra.inference.reconstruction import ClassMaps
from cryohydra.training.search import Searching
from cryohydra.training.state import TrainingState


def start_from_maps(state: TrainingState, densities: Float[Tensor, "k d d d"], radius: int) -> None:
    """Begin a state from maps of which nothing is left beyond `radius` Fourier pixels.

    Args:
        densities: In the scale of the state's images.
    """
    lattice = Lattice(state.images.box_size, radius)
    values = torch.stack([density_on_lattice(lattice, density.to(state.device)) for density in densities])
    known = values.new_ones(len(values), radius + 1)
    state.maps = ClassMaps(lattice, values, known)


def search_anew(state: TrainingState, stage: Searching) -> Iterator[tuple[int, str]]:
    """Find poses and classes from the state's maps, and maps from these, until they gain no more.

    Yields:
        After each batch how many images it had, and how it goes.
    """
    stage.begin(state)
    seen = 0
    while seen < stage.max_images and not stage.is_done:
        for index in stage.batches(state):
            result = stage.step(state, index)
            seen += len(index)
            yield len(index), result.note
