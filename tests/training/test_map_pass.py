"""What one pass over the images keeps, and what it learns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cryohydra.fourier.lattice import Lattice
from cryohydra.inference.local_search import LocalPoses, LocalSteps
from cryohydra.inference.partition import half_of
from cryohydra.inference.slices import GridSlicers, LatticeSlices
from cryohydra.training.map_pass import MapPass, Pairs, hold_poses, poses_held
from cryohydra.training.state import TrainingState

RADIUS = 6
ROWS = torch.arange(48)


@pytest.fixture
def state(prepare: Callable[..., Any], tmp_path: Path) -> TrainingState:
    trainer, _ = prepare(tmp_path, quick_config={"pose_estimation": "fixed"})
    return trainer.state


def _pass(state: TrainingState, values: torch.Tensor, steps: LocalSteps) -> MapPass:
    lattice = Lattice(state.images.box_size, RADIUS)
    return MapPass(state, lattice, LatticeSlices.of_maps(lattice, values, GridSlicers()), RADIUS, steps)


def _random_maps(state: TrainingState, count: int, size: float) -> torch.Tensor:
    lattice = Lattice(state.images.box_size, RADIUS)
    return size * torch.randn(count, *lattice.shape, generator=torch.Generator().manual_seed(0))


def test_known_shifts_are_undone_and_come_back(state: TrainingState) -> None:
    state.known_shift_px += 0.5
    pairs = Pairs.of(ROWS, torch.rand(48, 2) > 0.3)
    before = state.poses.shift_px.clone()
    rotation, shift = poses_held(state, pairs)
    torch.testing.assert_close(shift, before[pairs.row, :, pairs.class_index] - 0.5)
    hold_poses(state, pairs, LocalPoses(rotation, shift, torch.zeros(len(pairs.row))))
    torch.testing.assert_close(state.poses.shift_px, before)


def test_an_image_meets_the_maps_of_the_other_half_only(state: TrainingState) -> None:
    """Maps of zeros explain nothing: only the half that meets the others finds any evidence."""
    values = _random_maps(state, 4, 0.1)
    values[:2] = 0  # of the first half
    done = _pass(state, values, LocalSteps(count=0))
    evidence = done.weigh(state, ROWS, state.weighted(ROWS, done.summed), torch.ones(48, 2, dtype=torch.bool))
    is_second = half_of(ROWS) == 1
    assert bool((evidence[is_second] == 0).all()) and bool((evidence[~is_second] != 0).all())


def test_a_class_that_does_not_matter_keeps_its_share_and_its_poses(state: TrainingState) -> None:
    state.classes.log_evidence[:] = torch.tensor([2.0, 0.0])
    share, poses = state.classes.log_posterior().clone(), state.poses.rotation.clone()
    done = _pass(state, _random_maps(state, 2, 0.1), LocalSteps())
    done.weigh(state, ROWS, state.weighted(ROWS, done.summed), torch.tensor([True, False]).expand(48, 2))
    torch.testing.assert_close(state.classes.log_posterior(), share, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(state.poses.rotation[:, :, 1], poses[:, :, 1])
    assert not torch.allclose(state.poses.rotation[:, :, 0], poses[:, :, 0])


def test_what_empty_maps_leave_is_the_images_power(state: TrainingState) -> None:
    done = _pass(state, _random_maps(state, 2, 0.0), LocalSteps(count=0))
    done.weigh(state, ROWS, state.weighted(ROWS, done.summed), torch.ones(48, 2, dtype=torch.bool))
    found = done.refined_noise(state).variance[0]
    power = state.observed(ROWS, done.compared)[:, 0].square().mean(0)
    for shell in range(1, RADIUS):
        assert float(found[shell]) == pytest.approx(float(power[done.compared.shells == shell].mean()), rel=1e-3)
    torch.testing.assert_close(found[RADIUS + 1 :], state.noise.variance[0, RADIUS + 1 :])


def test_maps_learn_nothing_from_particles_held_out(state: TrainingState) -> None:
    rows = ROWS[state.is_held_out(ROWS)]
    done = _pass(state, _random_maps(state, 4, 0.1), LocalSteps(count=0))
    done.lay(state, rows, torch.ones(len(rows), 2))
    assert len(rows) and not bool(done.sums.denominator.any())
    assert done.num_seen == len(rows)


@pytest.mark.parametrize(("num_noise", "counts"), [(0, 48.0), (12, 36.0), (30, 48.0)])
def test_maps_learn_nothing_from_noise(
    state: TrainingState, monkeypatch: pytest.MonkeyPatch, num_noise: int, counts: float
) -> None:
    """Unless half of all seem to be noise: then it is maps that show too little."""
    state.classes.log_evidence[:] = torch.tensor([20.0, 0.0])
    state.classes.log_evidence[:num_noise] = -20.0
    assert int(state.classes.is_noise().sum()) == 48 - counts
    counted: list[float] = []
    done = _pass(state, _random_maps(state, 4, 0.1), LocalSteps(count=0))
    monkeypatch.setattr(state, "is_held_out", lambda index: torch.zeros_like(index, dtype=torch.bool))
    monkeypatch.setattr(done.sums, "add", lambda *args: counted.append(float(args[3].sum())))
    done.add(state, ROWS, state.weighted(ROWS, done.summed), torch.tensor([1.0, 0.0]).expand(48, 2))
    assert counted == [pytest.approx(counts, abs=0.01)]
