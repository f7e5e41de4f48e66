"""Maps that climb at poses drawn in the maps of all other images."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from cryohydra.data.simulated import read_truth
from cryohydra.fourier.band import Band
from cryohydra.fourier.hartley import shift_hartley
from cryohydra.fourier.lattice import Lattice, to_frequency
from cryohydra.geometry.rotations import geodesic_angle, random_rotations
from cryohydra.geometry.so3_grid import grid_rotations, num_rotations
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.reconstruction import particle_mask
from cryohydra.inference.shift_prior import ShiftPrior
from cryohydra.inference.slices import GridSlicers, LatticeSlices
from cryohydra.physics.pose import Pose
from cryohydra.training.annealing import level_for_radius, shift_step
from cryohydra.training.ascent import Ground
from cryohydra.training.gibbs import GibbsSampling
from cryohydra.training.grid_comparison import GridComparer
from cryohydra.training.state import TrainingState

MEMBERS = torch.arange(0, 400, 2)


@pytest.fixture
def begun(two_structures: Path, prepare: Callable[..., Any], tmp_path: Path) -> tuple[TrainingState, GibbsSampling]:
    trainer, _ = prepare(tmp_path, particles=two_structures / "particles.star", n_imgs_pose_search=40_000)
    state, plan = trainer.state, trainer.stages[0].annealing
    state.generator.manual_seed(0)
    ground = Ground.of(state, plan.last_radius)
    return state, GibbsSampling.from_nothing(state, ground, replace(plan, num_steps=90), MEMBERS, num_maps=2)


def test_classes_and_poses_are_found(begun: tuple[TrainingState, GibbsSampling], two_structures: Path) -> None:
    state, sampling = begun
    evidence = []
    while not sampling.is_done:
        evidence.append(sampling.step(state)[0])
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
        explained.append(asked.step(state)[0])
        if is_known:
            found = asked.log_evidence[asked.part == 0].argmax(1)
            assert float((found == label[MEMBERS][asked.part == 0]).float().mean()) > 0.9
    assert explained[0] > explained[1] + 2


def test_what_an_image_is_compared_with_is_not_made_of_it(
    begun: tuple[TrainingState, GibbsSampling], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the images of a part are, the maps that they meet stay the same, and others are made of them."""
    state, sampling = begun
    seen = []
    compared = sampling.ground.comparer.draw

    def remembering(maps: torch.Tensor, *others: Any) -> Any:
        seen.append(maps)
        return compared(maps, *others)

    monkeypatch.setattr(sampling.ground.comparer, "draw", remembering)
    ours, others = (torch.tensor([part]) for part in (0, 1))
    for flatters in (False, True):
        if flatters:
            sampling._sums.numerator[ours] *= 100
        sampling.step_count = 0
        before = sampling._sums.numerator[others].clone()
        sampling.step(state)
        torch.testing.assert_close(sampling._sums.numerator[others], before)
    torch.testing.assert_close(seen[0], seen[1])
    sampling._sums.numerator[others] *= 2
    sampling.step_count = 0
    sampling.step(state)
    assert not torch.allclose(seen[2], seen[1])


def test_every_image_lies_at_one_pose(begun: tuple[TrainingState, GibbsSampling]) -> None:
    state, sampling = begun
    weight = sampling._sums.denominator.sum()
    for _ in range(6):
        sampling.step(state)
    # Fewer frequencies are compared in the first band than random poses were added at.
    power = state.weighted(MEMBERS, sampling.ground.band)
    inside = sampling.ground.band.within(sampling.plan.first_radius)
    wanted = weight * power.at(inside).power.sum() / power.power.sum()
    torch.testing.assert_close(sampling._sums.denominator.sum(), wanted, rtol=1e-3, atol=0)


@pytest.mark.parametrize("strength", [300.0, 0.0])
def test_poses_are_drawn_by_what_images_say(generator: torch.Generator, strength: float) -> None:
    """Where they say all, on the next finer grid and at its shifts; where they say nothing, from anywhere."""
    lattice, band, prior = Lattice(24, 6), Band(24, 5), ShiftPrior(4.0, 6.0)
    density = torch.randn(2, *lattice.shape, generator=generator) * particle_mask(lattice)
    maps, num_images = to_frequency(density), 40
    level = level_for_radius(band.radius) + 1
    wanted = torch.randint(num_rotations(level), (num_images,), generator=generator)
    rotation, class_index = grid_rotations(level, wanted), torch.arange(num_images) % 2
    slices = LatticeSlices(lattice, maps, GridSlicers()).of_candidates(band, class_index, rotation)
    shifts = prior.grid(shift_step(level, band.box_size))
    shift = shifts[torch.randint(len(shifts), (num_images,), generator=generator)]
    power = torch.full_like(slices, strength / float(slices.square().sum(1).mean()))
    score = shift_hartley(power * slices, band.frequencies, shift)
    images = WeightedImages(score[:, None], power[:, None], torch.zeros(num_images))
    found = GridComparer(lattice).draw(maps, images, band, prior, 0.0, generator)
    if strength:
        # Slices of noise between the points of the first grid may look like others there.
        is_exact = geodesic_angle(found.rotation, rotation) < 1e-2
        assert float(is_exact.float().mean()) > 0.5
        assert torch.equal(found.class_index[is_exact], class_index[is_exact])
        torch.testing.assert_close(
            found.slices[is_exact], slices[is_exact], rtol=0, atol=1e-3 * float(slices.abs().max())
        )
        moved_back = (power * slices)[is_exact]
        torch.testing.assert_close(found.score[is_exact], moved_back, rtol=0, atol=1e-2 * float(moved_back.abs().max()))
    else:
        assert len(found.rotation.unique(dim=0)) > 30 and 8 < int(found.class_index.sum()) < 32
        torch.testing.assert_close(found.log_evidence, torch.zeros(num_images, 2), rtol=0, atol=1e-3)
