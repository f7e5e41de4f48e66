"""Newcomers: called for classes that are missed little, kept where images need them."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from cryohydra.data.simulated import read_truth
from cryohydra.training import ab_initio
from cryohydra.training.ab_initio import AbInitio, _teachers
from cryohydra.training.state import TrainingState

EVERYONE = torch.arange(48)


@pytest.fixture
def climbed(prepare: Callable[..., Any], tmp_path: Path) -> tuple[TrainingState, AbInitio]:
    """Two classes that have settled; none was doubted."""
    trainer, _ = prepare(tmp_path, n_imgs_pose_search=8_000)
    state, stage = trainer.state, trainer.stages[0]
    stage.begin(state)
    for _ in range(stage.annealing.num_steps):
        stage.step(state, EVERYONE)
        if stage.is_done:
            break
    return state, stage


def _go_on(state: TrainingState, stage: AbInitio) -> list[str]:
    """From the last step of the ascent, until all is done."""
    stage.is_done, stage.ascent.is_done = False, False
    stage.ascent.step_count = stage.annealing.num_steps - 1
    notes = []
    while not stage.is_done:
        notes.append(stage.step(state, EVERYONE).note)
    return notes


def _agreement(state: TrainingState, folder: Path) -> float:
    found = state.classes.log_posterior().argmax(1).numpy()
    return float(adjusted_rand_score(np.asarray(read_truth(folder).labels), found))


def test_classes_that_are_clearly_missed_are_left_alone(
    climbed: tuple[TrainingState, AbInitio], tiny_folder: Path
) -> None:
    state, stage = climbed
    assert stage.is_done and stage.num_rounds == 0
    assert _agreement(state, tiny_folder) > 0.9


def test_a_newcomer_takes_the_place_of_a_class_that_is_there_twice(
    climbed: tuple[TrainingState, AbInitio], tiny_folder: Path
) -> None:
    state, stage = climbed
    stage.ascent.maps[1] = stage.ascent.maps[0]
    notes = _go_on(state, stage)
    assert any("newcomers" in note for note in notes)
    assert stage.num_replaced >= 1
    assert _agreement(state, tiny_folder) > 0.9
    assert "replaced on the way" in stage.end(state, print)


def test_images_of_a_class_that_is_there_twice_do_not_teach_newcomers() -> None:
    """Of four classes, the first is there twice; the images of the last are those that no class shows well."""
    twice = torch.tensor([10.0, 10.2, 0.0, 0.0]).expand(300, 4)
    clear = torch.tensor([0.0, 0.0, 20.0, 0.0]).expand(300, 4)
    unclear = torch.tensor([0.0, 0.0, 0.0, 2.0]).expand(150, 4)
    evidence = torch.cat([twice, clear, unclear])
    kept = torch.tensor([0, 2])
    rows = torch.arange(len(evidence))
    assert torch.equal(rows[_teachers(evidence, kept)], torch.arange(600, 750))
    few = evidence[:650]
    assert torch.equal(rows[:650][_teachers(few, kept)], torch.cat([torch.arange(300), torch.arange(600, 650)]))


def test_without_images_to_climb_on_no_newcomers_are_called(
    climbed: tuple[TrainingState, AbInitio], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a class that is doubted is the likeliest of no image."""
    state, stage = climbed
    stage.ascent.maps[1] = stage.ascent.maps[0]
    monkeypatch.setattr(ab_initio, "_teachers", lambda evidence, kept: torch.zeros(len(evidence), dtype=torch.bool))
    _go_on(state, stage)
    assert stage.num_rounds == 0 and stage.newcomers is None


def test_an_ascent_of_one_step_ends(prepare: Callable[..., Any], tmp_path: Path) -> None:
    """It compares no image in the whole band."""
    trainer, _ = prepare(tmp_path, n_imgs_pose_search=1)
    state, stage = trainer.state, trainer.stages[0]
    stage.begin(state)
    stage.step(state, EVERYONE)
    assert stage.annealing.num_steps == 1 and stage.is_done


def test_going_on_in_the_midst_of_newcomers_equals_not_stopping(
    climbed: tuple[TrainingState, AbInitio], prepare: Callable[..., Any], tmp_path: Path
) -> None:
    state, stage = climbed
    stage.ascent.maps[1] = stage.ascent.maps[0]
    stage.is_done, stage.ascent.is_done = False, False
    stage.ascent.step_count = stage.annealing.num_steps - 1
    for _ in range(4):
        stage.step(state, EVERYONE)
    assert stage.newcomers is not None
    trainer, _ = prepare(tmp_path / "again", n_imgs_pose_search=8_000)
    again = trainer.stages[0]
    again.begin(trainer.state)
    saved = copy.deepcopy((state.state_dict(), stage.state_dict()))
    trainer.state.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    for _ in range(3):
        stage.step(state, EVERYONE)
        again.step(trainer.state, EVERYONE)
    torch.testing.assert_close(again.newcomers.maps, stage.newcomers.maps)
