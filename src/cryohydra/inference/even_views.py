"""A pull towards even views, against maps that collapse onto a few.

While a band is narrow, a round complex looks nearly the same from all sides, and a map can take all its images from a
few of them. Along directions that no image sees nothing holds it, and it fits noise there; such a map explains the
images better than the truth, and nothing leads out of it.
"""

import torch

from cryohydra._typing import Float, Tensor

_NUM_VIEWS, _FEWEST_VIEWS = 48, 12
"""Directions that are told apart, HEALPix pixels of the second level; of the coarsest grid those of the first."""
_NUM_ROUNDS = 10
_LEAST = 1e-2
"""Of an even share: a view that no image allows is not asked for."""


def posterior_of_views(posterior: Float[Tensor, "b k q"]) -> Float[Tensor, "b k v"]:
    """Probability of each direction of view.

    Args:
        posterior: Of the rotations of a whole level in each class, in their order.
    """
    num_views = _NUM_VIEWS if posterior.shape[2] >= 12 * _NUM_VIEWS else _FEWEST_VIEWS
    # Rotations of one view lie beside one another.
    return posterior.unflatten(2, (num_views, -1)).sum(3)


def log_weight_of_views(
    of_view: Float[Tensor, "b k v"], share: Float[Tensor, "b k"], num_rotations: int
) -> Float[Tensor, "k q"]:
    """Log weights of a grid's rotations under which a batch looks at each class from all sides alike (Sinkhorn).

    Args:
        of_view: As `posterior_of_views` gives it.
        share: Probability of the classes.
        num_rotations: Of the grid.
    """
    weight = torch.ones_like(of_view[0])
    for _ in range(_NUM_ROUNDS):
        per_image = share / torch.einsum("bkv,kv->bk", of_view, weight).clamp(min=1e-20)
        seen = weight * torch.einsum("bkv,bk->kv", of_view, per_image)
        seen = seen / seen.sum(1, keepdim=True).clamp(min=1e-20)
        weight = weight / (of_view.shape[2] * seen + _LEAST)
        weight = weight / weight.mean(1, keepdim=True)
    return weight.log().repeat_interleave(num_rotations // of_view.shape[2], dim=1)
