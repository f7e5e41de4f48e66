"""What every registered field promises."""

import pytest
import torch

from cryohydra.fields import FIELDS, Field

BOX = 16


def build(name: str, z_dim: int, seed: int = 0) -> Field:
    generator = torch.Generator().manual_seed(seed)
    field = FIELDS[name]().build(box_size=BOX, z_dim=z_dim, generator=generator)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return field


def z_dims(name: str) -> list[int]:
    return [0] if name == "voxel" else [0, 3]


CASES = [(name, z_dim) for name in FIELDS for z_dim in z_dims(name)]


def frequencies(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, 3, generator=torch.Generator().manual_seed(1)) - 0.5


@pytest.mark.parametrize(("name", "z_dim"), CASES)
@pytest.mark.parametrize("batch", [(), (2,), (2, 3), (0,)])
def test_leading_axes_are_kept(name: str, z_dim: int, batch: tuple[int, ...]) -> None:
    assert build(name, z_dim)(frequencies(*batch, 5), torch.zeros(*batch, z_dim)).shape == (*batch, 5)


@pytest.mark.parametrize(("name", "z_dim"), CASES)
def test_mirrored_it_has_the_values_of_the_opposite_frequencies(name: str, z_dim: int) -> None:
    field, points, z = build(name, z_dim), frequencies(50), torch.ones(z_dim)
    opposite = field(-points, z).detach()
    assert not torch.allclose(opposite, field(points, z), atol=1e-2)
    field.mirror()
    torch.testing.assert_close(field(points, z), opposite, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "z_dim"), CASES)
def test_at_known_frequencies_it_is_the_same_field(name: str, z_dim: int) -> None:
    field, points = build(name, z_dim), frequencies(50)
    field.set_radial_amplitude(torch.linspace(2, 1, BOX // 2 + 1))
    at_points = field.at(points)
    for seed in range(2):
        z = torch.randn(z_dim, generator=torch.Generator().manual_seed(seed))
        # Float32 sums are taken in another order.
        torch.testing.assert_close(at_points(z), field(points, z), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "z_dim"), CASES)
def test_particles_are_independent(name: str, z_dim: int) -> None:
    field, points = build(name, z_dim), frequencies(4, 5)
    z = torch.randn(4, z_dim, generator=torch.Generator().manual_seed(2))
    together = field(points, z)
    alone = torch.stack([field(points[i], z[i]) for i in range(4)])
    # Float32 sums are taken in another order.
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "z_dim"), CASES)
def test_values_and_gradients_are_finite_anywhere(name: str, z_dim: int) -> None:
    field = build(name, z_dim)
    field.set_radial_amplitude(torch.linspace(100, 0, BOX // 2 + 1))
    corners = torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5], [-0.5, 0.5, -0.5], [0.5, 0, 0], [3.0, -2.0, 1.0]])
    points, z = corners.requires_grad_(), torch.zeros(z_dim, requires_grad=True)
    values = field(points, z)
    values.square().sum().backward()
    assert values.isfinite().all()
    for tensor in [points, z, *field.parameters()]:
        assert tensor.grad is None or tensor.grad.isfinite().all()
    assert all(parameter.grad is not None for parameter in field.parameters())


@pytest.mark.parametrize(("name", "z_dim"), CASES)
def test_gradient_in_frequency_is_that_of_the_values(name: str, z_dim: int) -> None:
    field = build(name, z_dim).double()
    field.set_radial_amplitude(torch.linspace(2, 1, BOX // 2 + 1).double())
    points, z = 0.8 * frequencies(6).double(), torch.zeros(z_dim, dtype=torch.double)
    direction, step = frequencies(6).double(), 1e-7
    points.requires_grad_()
    (gradient,) = torch.autograd.grad(field(points, z).sum(), points)
    with torch.no_grad():
        change = (field(points + step * direction, z) - field(points - step * direction, z)).sum() / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), change, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "z_dim"), CASES)
def test_a_seed_repeats_and_leaves_the_global_state_alone(name: str, z_dim: int) -> None:
    state = torch.get_rng_state()
    first, second = build(name, z_dim), build(name, z_dim)
    assert torch.equal(torch.get_rng_state(), state)
    points, z = frequencies(5), torch.zeros(z_dim)
    assert torch.equal(first(points, z), second(points, z))


@pytest.mark.parametrize(("name", "z_dim"), CASES)
def test_saving_keeps_the_values(name: str, z_dim: int) -> None:
    first, second = build(name, z_dim, seed=0), build(name, z_dim, seed=1)
    first.set_radial_amplitude(torch.linspace(2, 1, BOX // 2 + 1))
    second.load_state_dict(first.state_dict())
    points, z = frequencies(5), torch.zeros(z_dim)
    assert torch.equal(first(points, z), second(points, z))


# A hint to training: a field that needs none may leave it aside, as the example in the docs does.
@pytest.mark.parametrize(("name", "z_dim"), [case for case in CASES if case[0] in ("mlp", "voxel")])
def test_values_scale_with_the_radial_amplitude(name: str, z_dim: int) -> None:
    field, points, z = build(name, z_dim), frequencies(5), torch.zeros(z_dim)
    before = field(points, z)
    field.set_radial_amplitude(torch.full((BOX // 2 + 1,), 3.0))
    torch.testing.assert_close(field(points, z), 3 * before)


@pytest.mark.parametrize("name", list(FIELDS))
def test_a_config_survives_plain_values(name: str) -> None:
    config = FIELDS[name]()
    assert FIELDS[name](**config.model_dump()) == config


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "z_dim"), CASES)
def test_a_field_follows_its_inputs_to_the_gpu(name: str, z_dim: int) -> None:
    field, points, z = build(name, z_dim), frequencies(5), torch.zeros(z_dim)
    moved = field(points, z).detach(), field.cuda()(points.cuda(), z.cuda()).detach().cpu()
    # Products on the GPU may be rounded to TF32.
    torch.testing.assert_close(*moved, rtol=1e-2, atol=1e-3)
