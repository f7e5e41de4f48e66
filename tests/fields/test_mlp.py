import pytest
import torch

from cryohydra.errors import InputMismatch
from cryohydra.fields import MLPFieldConfig


def test_output_starts_near_zero(generator: torch.Generator) -> None:
    field = MLPFieldConfig(width=64).build(box_size=32, z_dim=2, generator=generator)
    values = field(torch.rand(1000, 3, generator=generator) - 0.5, torch.zeros(2))
    assert values.abs().max() < 0.05


@pytest.mark.parametrize("z_encoding", ["none", "geom"])
def test_z_deforms_the_density(z_encoding: str, generator: torch.Generator) -> None:
    config = MLPFieldConfig.model_validate({"width": 32, "z_encoding": z_encoding})
    field = config.build(box_size=32, z_dim=2, generator=generator)
    points = torch.rand(50, 3, generator=generator) - 0.5
    z = torch.tensor([[0.0, 0.0], [1.0, -1.0]])
    first, second = field(points.expand(2, -1, -1), z)
    assert not torch.allclose(first, second, atol=1e-6)


def test_a_rigid_field_equals_a_deforming_one_that_ignores_z(generator: torch.Generator) -> None:
    rigid = MLPFieldConfig(width=32).build(box_size=32, z_dim=0, generator=generator)
    deforming = MLPFieldConfig(width=32).build(box_size=32, z_dim=2, generator=generator)
    deforming.load_state_dict({**rigid.state_dict(), "from_z": torch.zeros(32, 2)})
    points = torch.rand(50, 3, generator=generator) - 0.5
    torch.testing.assert_close(rigid(points, torch.zeros(0)), deforming(points, torch.ones(2)))


def test_amplitude_is_interpolated_between_radii(generator: torch.Generator) -> None:
    field = MLPFieldConfig(width=32).build(box_size=8, z_dim=0, generator=generator)
    points = torch.tensor([[0.0, 0.0, 1.5 / 8]])
    before = field(points, torch.zeros(0))
    field.set_radial_amplitude(torch.tensor([9.0, 4.0, 2.0, 1.0, 1.0]))
    torch.testing.assert_close(field(points, torch.zeros(0)), 3 * before)
    assert field.radial_amplitude.tolist() == [9.0, 4.0, 2.0, 1.0, 1.0]


def test_amplitudes_of_another_box_are_refused(generator: torch.Generator) -> None:
    field = MLPFieldConfig(width=32).build(box_size=8, z_dim=0, generator=generator)
    with pytest.raises(InputMismatch, match="give 5"):
        field.set_radial_amplitude(torch.ones(4))


def test_rounded_hidden_layers_change_coefficients_by_hundredths() -> None:
    generator = torch.Generator().manual_seed(0)
    field = MLPFieldConfig(width=64).build(box_size=32, z_dim=2, generator=generator)
    points, z = torch.rand(2000, 3, generator=generator) - 0.5, torch.tensor([1.0, -1.0])
    exact, rounded = field.at(points)(z), field.at(points, torch.bfloat16)(z)
    # Eight bits of mantissa, through five layers.
    assert 0 < (rounded - exact).std() < 0.03 * exact.std()
    assert rounded.dtype == torch.float32
