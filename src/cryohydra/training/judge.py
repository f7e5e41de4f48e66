"""When to stop: what particles held out say of the fields, and the best that they have said."""

import copy
from typing import Any

import torch

from cryohydra._typing import Float, Tensor
from cryohydra.training.state import TrainingState

_LEAST_GAIN = 2e-3
"""Part of all that is explained that counts as a gain."""


class Judge:
    """Remembers the state in which the particles held out were explained best.

    A field that follows the noise of the images it learns from explains them better and others worse; what it learns
    of the structure explains all better.
    """

    def __init__(self) -> None:
        self.best: Float[Tensor, "h"] | None = None
        """Log evidence of each particle held out, in the best state."""
        self.num_since_best = 0
        """Times judged since then."""
        self._kept: dict[str, Any] = {}

    def judge(self, state: TrainingState, evidence: Float[Tensor, "h"]) -> None:
        """Compare with the best state so far, and keep this one if it is better beyond doubt.

        Args:
            evidence: Log evidence of each particle held out.
        """
        if not len(evidence):
            self.best = evidence
            return
        self.num_since_best += 1
        if self.best is not None:
            gain = evidence - self.best
            doubt = gain.std(correction=0) / len(gain) ** 0.5
            if not gain.mean() > torch.maximum(doubt, _LEAST_GAIN * self.best.mean().abs()):
                return
        self.best, self.num_since_best = evidence, 0
        self._kept = copy.deepcopy({name: part.state_dict() for name, part in _learned(state).items()})

    def restore(self, state: TrainingState) -> None:
        """Go back to the best state; to this one, if none was judged or none can judge."""
        if self.num_since_best:
            for name, part in _learned(state).items():
                part.load_state_dict(self._kept[name])
            self.num_since_best = 0

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        return {"best": self.best, "num_since_best": self.num_since_best, "kept": self._kept}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.best, self.num_since_best, self._kept = saved["best"], saved["num_since_best"], saved["kept"]


def _learned(state: TrainingState) -> dict[str, torch.nn.Module]:
    return {
        "mixture": state.mixture,
        "poses": state.poses,
        "conformations": state.conformations,
        "classes": state.classes,
        "scores": state.scores,
    }
