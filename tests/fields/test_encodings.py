import math

import torch

from cryohydra.fields.encodings import GaussianFourierFeatures, GeometricEncoding


def test_points_spread_as_asked(generator: torch.Generator) -> None:
    features = GaussianFourierFeatures(4000, spread_px=5.0, generator=generator)
    # The standard error of a standard deviation of 12,000 numbers is below 1 %.
    assert math.isclose(features.points_px.std().item(), 5.0, rel_tol=0.03)


def test_a_feature_is_a_wave_over_frequency(generator: torch.Generator) -> None:
    features = GaussianFourierFeatures(3, spread_px=5.0, generator=generator)
    point = features.points_px[1]
    frequencies = torch.rand(7, 3, generator=generator) - 0.5
    encoded = features(frequencies)
    torch.testing.assert_close(encoded[:, 3 + 1], torch.cos(2 * math.pi * frequencies @ point), atol=1e-4, rtol=1e-4)
    assert encoded.shape == (7, features.num_features)


def test_geometric_encoding_keeps_z_and_tells_close_ones_apart() -> None:
    encoding = GeometricEncoding(2)
    z = torch.tensor([[0.1, -0.2], [0.15, -0.2]])
    encoded = encoding(z)
    assert encoded.shape == (2, encoding.num_features)
    assert torch.equal(encoded[:, :2], z)
    assert (encoded[0] - encoded[1]).norm() > 5 * (z[0] - z[1]).norm()


def test_geometric_encoding_of_nothing_is_nothing() -> None:
    assert GeometricEncoding(0)(torch.zeros(3, 0)).shape == (3, 0)
