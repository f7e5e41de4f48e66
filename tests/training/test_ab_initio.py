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


NUM_OF_NOISE = 100
"""As if these images, the last ones, held nothing."""


@pytest.fixture
def with_noise(
    prepare: Callable[..., Any], two_structures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[TrainingState, AbInitio]:
    """Noise has taken the last of three classes, and two structures are in one of the others."""
    settings = {"n_classes": 3, "n_imgs_pose_search": 80_000}
    trainer, _ = prepare(tmp_path, particles=two_structures / "particles.star", **settings)
    state, stage = trainer.state, trainer.stages[0]
    stage.begin(state)
    stage.step(state, stage.sampling.next_members())
    _let_say(stage, [90, 210, 100])
    return state, stage


def _let_say(stage: AbInitio, sizes: list[int], *, noise: int | None = 2) -> None:
    """Give each class so many images that miss it, or, of noise, that are contradicted by it least."""
    evidence, first = torch.zeros(len(stage.sampling.members), 3), 0
    for k, size in enumerate(sizes):
        evidence[first : first + size] = -8.0 if k == noise else 0.0
        evidence[first : first + size, k] = -2.0 if k == noise else 30.0
        first += size
    stage.sampling.log_evidence = evidence


def _settle(state: TrainingState, stage: AbInitio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_has_settled", lambda: True)
    monkeypatch.setattr(stage, "_remember", lambda *_: None)
    monkeypatch.setattr(stage.sampling, "step", lambda _: stage_visit())
    stage.step(state, stage.sampling.next_members())


def stage_visit() -> Any:
    return type("Visit", (), {"mean_evidence": 1.0})()


@pytest.mark.parametrize(
    ("sizes", "noise", "climbs"),
    [
        ([90, 210, 100], 2, True),
        ([90, 210, 100], None, False),  # what holds a class is no noise
        ([90, 90, 220], 2, False),  # most of all images: then it is maps that say little
        ([180, 180, 40], 2, False),  # few take no class from anything
        ([300, 0, 100], 2, False),  # there is another class to spare
    ],
)
def test_where_noise_holds_a_class_maps_climb_once_more_without_it(
    with_noise: tuple[TrainingState, AbInitio],
    monkeypatch: pytest.MonkeyPatch,
    sizes: list[int],
    noise: int | None,
    climbs: bool,
) -> None:
    state, stage = with_noise
    _let_say(stage, sizes, noise=noise)
    before, bound = stage.sampling, stage.max_images
    _settle(state, stage, monkeypatch)
    assert stage.is_done != climbs and (stage.sampling is not before) == climbs
    if climbs:
        assert stage.max_images == 2 * bound and not stage.gains
        # Those of noise came last.
        assert stage.sampling.members.tolist() == before.members[:300].tolist()
        monkeypatch.undo()
        _settle(state, stage, monkeypatch)
        assert stage.is_done, "once"


@pytest.mark.parametrize("is_bettered", [False, True])
def test_what_climbed_without_noise_stays_if_more_of_it_is_needed(
    with_noise: tuple[TrainingState, AbInitio], monkeypatch: pytest.MonkeyPatch, is_bettered: bool
) -> None:
    state, stage = with_noise
    maps, members = stage.sampling.maps(), stage.sampling.members
    state.classes.log_evidence[members] = stage.sampling.log_evidence
    _settle(state, stage, monkeypatch)
    monkeypatch.undo()
    assert bool((state.classes.log_evidence[members[300:]] == 0).all())
    # As well after a stop.
    stage.load_state_dict(state, copy.deepcopy(stage.state_dict()))
    stage.step(state, stage.sampling.next_members())
    _let_say(stage, [90, 100, 110] if is_bettered else [150, 0, 150], noise=None)
    said = stage.end(state, print)
    assert ("100 images that noise explains better held a class" in said) == is_bettered
    assert torch.equal(state.maps.values, maps) != is_bettered
    evidence = state.classes.log_evidence[members]
    assert bool((evidence[300:, 2] == (0.0 if is_bettered else -2.0)).all())


def test_where_classes_are_counted_a_few_are_left_to_spare(prepare: Callable[..., Any], tmp_path: Path) -> None:
    trainer, _ = prepare(tmp_path, n_classes=8, prune_classes=True)
    state, stage = trainer.state, trainer.stages[0]
    stage.begin(state)
    state.classes.log_evidence[:] = 0.0
    state.classes.log_evidence[::2, 2] = state.classes.log_evidence[1::2, 5] = 30.0
    stage.end(state, print)
    assert state.num_classes == 5 and len(state.maps.values) == 5
    assert float(state.classes.log_posterior().exp().amax(1).mean()) > 0.99


def test_a_stage_whose_bound_has_grown_says_so(
    prepare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, listener = prepare(tmp_path)
    step = AbInitio.step

    def grows(stage: AbInitio, state: TrainingState, index: torch.Tensor) -> Any:
        stage.max_images = 2000
        return step(stage, state, index)

    monkeypatch.setattr(AbInitio, "step", grows)
    trainer.run()
    assert listener.stages[:3] == ["ab initio", "ab initio", "search"]
