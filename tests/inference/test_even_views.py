"""A pull towards even views."""

import pytest
import torch

from cryohydra.geometry.so3_grid import num_rotations
from cryohydra.inference.even_views import log_weight_of_views, posterior_of_views


def seen_from(posterior: torch.Tensor, share: torch.Tensor, num_views: int) -> torch.Tensor:
    """What a batch adds to each view of each class."""
    weight = log_weight_of_views(posterior_of_views(posterior), share, posterior.shape[2])
    weighed = torch.softmax(posterior.log() + weight, dim=2)
    seen = torch.einsum("bk,bkq->kq", share, weighed).unflatten(1, (num_views, -1)).sum(2)
    return seen / seen.sum(1, keepdim=True)


@pytest.mark.parametrize(("level", "num_views"), [(0, 12), (1, 48)])
def test_images_in_doubt_are_seen_from_all_sides(level: int, num_views: int, generator: torch.Generator) -> None:
    """Every image prefers the same few views a little; the second class has hardly any image."""
    preference = torch.zeros(num_rotations(level))
    preference[: num_rotations(level) // 4] = 2
    scores = preference + 0.1 * torch.randn(20, 2, len(preference), generator=generator)
    share = torch.tensor([0.99, 0.01]).expand(20, 2)
    posterior = torch.softmax(scores, dim=2)
    before = posterior[:, 0].mean(0).unflatten(0, (num_views, -1)).sum(1)
    assert before.max() / before.min() > 5
    seen = seen_from(posterior, share, num_views)
    assert seen.max() / seen.min() < 1.05


def test_images_that_are_sure_stay_where_they_are(generator: torch.Generator) -> None:
    scores = torch.full((30, 1, num_rotations(1)), -100.0)
    at = torch.randint(num_rotations(1) // 4, (30,), generator=generator)
    scores[torch.arange(30), 0, at] = 0
    posterior = torch.softmax(scores, dim=2)
    weight = log_weight_of_views(posterior_of_views(posterior), torch.ones(30, 1), posterior.shape[2])
    assert weight.isfinite().all()
    assert ((posterior.log().clamp(min=-100) + weight).argmax(2)[:, 0] == at).all()
