"""Classes out of one mean map, where poses are known."""

import torch
from sklearn.cluster import KMeans

from cryohydra._typing import Float, Tensor
from cryohydra.fourier.lattice import Lattice
from cryohydra.inference.reconstruction import ClassMaps, enlarge, particle_mask
from cryohydra.inference.variation import find_components, locate_images
from cryohydra.training.posed import posed_images
from cryohydra.training.state import TrainingState

_MOST_IMAGES = 4000
_AT_ONCE = 256


def split_by_variation(state: TrainingState, maps: ClassMaps, particle_radius: float) -> Float[Tensor, "n k"]:
    """A first guess of every particle's class: clusters along the components in which particles differ most.

    K classes differ in K - 1 directions.

    Args:
        maps: All alike: the mean of all particles.
        particle_radius: Of the sphere to which density is confined, as a fraction of the box.

    Returns:
        One for a particle's cluster, zero for the others.
    """
    num_classes = state.num_classes
    if num_classes == 1:
        return torch.ones(len(state), 1, device=state.device)
    radius = min(max(maps.known_radius(), 4), maps.lattice.radius)
    lattice, band = Lattice(maps.lattice.box_size, radius), state.band(radius)
    mask = particle_mask(lattice, particle_radius, state.device)
    mean = enlarge(maps.values[:1], lattice)[0]
    chosen = torch.randperm(len(state), generator=state.generator)[:_MOST_IMAGES]
    images = posed_images(state, chosen, 0, band)
    components = find_components(images, band, lattice, mean, mask, num_classes - 1, state.generator)
    coordinate = torch.cat(
        [
            locate_images(posed_images(state, some, 0, band), band, lattice, mean, components)
            for some in torch.arange(len(state)).split(_AT_ONCE)
        ]
    )
    seed = int(torch.randint(2**31, (1,), generator=state.generator))
    clusters = KMeans(min(num_classes, len(state)), n_init=10, random_state=seed).fit_predict(coordinate.cpu().numpy())
    labels = torch.from_numpy(clusters).long().to(state.device)
    return torch.nn.functional.one_hot(labels, num_classes).float()
