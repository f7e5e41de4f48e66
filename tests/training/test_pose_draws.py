"""Draws of poses: by what images say, wherever it lies, and whatever few poses are looked at in each."""

import math
from dataclasses import dataclass

import pytest
import torch

from cryohydra._typing import Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.hartley import shift_hartley
from cryohydra.fourier.lattice import Lattice, to_frequency
from cryohydra.geometry.rotations import geodesic_angle, random_rotations
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.reconstruction import particle_mask
from cryohydra.inference.shift_prior import ShiftPrior
from cryohydra.inference.slices import GridSlicers, LatticeSlices
from cryohydra.training.pose_draws import DrawnPoses, Placement, TurnedGrid, draw_rows, log_evidence_on_grid
from cryohydra.training.team import ALONE, SharedBatch

NUM_IMAGES = 40
LATTICE, BAND, PRIOR = Lattice(24, 6), Band(24, 5), ShiftPrior(2.0, 4.0)


@dataclass
class Made:
    """Images of two random densities at known poses."""

    source: LatticeSlices
    images: WeightedImages
    truth: Placement
    generator: torch.Generator

    def grid(self, shift_prior: ShiftPrior = PRIOR) -> TurnedGrid:
        return TurnedGrid(
            self.source, self.images, BAND, shift_prior, 1, SharedBatch(ALONE, NUM_IMAGES, self.generator)
        )

    def draw(self, before: Placement, log_prior: Tensor | None = None, shift_prior: ShiftPrior = PRIOR) -> DrawnPoses:
        prior = torch.zeros(NUM_IMAGES, 2) if log_prior is None else log_prior
        return self.grid(shift_prior).draw(before, prior, balance=0.0)

    def anywhere(self) -> Placement:
        classes = torch.randint(2, (NUM_IMAGES,), generator=self.generator)
        return Placement(classes, random_rotations(NUM_IMAGES, self.generator), torch.zeros(NUM_IMAGES, 2))


def made(strength: float) -> Made:
    generator = torch.Generator().manual_seed(0)
    # Small enough for a grid of 15 degrees to tell all of it.
    blob = (-(LATTICE.real_space_radius_px() / 3.5).square()).exp() * particle_mask(LATTICE)
    density = torch.randn(2, *LATTICE.shape, generator=generator) * blob
    source = LatticeSlices.of_maps(LATTICE, to_frequency(density), GridSlicers())
    class_index, rotation = torch.arange(NUM_IMAGES) % 2, random_rotations(NUM_IMAGES, generator)
    shift_px = torch.randn(NUM_IMAGES, 2, generator=generator)
    slices = source.of_candidates(BAND, class_index, rotation)
    power = torch.full_like(slices, strength / float(slices.square().sum(1).mean()))
    score = shift_hartley(power * slices, BAND.frequencies, shift_px)
    images = WeightedImages(score[:, None], power[:, None], torch.zeros(NUM_IMAGES))
    return Made(source, images, Placement(class_index, rotation, shift_px), generator)


def test_clear_images_find_their_poses_and_stay_there() -> None:
    clear = made(400.0)
    placement = clear.anywhere()
    for _ in range(60):
        drawn_poses = clear.draw(placement)
        placement = drawn_poses.placement
    is_right = placement.class_index == clear.truth.class_index
    angle = torch.rad2deg(geodesic_angle(placement.rotation, clear.truth.rotation))
    off_px = (placement.shift_px - clear.truth.shift_px).norm(dim=1)
    assert float(is_right.float().mean()) > 0.9
    assert float(angle[is_right].median()) < 25 and float(off_px[is_right].median()) < 1.0
    # What is moved back lies where the slice is.
    score = shift_hartley(clear.images.score[:, 0, None], BAND.frequencies, -drawn_poses.near_shifts)
    score = torch.einsum("bs,bsp->bp", drawn_poses.of_shift, score)
    alike = torch.nn.functional.cosine_similarity(score, clear.images.power[:, 0] * drawn_poses.slices)
    assert float(alike[is_right].median()) > 0.8


