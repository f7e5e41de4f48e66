"""Structures from nothing."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from cryohydra.data.simulated import read_truth
from cryohydra.training.ab_initio import AbInitio
from cryohydra.training.state import TrainingState

NUM_IMAGES = 400


@pytest.fixture
def begun(prepare: Callable[..., Any], two_structures: Path, tmp_path: Path) -> tuple[TrainingState, AbInitio]:
    trainer, _ = prepare(tmp_path, particles=two_structures / "particles.star", n_imgs_pose_search=80_000)
    state, stage = trainer.state, trainer.stages[0]
    stage.begin(state)
    return state, stage


def _carry_out(state: TrainingState, stage: AbInitio) -> list[str]:
    notes = []
    while not stage.is_done:
        for index in stage.batches(state):
            notes.append(stage.step(state, index).note)
            if stage.is_done:
                break
    return notes


def _labels_agree(state: TrainingState, folder: Path) -> float:
    found = state.classes.log_posterior().argmax(1).numpy()
    return float(adjusted_rand_score(np.asarray(read_truth(folder).labels), found))


def test_classes_and_poses_are_found(begun: tuple[TrainingState, AbInitio], two_structures: Path) -> None:
    state, stage = begun
    notes = _carry_out(state, stage)
    assert _labels_agree(state, two_structures) > 0.9
    assert notes[-1] == f"band {stage.annealing.last_radius}"
    # Maps that explain no more end the stage before its bound.
    assert stage.sampling.step_count < stage.annealing.num_steps
    assert "400 images" in stage.end(state, print)
    assert state.maps is not None
    torch.testing.assert_close(state.maps.values, stage.sampling.maps())


@pytest.mark.parametrize(("nats", "is_done"), [(0.0, False), (50.0, True)])
def test_where_classes_are_told_a_small_gain_ends_it(
    begun: tuple[TrainingState, AbInitio], nats: float, is_done: bool
) -> None:
    state, stage = begun
    stage.sampling.cool()
    num_steps = 4 * stage.sampling.num_parts
    # In four visits to each image a two-hundredth of the evidence.
    stage.gains = [0.0] * stage.annealing.num_warm_steps + [99.5] * num_steps + [100.0] * (num_steps - 1)
    stage.sampling.log_evidence = torch.tensor([nats, 0.0]).repeat(NUM_IMAGES, 1)
    assert not stage._has_settled()
    stage.gains.append(100.0)
    assert stage._has_settled() == is_done


def test_maps_that_hardly_climb_settle_on_more_draws_before_they_are_done(
    begun: tuple[TrainingState, AbInitio],
) -> None:
    state, stage = begun
    sweep, warm = stage.sampling.num_parts, [0.0] * stage.annealing.num_warm_steps
    stage.sampling.cool()
    stage.sampling.log_evidence = torch.zeros(NUM_IMAGES, 2)
    stage.gains = warm + [97.0] * 5 * sweep + [100.0] * 5 * sweep
    assert not stage._has_settled() and stage.sampling.most_draws == 1
    stage.gains[-5 * sweep :] = [97.5] * 5 * sweep
    assert not stage._has_settled() and stage.sampling.most_draws > 1
    # What came before does not count.
    stage.gains += [99.0] * (12 * sweep - 1)
    assert not stage._has_settled()
    stage.gains.append(99.0)
    assert stage._has_settled()


def test_in_the_last_quarter_of_its_steps_maps_settle_however_they_climb(begun: tuple[TrainingState, AbInitio]) -> None:
    state, stage = begun
    num_steps = stage.annealing.num_steps
    stage.sampling.cool()
    stage.gains = [1.5**step for step in range(3 * num_steps // 4)]
    assert not stage._has_settled() and stage.sampling.most_draws == 1
    stage.gains.append(stage.gains[-1])
    assert not stage._has_settled() and stage.sampling.most_draws > 1


def test_maps_cool_slowly_and_settle_once_they_are_cold(begun: tuple[TrainingState, AbInitio]) -> None:
    """However little is gained on the way, where images are unsure of their classes."""
    state, stage = begun
    plan = stage.annealing
    temperature = [plan.temperature(step) for step in range(plan.num_steps)]
    assert temperature[: plan.num_hot_steps + 1] == [plan.first_temperature] * (plan.num_hot_steps + 1)
    assert sorted(temperature, reverse=True) == temperature and 0 < plan.num_hot_steps < plan.num_cool_steps
    assert temperature[plan.num_cool_steps - 1] > 1 == temperature[plan.num_cool_steps]
    stage.sampling.log_evidence = torch.zeros(NUM_IMAGES, 2)
    stage.gains = [100.0] * plan.num_cool_steps
    stage.sampling.step_count = plan.num_cool_steps - 1
    assert not stage._has_settled() and stage.settles_from is None
    stage.sampling.step_count += 1
    # What was gained while it cooled says nothing of what is gained now.
    assert not stage._has_settled() and stage.settles_from is None
    stage.gains += [100.0] * 10 * stage.sampling.num_parts
    assert not stage._has_settled() and stage.settles_from == len(stage.gains)


@pytest.mark.parametrize(("nats", "is_cold"), [(0.0, False), (50.0, True)])
def test_where_classes_are_told_maps_are_cold_at_once(
    begun: tuple[TrainingState, AbInitio], nats: float, is_cold: bool
) -> None:
    state, stage = begun
    sampling = stage.sampling
    sampling.log_evidence = torch.tensor([nats, 0.0]).repeat(NUM_IMAGES, 1)
    sampling.step_count = 2 * sampling.num_parts
    assert not stage._has_settled() and sampling.is_cold == is_cold
    assert (sampling.plan.temperature(sampling.step_count) == 1) == is_cold


def test_a_handful_of_images_is_no_reason_to_fail(prepare: Callable[..., Any], tmp_path: Path) -> None:
    """Fewer than parts are made of otherwise."""
    trainer, _ = prepare(tmp_path, n_imgs_pretrain=3)
    state, stage = trainer.state, trainer.stages[0]
    stage.begin(state)
    for _ in range(4):
        stage.step(state, stage.sampling.next_members())
    stage.end(state, print)
    assert stage.sampling.num_parts == 3 and bool(state.classes.log_posterior().isfinite().all())


def test_an_epoch_goes_through_all_images_that_maps_climb_on(begun: tuple[TrainingState, AbInitio]) -> None:
    state, stage = begun
    stage.annealing = replace(stage.annealing, num_steps=1000)
    visits = torch.zeros(NUM_IMAGES)
    for index in stage.batches(state):
        visits[index] += 1
        stage.sampling.step_count += 1
    assert visits.unique().tolist() == [5.0]


def test_only_some_of_many_images_are_asked(prepare: Callable[..., Any], two_structures: Path, tmp_path: Path) -> None:
    """Others keep what was known of them."""
    values = {"n_imgs_pose_search": 80_000, "n_imgs_pretrain": 100}
    trainer, _ = prepare(tmp_path, particles=two_structures / "particles.star", **values)
    state, stage = trainer.state, trainer.stages[0]
    stage.begin(state)
    _carry_out(state, stage)
    is_asked = torch.zeros(NUM_IMAGES, dtype=torch.bool)
    is_asked[stage.sampling.members] = True
    assert int(is_asked.sum()) == 100
    assert torch.all(state.classes.log_evidence[is_asked] != 0)
    assert torch.all(state.classes.log_evidence[~is_asked] == 0)


def test_a_bound_of_one_step_ends(prepare: Callable[..., Any], tmp_path: Path) -> None:
    trainer, _ = prepare(tmp_path, n_imgs_pose_search=1)
    state, stage = trainer.state, trainer.stages[0]
    stage.annealing = replace(stage.annealing, num_steps=1)
    stage.begin(state)
    assert len(_carry_out(state, stage)) == 1


@pytest.mark.parametrize("settles", [False, True])
def test_going_on_equals_not_stopping(
    begun: tuple[TrainingState, AbInitio],
    prepare: Callable[..., Any],
    two_structures: Path,
    tmp_path: Path,
    settles: bool,
) -> None:
    state, stage = begun
    for step in range(9):
        if settles and step == 2:
            stage.sampling.cool()
            stage.sampling.count_more_draws()
        stage.step(state, stage.sampling.next_members())
    trainer, _ = prepare(
        tmp_path / "again", particles=two_structures / "particles.star", n_imgs_pose_search=80_000, seed=7
    )
    again = trainer.stages[0]
    again.begin(trainer.state)
    saved = copy.deepcopy((state.state_dict(), stage.state_dict()))
    trainer.state.load_state_dict(saved[0])
    again.load_state_dict(trainer.state, saved[1])
    for _ in range(8):
        for one, its in ((stage, state), (again, trainer.state)):
            one.step(its, one.sampling.next_members())
    torch.testing.assert_close(again.sampling.log_evidence, stage.sampling.log_evidence, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(again.sampling.maps(), stage.sampling.maps(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("num_visits", [200, 2_000])
def test_however_few_steps_there_are_the_last_are_in_the_whole_band(
    prepare: Callable[..., Any], tmp_path: Path, num_visits: int
) -> None:
    plan = prepare(tmp_path, n_imgs_pose_search=num_visits)[0].stages[0].annealing
    assert plan.num_steps < 200 and plan.radius(plan.num_steps - 1) == plan.last_radius
