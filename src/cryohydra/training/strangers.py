"""Images that lie in a class only because there is no better one: few, and explained far worse than its others.

A rare complex of which ab initio made no map joins the class that is most like it. What its few images have in common
is not the strongest component of that class, but their evidence is lower than that of nearly all others.
"""

from dataclasses import dataclass

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.training.seed_maps import seed_of_members
from cryohydra.training.state import TrainingState

_PART, _FEWEST = 0.03, 20
"""Of the images of a class, how many are set apart, at least."""
_FEWEST_MEMBERS = 100


@dataclass(frozen=True)
class Strangers:
    """Those of the class that has the strangest."""

    class_index: int
    sides: Float[Tensor, "2 n n n"]
    """The map of the class as it is, and that of its strangers, in the poses that they have in the class."""


def find_strangers(state: TrainingState, classes: list[int]) -> Strangers | None:
    """The class whose worst explained images say least beside its median image, and their map; None of tiny classes."""
    evidence = state.classes.log_probability()
    likeliest = state.classes.log_posterior().argmax(1)
    found: tuple[float, int, Int[Tensor, "m"]] | None = None
    for k in classes:
        members = torch.nonzero(likeliest == k)[:, 0]
        median = float(evidence[members].median()) if len(members) >= _FEWEST_MEMBERS else 0.0
        if median <= 0:
            continue
        number = max(_FEWEST, int(_PART * len(members)))
        worst = members[evidence[members].argsort()[:number]]
        said = float(evidence[worst].mean()) / median
        if found is None or said < found[0]:
            found = said, k, worst
    if found is None:
        return None
    _, k, worst = found
    assert state.maps is not None
    poses = state.poses_in(torch.full_like(likeliest, k))
    of_strangers = seed_of_members(state, worst.cpu(), poses, state.maps.lattice)
    return Strangers(k, torch.stack([state.maps.values[k], of_strangers]))