def test_images_that_say_nothing_go_anywhere() -> None:
    silent = made(0.0)
    placement = silent.anywhere()
    seen = []
    for _ in range(25):
        placement = silent.draw(placement).placement
        seen.append(placement)
    torch.testing.assert_close(silent.grid().log_evidence, torch.zeros(NUM_IMAGES, 2), rtol=0, atol=1e-3)
    classes = torch.cat([one.class_index for one in seen])
    assert 0.4 < float(classes.float().mean()) < 0.6
    directions = torch.cat([one.rotation[:, 2] for one in seen])
    assert float(directions.mean(0).norm()) < 0.1


@pytest.mark.parametrize("prior", [PRIOR, ShiftPrior(0.5, 4.0)], ids=["wide", "narrower than a step"])
def test_shifts_of_images_that_say_nothing_lie_as_their_prior_says(prior: ShiftPrior) -> None:
    """But for what they lean to the middle."""
    silent = made(0.0)
    placement, square = silent.anywhere(), 0.0
    num_draws = 100
    for _ in range(num_draws):
        placement = silent.draw(placement, shift_prior=prior).placement
        square += float(placement.shift_px.square().sum(1).mean()) / num_draws
    assert 0.6 * prior.mean_square_px < square < 1.2 * prior.mean_square_px


def test_each_pose_is_drawn_as_often_as_it_is_likely() -> None:
    """Of images that say a little, whether they lie where they began or are looked for: chance alone decides."""
    faint = made(25.0)
    wanted = torch.softmax(log_evidence_on_grid(faint.source, faint.images, BAND, PRIOR), dim=1)[:, 1]
    placement, found = faint.truth, torch.zeros(NUM_IMAGES)
    num_draws = 120
    for _ in range(num_draws):
        placement = faint.draw(placement).placement
        found += placement.class_index / num_draws
    assert float(wanted.min()) < 0.3 and float(wanted.max()) > 0.7
    # A chain of so many draws strays by a few hundredths.
    assert float((found - wanted).abs().mean()) < 0.08
    assert abs(float((found - wanted).mean())) < 0.08


def test_a_prior_of_classes_counts() -> None:
    faint = made(25.0)
    never = torch.tensor([[0.0, -1e4]]).expand(NUM_IMAGES, 2)
    placement = replace_class(faint.anywhere(), 0)
    for _ in range(5):
        placement = faint.draw(placement, never).placement
        assert int(placement.class_index.sum()) == 0


def replace_class(placement: Placement, class_index: int) -> Placement:
    return Placement(torch.full((NUM_IMAGES,), class_index), placement.rotation, placement.shift_px)


@pytest.mark.parametrize("prior", [PRIOR, ShiftPrior(0.5, 4.0), ShiftPrior(1.0, 1.0)])
def test_evidence_of_turned_grids_is_right_in_the_mean(prior: ShiftPrior) -> None:
    faint = made(25.0)
    exact = log_evidence_on_grid(faint.source, faint.images, BAND, prior)
    grids = torch.stack([faint.grid(prior).log_evidence for _ in range(40)])
    mean = grids.logsumexp(0) - math.log(len(grids))
    assert float((mean - exact).abs().mean()) < 0.1


def test_nothing_is_shifted_where_shifts_are_not_searched() -> None:
    clear = made(100.0)
    none = ShiftPrior(0.0, 0.0)
    at_centre = Placement(clear.truth.class_index, clear.truth.rotation, torch.zeros(NUM_IMAGES, 2))
    found = clear.draw(at_centre, shift_prior=none)
    assert found.near_shifts.shape == (NUM_IMAGES, 1, 2)
    assert float(found.placement.shift_px.abs().max()) < 1e-12 and torch.all(found.of_shift == 1)


def test_rows_are_drawn_by_their_weights(generator: torch.Generator) -> None:
    log_weight = torch.tensor([0.5, 0.0, 0.5]).log().expand(2000, 3)
    index = draw_rows(log_weight, torch.rand(2000, 1, generator=generator))
    assert torch.bincount(index, minlength=3)[1] == 0
    assert float((index == 0).float().mean()) == pytest.approx(0.5, abs=0.05)
