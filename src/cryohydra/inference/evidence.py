"""Equations (2) to (4): from likelihoods of poses to probabilities of classes."""

import torch

from cryohydra._typing import Bool, Float, Tensor

CONTRAST_STD = 0.3
"""Spread of the prior of an image's contrast around one."""


def log_likelihood_over_contrast(
    score: Float[Tensor, "*#batch"], power: Float[Tensor, "*#batch"]
) -> Float[Tensor, "*#batch"]:
    """Log likelihood ratio to noise alone of a density in a pose, contrast integrated out.

    Integrates exp(a score - a^2 power / 2) over a normal prior of a, mean 1, spread `CONTRAST_STD`.

    Args:
        score: <score, V> of `WeightedImages`.
        power: <power, V^2>.
    """
    precision = CONTRAST_STD**-2
    return 0.5 * ((score + precision).square() / (power + precision) - precision - (power / precision).log1p())


def expected_contrast(score: Float[Tensor, "*#batch"], power: Float[Tensor, "*#batch"]) -> Float[Tensor, "*#batch"]:
    """Mean of the posterior of the contrast."""
    precision = CONTRAST_STD**-2
    return (score + precision) / (power + precision)


def exponentiate_(
    logarithm: Float[Tensor, "*batch n"], log_scale: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch n"]:
    """exp(logarithm - log_scale) in place, with nothing smaller than exp(-50).

    The exponential of what underflows takes eight times as long, and most of a search's scores would.
    """
    return logarithm.sub_(log_scale[..., None]).clamp_(min=-50).exp_()


def log_class_posterior(log_weight: Float[Tensor, "k"], log_likelihood: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
    """Log probability of each class given each image, eq. 3."""
    return torch.log_softmax(log_weight + log_likelihood, dim=-1)


def negative_log_evidence(
    log_weight: Float[Tensor, "*b k"], log_likelihood: Float[Tensor, "b k"]
) -> Float[Tensor, "b"]:
    """Negative log probability of each image, classes summed out, eq. 4 before its mean."""
    return -torch.logsumexp(log_weight + log_likelihood, dim=-1)


def effective_number(probability: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """exp of the entropy: how many of n outcomes share the probability, in [1, n]."""
    return torch.special.entr(probability).sum(-1).exp()


def carry_shares(
    now: Float[Tensor, "b k"],
    before: Float[Tensor, "b k"],
    is_evaluated: Bool[Tensor, "b k"],
    log_weight: Float[Tensor, "k"],
) -> Float[Tensor, "b k"]:
    """Evidence in which a class that was not evaluated moves as the others together do.

    Steps may compare another band than those before them, where a class's earlier evidence would mean nothing: its
    share, small when it was passed over, still does.
    """

    def together(evidence: Tensor) -> Tensor:
        return torch.where(is_evaluated, log_weight + evidence, -torch.inf).logsumexp(1, keepdim=True)

    return torch.where(is_evaluated, now, before + (together(now.detach()) - together(before)))
