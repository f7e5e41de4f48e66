"""A class that images can do without takes over one side of a class that holds two structures."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cryohydra.data.simulated import read_truth
from cryohydra.fourier.lattice import Lattice
from cryohydra.inference.local_search import LocalSteps
from cryohydra.inference.reconstruction import particle_mask
from cryohydra.inference.slices import GridSlicers, LatticeSlices
from cryohydra.training import mixed_classes, reseeding
from cryohydra.training.map_pass import MapPass
from cryohydra.training.mixed_classes import Room
from cryohydra.training.reseeding import Reseeding, find_split
from cryohydra.training.state import TrainingState
from cryohydra.training.strangers import find_strangers

NUM_IMAGES, RADIUS = 400, 6  # as many as `two_structures` has
ROWS = torch.arange(NUM_IMAGES)


@pytest.fixture
def state(two_structures: Path, prepare: Callable[..., Any], tmp_path: Path) -> TrainingState:
    """Poses are the true ones, one class holds both structures, another nothing."""
    known = {"pose_estimation": "fixed"}
    trainer, _ = prepare(tmp_path, particles=two_structures / "particles.star", quick_config=known)
    state: TrainingState = trainer.state
    state.classes.log_evidence[:] = torch.tensor([0.0, -1000.0])
    state.classes.update_weights()
    _solve(state)
    _weigh(state)
    return state


def room_in(state: TrainingState) -> Room:
    found = Room.of(state)
    assert found is not None
    return found


def _solve(state: TrainingState) -> None:
    """Maps of the images in the classes that they are likely of."""
    lattice = Lattice(state.images.box_size, RADIUS)
    done = MapPass(state, lattice, None, RADIUS, LocalSteps(count=0))
    done.add(state, ROWS, state.weighted(ROWS, done.summed), state.classes.log_posterior().exp())
    state.maps = done.sums.solve(particle_mask(lattice)).with_halves()


def _weigh(state: TrainingState) -> None:
    lattice = state.maps.lattice
    slices = LatticeSlices.of_maps(lattice, state.maps.compared, GridSlicers())
    done = MapPass(state, lattice, slices, RADIUS, LocalSteps(count=0))
    images = state.weighted(ROWS, done.summed)
    done.weigh(state, ROWS, images, torch.ones(NUM_IMAGES, 2, dtype=torch.bool))
    state.classes.update_weights()


def test_two_structures_in_one_class_are_parted(state: TrainingState, two_structures: Path) -> None:
    trials, room = Reseeding(most_trials=1), room_in(state)
    assert (room.free, room.mixed, room.is_there_twice) == (1, 0, False)
    assert trials.begun(state, room, is_in_doubt=True) and trials.is_on_trial
    for _ in range(5):
        _weigh(state)
        _solve(state)
    _weigh(state)
    trials.ended(state)
    assert trials.num_kept == 1 and not trials.was_in_vain
    found = state.classes.log_posterior().argmax(1).numpy()
    is_same = found == read_truth(two_structures).labels
    assert max(is_same.mean(), 1 - is_same.mean()) > 0.95


def test_what_explains_better_is_kept_at_once(state: TrainingState) -> None:
    trials = Reseeding(most_trials=1)
    trials.begun(state, room_in(state), is_in_doubt=True)
    state.classes.log_evidence -= 1.0
    trials.keep_if_better(state)
    assert trials.is_on_trial and trials.num_kept == 0
    state.classes.log_evidence += 1.5 + 0.1 * torch.randn(NUM_IMAGES, 1, generator=torch.Generator().manual_seed(0))
    trials.keep_if_better(state)
    assert not trials.is_on_trial and trials.num_kept == 1


def test_a_trial_that_gains_a_little_for_ever_comes_to_an_end(state: TrainingState) -> None:
    trials = Reseeding(most_trials=1)
    trials.begun(state, room_in(state), is_in_doubt=True)
    state.classes.log_evidence -= 100.0
    for _ in range(reseeding._MOST_PASSES):
        assert not trials.has_had_its_time
        state.classes.log_evidence += 1.0
        trials.keep_if_better(state)
    assert trials.has_had_its_time and trials.num_kept == 0


def test_only_images_of_the_classes_concerned_judge_a_trial(state: TrainingState) -> None:
    """All others gain by any pass."""
    half = NUM_IMAGES // 2
    state.classes.log_evidence[:half] = torch.tensor([50.0, 0.0])
    state.classes.log_evidence[half:] = torch.tensor([0.0, 50.0])
    trials = Reseeding(most_trials=1)
    trials.try_out(state, [1], state.maps.values[:1])
    state.classes.log_evidence[:half] += 10.0
    trials.keep_if_better(state)
    assert trials.is_on_trial
    state.classes.log_evidence[half:] += torch.linspace(1, 2, NUM_IMAGES - half)[:, None]
    trials.keep_if_better(state)
    assert trials.num_kept == 1


def test_images_meet_all_maps_that_come_in_the_place_of_classes(state: TrainingState) -> None:
    """However sure they were of a class that is there no more; what all classes together said stays."""
    state.classes.log_evidence[:] = torch.tensor([80.0, 0.0])
    before = (state.classes.log_weight + state.classes.log_evidence).logsumexp(1)
    Reseeding(most_trials=1).try_out(state, [0, 1], state.maps.values)
    torch.testing.assert_close(state.classes.log_posterior().exp(), torch.full((NUM_IMAGES, 2), 0.5))
    after = (state.classes.log_weight + state.classes.log_evidence).logsumexp(1)
    torch.testing.assert_close(after, before)


def test_what_explains_no_better_is_put_back(state: TrainingState, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: value.clone() for name, value in state.classes.state_dict().items()}
    poses, maps = state.poses.rotation.clone(), copy.deepcopy(state.maps)
    trials = Reseeding(most_trials=2)
    assert trials.begun(state, room_in(state), is_in_doubt=True)
    assert not torch.equal(state.maps.halves, maps.halves)
    # As well after a stop.
    trials.load_state_dict(state, trials.state_dict())
    state.poses.rotation.zero_()
    state.classes.log_evidence -= 5
    trials.ended(state)
    assert trials.num_kept == 0
    # What gave reason to it would again.
    assert trials.num_left == 1 and not trials.are_left
    torch.testing.assert_close(state.maps.halves, maps.halves)
    torch.testing.assert_close(state.maps.values, maps.values)
    torch.testing.assert_close(state.poses.rotation, poses)
    for name, value in state.classes.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_classes_that_are_missed_are_left_alone(state: TrainingState, two_structures: Path) -> None:
    labels = torch.from_numpy(read_truth(two_structures).labels).long()
    state.classes.log_evidence[:] = 100 * torch.nn.functional.one_hot(labels, 2)
    assert Room.of(state) is None


def test_one_structure_is_not_parted(
    state: TrainingState, two_structures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All images of one structure, in one class of two."""
    labels = torch.from_numpy(read_truth(two_structures).labels)
    state.classes.log_evidence[labels == 1] = -1000.0  # of no class more than of the other
    state.classes.log_evidence[labels == 0] = torch.tensor([0.0, -1000.0])
    rows = ROWS[labels == 0]
    lattice = state.maps.lattice
    done = MapPass(state, lattice, None, RADIUS, LocalSteps(count=0))
    done.add(state, rows, state.weighted(rows, done.summed), torch.tensor([[1.0, 0.0]]).expand(len(rows), 2))
    state.maps = done.sums.solve(particle_mask(lattice)).maps
    members = mixed_classes.members_of
    monkeypatch.setattr(mixed_classes, "members_of", lambda state, k: rows if k == 0 else members(state, k)[:0])
    assert find_split(state, room_in(state), is_in_doubt=True) is None


