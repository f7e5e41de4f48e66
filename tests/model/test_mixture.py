import torch

from cryohydra.fields import MLPFieldConfig
from cryohydra.model import Mixture, build_mixture

BOX = 16


def mixture(num_classes: int, z_dim: int = 2) -> Mixture:
    return build_mixture(
        MLPFieldConfig(width=16, pe_dim=8),
        num_classes=num_classes,
        box_size=BOX,
        z_dim=z_dim,
        generator=torch.Generator().manual_seed(0),
    )


def inputs(num_classes: int, generator: torch.Generator, z_dim: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    frequencies = torch.rand(3, 4, num_classes, 5, 3, generator=generator) - 0.5
    return frequencies, torch.randn(3, num_classes, z_dim, generator=generator)


def test_one_class_equals_its_field(generator: torch.Generator) -> None:
    model, (frequencies, z) = mixture(1), inputs(1, generator)
    single = model.field(0)(frequencies[:, :, 0], z[:, None, 0].expand(-1, 4, -1))
    torch.testing.assert_close(model(frequencies, z), single[:, :, None])


def test_permuted_classes_permute_outputs(generator: torch.Generator) -> None:
    model, (frequencies, z) = mixture(3), inputs(3, generator)
    order = [2, 0, 1]
    permuted = Mixture([model.field(k) for k in order], BOX)
    torch.testing.assert_close(permuted(frequencies[:, :, order], z[:, order]), model(frequencies, z)[:, :, order])


def test_classes_are_drawn_apart(generator: torch.Generator) -> None:
    model, (frequencies, z) = mixture(2), inputs(2, generator)
    same = frequencies[:, :, :1].expand(-1, -1, 2, -1, -1), z[:, :1].expand(-1, 2, -1)
    first, second = model(*same).unbind(2)
    assert not torch.allclose(first, second)


def test_an_empty_z_is_rigid(generator: torch.Generator) -> None:
    model, (frequencies, z) = mixture(2, z_dim=0), inputs(2, generator, z_dim=0)
    assert model(frequencies, z).shape == (3, 4, 2, 5)
    assert model.map(1, torch.zeros(0)).shape == (BOX, BOX, BOX)
