"""What half maps say of a neural map."""

from dataclasses import replace

import pytest
import torch

from cryohydra.analysis.proof import SHARED_POSES, ClassProof, independent_halves, local_correlation, prove_class
from cryohydra.fourier.half_map_fsc import filter_shells
from cryohydra.inference.half_maps import HalfMaps, HalfSets

D, PIXEL_SIZE, KNOWN = 32, 4.0, 9
"""The density below reaches to a shell, and noise takes over there."""
BAND = torch.ones(KNOWN + 1)


def _ball(radius_px: float, at: int = 0) -> torch.Tensor:
    axis = torch.arange(D) - D // 2
    return ((axis[:, None, None].square() + axis[:, None].square() + (axis - at).square()).sqrt() < radius_px).float()


@pytest.fixture
def true(generator: torch.Generator) -> torch.Tensor:
    return filter_shells((1 + torch.randn(D, D, D, generator=generator)) * _ball(8), BAND)


@pytest.fixture
def maps(true: torch.Tensor, generator: torch.Generator) -> HalfMaps:
    halves = torch.stack([true + 0.05 * torch.randn(D, D, D, generator=generator) for _ in "ab"])
    return HalfMaps(halves, halves.mean(0))


def prove(maps: HalfMaps, neural: torch.Tensor) -> ClassProof:
    return prove_class(
        maps,
        neural,
        class_index=0,
        made=SHARED_POSES,
        num_particles=(10.0, 10.0),
        pixel_size_angstrom=PIXEL_SIZE,
    )


def test_a_faithful_map_reaches_what_a_perfect_one_would(maps: HalfMaps, true: torch.Tensor) -> None:
    # In another scale, as of images that were normalised.
    proof = prove(maps, 0.1 * true)
    torch.testing.assert_close(proof.model[2:KNOWN], proof.expected[2:KNOWN], atol=0.05, rtol=0)
    assert proof.invented_from is None
    first, second = proof.sentences(moves=False)
    assert "shared poses, not gold standard" in first
    assert "agrees with the images" in second and "only" not in second


def test_detail_that_images_do_not_bear_out_is_named(
    maps: HalfMaps, true: torch.Tensor, generator: torch.Generator
) -> None:
    fine = torch.randn(D, D, D, generator=generator) * _ball(8)
    fine = filter_shells(fine, (torch.arange(D) > KNOWN + 1).float())
    proof = prove(maps, true + 0.5 * fine)
    assert proof.invented_from is not None
    assert proof.invented_from == pytest.approx(D * PIXEL_SIZE / (KNOWN + 2), rel=0.12)
    assert "does not bear out" not in proof.sentences(moves=False)[1]
    assert "do not bear out" in proof.sentences(moves=False)[-1]


def test_a_map_that_knows_less_is_told_so(maps: HalfMaps, true: torch.Tensor) -> None:
    proof = prove(maps, filter_shells(true, torch.ones(5)))
    assert "less far than the half maps" in proof.sentences(moves=False)[1]
    assert "averages over the motion" in proof.sentences(moves=True)[1]


def test_what_only_one_map_shows_is_seen_where_it_is(maps: HalfMaps, true: torch.Tensor) -> None:
    extra = filter_shells(_ball(3, at=6), BAND)
    proof = prove(maps, true + 3 * extra)
    there, away = _ball(3, at=6) > 0, (_ball(6, at=-4) > 0) & (_ball(7, at=6) == 0)
    assert float(proof.local_correlation[away].mean()) > float(proof.local_correlation[there].mean()) + 0.2


def test_local_correlation_of_a_map_with_itself_is_one(true: torch.Tensor) -> None:
    inside = _ball(8) > 0
    assert float(local_correlation(true, true, 2.0)[inside].min()) > 0.999
    assert float(local_correlation(true, -true, 2.0)[inside].max()) < -0.999


def test_no_half_knows_more_than_its_start_of_noise(maps: HalfMaps, generator: torch.Generator) -> None:
    noise = torch.randn(2, D, D, D, generator=generator)
    proof = prove(HalfMaps(noise, noise.mean(0)), noise.mean(0))
    apart = replace(proof, made=independent_halves(5, D * PIXEL_SIZE))
    assert "independent halves, common start at 25.6 Å" in apart.sentences(moves=False)[0]
    assert "no better than the common start" in apart.sentences(moves=False)[1]


def test_particles_unlikely_of_a_class_are_left_out_and_the_rest_weighed() -> None:
    sets = HalfSets(
        half=torch.tensor([0, 1, 0]),
        probability=torch.tensor([[0.9, 0.1], [0.9999, 0.0001], [0.2, 0.8]]),
        rotation=torch.eye(3).expand(3, 1, 2, 3, 3),
        shift_px=torch.zeros(3, 1, 2, 2),
    )
    assert sets.members(1).tolist() == [0, 2] and sets.num_visits == 5
    assert sets.num_particles(0) == (pytest.approx(1.1), pytest.approx(0.9999))
