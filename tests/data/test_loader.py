"""Images on their way to the model."""

from dataclasses import fields

import pytest
import torch

from cryohydra.data import (
    ArraySource,
    Normalisation,
    PreparedImages,
    measure_normalisation,
    shuffled_batches,
)
from cryohydra.data.loader import soft_window
from cryohydra.fourier.band import Band
from cryohydra.physics.ctf import Optics


class Counting(ArraySource):
    """Counts the images read."""

    num_read = 0

    def images(self, index: torch.Tensor) -> torch.Tensor:
        self.num_read += len(index)
        return super().images(index)


@pytest.fixture
def source(generator: torch.Generator) -> Counting:
    images = 5 + 2 * torch.randn(40, 2, 16, 16, generator=generator)
    ones = torch.ones(40, 2)
    return Counting(images, Optics(**{field.name: ones for field in fields(Optics)} | {"group": ones.long()}), 1.0)


def test_normalisation_is_that_of_the_pixels(source: Counting, generator: torch.Generator) -> None:
    found = measure_normalisation(source, generator=generator)
    everything = source.images(torch.arange(40))
    assert found.mean == pytest.approx(everything.mean().item(), abs=1e-5)
    assert found.std == pytest.approx(everything.std().item(), rel=1e-4)
    source.num_read = 0
    measure_normalisation(source, max_images=20, generator=generator)
    assert source.num_read <= 11


def test_noise_keeps_its_variance(source: Counting) -> None:
    band = Band(16, 7)
    prepared = PreparedImages(source, Normalisation(5.0, 2.0), band)
    coefficients = band.gather(prepared.hartley(torch.arange(40)))
    assert coefficients.shape == (40, 2, len(band))
    # 80 images of 148 coefficients: one per cent of standard error.
    assert coefficients.var().item() == pytest.approx(1, abs=0.05)


def test_the_window_keeps_the_middle_and_clears_the_corners() -> None:
    window = soft_window(32, 0.5)
    assert window[16, 16] == 1 and window[16, 23] == 1 and window[0, 0] == 0 and window[16, 0] == 0
    assert ((window >= 0) & (window <= 1)).all() and torch.equal(window, window.T)
    assert (window[16, 16:].diff() <= 0).all()


def test_batches_hold_everyone_once(generator: torch.Generator) -> None:
    batches = list(shuffled_batches(10, 4, generator))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert sorted(torch.cat(batches).tolist()) == list(range(10))
    repeated = list(shuffled_batches(10, 4, torch.Generator().manual_seed(0)))
    assert all(torch.equal(a, b) for a, b in zip(batches, repeated, strict=True))
