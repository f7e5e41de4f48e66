"""Maps that climb at poses drawn in the maps of all other images."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from cryohydra.data.simulated import read_truth
from cryohydra.geometry.rotations import random_rotations
from cryohydra.physics.pose import Pose
from cryohydra.training.gibbs import GibbsSampling
from cryohydra.training.ground import Ground
from cryohydra.training.state import TrainingState

MEMBERS = torch.arange(0, 400, 2)


@pytest.fixture
def begun(two_structures: Path, prepare: Callable[..., Any], tmp_path: Path) -> tuple[TrainingState, GibbsSampling]:
    trainer, _ = prepare(tmp_path, particles=two_structures / "particles.star", n_imgs_pose_search=40_000)
    state, plan = trainer.state, trainer.stages[0].annealing
    state.generator.manual_seed(0)
    ground = Ground.of(state, plan.last_radius)
    return state, GibbsSampling.from_nothing(
        state, ground, replace(plan, num_steps=90, num_cool_steps=0), MEMBERS, num_maps=2
    )


def test_classes_and_poses_are_found(begun: tuple[TrainingState, GibbsSampling], two_structures: Path) -> None:
    state, sampling = begun
    evidence = []
    while not sampling.is_done:
        evidence.append(sampling.step(state).mean_evidence)
    labels = read_truth(two_structures).labels[MEMBERS.numpy()]
    assert adjusted_rand_score(labels, sampling.log_evidence.argmax(1).numpy()) > 0.8
    assert float(sampling.evidence.mean()) == pytest.approx(sum(evidence[-6:]) / 6, rel=0.05)
    assert evidence[-1] > 2 * evidence[5]


def test_classes_are_judged_where_their_images_lie(
    begun: tuple[TrainingState, GibbsSampling], two_structures: Path
) -> None:
    """Asked as attempts are, classes that show the structures explain more than classes that show nothing."""
    state, sampling = begun
    truth, rows = read_truth(two_structures), torch.arange(len(state))
    label = torch.from_numpy(truth.labels)
    rotation, shift_px = (torch.from_numpy(part).float()[:, :, None] for part in (truth.rotation, truth.shift_px))
    explained = []
    for is_known in (True, False):
        if is_known:
            state.poses.set(rows, Pose(rotation.repeat(1, 1, 2, 1, 1), shift_px.repeat(1, 1, 2, 1)))
            state.classes.log_evidence = 10 * torch.nn.functional.one_hot(label, 2).float()
        else:
            at_random = random_rotations(len(state), state.generator)[:, None, None]
            state.poses.set(rows, Pose(at_random.repeat(1, 1, 2, 1, 1), shift_px.repeat(1, 1, 2, 1)))
            state.classes.log_evidence = torch.rand(len(state), 2, generator=state.generator)
        asked = GibbsSampling.from_classes(state, sampling.ground, sampling.plan, MEMBERS, (0, 1))
        asked.step(state)
        explained.append(float(asked.evidence[asked.part == 0].mean()))
        if is_known:
            found = asked.log_evidence[asked.part == 0].argmax(1)
            assert float((found == label[MEMBERS][asked.part == 0]).float().mean()) > 0.9
    assert explained[0] > explained[1] + 2


def test_what_an_image_is_compared_with_is_not_made_of_it(
    begun: tuple[TrainingState, GibbsSampling],
) -> None:
    """Its part lies nowhere when the maps that it meets are made, wherever it was; others are in them."""
    state, sampling = begun
    seen = []
    for turned in (None, 0, 1):
        again = replaced(state, sampling, turned)
        seen.append(again._dealt_without(0))
    scale = float(seen[0].abs().max())
    torch.testing.assert_close(seen[1], seen[0], rtol=0, atol=1e-4 * scale)
    assert float((seen[2] - seen[0]).abs().max()) > 1e-2 * scale


def replaced(state: TrainingState, sampling: GibbsSampling, turned: int | None) -> GibbsSampling:
    """The same, the images of one part seen from elsewhere."""
    saved = sampling.state_dict()
    if turned is not None:
        [((class_index, rotation, shift_px), *rest)] = saved["laid"][turned]
        saved["laid"][turned] = [((class_index, rotation.flip(0), shift_px), *rest)]
    again = GibbsSampling.from_nothing(state, sampling.ground, sampling.plan, MEMBERS, num_maps=2)
    again.load_state_dict(state, saved)
    return again


@pytest.mark.parametrize("num_settling", [0, 2, 9])
def test_taken_out_and_put_back_images_leave_the_maps_as_they_were(
    begun: tuple[TrainingState, GibbsSampling], num_settling: int
) -> None:
    """After many steps the sums are still those of the images where their last draws lie, one or a few or four."""
    state, sampling = begun
    for num_steps, settles in ((40, False), (2 + num_settling * sampling.num_parts, True)):
        if settles and num_settling:
            sampling.count_more_draws()
        placements = [[] for _ in range(sampling.num_parts)]
        for _ in range(num_steps):
            part = sampling.step_count % sampling.num_parts
            placements[part].append(sampling.step(state).placement)
    for part, drawn in enumerate(placements):
        last = drawn[-(4 if num_settling else 1) :]
        kept = sampling._laid[part]
        there = kept[len(kept) - len(last) :]
        assert all(laid.placement is one for laid, one in zip(there, last, strict=True))
    again = replaced(state, sampling, None)
    ours, anew = ((*one._whole, one._sums.numerator, one._sums.denominator) for one in (sampling, again))
    for now, laid_anew in zip(ours, anew, strict=True):
        torch.testing.assert_close(now, laid_anew, rtol=0, atol=1e-5 * float(laid_anew.abs().max()))
    # A part meets maps of all others, however many of its draws count.
    own = torch.stack([laid[0] for laid in map(sampling._share_of, range(sampling.num_parts))])
    torch.testing.assert_close(own.sum(0), sampling._whole[0], rtol=0, atol=1e-5 * float(own.sum(0).abs().max()))


def test_every_image_counts_once_however_many_draws_of_it_do(begun: tuple[TrainingState, GibbsSampling]) -> None:
    state, sampling = begun
    plan, weight = sampling.plan, sampling._whole[1].sum()
    # Fewer frequencies are compared in the first band than random poses were added at.
    power = state.weighted(MEMBERS, sampling.ground.band)
    inside = sampling.ground.band.within(plan.first_radius)
    in_first_band = weight * power.at(inside).power.sum() / power.power.sum()
    num_late = 4 * sampling.num_parts
    for num_steps, num_draws, wanted in ((6, 1, in_first_band), (plan.num_warm_steps + num_late, 4, weight)):
        if num_draws > 1:
            sampling.count_more_draws()
        while sampling.step_count < num_steps:
            sampling.step(state)
        assert {len(kept) for kept in sampling._laid} == {num_draws}
        torch.testing.assert_close(sampling._whole[1].sum(), wanted, rtol=1e-3, atol=0)


def test_near_shifts_make_an_image_as_one_pose_does(begun: tuple[TrainingState, GibbsSampling]) -> None:
    """What is laid down is kept: laid down anew, the maps are the same."""
    state, sampling = begun
    for _ in range(3):
        sampling.step(state)
    before = sampling._whole[0].clone()
    saved = sampling.state_dict()
    again = GibbsSampling.from_nothing(state, sampling.ground, sampling.plan, MEMBERS, num_maps=2)
    again.load_state_dict(state, saved)
    torch.testing.assert_close(again._whole[0], before, rtol=1e-4, atol=1e-4 * float(before.abs().max()))


def test_a_close_look_tells_what_many_visits_do(begun: tuple[TrainingState, GibbsSampling]) -> None:
    """But for what its fixed grid misses, and for the temperature."""
    state, sampling = begun
    while not sampling.is_done:
        sampling.step(state)
    by_visits = sampling.evidence.mean()
    sampling.look_closely(state, sampling.yardstick)
    assert float(sampling.evidence.mean()) == pytest.approx(float(by_visits), rel=0.3)


def test_heat_makes_images_noisier(begun: tuple[TrainingState, GibbsSampling]) -> None:
    """Twice as hot, log likelihoods of the same poses differ by half."""
    state, sampling = begun
    cold = copy.deepcopy(sampling)
    sampling.plan = replace(sampling.plan, first_temperature=2.0, num_hot_steps=1000, num_cool_steps=1001)
    drawn = state.generator.get_state()
    said = []
    for one in (sampling, cold):
        state.generator.set_state(drawn)
        one.step(state)
        said.append(one.log_evidence[one.part == 0].logsumexp(1).mean())
    assert 0 < said[0] < said[1] / 1.5
    assert not sampling.is_cold and cold.is_cold
