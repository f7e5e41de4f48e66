"""Passes over whole grids: how long they go on, and what they add."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cryohydra.inference.partition import half_of, part_of
from cryohydra.training import newcomers, search, search_pass
from cryohydra.training.map_pass import MapPass
from cryohydra.training.newcomers import Doubted
from cryohydra.training.parts import NUM_PARTS, batches_of_parts
from cryohydra.training.search import Searching
from cryohydra.training.search_pass import Changes, SearchPass
from cryohydra.training.state import TrainingState
from cryohydra.training.ways_out import WaysOut

ROWS = torch.arange(48)
BATCH = 12


@pytest.fixture
def begun(prepare: Callable[..., Any], tmp_path: Path) -> tuple[TrainingState, Searching]:
    """A search that has rough maps to start from, its first pass behind it."""
    trainer, _ = prepare(tmp_path)
    state, ab_initio, stage = trainer.state, *trainer.stages[:2]
    ab_initio.begin(state)
    for index in ROWS.split(BATCH):
        ab_initio.step(state, index)
    stage.batch_size = BATCH
    stage.begin(state)
    take_on_a_pass(state, stage)
    assert stage.pass_count == 1 and stage.course.is_searching
    return state, stage


def take_on_a_pass(state: TrainingState, stage: Searching) -> None:
    for index in stage.batches(state):
        stage.step(state, index)


@pytest.mark.parametrize(("finds_something", "num_searched"), [(True, 48), (False, 24)])
def test_a_search_goes_on_only_if_a_pilot_finds_something(
    begun: tuple[TrainingState, Searching], finds_something: bool, num_searched: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, stage = begun
    monkeypatch.setattr(search_pass, "PILOT", 2 * BATCH)
    monkeypatch.setattr(search_pass, "_WORST", 0.0)
    monkeypatch.setattr(search_pass, "_CLEAR_GAIN", float("inf"))  # no class changes
    monkeypatch.setattr(search, "SURE", 0.0)
    searched = []

    def counted(self: SearchPass, state: TrainingState, rows: torch.Tensor, *args: Any) -> torch.Tensor:
        searched.append(len(rows))
        return torch.full((len(rows),), math.inf if finds_something else 0.0)

    monkeypatch.setattr(SearchPass, "_hold_likelier", counted)
    for index in ROWS.split(BATCH):
        note = stage.step(state, index).note
    assert sum(searched) == num_searched
    assert ("searching" in note) == finds_something


def test_while_classes_are_in_doubt_a_search_goes_on_until_evidence_settles(
    begun: tuple[TrainingState, Searching], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, stage = begun
    monkeypatch.setattr(search_pass, "PILOT", BATCH)
    monkeypatch.setattr(search, "SURE", 1.1)
    monkeypatch.setattr(search_pass, "_LITTLE_FOUND", math.inf)  # poses gain nothing
    monkeypatch.setattr(search_pass, "_FEW_CHANGES", 1.1)
    for _ in range(stage.num_passes - stage.pass_count):
        if not stage.is_done:
            for index in stage.batches(state):
                assert "searching" in stage.step(state, index).note
    assert stage.is_done and stage.course.is_last


@pytest.mark.parametrize(("surest", "is_first", "num_maps"), [(1.1, False, 7), (1.1, True, 4), (0.0, False, 1)])
def test_while_classes_are_in_doubt_a_part_is_compared_with_maps_of_all_others(
    begun: tuple[TrainingState, Searching],
    surest: float,
    is_first: bool,
    num_maps: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a first pass, which has no earlier sums, once half of the parts are seen; the last part ends the pass."""
    state, stage = begun
    monkeypatch.setattr(search, "SURE", surest)
    if is_first:
        stage.begin(state)
    elif surest > 1:
        take_on_a_pass(state, stage)
    met: list[Any] = []
    for index in stage.batches(state):
        stage.step(state, index)
        if isinstance(stage.current, SearchPass) and not (met and stage.current.maps is met[-1]):
            met.append(stage.current.maps)
    assert len(met) == num_maps


