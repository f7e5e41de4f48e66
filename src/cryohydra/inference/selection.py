"""Which of many maps a mixture needs: judged by the evidence that images have for each."""

import torch

from cryohydra._typing import Bool, Float, Int, Tensor

CLEARLY_MISSED = 10.0
"""Nats for each of its images by which a class is missed that is not to be doubted."""
_ERRORS = 2.0
_ROUNDS = 10
_LEAST_LOG_WEIGHT = -14.0
_FARTHEST = 50.0
"""Evidence counts as at most this much less than an image's highest, in nats: less is nothing, and finite."""


def fitted_log_weight(log_evidence: Float[Tensor, "n k"], rounds: int = _ROUNDS) -> Float[Tensor, "k"]:
    """Log shares of classes under which images are likeliest: expectation and maximisation from equal ones."""
    log_weight = log_evidence.new_full((log_evidence.shape[1],), 0.0).log_softmax(0)
    for _ in range(rounds):
        share = torch.softmax(log_evidence + log_weight, dim=1).mean(0)
        log_weight = share.log().clamp(min=_LEAST_LOG_WEIGHT)
    return log_weight


def is_better(before: Float[Tensor, "n"], now: Float[Tensor, "n"]) -> bool:
    """Whether the evidence of the same images has grown beyond two standard errors of its mean gain."""
    gain = now - before
    return bool(gain.mean() > _ERRORS * gain.std() / len(gain) ** 0.5)


def without_the_least_missed(
    log_evidence: Float[Tensor, "n k"],
    num_kept: int,
    most_missed: float = torch.inf,
    stays: Bool[Tensor, "k"] | None = None,
) -> Int[Tensor, "m"]:
    """The classes left, in ascending order, after others were taken away one by one, each time the one missed least.

    A class that is there twice is missed little, and so is one that shows nothing clearly.

    Args:
        most_missed: In nats for each image that it holds, one at least; a class missed more ends it.
        stays: Whether a class is never taken away; fewer than these are never left.
    """
    evidence = log_evidence.clamp(min=log_evidence.amax(1, keepdim=True) - _FARTHEST)
    kept = torch.arange(evidence.shape[1], device=evidence.device)
    stays = torch.zeros_like(kept, dtype=torch.bool) if stays is None else stays
    while len(kept) > max(num_kept, 1) and not stays[kept].all():
        now = _log_probability(evidence[:, kept])
        left = [torch.cat([kept[:i], kept[i + 1 :]]) for i in range(len(kept))]
        without = torch.stack([_log_probability(evidence[:, others]) for others in left])
        least = int(torch.where(stays[kept], -torch.inf, without.sum(1)).argmax())
        share = torch.softmax(evidence[:, kept] + fitted_log_weight(evidence[:, kept]), dim=1)[:, least].sum()
        if float((now - without[least]).sum()) > most_missed * max(float(share), 1.0):
            break
        kept = left[least]
    return kept


def _log_probability(log_evidence: Float[Tensor, "n k"]) -> Float[Tensor, "n"]:
    return torch.logsumexp(log_evidence + fitted_log_weight(log_evidence), dim=1)
