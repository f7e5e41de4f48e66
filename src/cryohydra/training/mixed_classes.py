"""Which class holds more than one structure, and which one could be given up for that."""

from dataclasses import dataclass

import torch
from sklearn.cluster import KMeans

from cryohydra._typing import Bool, Float, Int, Tensor
from cryohydra.fourier.lattice import Lattice, enlarge
from cryohydra.inference.selection import CLEARLY_MISSED, class_there_twice, without_the_least_missed
from cryohydra.inference.told_apart import ClassResiduals, Separation
from cryohydra.training.class_variation import posed_images, vary
from cryohydra.training.state import TrainingState

_FEWEST_TO_PART = 100
_MOST_ASKED = 2000
"""Images of a class that are asked whether they differ."""
_RESOLVED = 0.9
"""Correlation of half maps down to which differences are looked for, which may have a tenth of the power of maps."""


@dataclass(frozen=True)
class Room:
    """A class that can be given up, and what for."""

    free: int
    is_there_twice: bool
    """Whether another class shows the same structure as the free one."""
    mixed: int | None
    """The class that would gain most by a second map; None if none is told to hold more than one structure."""

    @classmethod
    def of(cls, state: TrainingState) -> "Room | None":
        """The class that is there twice, else the one that is missed least; None if all are missed clearly.

        A class that is to stay is never given up.
        """
        twice = class_there_twice(state.classes.log_posterior().exp(), state.stays)
        free = hardly_missed(state, CLEARLY_MISSED, state.stays) if twice is None else twice
        if free is None:
            return None
        return cls(free, twice is not None, _most_mixed(state, _others(state, free)))

    def others(self, state: TrainingState) -> list[int]:
        """All classes but the free one."""
        return _others(state, self.free)


def hardly_missed(state: TrainingState, most_missed: float, stays: Bool[Tensor, "k"] | None) -> int | None:
    """The class missed least, if by less than so many nats for each of its images; None if all are missed more."""
    kept = without_the_least_missed(state.classes.log_evidence, state.num_classes - 1, most_missed, stays).tolist()
    return next((k for k in range(state.num_classes) if k not in kept), None)


def _most_mixed(state: TrainingState, classes: list[int]) -> int | None:
    found = {k: variety(state, k) for k in classes}
    gain = {k: len(members_of(state, k)) * (one.variance - 1) for k, one in found.items() if one.is_told}
    return max(gain, key=lambda k: gain[k]) if gain else None


def least_sure(state: TrainingState, classes: list[int]) -> int | None:
    """The class of these whose images are least sure of it; None if all have too few images for two maps."""
    posterior = state.classes.log_posterior().exp()
    members = {k: members_of(state, k) for k in classes}
    sureness = {
        k: float(posterior[rows.to(posterior.device), k].mean())
        for k, rows in members.items()
        if len(rows) >= _FEWEST_TO_PART
    }
    return min(sureness, key=lambda k: sureness[k]) if sureness else None


def variety(state: TrainingState, class_index: int) -> Separation:
    """Whether images that are likeliest of a class differ by more than noise; of too few images they do not."""
    asked = _asked(state, class_index)
    if len(asked) < _FEWEST_TO_PART:
        return Separation.of_nothing()
    assert state.maps is not None
    maps = state.maps
    radius = min(max(maps.known_radius(_RESOLVED), 4), maps.lattice.radius)
    lattice, band = Lattice(maps.lattice.box_size, radius), state.band(radius)
    images = posed_images(state, asked, class_index, band)
    mean = enlarge(maps.values[class_index][None], lattice)[0]
    return ClassResiduals.of(images, band, lattice, mean).variety(state.generator)


def sides_of(state: TrainingState, class_index: int) -> Float[Tensor, "2 n n n"]:
    """Maps of a class on both sides of the component along which its images differ most, on the lattice of its own."""
    assert state.maps is not None
    asked = _asked(state, class_index)
    variation = vary(state, state.maps, class_index, asked, num_components=1, generator=state.generator)
    clusters = KMeans(2, n_init=10, random_state=0).fit(variation.coordinate.cpu().numpy())
    mean = state.maps.values[class_index]
    middles = torch.from_numpy(clusters.cluster_centers_[:, 0]).to(mean)
    return mean + middles[:, None, None, None] * variation.components[0]


def members_of(state: TrainingState, class_index: int) -> Int[Tensor, "m"]:
    """Rows of the images that are likeliest of a class, on the CPU."""
    return torch.nonzero(state.classes.log_posterior().argmax(1) == class_index)[:, 0].cpu()


def _others(state: TrainingState, class_index: int) -> list[int]:
    return [k for k in range(state.num_classes) if k != class_index]


def _asked(state: TrainingState, class_index: int) -> Int[Tensor, "m"]:
    members = members_of(state, class_index)
    return members[torch.randperm(len(members), generator=state.generator)[:_MOST_ASKED]]
