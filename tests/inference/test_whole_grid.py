"""Images beside a whole grid, told by a quarter of its slices."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from cryohydra.fourier.band import Band
from cryohydra.fourier.lattice import GridSlicer, Lattice
from cryohydra.fourier.mirrors import Mirrors, mirrors_of
from cryohydra.geometry.so3_grid import all_rotations
from cryohydra.inference.pairs import ClassRuns, ImagesOfClasses
from cryohydra.inference.whole_grid import WholeGridComparison

LEVEL, BAND = 1, Band(24, 6)
RUNS = ClassRuns([3, 0, 1])
NUM_IMAGES, NUM_CLASSES = 4, 3


def slices_of_noise(generator: torch.Generator) -> torch.Tensor:
    lattice = Lattice(BAND.box_size, BAND.radius)
    volumes = torch.randn(NUM_CLASSES, *lattice.shape, generator=generator)
    return GridSlicer(lattice, BAND, all_rotations(LEVEL)).cut(volumes)


def images_of_noise(num_shifts: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    score = 0.3 * torch.randn(NUM_IMAGES, num_shifts, len(BAND), generator=generator)
    power = 0.1 * torch.rand(NUM_IMAGES, len(BAND), generator=generator)
    return score, power, torch.log_softmax(torch.randn(num_shifts, generator=generator), dim=0)


def comparison_of(slices: torch.Tensor, mirrors: Mirrors, dtype: torch.dtype) -> WholeGridComparison:
    return WholeGridComparison(slices[:, mirrors.rotation_index[0]], mirrors, dtype)


# Log likelihoods lie within 8 of zero: six digits in float32, one part in 256 of each of four products in bfloat16.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 0.2)])
def test_it_is_what_all_slices_say_one_by_one(dtype: torch.dtype, tolerance: float, generator: torch.Generator) -> None:
    slices = slices_of_noise(generator)
    score, power, log_prior = images_of_noise(5, generator)
    its_slices = slices[RUNS.class_index(slices.device)]
    expected = torch.einsum("bsp,bqp->bsq", score, its_slices) + log_prior[:, None]
    expected -= 0.5 * torch.einsum("bp,bqp->bq", power, its_slices.square())[:, None]

    found = comparison_of(slices, mirrors_of(BAND, LEVEL), dtype).compare(score, power, log_prior, RUNS)
    torch.testing.assert_close(found.log_mass, expected.logsumexp(1), atol=tolerance, rtol=0)
    torch.testing.assert_close(found.peak, expected.amax(1), atol=tolerance, rtol=0)
    rotation = torch.randint(slices.shape[1], (NUM_IMAGES, 7), generator=generator)
    at_shift = expected.take_along_dim(rotation[:, None], 2).movedim(1, 2)
    reached = at_shift.gather(2, found.best_shift(rotation)[..., None])[..., 0]
    torch.testing.assert_close(reached, at_shift.amax(2), atol=tolerance, rtol=0)


def assert_fused_is_the_same(device: torch.device, dtype: torch.dtype, tolerance: float) -> None:
    """The kernel against products of matrices; more shifts than it works on at a time, and fewer."""
    generator = torch.Generator().manual_seed(0)
    mirrors = mirrors_of(Band(BAND.box_size, BAND.radius, device), LEVEL)
    comparison = comparison_of(slices_of_noise(generator).to(device), mirrors, dtype)
    for num_shifts in (5, 70):
        images = [part.to(device) for part in images_of_noise(num_shifts, generator)]
        found = []
        for is_fused in (False, True):
            comparison._is_fused = is_fused
            found.append(comparison.compare(*images, RUNS))
        plain, fused = found
        torch.testing.assert_close(fused.log_mass, plain.log_mass, atol=tolerance, rtol=0)
        torch.testing.assert_close(fused.peak, plain.peak, atol=tolerance, rtol=0)
        every = torch.arange(plain.peak.shape[1], device=device).expand(NUM_IMAGES, -1)
        # Where two shifts are as good, either may be told.
        assert (fused.best_shift(every) == plain.best_shift(every)).float().mean() > 0.99


@pytest.mark.gpu
@pytest.mark.skipif(find_spec("triton") is None, reason="no Triton")
def test_the_kernel_says_the_same() -> None:
    assert_fused_is_the_same(torch.device("cuda"), torch.bfloat16, 0.05)


@pytest.mark.skipif(find_spec("triton") is None, reason="no Triton")
def test_the_kernel_says_the_same_where_it_is_interpreted() -> None:
    """In a process of its own: Triton decides when it is imported whether it compiles."""
    call = "torch.device('cpu'), torch.float32, 1e-3"
    code = f"import torch, runpy; runpy.run_path({__file__!r})['assert_fused_is_the_same']({call})"
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_pairs_of_images_and_classes_go_class_by_class() -> None:
    is_asked = torch.tensor([[True, False, True], [True, False, False]])
    pairs = ImagesOfClasses.asked(is_asked)
    assert pairs.image.tolist() == [0, 1, 0]
    assert pairs.runs.class_index(is_asked.device).tolist() == [0, 0, 2]
    assert pairs.runs.within(slice(1, 3)).counts == [1, 0, 1]
    every = ImagesOfClasses.all(2, 2, is_asked.device)
    assert every.image.tolist() == [0, 1, 0, 1]
    assert every.runs.counts == [2, 2]
