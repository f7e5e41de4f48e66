import pytest
import torch

from cryohydra.model.encoder import ConvolutionalEncoder


@pytest.mark.parametrize("is_variational", [False, True])
@pytest.mark.parametrize(("box_size", "resolution", "kernel_size"), [(24, None, 3), (30, 16, 5), (24, 64, 3)])
def test_shapes(
    box_size: int, resolution: int | None, kernel_size: int, is_variational: bool, generator: torch.Generator
) -> None:
    encoder = ConvolutionalEncoder(
        box_size=box_size, num_classes=3, z_dim=2, generator=generator, channels=4, kernel_size=kernel_size,
        resolution=resolution, is_variational=is_variational,
    )  # fmt: skip
    found = encoder(torch.randn(5, 2, box_size, box_size, generator=generator))
    assert found.mean.shape == (5, 3, 2)
    assert (found.log_std is not None) == is_variational
    assert found.mean.std() < 1


def test_the_order_of_tilts_does_not_matter(generator: torch.Generator) -> None:
    encoder = ConvolutionalEncoder(box_size=16, num_classes=1, z_dim=2, generator=generator, channels=4)
    images = torch.randn(3, 4, 16, 16, generator=generator)
    torch.testing.assert_close(encoder(images).mean, encoder(images.flip(1)).mean, atol=1e-5, rtol=1e-4)


def test_nothing_is_read_for_a_rigid_class(generator: torch.Generator) -> None:
    encoder = ConvolutionalEncoder(box_size=16, num_classes=2, z_dim=0, generator=generator, channels=4)
    assert encoder(torch.randn(3, 1, 16, 16, generator=generator)).mean.shape == (3, 2, 0)


def test_it_learns_how_far_a_blob_is_from_the_centre(generator: torch.Generator) -> None:
    axis = torch.arange(16.0) - 8
    distance = torch.rand(64, generator=generator) * 4
    blob = torch.exp(-((axis - distance[:, None]) ** 2) / 8)
    images = 3 * blob[:, None, None, :] * torch.exp(-(axis**2) / 8)[:, None]
    encoder = ConvolutionalEncoder(box_size=16, num_classes=1, z_dim=1, generator=generator, depth=3, channels=8)
    optimiser = torch.optim.Adam(encoder.parameters(), lr=1e-3)
    target = distance - distance.mean()
    for _ in range(100):
        loss = (encoder(images).mean[:, 0, 0] - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1 * target.var()


def test_a_seed_repeats_and_leaves_the_global_state_alone() -> None:
    state = torch.get_rng_state()
    pair = [
        ConvolutionalEncoder(box_size=16, num_classes=1, z_dim=2, generator=torch.Generator().manual_seed(0))
        for _ in range(2)
    ]
    assert torch.equal(torch.get_rng_state(), state)
    images = torch.ones(1, 1, 16, 16)
    assert torch.equal(pair[0](images).mean, pair[1](images).mean)
