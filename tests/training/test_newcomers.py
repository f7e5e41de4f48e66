"""Maps that climb in the place of classes that show nothing, on the images that are left to these."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cryohydra.data.simulated import read_truth
from cryohydra.inference.slices import GridSlicers, LatticeSlices
from cryohydra.training import gibbs, newcomers
from cryohydra.training.ab_initio import AbInitio
from cryohydra.training.newcomers import Doubted, Newcomers
from cryohydra.training.pose_draws import log_evidence_on_grid
from cryohydra.training.state import TrainingState

EVERY = torch.arange(400)


@pytest.fixture
def begun(two_structures: Path, prepare: Callable[..., Any], tmp_path: Path) -> tuple[TrainingState, AbInitio]:
    """Maps of images in random poses, which show nothing."""
    trainer, _ = prepare(tmp_path, particles=two_structures / "particles.star", n_imgs_pose_search=40_000)
    state, stage = trainer.state, trainer.stages[0]
    stage.begin(state)
    return state, stage


def _climb(state: TrainingState, stage: AbInitio) -> Newcomers:
    called = Newcomers(state, stage.annealing, Doubted((0, 1), EVERY))
    while not called.is_done:
        called.step(state)
    return called


def test_what_classes_do_not_show_is_found(
    begun: tuple[TrainingState, AbInitio], two_structures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, stage = begun
    monkeypatch.setattr(newcomers, "_NUM_ATTEMPTS", 2)
    monkeypatch.setattr(newcomers, "_NUM_SWEEPS", 20)
    # So clear are these images that classes climb as well, if they are asked more often.
    monkeypatch.setattr(gibbs, "_NUM_SWEEPS_TO_SETTLE", 1)
    maps = _climb(state, stage).chosen()
    assert maps is not None
    ground = stage.sampling.ground
    source = LatticeSlices.of_maps(ground.lattice, maps, GridSlicers())
    found = log_evidence_on_grid(source, state.weighted(EVERY, ground.band), ground.band, state.shift_prior)
    is_same = found.argmax(1).numpy() == read_truth(two_structures).labels
    assert max(is_same.mean(), 1 - is_same.mean()) > 0.95


def test_in_the_second_half_of_an_attempt_more_draws_of_an_image_count(
    begun: tuple[TrainingState, AbInitio], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, stage = begun
    monkeypatch.setattr(newcomers, "_NUM_SWEEPS", 2)
    monkeypatch.setattr(gibbs, "_NUM_SWEEPS_TO_SETTLE", 1)
    called = Newcomers(state, stage.annealing, Doubted((0, 1), EVERY))
    sampling, counted = called._sampling, []
    while called.num_attempts == 0:
        counted.append(sampling.most_draws)
        called.step(state)
    assert counted == [1] * sampling.num_parts + [gibbs.MOST_DRAWS] * sampling.num_parts


def test_of_attempts_that_is_chosen_which_explains_best_images_that_it_is_not_made_of(
    begun: tuple[TrainingState, AbInitio], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, stage = begun
    monkeypatch.setattr(newcomers, "_NUM_ATTEMPTS", 3)
    called = Newcomers(state, stage.annealing, Doubted((0, 1), EVERY))
    monkeypatch.setattr(called._sampling, "look_closely", lambda *_: None)
    monkeypatch.setattr(called, "_from_nothing", lambda state: called._sampling)
    called._evidence_before = torch.linspace(0, 0.1, len(EVERY))
    best = torch.full((2, 1, 1, 1), 5.0)
    for maps, evidence in ((torch.ones(2, 1, 1, 1), 2.0), (best, 3.0), (2 * best, 1.0)):
        monkeypatch.setattr(called._sampling, "maps", lambda maps=maps: maps)
        called._sampling.log_evidence = torch.full((len(EVERY), 2), evidence)
        called._judge(state)
    assert called.is_done and torch.equal(called.chosen(), best)
    # Where images are explained as well already, nothing is needed.
    called._evidence_before = torch.full((len(EVERY),), 3.0)
    assert called.chosen() is None


def test_classes_missed_least_are_doubted_with_the_images_that_are_theirs(
    begun: tuple[TrainingState, AbInitio], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, _ = begun
    clear, vague = torch.tensor([30.0, 0.0, 0.0, 0.0]), torch.tensor([0.0, 0.4, 0.0, 0.3])
    evidence = torch.cat([clear.expand(100, 4), clear[[1, 2, 0, 3]].expand(100, 4), vague.expand(200, 4)])
    state.classes.log_evidence = evidence
    state.classes.log_weight = torch.full((4,), 0.25).log()
    monkeypatch.setattr(type(state), "num_classes", property(lambda self: 4))
    doubted = Doubted.of(state)
    assert doubted is not None and doubted.classes == (1, 3)
    assert torch.equal(doubted.members, EVERY[200:])
    # Images that may be of theirs, though likelier of another's.
    state.classes.log_evidence[:20] = torch.tensor([2.5, 1.5, 0.0, 0.0])
    doubted = Doubted.of(state)
    assert doubted is not None and torch.equal(doubted.members, torch.cat([EVERY[:20], EVERY[200:]]))
    # Where these have too few images, the next class is doubted too, as long as it is not clearly missed.
    few = torch.cat([torch.tensor([8.0, 0.0, 0.0, 0.0]).expand(280, 4), evidence[100:200], evidence[380:]])
    for clearer, expected in ((1.0, (0, 1, 3)), (10.0, (1, 3))):
        state.classes.log_evidence = torch.cat([clearer * few[:280], few[280:]])
        monkeypatch.setattr(newcomers, "_MOST_DOUBTED", 3 / 4)
        monkeypatch.setattr(newcomers, "_FEWEST_IMAGES", 10)
        doubted = Doubted.of(state)
        assert doubted is not None and doubted.classes == expected
    # As many as are enough, or where more classes have too few.
    state.classes.log_evidence = torch.cat([few[:50], few[280:300], vague.expand(330, 4)])
    for enough, needed in ((150, 10), (500, 130)):
        monkeypatch.setattr(newcomers, "_ENOUGH_IMAGES", enough)
        monkeypatch.setattr(newcomers, "_FEWEST_IMAGES", needed)
        doubted = Doubted.of(state)
        assert doubted is not None and doubted.classes == (1, 3)
    state.classes.log_evidence = 100 * torch.nn.functional.one_hot(EVERY % 4, 4).float()
    assert Doubted.of(state) is None


def test_of_nearly_empty_classes_one_climbs_at_most(
    begun: tuple[TrainingState, AbInitio], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the vaguest that have images; the other empty ones have none to climb on."""
    state, _ = begun
    size = torch.tensor([50, 50, 50, 50, 10, 10, 10, 10, 4, 80, 60, 16])
    likeliest = torch.arange(12).repeat_interleave(size)
    state.classes.log_evidence = 30.0 * torch.nn.functional.one_hot(likeliest, 12)
    state.classes.log_evidence[likeliest > 3] /= 10
    state.classes.log_weight = torch.full((12,), 1 / 12).log()
    monkeypatch.setattr(type(state), "num_classes", property(lambda self: 12))
    monkeypatch.setattr(newcomers, "_FEWEST_IMAGES", 38)
    doubted = Doubted.of(state)
    assert doubted is not None and doubted.classes == (8, 9, 10)
    assert torch.equal(doubted.members, EVERY[(likeliest >= 8) & (likeliest <= 10)])
