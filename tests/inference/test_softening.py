"""Class probabilities beside those of images of which nothing was learned."""

import pytest
import torch

from cryohydra.inference.evidence import log_class_posterior
from cryohydra.inference.softening import honest_sureness, softened

WEIGHT = torch.tensor([0.5, 0.3, 0.2]).log()


def sureness(log_evidence: torch.Tensor) -> torch.Tensor:
    return log_class_posterior(WEIGHT, log_evidence).amax(1).exp()


def make_evidence(number: int = 2000) -> torch.Tensor:
    return 5 + 3 * torch.randn(number, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("part", [0.3, 0.8])
def test_differences_are_scaled_to_the_sureness_asked_for(part: float) -> None:
    evidence = make_evidence()
    asked = sureness(part * evidence).mean()
    found = softened(evidence, WEIGHT, asked)
    torch.testing.assert_close(sureness(found).mean(), asked, atol=1e-4, rtol=0)
    torch.testing.assert_close(found[:, 0] - found[:, 1], part * (evidence[:, 0] - evidence[:, 1]), atol=1e-2, rtol=0)
    explained = [torch.logsumexp(WEIGHT + one, dim=1) for one in (found, evidence)]
    torch.testing.assert_close(*explained)


def test_what_images_held_out_gain_is_what_the_others_may_gain() -> None:
    is_held_out = torch.arange(2000) % 10 == 0
    evidence = make_evidence()
    before, learned = sureness(evidence), sureness(1.2 * evidence)
    own_noise = torch.where(is_held_out, learned, sureness(3 * evidence))
    assert honest_sureness(before, learned, is_held_out) is None
    found = honest_sureness(before, own_noise, is_held_out)
    assert found is not None and float(found) == pytest.approx(float(learned[~is_held_out].mean()), abs=0.02)
    # Nobody to tell.
    assert honest_sureness(before, own_noise, torch.zeros(2000, dtype=torch.bool)) is None
