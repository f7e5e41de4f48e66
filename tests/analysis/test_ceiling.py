"""Backprojection with true poses and labels."""

import math

import pytest
import torch

from cryohydra.analysis.ceiling import ceiling_maps
from cryohydra.data.simulated import truth_of
from cryohydra.data.sources import ArraySource
from cryohydra.fourier.fsc import fourier_shell_correlation
from cryohydra.physics.demo_structures import demo_class
from cryohydra.physics.simulation import Imaging, simulate_particles


@pytest.mark.parametrize("tilts", [(0.0,), (0.0, 20.0)])
def test_clean_images_give_the_map_back(generator, tilts):
    classes = [demo_class("spliceosome", 24, 18.0), demo_class("large_subunit", 24, 18.0)]
    angles = tuple(math.radians(angle) for angle in tilts)
    imaging = Imaging(18.0, snr=50.0, shift_std_px=1.5, tilt_angles=angles, junk=0.3)
    made = simulate_particles(classes, imaging, 800, generator)
    truth = truth_of(made)
    maps = ceiling_maps(ArraySource(made.images, made.optics, 18.0), truth)
    for found, true in zip(maps, torch.from_numpy(truth.maps), strict=True):
        # At the two ends the CTF is near zero or the lattice ends.
        assert float(fourier_shell_correlation(found, true)[2:11].min()) > 0.95
        # In the units of the images too, up to the shrinkage and what the images lack at zero frequency.
        scale = float((found * true).sum() / true.square().sum())
        assert scale == pytest.approx(1.0, abs=0.15)
