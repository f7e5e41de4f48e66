import math

import pytest
import torch

from cryohydra.fields import Field, LatticeRenderer, MLPFieldConfig, render_hartley, render_map
from cryohydra.fields.render import lattice_frequencies, lattice_to_map
from cryohydra.fourier.hartley import volume_to_hartley

Z = torch.zeros(0)
BLOBS_PX = torch.tensor([[3.0, 0.0, -1.0], [-2.0, 4.0, 2.5]])
WIDTH_PX = 1.5


class Blobs(Field):
    """Gaussians of unit mass: their transform is known everywhere."""

    z_dim = 0

    def __init__(self, box_size: int):
        super().__init__()
        self.box_size = box_size

    def forward(self, frequencies: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        phase = 2 * math.pi * frequencies @ BLOBS_PX.T
        envelope = torch.exp(-2 * (math.pi * WIDTH_PX) ** 2 * frequencies.square().sum(-1))
        return (phase.cos() + phase.sin()).sum(-1) * envelope / self.box_size

    def set_radial_amplitude(self, amplitude: torch.Tensor) -> None:
        pass

    def mirror(self) -> None:
        raise NotImplementedError


def blobs_in_real_space(box_size: int) -> torch.Tensor:
    axis = torch.arange(box_size, dtype=torch.float32) - box_size // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    grid = torch.stack([x, y, z], dim=-1)
    square = (grid[..., None, :] - BLOBS_PX).square().sum(-1)
    return torch.exp(-square / (2 * WIDTH_PX**2)).sum(-1) / (2 * math.pi * WIDTH_PX**2) ** 1.5


# 30 / 2 and 32 / 2 differ in parity, which is where centres slip.
@pytest.mark.parametrize("box_size", [30, 32])
def test_a_rendered_map_is_the_density(box_size: int) -> None:
    expected = blobs_in_real_space(box_size)
    # Blobs of 1.5 px are band-limited to 1e-4 of their height at Nyquist.
    torch.testing.assert_close(render_map(Blobs(box_size), Z, box_size), expected, atol=3e-4 * expected.max(), rtol=0)


def test_positive_density_stays_positive_on_zero_solvent() -> None:
    density = render_map(Blobs(32), Z, 32)
    assert density.min() > -1e-3 * density.max()
    assert density.sum() == pytest.approx(2.0, rel=1e-3)


def test_the_zero_frequency_of_a_field_is_not_looked_at() -> None:
    lattice = render_hartley(Blobs(32), Z, 32, 15)
    before = lattice_to_map(lattice, 32)
    lattice[15, 15, 15] += 100
    torch.testing.assert_close(lattice_to_map(lattice, 32), before, atol=1e-6, rtol=0)


def test_no_axis_of_the_transform_is_lost() -> None:
    hartley = volume_to_hartley(render_map(Blobs(32), Z, 32))
    expected = volume_to_hartley(blobs_in_real_space(32))
    for line in [(16, 16, slice(None)), (16, slice(None), 16), (slice(None), 16, 16)]:
        torch.testing.assert_close(hartley[line], expected[line], atol=1e-4, rtol=1e-2)


@pytest.mark.parametrize("oversampling", [1, 2, 3])
def test_a_finer_lattice_holds_the_coarse_one(oversampling: int) -> None:
    coarse = render_hartley(Blobs(16), Z, 16, 5)
    fine = render_hartley(Blobs(16), Z, 16, 5, oversampling, chunk=100)
    assert fine.shape == (10 * oversampling + 1,) * 3
    torch.testing.assert_close(fine[::oversampling, ::oversampling, ::oversampling], coarse)


def test_a_lattice_is_the_transform_of_the_density_and_zero_outside() -> None:
    lattice = render_hartley(Blobs(32), Z, 32, 10)
    expected = volume_to_hartley(blobs_in_real_space(32))[6:27, 6:27, 6:27]
    frequencies, inside = lattice_frequencies(32, 10)
    torch.testing.assert_close(lattice[inside], expected[inside], atol=1e-5, rtol=1e-3)
    assert lattice[~inside].abs().max() == 0
    assert (frequencies.norm(dim=-1) <= 10 / 32 + 1e-6).all()


def test_rendering_needs_no_gradient() -> None:
    assert not render_hartley(Blobs(16), Z.clone().requires_grad_(), 16, 5).requires_grad


def test_a_renderer_draws_every_conformation_as_if_it_were_the_first() -> None:
    field = MLPFieldConfig(width=32).build(box_size=16, z_dim=2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        field.last.weight.mul_(100)  # fields begin near zero, whatever z
    renderer = LatticeRenderer(field, 16, 5, chunk=100)
    for z in (torch.tensor([1.0, -1.0]), torch.tensor([-2.0, 0.5])):
        # Float32 sums are taken in another order.
        torch.testing.assert_close(renderer.hartley(z), render_hartley(field, z, 16, 5), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(renderer.hartley(torch.zeros(2)), renderer.hartley(torch.ones(2)), atol=1e-2)
