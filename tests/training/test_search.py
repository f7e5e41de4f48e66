"""Passes over whole grids: how long they go on, and what they add."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from cryohydra.training import search
from cryohydra.training.search import Searching
from cryohydra.training.state import TrainingState

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
    stage.begin(state)
    for index in ROWS.split(BATCH):
        stage.step(state, index)
    assert stage.pass_count == 1 and stage.is_searching
    return state, stage


@pytest.mark.parametrize(("finds_something", "num_searched"), [(True, 48), (False, 24)])
def test_a_search_goes_on_only_if_a_pilot_finds_something(
    begun: tuple[TrainingState, Searching], finds_something: bool, num_searched: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, stage = begun
    monkeypatch.setattr(search, "PILOT", 2 * BATCH)
    monkeypatch.setattr(search, "_CLEAR_GAIN", float("inf"))  # no class changes
    monkeypatch.setattr(search, "_SURE", 0.0)
    real, searched = Searching._search, []

    def counted(self: Searching, state: TrainingState, rows: torch.Tensor, *args: Any) -> Any:
        found, _ = real(self, state, rows, *args)
        searched.append(len(rows))
        return found, torch.full((len(rows),), math.inf if finds_something else 0.0)

    monkeypatch.setattr(Searching, "_search", counted)
    for index in ROWS.split(BATCH):
        note = stage.step(state, index).note
    assert sum(searched) == num_searched
    assert ("searching" in note) == finds_something


def test_while_classes_are_in_doubt_a_search_goes_on_until_evidence_settles(
    begun: tuple[TrainingState, Searching], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, stage = begun
    monkeypatch.setattr(search, "PILOT", BATCH)
    monkeypatch.setattr(search, "_SURE", 1.1)
    monkeypatch.setattr(search, "_LITTLE_FOUND", math.inf)  # poses gain nothing
    monkeypatch.setattr(search, "_FEW_CHANGES", 1.1)
    for _ in range(stage.num_passes - stage.pass_count):
        if not stage.is_done:
            for index in ROWS.split(BATCH):
                assert "searching" in stage.step(state, index).note
    assert stage.is_done and stage.is_last_search


@pytest.mark.parametrize(("surest", "is_first", "num_renewed"), [(1.1, False, 3), (1.1, True, 2), (0.0, False, 0)])
def test_while_classes_are_in_doubt_maps_are_made_anew_within_a_pass(
    begun: tuple[TrainingState, Searching],
    surest: float,
    is_first: bool,
    num_renewed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After each batch; in a first pass, which has no earlier sums, once half of the images are seen."""
    state, stage = begun
    monkeypatch.setattr(search, "_SURE", surest)
    if is_first:
        stage.begin(state)
    compared = [stage.halves]
    for index in ROWS.split(BATCH):
        stage.step(state, index)
        if stage.current is not None:
            compared.append(stage.halves)
    assert all(bool(halves.isfinite().all()) for halves in compared)
    same = [before is now for before, now in pairwise(compared)]
    assert same == [True] * (3 - num_renewed) + [False] * num_renewed


def test_after_a_last_search_that_finds_nothing_all_is_done(
    begun: tuple[TrainingState, Searching], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, stage = begun
    monkeypatch.setattr(search, "_SURE", 0.0)
    stage.is_last_search = True
    stage.changes.add(torch.zeros(1000, dtype=torch.bool), torch.full((1000,), 0.4), torch.full((1000,), 100.0))
    for index in ROWS.split(BATCH):
        assert not stage.is_done
        assert "sharpening" in stage.step(state, index).note
    assert stage.is_done


def test_images_that_move_between_poses_nearly_as_good_as_each_other_do_not_keep_a_search_going() -> None:
    """As those of a pseudosymmetric complex do for ever; that images change class, or gain by their poses, does."""
    stays, moves = torch.zeros(500, dtype=torch.bool), torch.arange(500) < 60
    clear = torch.full((500,), 100.0)
    for regrouped, gain, is_enough in ((stays, 0.3, False), (stays, 3.0, True), (moves, 0.0, True)):
        changes = search._Changes()
        changes.add(regrouped, torch.full((500,), gain), clear)
        assert changes.is_less_than(search._FEW_CHANGES, search._LITTLE_FOUND) != is_enough


def test_an_image_in_doubt_counts_once_however_many_poses_it_is_added_at(
    begun: tuple[TrainingState, Searching],
) -> None:
    """What it adds to the denominators is its power, wherever: sums over the lattice stay the same."""
    state, stage = begun
    index = ROWS[:BATCH]
    stage.step(state, index)
    current = stage.current
    assert current is not None
    images = state.weighted(index, current.summed)
    power = images.power[~state.is_held_out(index)].sum()
    # Images of two small classes in noise: some doubt is left, of class or pose.
    num_points = int((current.sums.denominator > 0).sum())
    once = search.MapPass(state, stage.lattice, None, stage.radius, current.steps)
    once.add(state, index, images, state.classes.log_posterior(index).exp())
    assert num_points > int((once.sums.denominator > 0).sum())
    torch.testing.assert_close(once.sums.denominator.sum(), power, rtol=1e-3, atol=0)
    torch.testing.assert_close(current.sums.denominator.sum(), power, rtol=0.01, atol=0)


def test_when_classes_have_formed_images_are_compared_with_those_that_matter_to_them(
    begun: tuple[TrainingState, Searching],
) -> None:
    state, stage = begun
    stage.pass_count = search.PASSES_OVER_ALL_CLASSES
    index = ROWS[:BATCH]
    state.classes.log_evidence[index] = torch.tensor([20.0, 0.0])
    share_before = state.classes.log_posterior(index)[:, 1].clone()
    rotation_before = state.poses.rotation[index].clone()
    stage.step(state, index)
    torch.testing.assert_close(state.classes.log_posterior(index)[:, 1], share_before, rtol=0, atol=0.01)
    torch.testing.assert_close(state.poses.rotation[index, :, 1], rotation_before[:, :, 1])
    assert not torch.equal(state.poses.rotation[index, :, 0], rotation_before[:, :, 0])
    # All classes are asked again in the last search: the class that an image was sure of may be another's.
    stage.is_last_search = True
    stage.step(state, index)
    assert not torch.equal(state.poses.rotation[index, :, 1], rotation_before[:, :, 1])


def test_what_goes_on_while_fields_are_fitted_is_said(begun: tuple[TrainingState, Searching]) -> None:
    state, stage = begun
    said: list[str] = []
    stage.end(state, said.append)
    fitted = [note for note in said if "fitting the field" in note]
    assert [note.split(", ")[1] for note in fitted] == ["1 of 2", "2 of 2"]
