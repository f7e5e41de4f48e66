"""Poses and classes of images that are still worth comparing."""

from dataclasses import dataclass

import torch

from cryohydra._typing import Float, Int, Tensor


@dataclass(frozen=True)
class Candidates:
    """For each image a list of (class, rotation, shift) with their log posterior mass, best first not implied."""

    class_index: Int[Tensor, "b c"]
    rotation: Float[Tensor, "b c 3 3"]
    shift_px: Float[Tensor, "b c 2"]
    log_likelihood: Float[Tensor, "b c"]
    """At the candidate itself, over that of noise alone."""
    log_mass: Float[Tensor, "b c"]
    """Log of likelihood (over that of noise alone) times prior of the candidate's cell."""
    log_evidence: Float[Tensor, "b k"]
    """Eq. 2 for each class, poses and shifts summed out, over the likelihood of noise alone."""

    def posterior(self, log_weight: Float[Tensor, "k"]) -> Float[Tensor, "b c"]:
        """Probability of each candidate, classes included; rows sum to at most one.

        What the class evidence holds beyond the candidates is what was dropped on the way.
        """
        total = torch.logsumexp(log_weight + self.log_evidence, dim=-1, keepdim=True)
        return (self.log_mass + log_weight[self.class_index] - total).exp()

    def share_of_class(self, num_classes: int) -> Float[Tensor, "b c"]:
        """Part of its class's posterior that each candidate holds; of each class with any, they sum to one."""
        of_class = torch.nn.functional.one_hot(self.class_index, num_classes).bool()
        total = torch.where(of_class, self.log_mass[:, :, None], -torch.inf).logsumexp(1)
        share = (self.log_mass - total.gather(1, self.class_index)).exp()
        return torch.nan_to_num(share)

    def best_of_class(self, num_classes: int) -> "BestPoses":
        """The heaviest candidate of each class; of a class without one, the heaviest of all."""
        of_class = self.class_index[:, None, :] == torch.arange(num_classes, device=self.class_index.device)[:, None]
        mass = self.log_mass[:, None, :] - torch.where(of_class, 0.0, 1e6)
        best = mass.argmax(-1)
        rows = torch.arange(len(best), device=best.device)[:, None]
        return BestPoses(self.rotation[rows, best], self.shift_px[rows, best])


@dataclass(frozen=True)
class BestPoses:
    """One pose for each image and class."""

    rotation: Float[Tensor, "b k 3 3"]
    shift_px: Float[Tensor, "b k 2"]
