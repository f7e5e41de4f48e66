"""How sure images may be of their classes, beside images of which nothing was learned.

Each image seems to fit best where fields have learned from it, its noise included: it grows sure of the class that it
was counted to. Images held out do not, so what they have become surer by is what was learned of the structures.
"""

import torch

from cryohydra._typing import Bool, Float, Tensor
from cryohydra.inference.evidence import log_class_posterior

_ERRORS = 2.0
"""Standard errors of the mean gain of images held out beyond which the others have gained too much."""
_NUM_HALVINGS = 30


def honest_sureness(
    before: Float[Tensor, "n"], now: Float[Tensor, "n"], is_held_out: Bool[Tensor, "n"]
) -> Float[Tensor, ""] | None:
    """Mean probability of their likeliest class that images that were learned from should have; None if it is as now.

    Args:
        before: Of each image, before anything was learned from any.
        now: After that.
    """
    gain = now - before
    of_judges = gain[is_held_out]
    if len(of_judges) < 2:
        return None
    doubt = _ERRORS * of_judges.std() / len(of_judges) ** 0.5
    if gain[~is_held_out].mean() <= of_judges.mean() + doubt:
        return None
    return before[~is_held_out].mean() + of_judges.mean()


def softened(
    log_evidence: Float[Tensor, "n k"], log_weight: Float[Tensor, "k"], sureness: Float[Tensor, ""]
) -> Float[Tensor, "n k"]:
    """Evidence whose differences between classes are one part of what they were, the same for all images.

    The evidence of all classes together stays.

    Args:
        sureness: Mean probability of the likeliest class that is to come out; less than it is now.
    """
    together = torch.logsumexp(log_weight + log_evidence, dim=1, keepdim=True)
    low, high = 0.0, 1.0
    for _ in range(_NUM_HALVINGS):
        part = (low + high) / 2
        scaled = together + part * (log_evidence - together)
        found = log_class_posterior(log_weight, scaled).amax(1).exp().mean()
        low, high = (low, part) if found > sureness else (part, high)
    return scaled + together - torch.logsumexp(log_weight + scaled, dim=1, keepdim=True)