def test_what_a_part_is_compared_with_is_made_without_it(
    begun: tuple[TrainingState, Searching], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, stage = begun
    monkeypatch.setattr(search, "SURE", 1.1)
    take_on_a_pass(state, stage)
    first = next(stage.batches(state))
    assert bool((part_of(first, NUM_PARTS) == 0).all())
    parts, compared = stage.parts, {}
    for changed in (None, 0, 1):
        stage.parts, stage.current = copy.deepcopy(parts), None
        assert stage.parts is not None
        if changed is not None:
            stage.parts.sums.numerator[changed] *= 3
        stage.step(state, first)
        assert isinstance(stage.current, SearchPass) and len(stage.current.of_halves) == 1
        every, facing = torch.arange(2), torch.eye(3).expand(2, 3, 3)
        compared[changed] = stage.current.of_halves[0].of_candidates(stage.current.compared, every, facing)
    assert torch.equal(compared[0], compared[None])
    assert not torch.allclose(compared[1], compared[None])


@pytest.mark.parametrize("are_needed", [True, False])
def test_newcomers_are_tried_out_if_their_images_need_them(
    begun: tuple[TrainingState, Searching], are_needed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, stage = begun
    monkeypatch.setattr(newcomers, "_NUM_SWEEPS", 1)
    monkeypatch.setattr(Doubted, "of", lambda state: Doubted((0, 1), ROWS))
    monkeypatch.setattr(newcomers, "is_better", lambda before, now: are_needed)
    stage.course.is_in_doubt, pass_count, maps_before = True, stage.pass_count, state.maps
    assert stage.ways_out.open(state, is_in_doubt=True)
    stage.course.go_on()
    # Going on from a checkpoint, newcomers begin anew.
    stage.load_state_dict(state, stage.state_dict())
    notes = []
    for index in stage.batches(state):
        notes.append(stage.step(state, index).note)
        if not stage.ways_out.are_newcomers_due:
            break
    assert "attempt 1 of 4" in notes[0] and "attempt 4 of 4" in notes[-1]
    assert stage.pass_count == pass_count and stage.ways_out.newcomers is None
    assert not stage.ways_out.may_call
    assert stage.ways_out.reseeding.is_on_trial == are_needed and stage.is_done != are_needed
    assert (state.maps is not maps_before) == are_needed
    if are_needed:
        take_on_a_pass(state, stage)
        assert stage.pass_count == pass_count + 1


@pytest.mark.parametrize("is_called", [True, False])
def test_a_trial_is_judged_in_the_noise_and_band_in_which_it_was_called_for(
    begun: tuple[TrainingState, Searching], is_called: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another estimate of the noise changes the evidence of all images, whatever is tried."""
    state, stage = begun
    monkeypatch.setattr(search, "SURE", 1.1)
    monkeypatch.setattr(search, "_FEW_MOVED", 1.0)
    monkeypatch.setattr(WaysOut, "open", lambda self, state, is_in_doubt: is_called)
    stage.course.is_last, stage.course.evidence_before, stage.radius = True, math.inf, stage.last_radius
    noise, radius = state.noise.variance.clone(), stage.radius
    take_on_a_pass(state, stage)
    assert stage.is_done != is_called and stage.radius == radius
    assert torch.equal(state.noise.variance, noise) == is_called


@pytest.mark.parametrize(("surest", "few_moved", "is_done"), [(1.1, 0.0, False), (1.1, 1.0, True), (0.0, 0.0, True)])
def test_a_search_in_doubt_does_not_end_while_shares_of_classes_change(
    begun: tuple[TrainingState, Searching],
    surest: float,
    few_moved: float,
    is_done: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state, stage = begun
    monkeypatch.setattr(search, "SURE", surest)
    monkeypatch.setattr(search, "_FEW_MOVED", few_moved)
    monkeypatch.setattr(search_pass, "PILOT", 0)
    monkeypatch.setattr(search_pass, "_LITTLE_FOUND", math.inf)
    monkeypatch.setattr(search_pass, "_FEWEST_CHANGES", 1.1)
    monkeypatch.setattr(WaysOut, "open", lambda self, state, is_in_doubt: False)
    stage.course.is_in_doubt = surest > 1
    stage.course.is_last, stage.course.evidence_before, stage.radius = True, math.inf, stage.last_radius
    take_on_a_pass(state, stage)
    assert stage.course.is_over and stage.is_done == is_done


def test_newcomers_that_were_stopped_go_on_with_the_next_attempt(
    begun: tuple[TrainingState, Searching], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, stage = begun
    monkeypatch.setattr(newcomers, "_NUM_SWEEPS", 1)
    ways_out = stage.ways_out
    ways_out.doubted = Doubted((0, 1), ROWS)
    while ways_out.newcomers is None or ways_out.newcomers.num_attempts < 2:
        stage.step(state, ROWS[:0])
    saved = stage.state_dict()
    ways_out.newcomers = None
    stage.load_state_dict(state, saved)
    assert "attempt 3 of 4" in stage.step(state, ROWS[:0]).note


@pytest.mark.parametrize("is_sure", [True, False])
def test_an_image_sure_of_its_pose_is_added_there_alone(begun: tuple[TrainingState, Searching], is_sure: bool) -> None:
    state, stage = begun
    index = next(stage.batches(state))
    stage.step(state, index)
    current = stage.current
    assert isinstance(current, SearchPass)
    images = state.weighted(index, current.summed)
    found = current._compare(state, index, images, torch.ones(len(index), 2, dtype=torch.bool), 0)
    log_mass = torch.full_like(found.log_mass, -20.0 if is_sure else 0.0)
    log_mass[:, 0] = 0.0
    state.classes.log_evidence[index] = 50.0 * torch.nn.functional.one_hot(found.class_index[:, 0], 2)
    added: list[torch.Tensor] = []
    current.add_at = lambda state, rows, images, weight, *where: added.append(weight)  # type: ignore[method-assign]
    near = current._add_elsewhere(state, index, images, replace(found, log_mass=log_mass))
    most = int((added[0] > 0).sum(1).max())
    # The only likely pose is elsewhere if steps have led away from it.
    assert most <= 1 if is_sure else 1 < most <= search_pass._MOST_POSES
    torch.testing.assert_close(
        (near * state.classes.log_posterior(index).exp()).sum(1) + added[0].sum(1), torch.ones(len(index))
    )


@pytest.mark.parametrize("num_particles", [1, 3, 8, 21])
def test_parts_hold_every_particle_once(num_particles: int) -> None:
    batches = list(batches_of_parts(num_particles, 2, torch.Generator().manual_seed(0)))
    assert torch.cat(batches).sort().values.tolist() == list(range(num_particles))
    assert all(len(batch) and len(part_of(batch, NUM_PARTS).unique()) == 1 for batch in batches)


def test_the_first_parts_of_a_first_pass_make_maps_that_are_trusted(
    begun: tuple[TrainingState, Searching], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maps count as far as those of the two halves agree: made of parts of one half alone, they would vanish."""
    state, stage = begun
    monkeypatch.setattr(search, "SURE", 1.1)
    stage.begin(state)
    half, power = [], []
    for index in stage.batches(state):
        stage.step(state, index)
        if isinstance(stage.current, SearchPass):
            half.append(int(half_of(index[0])))
            facing = stage.current.maps.of_candidates(
                stage.current.compared, torch.arange(2), torch.eye(3).expand(2, 3, 3)
            )
            power.append(float(facing.square().sum()))
    assert half[:4] == [0, 1, 0, 1]
    assert min(power) > 0.1 * max(power)


def test_after_a_last_search_that_finds_nothing_all_is_done(
    begun: tuple[TrainingState, Searching], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, stage = begun
    monkeypatch.setattr(search, "SURE", 0.0)
    stage.course.is_last = True
    stage.current = stage._begin_pass(state)
    assert isinstance(stage.current, SearchPass)
    stage.current.changes.add(torch.zeros(1000, dtype=torch.bool), torch.full((1000,), 0.4), torch.full((1000,), 100.0))
    for index in ROWS.split(BATCH):
        assert not stage.is_done
        assert "sharpening" in stage.step(state, index).note
    assert stage.is_done


def test_what_a_class_explains_worst_is_compared_with_all_classes_whatever_a_pass_finds(
    begun: tuple[TrainingState, Searching], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, stage = begun
    monkeypatch.setattr(search, "SURE", 0.0)
    stage.pass_count = search_pass.PASSES_OVER_ALL_CLASSES
    # Of 32 images in a class and 16 in the other, the two and the one of least evidence.
    state.classes.log_evidence[:] = torch.where(ROWS[:, None] % 3 > 0, torch.tensor([0.0, -99]), torch.tensor([-99, 0]))
    state.classes.log_evidence += ROWS[:, None]
    stage.current = stage._begin_pass(state)
    assert isinstance(stage.current, SearchPass)
    stage.current.changes.add(torch.zeros(1000, dtype=torch.bool), torch.zeros(1000), torch.full((1000,), 100.0))
    asked: dict[int, list[bool]] = {}

    def compared(self: SearchPass, state: TrainingState, rows: torch.Tensor, *args: Any) -> Any:
        asked.update(zip(rows.tolist(), args[1].tolist(), strict=True))
        return compare(self, state, rows, *args)

    compare = SearchPass._compare
    monkeypatch.setattr(SearchPass, "_compare", compared)
    batches = list(stage.batches(state))
    assert set(torch.cat(batches)[-3:].tolist()) == {0, 1, 2}
    for index in batches:
        stage.step(state, index)
    assert asked == dict.fromkeys((0, 1, 2), [True, True])


def test_images_that_move_between_poses_nearly_as_good_as_each_other_do_not_keep_a_search_going() -> None:
    """As those of a pseudosymmetric complex do for ever; that images change class, or gain by their poses, does."""
    stays, moves = torch.zeros(500, dtype=torch.bool), torch.arange(500) < 60
    clear = torch.full((500,), 100.0)
    for regrouped, gain, is_enough in ((stays, 0.3, False), (stays, 3.0, True), (moves, 0.0, True)):
        changes = Changes()
        changes.add(regrouped, torch.full((500,), gain), clear)
        assert changes.is_less_than(search_pass._FEW_CHANGES, search_pass._LITTLE_FOUND) != is_enough


def test_an_image_in_doubt_counts_once_however_many_poses_it_is_added_at(
    begun: tuple[TrainingState, Searching],
) -> None:
    """What it adds to the denominators is its power, wherever: sums over the lattice stay the same."""
    state, stage = begun
    state.classes.log_evidence[:] = 0.0
    index = next(stage.batches(state))
    stage.step(state, index)
    current = stage.current
    assert current is not None
    images = state.weighted(index, current.summed)
    power = images.power[~state.is_held_out(index)].sum()
    # Nothing else was added to their part yet.
    added = current.sums.denominator[part_of(index[0], NUM_PARTS)]
    # Images of two small classes in noise: some doubt is left, of class or pose.
    num_points = int((added > 0).sum())
    once = MapPass(state, stage.lattice, None, stage.radius, current.steps)
    once.add(state, index, images, state.classes.log_posterior(index).exp())
    assert num_points > int((once.sums.denominator > 0).sum())
    # A class less probable than a hundredth of the likeliest is passed over.
    torch.testing.assert_close(once.sums.denominator.sum(), power, rtol=0.01, atol=0)
    torch.testing.assert_close(added.sum(), power, rtol=0.01, atol=0)


def test_when_classes_have_formed_images_are_compared_with_those_that_matter_to_them(
    begun: tuple[TrainingState, Searching], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for those explained worst."""
    state, stage = begun
    monkeypatch.setattr(search_pass, "_WORST", 0.0)
    stage.pass_count = search_pass.PASSES_OVER_ALL_CLASSES
    index = next(stage.batches(state))
    state.classes.log_evidence[index] = torch.tensor([20.0, 0.0])
    share_before = state.classes.log_posterior(index)[:, 1].clone()
    rotation_before = state.poses.rotation[index].clone()
    stage.step(state, index)
    torch.testing.assert_close(state.classes.log_posterior(index)[:, 1], share_before, rtol=0, atol=0.01)
    torch.testing.assert_close(state.poses.rotation[index, :, 1], rotation_before[:, :, 1])
    assert not torch.equal(state.poses.rotation[index, :, 0], rotation_before[:, :, 0])
    # All classes are asked again in the last search: the class that an image was sure of may be another's.
    stage.course.is_last, stage.current = True, None
    stage.step(state, index)
    assert not torch.equal(state.poses.rotation[index, :, 1], rotation_before[:, :, 1])


def test_what_goes_on_while_fields_are_fitted_is_said(begun: tuple[TrainingState, Searching]) -> None:
    state, stage = begun
    said: list[str] = []
    stage.end(state, said.append)
    fitted = [note for note in said if "fitting the field" in note]
    assert [note.split(", ")[1] for note in fitted] == ["1 of 2", "2 of 2"]
