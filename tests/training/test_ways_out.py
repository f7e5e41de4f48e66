"""What is tried first where a search has settled: newcomers in doubt, sides of a class where classes are told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cryohydra.training import newcomers
from cryohydra.training.annealing import Annealing
from cryohydra.training.mixed_classes import Room
from cryohydra.training.newcomers import Doubted, Newcomers
from cryohydra.training.reseeding import Reseeding
from cryohydra.training.state import TrainingState
from cryohydra.training.ways_out import WaysOut

HELD = 250


@pytest.fixture
def begun(two_structures: Path, prepare: Callable[..., Any], tmp_path: Path) -> tuple[TrainingState, Annealing]:
    """Maps that show nothing, of three classes, the first of which holds most images."""
    trainer, _ = prepare(tmp_path, particles=two_structures / "particles.star", n_classes=3)
    state, stage = trainer.state, trainer.stages[0]
    stage.begin(state)
    state.classes.log_evidence[:HELD] = torch.tensor([30.0, 0.0, 0.0])
    state.classes.log_evidence[HELD:] = torch.tensor([0.0, 9.0, 0.0])
    state.classes.update_weights()
    return state, stage.annealing


def let_there_be_room(monkeypatch: pytest.MonkeyPatch, mixed: int | None) -> list[bool]:
    """One class is free; whether a trial of sides was begun is kept."""
    sides: list[bool] = []

    def begun(*_: Any) -> bool:
        sides.append(True)
        return True

    monkeypatch.setattr(Room, "of", lambda _: Room(free=2, is_there_twice=False, mixed=mixed))
    monkeypatch.setattr(Reseeding, "begun", begun)
    return sides


@pytest.mark.parametrize(("is_in_doubt", "mixed"), [(True, 0), (False, 0), (True, None)])
def test_newcomers_part_a_mixed_class_where_classes_are_in_doubt(
    begun: tuple[TrainingState, Annealing], is_in_doubt: bool, mixed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, plan = begun
    sides = let_there_be_room(monkeypatch, mixed)
    ways = WaysOut(most_trials=2, newcomers=plan, prunes=False)
    assert ways.open(state, is_in_doubt)
    assert bool(sides) != (is_in_doubt and mixed is not None)
    if sides:
        assert not ways.are_newcomers_due
        return
    assert ways.doubted is not None and ways.doubted.is_parted and ways.doubted.classes == (0, 2)
    assert torch.equal(ways.doubted.members, torch.arange(HELD))
    assert ways.reseeding.num_left == 1
    # As well after a stop.
    again = WaysOut(most_trials=2, newcomers=plan, prunes=False)
    again.load_state_dict(state, ways.state_dict())
    assert again.doubted is not None and again.doubted.is_parted and again.reseeding.num_left == 1


def test_where_newcomers_do_not_part_a_class_its_sides_are_tried(
    begun: tuple[TrainingState, Annealing], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, plan = begun
    sides = let_there_be_room(monkeypatch, 0)
    monkeypatch.setattr(newcomers, "_NUM_SWEEPS_TO_PART", 1)
    monkeypatch.setattr(newcomers, "is_better", lambda before, now: False)
    ways = WaysOut(most_trials=2, newcomers=plan, prunes=False)
    assert ways.open(state, is_in_doubt=True) and not sides
    while ways.are_newcomers_due:
        _, goes_on = ways.climb(state, is_in_doubt=True)
    assert goes_on and sides and not ways.reseeding.is_on_trial


@pytest.mark.parametrize("is_parted", [True, False])
def test_the_first_attempt_that_parts_a_class_is_the_last(
    begun: tuple[TrainingState, Annealing], is_parted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, plan = begun
    monkeypatch.setattr(newcomers, "_NUM_SWEEPS_TO_PART", 1)
    monkeypatch.setattr(newcomers, "_NUM_SWEEPS", 1)
    monkeypatch.setattr(newcomers, "is_better", lambda before, now: True)
    called = Newcomers(state, plan, Doubted((0, 2), torch.arange(HELD), is_parted))
    notes = []
    while not called.is_done:
        notes.append(called.step(state)[1])
    assert called.num_attempts == (1 if is_parted else 4) and called.chosen() is not None
    assert notes[0].startswith(f"2 newcomers, attempt 1 of {2 if is_parted else 4}")
