"""The landscape of a class: its volumes at sampled conformations, their principal components, and its states."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from cryohydra._typing import Tensor
from cryohydra.analysis.latent import Clusters
from cryohydra.fourier.soft_mask import mask_around

FEWEST_IN_STATE = 50
"""Particles: of fewer it cannot be told whether they are a state."""
_MASK_RADIUS = 8
"""Fourier pixels to which a map is low-passed to see where its density is."""
_MOST_COMPONENTS = 5

TellsApart = Callable[[Int[np.ndarray, "m"], Int[np.ndarray, "n"]], bool]
"""Whether two groups of a class's particles, given by their places in it, are different states."""


@dataclass(frozen=True)
class Landscape:
    """Volumes of a class as points, and the states that they make up."""

    plane: Float[np.ndarray, "v c"]
    """Each sampled volume along principal components of the voxels inside the mask, in the units of the maps."""
    variance_share: Float[np.ndarray, "c"]
    """Of the components, in the variance of the volumes, each weighed by its share."""
    volume_share: Float[np.ndarray, "v"]
    """Of the class's particles, by probability, those nearest to each volume; sums to one."""
    state_of_volume: Int[np.ndarray, "v"]
    """From 0, in the order of the first component."""
    state_of_particle: Int[np.ndarray, "m"]
    """Of the class's particles."""

    @property
    def num_states(self) -> int:
        """At least one."""
        return int(self.state_of_volume.max()) + 1

    @property
    def share(self) -> Float[np.ndarray, "s"]:
        """Of each state; sums to one."""
        return np.bincount(self.state_of_volume, weights=self.volume_share)

    @property
    def central_volume(self) -> Int[np.ndarray, "s"]:
        """Of each state the volume nearest to the mean of its volumes."""
        central = []
        for state in range(self.num_states):
            volumes = np.flatnonzero(self.state_of_volume == state)
            mean = np.average(self.plane[volumes], axis=0, weights=self.volume_share[volumes] + 1e-12)
            central.append(volumes[np.square(self.plane[volumes] - mean).sum(axis=1).argmin()])
        return np.array(central)


def find_landscape(
    densities: Sequence[Float[Tensor, "n n n"]],
    clusters: Clusters,
    probability: Float[np.ndarray, "m"],
    tells_apart: TellsApart,
) -> Landscape:
    """Volumes that are alike are put together, down from the class as a whole, as long as parts are told apart.

    Args:
        densities: At the centres of the clusters.
        clusters: Of the class's particles.
        probability: Of the class, for its particles.
    """
    weight = np.bincount(clusters.labels, weights=probability, minlength=len(densities))
    volume_share = weight / weight.sum()
    plane, variance_share = _principal_plane(densities, volume_share)
    parts = _part(_merging_order(plane), clusters.labels, plane, tells_apart)
    parts.sort(key=lambda part: float(np.average(plane[part, 0], weights=volume_share[part] + 1e-12)))
    state_of_volume = np.empty(len(densities), dtype=np.int64)
    for state, part in enumerate(parts):
        state_of_volume[part] = state
    return Landscape(plane, variance_share, volume_share, state_of_volume, state_of_volume[clusters.labels])


def _principal_plane(
    densities: Sequence[Float[Tensor, "n n n"]], share: Float[np.ndarray, "v"]
) -> tuple[Float[np.ndarray, "v c"], Float[np.ndarray, "c"]]:
    """Coordinates of volumes along their principal components, and the components' shares of the variance."""
    volumes = torch.stack(list(densities))
    weight = torch.from_numpy(share).to(volumes.dtype)
    mean = torch.einsum("v,vzyx->zyx", weight, volumes)
    size = mean.shape[-1]
    mask = mask_around(mean, min(_MASK_RADIUS, size // 4), extend_px=size / 32, edge_px=size / 16)
    away = ((volumes - mean) * mask).flatten(1).double().numpy()
    # As many volumes as there are, not voxels, make the matrix to be diagonalised.
    gram = away @ away.T
    root = np.sqrt(share)
    energy, columns = np.linalg.eigh(root[:, None] * gram * root)
    order = np.argsort(energy)[::-1][: min(_MOST_COMPONENTS, len(share))]
    energy, columns = np.clip(energy[order], 0, None), columns[:, order]
    total = float((share * np.diag(gram)).sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        plane = np.where(energy > 1e-12 * max(total, 1e-300), gram @ (root[:, None] * columns) / np.sqrt(energy), 0.0)
    turned = np.where(plane[np.abs(plane).argmax(axis=0), np.arange(plane.shape[1])] < 0, -1.0, 1.0)
    return plane * turned, energy / total if total > 0 else energy


@dataclass(frozen=True)
class _Branch:
    """Volumes that are merged, and the two parts they were merged from; none for a single volume."""

    volumes: list[int]
    parts: "tuple[_Branch, ...]" = ()


def _merging_order(plane: Float[np.ndarray, "v c"]) -> _Branch:
    """The tree in which volumes merge, the most alike first (Ward)."""
    branches = [_Branch([volume]) for volume in range(len(plane))]
    if len(plane) == 1:
        return branches[0]
    from scipy.cluster.hierarchy import linkage  # slow to import

    for first, second, *_ in linkage(plane, method="ward"):
        pair = branches[int(first)], branches[int(second)]
        branches.append(_Branch(pair[0].volumes + pair[1].volumes, pair))
    return branches[-1]


def _part(
    branch: _Branch, labels: Int[np.ndarray, "m"], plane: Float[np.ndarray, "v c"], tells_apart: TellsApart
) -> list[list[int]]:
    """The states within a branch, as lists of volumes."""
    if not branch.parts:
        return [list(branch.volumes)]
    smaller, larger = sorted(branch.parts, key=lambda part: int(np.isin(labels, part.volumes).sum()))
    few, many = (np.flatnonzero(np.isin(labels, part.volumes)) for part in (smaller, larger))
    if len(few) < FEWEST_IN_STATE:
        # Too few to be judged: they go with those they are most like.
        found = _part(larger, labels, plane, tells_apart)
        middle = plane[smaller.volumes].mean(axis=0)
        nearest = min(found, key=lambda part: float(np.square(plane[part] - middle).sum(axis=1).min()))
        nearest.extend(smaller.volumes)
        return found
    if tells_apart(few, many):
        return [state for part in (larger, smaller) for state in _part(part, labels, plane, tells_apart)]
    return [list(branch.volumes)]
