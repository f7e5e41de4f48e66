"""When the gradient stage stops, and to what it goes back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cryohydra.training.judge import Judge
from cryohydra.training.state import TrainingState


@pytest.fixture
def state(prepare: Callable[..., Any], tmp_path: Path) -> TrainingState:
    trainer, _ = prepare(tmp_path, quick_config={"pose_estimation": "fixed"})
    return trainer.state


def _evidence(mean: float) -> torch.Tensor:
    return mean + torch.tensor([-30.0, -10.0, 0.0, 10.0, 30.0])


def test_the_best_state_comes_back(state: TrainingState) -> None:
    judge = Judge()
    judge.judge(state, _evidence(100.0))
    state.poses.shift_px += 1
    judge.judge(state, _evidence(110.0))
    best = {name: value.clone() for name, value in state.mixture.state_dict().items()}, state.poses.shift_px.clone()
    state.poses.shift_px += 1
    with torch.no_grad():
        for parameter in state.mixture.parameters():
            parameter += 1
    judge.judge(state, _evidence(105.0))
    assert judge.num_since_best == 1
    judge.restore(state)
    torch.testing.assert_close(state.poses.shift_px, best[1])
    torch.testing.assert_close(dict(state.mixture.state_dict()), best[0])


def test_a_gain_is_one_that_the_particles_agree_on(state: TrainingState) -> None:
    """The same mean gain counts if every particle has it, and not if it is one particle's."""
    shared, lone = Judge(), Judge()
    for judge in (shared, lone):
        judge.judge(state, _evidence(100.0))
    shared.judge(state, _evidence(101.0))
    lone.judge(state, _evidence(100.0) + torch.tensor([10.0, -3.0, 2.0, -4.0, 0.0]))
    assert (shared.num_since_best, lone.num_since_best) == (0, 1)


def test_a_judge_goes_on_where_it_was(state: TrainingState) -> None:
    judge, resumed = Judge(), Judge()
    judge.judge(state, _evidence(100.0))
    judge.judge(state, _evidence(90.0))
    resumed.load_state_dict(judge.state_dict())
    before = state.poses.shift_px.clone()
    state.poses.shift_px += 1
    assert resumed.num_since_best == 1
    resumed.restore(state)
    torch.testing.assert_close(state.poses.shift_px, before)


def test_fields_learn_nothing_from_particles_held_out(prepare: Callable[..., Any], tmp_path: Path) -> None:
    trainer, _ = prepare(tmp_path, quick_config={"pose_estimation": "refine"}, lr_pose_table=0.01)
    state, refinement = trainer.state, trainer.stages[-1]
    rows = torch.arange(len(state))
    held_out = rows[state.is_held_out(rows)]
    refinement.begin(state)
    before = {name: value.clone() for name, value in state.mixture.state_dict().items()}
    rotation = state.poses.rotation.clone()
    refinement.descend(state, held_out)
    torch.testing.assert_close(dict(state.mixture.state_dict()), before)
    assert not torch.equal(state.poses.rotation[held_out], rotation[held_out])
    refinement.descend(state, rows)
    assert any(not torch.equal(value, before[name]) for name, value in state.mixture.state_dict().items())


def test_conformations_learn_early_where_poses_alone_gain_no_more(prepare: Callable[..., Any], tmp_path: Path) -> None:
    trainer, _ = prepare(tmp_path, quick_config={"pose_estimation": "refine"}, z_dim=1, pose_only_phase=10_000)
    state, refinement = trainer.state, trainer.stages[-1]
    refinement.begin(state)
    means = state.conformations.all_means(state.images).clone()
    refinement.judge.judge(state, torch.tensor([1e6, 1e6]))  # nothing gains on this
    for index in torch.arange(len(state)).split(refinement.batch_size) * 2:
        assert not refinement.is_done
        torch.testing.assert_close(state.conformations.all_means(state.images), means)
        refinement.step(state, index)
    for index in torch.arange(len(state)).split(refinement.batch_size):
        refinement.step(state, index)
    assert not torch.allclose(state.conformations.all_means(state.images), means)