def test_what_a_class_explains_worst_gets_a_map_of_its_own(state: TrainingState, two_structures: Path) -> None:
    """A few images of another structure, in a class that is told."""
    labels = torch.from_numpy(read_truth(two_structures).labels).long()
    strangers = ROWS[labels == 1][:20]
    is_first = labels == 0
    is_first[strangers] = True
    state.classes.log_evidence[:] = 1000.0 * torch.nn.functional.one_hot((~is_first).long(), 2)
    state.classes.update_weights()
    _solve(state)
    other = state.maps.values[1].flatten()
    _weigh(state)
    state.classes.log_evidence[is_first, 1] = -1000.0
    found = find_strangers(state, [0, 1])
    assert found is not None and found.class_index == 0
    torch.testing.assert_close(found.sides[0], state.maps.values[0])
    alike = [float(torch.nn.functional.cosine_similarity(side.flatten(), other, 0)) for side in found.sides]
    assert alike[1] > 0.9 > alike[0], alike


@pytest.mark.parametrize("is_in_doubt", [True, False])
def test_strangers_are_set_apart_only_where_classes_are_told(
    state: TrainingState, is_in_doubt: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixed_classes, "_most_mixed", lambda state, classes: None)
    split = find_split(state, room_in(state), is_in_doubt)
    assert (split is None) == is_in_doubt
    if split is not None:
        assert (split.free, split.parted) == (1, 0)


@pytest.mark.parametrize(("held", "nats", "is_kept"), [(12, 8.0, True), (12, 2.0, False), (6, 8.0, False)])
def test_a_class_of_strangers_is_kept_if_enough_images_would_miss_it(
    state: TrainingState, held: int, nats: float, is_kept: bool
) -> None:
    trials = Reseeding(most_trials=1)
    trials.try_out(state, [0, 1], state.maps.values, stems_from=0, of_strangers=1)
    # As well after a stop.
    trials.load_state_dict(state, trials.state_dict())
    state.classes.log_evidence[:] = torch.tensor([60.0, 0.0])
    # Beside what it costs that the class is small.
    state.classes.log_evidence[:held] = torch.tensor([20.0, 20.0 + nats + math.log(NUM_IMAGES / held)])
    state.classes.update_weights()
    for _ in range(2):
        trials.keep_if_better(state)
    assert trials.num_kept == int(is_kept) and trials.is_on_trial != is_kept


def test_a_trial_is_not_judged_in_maps_that_may_be_of_its_judges(state: TrainingState) -> None:
    trials = Reseeding(most_trials=1)
    trials.try_out(state, [0, 1], state.maps.values)
    state.classes.log_evidence += torch.linspace(1, 2, NUM_IMAGES)[:, None]
    trials.keep_if_better(state)
    assert trials.is_on_trial
    trials.keep_if_better(state)
    assert not trials.is_on_trial and trials.num_kept == 1
