"""Images that fit no class better than noise does: a component of the mixture that has no map."""

import torch

from cryohydra._typing import Float, Tensor

_ROUNDS = 100


def junk_probability(log_evidence: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Probability that each image is noise alone, the share of such images being fitted to all of them.

    Args:
        log_evidence: Of the classes together over that of noise alone, poses summed out; natural logarithm.
    """
    return torch.sigmoid(junk_log_odds(log_evidence) - log_evidence)


def junk_log_odds(log_evidence: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """Log odds of an image to be noise alone, as far as its own evidence is not known.

    Evidence is that over noise alone, so noise has an evidence of zero; expectation and maximisation over one number,
    whose likelihood has one maximum.

    Args:
        log_evidence: As for `junk_probability`.
    """
    evidence = log_evidence.double()
    log_odds = evidence.new_zeros(())
    for _ in range(_ROUNDS):
        share = torch.sigmoid(log_odds - evidence).mean()
        log_odds = torch.logit(share, eps=1e-12)
    return log_odds.to(log_evidence.dtype)
