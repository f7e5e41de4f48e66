"""Which maps a mixture needs."""

import pytest
import torch

from cryohydra.inference.selection import fitted_log_weight, without_the_least_missed

SHARES = torch.tensor([0.5, 0.3, 0.2])
NUM_IMAGES = 1000


@pytest.fixture
def labels(generator: torch.Generator) -> torch.Tensor:
    return torch.multinomial(SHARES, NUM_IMAGES, replacement=True, generator=generator)


def _evidence(labels: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Of three classes; an image's own class is likelier by a normal amount."""
    own = torch.nn.functional.one_hot(labels, 3)
    return strength * own + torch.randn(len(labels), 3, generator=generator)


def test_shares_are_found_from_evidence(labels: torch.Tensor, generator: torch.Generator) -> None:
    found = fitted_log_weight(_evidence(labels, 8.0, generator)).exp()
    torch.testing.assert_close(found, labels.bincount().float() / NUM_IMAGES, atol=0.01, rtol=0)


def test_of_a_class_that_is_there_twice_one_goes_first(labels: torch.Tensor, generator: torch.Generator) -> None:
    evidence = _evidence(labels, 8.0, generator)
    again = evidence[:, :1] + 0.3 * torch.randn(NUM_IMAGES, 1, generator=generator)
    left = without_the_least_missed(torch.cat([evidence, again], dim=1), 3)
    assert left.tolist() in ([0, 1, 2], [1, 2, 3])


def test_the_smallest_class_is_missed_least(labels: torch.Tensor, generator: torch.Generator) -> None:
    assert without_the_least_missed(_evidence(labels, 8.0, generator), 2).tolist() == [0, 1]


def test_a_class_that_is_missed_much_stays(labels: torch.Tensor, generator: torch.Generator) -> None:
    evidence = _evidence(labels, 20.0, generator)
    again = evidence[:, :1] + 0.3 * torch.randn(NUM_IMAGES, 1, generator=generator)
    left = without_the_least_missed(torch.cat([evidence, again], dim=1), 1, most_missed=10.0)
    assert len(left) == 3


def test_a_map_that_some_images_cannot_have_made_is_no_trouble(generator: torch.Generator) -> None:
    evidence = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0], [3.0, 1.0]])
    assert without_the_least_missed(evidence, 1).tolist() == [0], "the other is missed by one image, this by two"


def test_a_class_that_stays_is_not_taken_away_though_nobody_misses_it() -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(60) % 3
    evidence = _evidence(labels, 8.0, generator)
    # The last class is of nobody.
    evidence = torch.cat([evidence, evidence.amin(1, keepdim=True) - 5], dim=1)
    stays = torch.tensor([False, False, False, True])
    assert without_the_least_missed(evidence, 3).tolist() == [0, 1, 2]
    left = without_the_least_missed(evidence, 3, stays=stays)
    assert len(left) == 3 and 3 in left
    assert without_the_least_missed(evidence, 1, stays=torch.tensor([True] * 4)).tolist() == [0, 1, 2, 3]
