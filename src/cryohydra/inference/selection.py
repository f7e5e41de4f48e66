"""Which of many maps a mixture needs: judged by the evidence that images have for each."""

from dataclasses import dataclass

import torch

from cryohydra._typing import Bool, Float, Int, Tensor

CLEARLY_MISSED = 10.0
"""Nats for each of its images by which a class is missed that is not to be doubted."""
_NEEDED = 1.0
"""Nats for each of its images by which a class must be missed to be needed, beside what it costs."""
_ERRORS = 2.0
_ROUNDS = 10
_LEAST_LOG_WEIGHT = -14.0
_LEAST = 1e-20
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


@dataclass(frozen=True)
class Missed:
    """What images would lose without each of some classes."""

    nats: Float[Tensor, "k"]
    """Of log probability, in all; less than none if noise alone explains them better."""
    num_images: Float[Tensor, "k"]
    """That each class holds."""

    @classmethod
    def of(cls, log_evidence: Float[Tensor, "n k"]) -> "Missed":
        """Ask for each class in turn, shares of the others fitted anew; any image may be noise alone as well.

        Args:
            log_evidence: Over that of noise alone.
        """
        num_classes = log_evidence.shape[1]
        evidence = torch.cat([log_evidence, torch.zeros_like(log_evidence[:, :1])], dim=1)
        evidence = evidence.clamp(min=evidence.amax(1, keepdim=True) - _FARTHEST)
        now = evidence + fitted_log_weight(evidence)
        others = [[j for j in range(num_classes + 1) if j != k] for k in range(num_classes)]
        without = torch.stack([_log_probability(evidence[:, left]).sum() for left in others])
        return cls(torch.logsumexp(now, dim=1).sum() - without, torch.softmax(now, dim=1).sum(0)[:-1])

    def by_more_than(self, most_missed: float, cost: Float[Tensor, "k"] | float = 0.0) -> Bool[Tensor, "k"]:
        """Whether each class is missed by more nats for each of its images, one at least, and by what it costs."""
        return self.nats > most_missed * self.num_images.clamp(min=1) + cost


def without_the_least_missed(
    log_evidence: Float[Tensor, "n k"],
    num_kept: int,
    most_missed: float = torch.inf,
    stays: Bool[Tensor, "k"] | None = None,
) -> Int[Tensor, "m"]:
    """The classes left, in ascending order, after others were taken away one by one, each time the one missed least.

    A class that is there twice is missed little, and so is one that shows nothing clearly.

    Args:
        log_evidence: Over that of noise alone.
        most_missed: In nats for each image that it holds, one at least; a class missed more ends it.
        stays: Whether a class is never taken away; fewer than these are never left.
    """
    kept, stays = _all_of(log_evidence, stays)
    while len(kept) > max(num_kept, 1) and not stays[kept].all():
        missed = Missed.of(log_evidence[:, kept])
        least = int(torch.where(stays[kept], torch.inf, missed.nats).argmin())
        if missed.by_more_than(most_missed)[least]:
            break
        kept = torch.cat([kept[:least], kept[least + 1 :]])
    return kept


def needed_classes(
    log_evidence: Float[Tensor, "n k"],
    cost: Float[Tensor, "k"] | None = None,
    stays: Bool[Tensor, "k"] | None = None,
    num_spare: int = 0,
) -> Int[Tensor, "m"]:
    """The classes left, in ascending order, after those were taken away that show no structure of their own.

    One by one, those that are there twice before those that are missed least: of two that show one structure each is
    missed by the images that fit its noise better. A class that is clearly missed stays, as does one that is missed by
    a nat for each of its images beyond what it costs and has no twin.

    Args:
        log_evidence: Over that of noise alone.
        cost: Nats that its images lose in all because it has a map of its own; None for nothing.
        stays: Whether a class is never taken away.
        num_spare: How many of the others are left as well, those that would go last.
    """
    kept, stays = _all_of(log_evidence, stays)
    cost = torch.zeros_like(log_evidence[0]) if cost is None else cost
    gone: list[int] = []
    while len(kept) > 1 and not stays[kept].all():
        evidence = log_evidence[:, kept]
        missed = Missed.of(evidence)
        posterior = torch.softmax(evidence + fitted_log_weight(evidence), dim=1)
        goes = class_there_twice(posterior, stays[kept] | missed.by_more_than(CLEARLY_MISSED))
        if goes is None:
            goes = int(torch.where(stays[kept], torch.inf, missed.nats - cost[kept]).argmin())
            if missed.by_more_than(_NEEDED, cost[kept])[goes]:
                break
        gone.append(int(kept[goes]))
        kept = torch.cat([kept[:goes], kept[goes + 1 :]])
    spare = gone[max(len(gone) - num_spare, 0) :]
    return torch.cat([kept, kept.new_tensor(spare)]).sort().values


def class_there_twice(posterior: Float[Tensor, "n k"], stays: Bool[Tensor, "k"] | None = None) -> int | None:
    """The smaller of two classes that share their images: were one not there, they would be surer of the other.

    Images of a class that nothing else shows would be less sure of any other. Of two classes alone each takes all
    of the other's: there is none twice.

    Args:
        stays: Whether a class is never given up.
    """
    num_classes = posterior.shape[1]
    if num_classes < 3:
        return None
    share, surest = posterior.sum(0), posterior.amax(1)
    heir, is_surer = [], []
    for k in range(num_classes):
        others = posterior.clone()
        others[:, k] = 0
        others = others / others.sum(1, keepdim=True).clamp(min=_LEAST)
        heir.append(int((posterior[:, k] @ others).argmax()))
        is_surer.append(float(posterior[:, k] @ (others.amax(1) - surest)) > 0)
    twice = [
        k
        for k in range(num_classes)
        if heir[heir[k]] == k and is_surer[k] and is_surer[heir[k]] and not (stays is not None and bool(stays[k]))
    ]
    return min(twice, key=lambda k: float(share[k])) if twice else None


def sureness(posterior: Float[Tensor, "n k"]) -> float:
    """Mean probability of the images' likeliest structure: classes that show the same one count as one."""
    while (twice := class_there_twice(posterior)) is not None:
        others = torch.cat([posterior[:, :twice], posterior[:, twice + 1 :]], dim=1)
        heir = (posterior[:, twice] @ (others / others.sum(1, keepdim=True).clamp(min=_LEAST))).argmax()
        others[:, heir] += posterior[:, twice]
        posterior = others
    return float(posterior.amax(1).mean())


def _all_of(
    log_evidence: Float[Tensor, "n k"], stays: Bool[Tensor, "k"] | None
) -> tuple[Int[Tensor, "k"], Bool[Tensor, "k"]]:
    every = torch.arange(log_evidence.shape[1], device=log_evidence.device)
    return every, torch.zeros_like(every, dtype=torch.bool) if stays is None else stays


def _log_probability(log_evidence: Float[Tensor, "n k"]) -> Float[Tensor, "n"]:
    return torch.logsumexp(log_evidence + fitted_log_weight(log_evidence), dim=1)
