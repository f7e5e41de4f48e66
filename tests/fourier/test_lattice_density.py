"""Densities and their coefficients on a lattice belong together."""

import torch

from cryohydra.fourier.hartley import volume_to_hartley
from cryohydra.fourier.lattice import Lattice
from cryohydra.fourier.lattice_density import density_on_lattice

D = 24


def test_a_lattice_holds_the_coefficients_and_what_lies_between_them(generator: torch.Generator) -> None:
    density = torch.randn(D, D, D, generator=generator)
    lattice = Lattice(D, 6)
    values = density_on_lattice(lattice, density)
    centre, hartley = lattice.size // 2, volume_to_hartley(density)
    for step in ((0, 0, 0), (1, -2, 3), (0, 5, 0), (-4, 0, 4)):
        on_lattice = values[tuple(centre + 2 * s for s in step)]
        torch.testing.assert_close(on_lattice, hartley[tuple(D // 2 + s for s in step)], atol=1e-3, rtol=1e-4)
    # Half-way along x: the sum over voxels itself.
    phase = 2 * torch.pi * 2.5 / D * (torch.arange(D) - D // 2)
    expected = (density.sum((0, 1)) * (phase.cos() + phase.sin())).sum() / D
    torch.testing.assert_close(values[centre, centre, centre + 5], expected, atol=1e-3, rtol=1e-4)


def test_nothing_is_left_beyond_the_radius(generator: torch.Generator) -> None:
    lattice = Lattice(D, 6)
    values = density_on_lattice(lattice, torch.randn(D, D, D, generator=generator))
    assert float(values[lattice.distance() > 6].abs().max()) == 0
    assert float(values[lattice.distance() <= 6].abs().min()) > 0
