"""Which maps a mixture needs."""

import pytest
import torch

from cryohydra.inference.selection import (
    Missed,
    class_there_twice,
    fitted_log_weight,
    needed_classes,
    sureness,
    without_the_least_missed,
)

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


def test_a_class_that_holds_noise_is_not_missed(generator: torch.Generator) -> None:
    """Its images are contradicted least by its map, but noise alone explains them better."""
    of_noise = torch.arange(60) >= 40
    evidence = torch.where(of_noise[:, None], torch.tensor([-6.0, -6.0, -2.0]), torch.tensor([20.0, 8.0, 0.0]))
    evidence[:20] = evidence[:20, [1, 0, 2]]
    missed = Missed.of(evidence)
    assert missed.nats[2] < 1 and missed.num_images[2] < 5 and bool((missed.nats[:2] > 100).all())
    assert without_the_least_missed(evidence, 2).tolist() == [0, 1]


def test_of_two_that_show_one_structure_one_is_needed(labels: torch.Tensor, generator: torch.Generator) -> None:
    """Though each explains the noise of half of its images by nats more."""
    evidence = 10 + _evidence(labels, 20.0, generator)
    again = evidence[:, :1] + 6 * torch.randn(NUM_IMAGES, 1, generator=generator)
    both = torch.cat([evidence, again], dim=1)
    assert bool(Missed.of(both).by_more_than(1.0).all())
    assert len(needed_classes(both)) == 3
    assert needed_classes(evidence).tolist() == [0, 1, 2], "each shows a structure of its own"
    stays = torch.tensor([True, False, False, True])
    assert needed_classes(both, stays=stays).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("nats", "is_needed"), [(2.0, False), (8.0, True)])
def test_a_class_must_be_missed_by_more_than_the_noise_of_its_map(nats: float, is_needed: bool) -> None:
    """By 30 images of 600: 60 nats are less than a hundred, 240 are not."""
    evidence = torch.tensor([30.0, 10.0, 10.0]).repeat(600, 1)
    evidence[300:] = torch.tensor([10.0, 30.0, 10.0])
    # Beside what it costs that the class is small.
    evidence[:30, 2] = 30.0 + nats + 3.0
    assert needed_classes(evidence).tolist() == [0, 1, 2]
    cost = torch.full((3,), 100.0)
    assert (len(needed_classes(evidence, cost)) == 3) == is_needed
    assert needed_classes(evidence, cost, num_spare=1).tolist() == [0, 1, 2]


def test_spare_classes_are_those_that_would_go_last() -> None:
    evidence = torch.tensor([0.0, 30.0, 1.0, 0.0]).repeat(200, 1)
    evidence[100:] = torch.tensor([30.0, 0.0, 0.0, 0.0])
    # Missed by somewhat more than nothing.
    evidence[:20, 3] = 32.5
    assert needed_classes(evidence).tolist() == [0, 1]
    assert needed_classes(evidence, num_spare=1).tolist() == [0, 1, 3]
    assert needed_classes(evidence, num_spare=5).tolist() == [0, 1, 2, 3]


def test_a_class_is_there_twice_if_its_images_are_surer_of_another_without_it() -> None:
    """Two maps of one structure share its images; a vague class lies a little with all others."""
    shared = torch.tensor([0.55, 0.35, 0.05, 0.05]).expand(60, 4)
    clear = torch.tensor([0.0, 0.02, 0.96, 0.02]).expand(60, 4)
    vague = torch.tensor([0.15, 0.1, 0.15, 0.6]).expand(20, 4)
    posterior = torch.cat([shared, clear, vague])
    assert class_there_twice(posterior) == 1
    assert class_there_twice(posterior, torch.tensor([False, True, False, False])) == 0
    assert class_there_twice(torch.cat([clear, vague])) is None
    # That most of what is left goes to one other class does not make a class superfluous.
    sure = torch.tensor([[0.97, 0.02, 0.01], [0.02, 0.97, 0.01], [0.01, 0.02, 0.97]])
    assert class_there_twice(sure) is None
    # A structure in two classes is told as well as any other: 0.9 of the images that share two, 0.96 of the others.
    assert sureness(torch.cat([shared, clear])) == pytest.approx(0.93)
    assert sureness(sure) == pytest.approx(0.97)
    # One of two classes inherits all of the other whatever they show.
    assert class_there_twice(torch.tensor([[0.6, 0.4], [0.4, 0.6]])) is None
