import pytest
import torch

from cryohydra.fields import MLPFieldConfig, VoxelFieldConfig, render_hartley
from cryohydra.fields.render import lattice_frequencies
from cryohydra.fourier.hartley import volume_to_hartley
from cryohydra.model.fitting import fit_field_to_lattice, measure_radial_amplitude

BOX, RADIUS = 24, 8


def blobs(generator: torch.Generator) -> torch.Tensor:
    """A lattice of a smooth density that lies within a quarter of the box."""
    axis = torch.arange(float(BOX)) - BOX // 2
    centres = (torch.rand(30, 3, generator=generator) - 0.5) * BOX / 4
    x, y, z = torch.exp(-(axis - centres.T[..., None]).square() / 2)
    hartley = volume_to_hartley(torch.einsum("mz,my,mx->zyx", z, y, x))
    centre = slice(BOX // 2 - RADIUS, BOX // 2 + RADIUS + 1)
    return hartley[centre, centre, centre].clone()


@pytest.mark.parametrize("z_dim", [0, 2])
def test_a_network_takes_over_a_map(z_dim: int, generator: torch.Generator) -> None:
    target = blobs(generator)
    field = MLPFieldConfig(width=64).build(box_size=BOX, z_dim=z_dim, generator=generator)
    z = torch.zeros(z_dim)
    error = fit_field_to_lattice(
        field, target, torch.ones_like(target), BOX, RADIUS, z=z, steps=200, generator=generator
    )
    _, inside = lattice_frequencies(BOX, RADIUS)
    rendered = render_hartley(field, z, BOX, RADIUS)
    left = (rendered - target)[inside].norm() / target[inside].norm()
    assert left < 0.1
    assert error == pytest.approx(left.item(), rel=1e-3)


def test_a_network_takes_over_how_a_map_varies(generator: torch.Generator) -> None:
    target, component = blobs(generator), blobs(generator)[None]
    field = MLPFieldConfig(width=64).build(box_size=BOX, z_dim=1, generator=generator)
    conformations = torch.randn(200, 1, generator=generator)
    fit_field_to_lattice(
        field,
        target,
        torch.ones_like(target),
        BOX,
        RADIUS,
        z=torch.zeros(1),
        components=component,
        conformations=conformations,
        steps=300,
        generator=generator,
    )
    _, inside = lattice_frequencies(BOX, RADIUS)
    for z in (-1.0, 1.0):
        rendered = render_hartley(field, torch.tensor([z]), BOX, RADIUS)
        expected = target + z * component[0]
        assert (rendered - expected)[inside].norm() / expected[inside].norm() < 0.15


def test_a_network_takes_over_shells_that_hold_little_energy(generator: torch.Generator) -> None:
    """Maps fall off by orders of magnitude, and are known far down there."""
    axis = torch.arange(float(2 * RADIUS + 1)) - RADIUS
    distance = (axis[:, None, None].square() + axis[:, None].square() + axis.square()).sqrt()
    target = blobs(generator) * 10.0 ** (-3 * distance / RADIUS)
    field = MLPFieldConfig(width=64).build(box_size=BOX, z_dim=0, generator=generator)
    fit_field_to_lattice(
        field, target, torch.ones_like(target), BOX, RADIUS, z=torch.zeros(0), steps=300, generator=generator
    )
    outer = distance.round() == RADIUS
    outer &= distance <= RADIUS
    rendered = render_hartley(field, torch.zeros(0), BOX, RADIUS)
    assert torch.corrcoef(torch.stack([rendered[outer], target[outer]]))[0, 1] > 0.9
    inner = distance < RADIUS / 2
    assert (rendered - target)[inner].norm() < 0.1 * target[inner].norm()


def test_a_voxel_field_takes_over_a_map(generator: torch.Generator) -> None:
    target = blobs(generator)
    field = VoxelFieldConfig().build(box_size=BOX, z_dim=0, generator=generator)
    weight = torch.ones_like(target)
    error = fit_field_to_lattice(
        field, target, weight, BOX, RADIUS, z=torch.zeros(0), steps=400, lr=0.1, generator=generator
    )
    assert error < 0.05


def test_points_without_weight_do_not_matter(generator: torch.Generator) -> None:
    target = blobs(generator)
    weight = torch.ones_like(target)
    spoilt, weight[:, :, :4] = target.clone(), 0
    spoilt[:, :, :4] = 1e3
    field = MLPFieldConfig(width=64).build(box_size=BOX, z_dim=0, generator=generator)
    error = fit_field_to_lattice(field, spoilt, weight, BOX, RADIUS, z=torch.zeros(0), steps=200, generator=generator)
    assert error < 0.1


def test_nothing_known_leaves_the_field_alone(generator: torch.Generator) -> None:
    nothing = torch.zeros(17, 17, 17)
    field = MLPFieldConfig(width=64).build(box_size=BOX, z_dim=0, generator=generator)
    before = field.from_frequency.clone()
    assert fit_field_to_lattice(field, nothing, nothing, BOX, RADIUS, z=torch.zeros(0), generator=generator) == 0
    assert torch.equal(field.from_frequency, before)


def test_amplitude_of_unknown_shells_is_that_of_the_nearest(generator: torch.Generator) -> None:
    frequencies, _ = lattice_frequencies(16, 6)
    shell = (frequencies.norm(dim=-1) * 16).round()
    values = torch.where(shell % 2 == 0, 1.0, -1.0) * (10 - shell)
    weight = ((shell >= 2) & (shell <= 5)).float()
    amplitude = measure_radial_amplitude(frequencies, values, weight, 16)
    torch.testing.assert_close(amplitude, torch.tensor([8.0, 8, 8, 7, 6, 5, 5, 5, 5]))
