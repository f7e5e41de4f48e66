"""Classes out of one mean map, where poses are known."""

import torch
from sklearn.cluster import KMeans

from cryohydra._typing import Float, Tensor
from cryohydra.inference.reconstruction import ClassMaps
from cryohydra.training.class_variation import vary
from cryohydra.training.state import TrainingState


def split_by_variation(state: TrainingState, maps: ClassMaps) -> Float[Tensor, "n k"]:
    """A first guess of every particle's class: clusters along the components in which particles differ most.

    K classes, at least two, differ in K - 1 directions.

    Args:
        maps: All alike: the mean of all particles.

    Returns:
        One for a particle's cluster, zero for the others.
    """
    num_classes = state.num_classes
    variation = vary(state, maps, 0, torch.arange(len(state)), num_classes - 1, state.generator)
    seed = int(torch.randint(2**31, (1,), generator=state.generator))
    clusters = KMeans(min(num_classes, len(state)), n_init=10, random_state=seed)
    labels = torch.from_numpy(clusters.fit_predict(variation.coordinate.cpu().numpy())).long().to(state.device)
    return torch.nn.functional.one_hot(labels, num_classes).float()
