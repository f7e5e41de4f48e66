import pytest
import torch

from cryohydra.errors import UserError
from cryohydra.fields import VoxelFieldConfig, render_hartley


def test_a_voxel_field_is_its_lattice(generator: torch.Generator) -> None:
    field = VoxelFieldConfig().build(box_size=8, z_dim=0, generator=generator)
    with torch.no_grad():
        field.coefficients.copy_(torch.randn(9, 9, 9, generator=generator))
    lattice = render_hartley(field, torch.zeros(0), 8, 3)
    expected = field.coefficients.detach()[1:-1, 1:-1, 1:-1]
    inside = lattice != 0
    torch.testing.assert_close(lattice[inside], expected[inside], rtol=1e-4, atol=1e-5)
    assert inside.sum() == 123


def test_between_nodes_it_is_linear(generator: torch.Generator) -> None:
    field = VoxelFieldConfig().build(box_size=8, z_dim=0, generator=generator)
    with torch.no_grad():
        field.coefficients[4, 4, 5] = 1.0  # one Fourier pixel along x
    values = field(torch.tensor([[0.75, 0, 0], [1, 0.5, 0], [1, 0, 1]]) / 8, torch.zeros(0))
    torch.testing.assert_close(values, torch.tensor([0.75, 0.5, 0.0]))


def test_a_voxel_field_does_not_deform(generator: torch.Generator) -> None:
    with pytest.raises(UserError, match="z_dim is 4"):
        VoxelFieldConfig().build(box_size=8, z_dim=4, generator=generator)
