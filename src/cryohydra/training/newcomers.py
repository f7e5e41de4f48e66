"""Classes that images can do without, all at once, for maps that climb from nothing on the images of these classes.

A complex whose images are few, in much noise and among others may never find its poses by expectation and maximisation:
its images are shared by the classes that show nothing clearly. Once all others have settled, hardly any strangers are
left among these images, and maps that compete for them climb as in ab initio, but at poses that are drawn: chance leads
out of wrong ones. Not every attempt finds the poses; the one that explains the images best is tried.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.lattice import Lattice, enlarge
from cryohydra.inference.selection import CLEARLY_MISSED, is_better, without_the_least_missed
from cryohydra.training.annealing import Annealing
from cryohydra.training.ascent import NUM_IMAGES_TO_START, Ascent, Ground, ascent_from_nothing
from cryohydra.training.state import TrainingState

_DOUBTED = 1 / 4
"""Part of the classes that climb anew, but two at least: alone, a map takes up the strangers too."""
_FEWEST_DOUBTED = 2
_NUM_ATTEMPTS = 4
_IMAGES_OF_A_NEWCOMER = 50
"""For each step: few, so that chance has a say."""
_DRAWN_SHARE = 0.75
"""Of the steps; afterwards maps settle, and can be judged."""
_FEWEST_IMAGES = 50
"""Of a class."""
NUM_JUDGES = 2000
"""Images whose evidence decides which newcomers are tried, and whether any, at most."""


@dataclass(frozen=True)
class Doubted:
    """Classes that images can do without."""

    classes: tuple[int, ...]
    members: Int[Tensor, "m"]
    """Images that are likelier of one of these than of all others."""

    @classmethod
    def of(cls, state: TrainingState) -> "Doubted | None":
        """The classes missed least; None if fewer than two can be doubted, or have too few images."""
        num_classes = state.num_classes
        num_doubted = max(_FEWEST_DOUBTED, round(_DOUBTED * num_classes))
        stays = None if state.seeds is None else state.seeds.is_seeded
        evidence, num_kept = state.classes.log_evidence, max(num_classes - num_doubted, 1)
        kept = without_the_least_missed(evidence, num_kept, CLEARLY_MISSED, stays).tolist()
        classes = tuple(k for k in range(num_classes) if k not in kept)
        if len(classes) < _FEWEST_DOUBTED:
            return None
        probability = state.classes.log_posterior()[:, list(classes)].exp().sum(1)
        members = torch.nonzero(probability > 0.5)[:, 0].cpu()
        return cls(classes, members) if len(members) >= _FEWEST_IMAGES * len(classes) else None


class Newcomers:
    """Attempts to find what the doubted classes do not show, one after the other."""

    def __init__(self, state: TrainingState, plan: Annealing, doubted: Doubted, saved: dict[str, Any] | None = None):
        """Begin the first attempt, or the next one of those that were saved (`state_dict`)."""
        self.doubted, self.plan = doubted, replace(plan, drawn_share=_DRAWN_SHARE)
        self.ground = Ground.of(state, plan.last_radius)
        self.batch_size = min(_IMAGES_OF_A_NEWCOMER * len(doubted.classes), len(doubted.members))
        drawn = torch.randperm(len(doubted.members), generator=state.generator)[:NUM_JUDGES]
        self._judges = saved["judges"].cpu() if saved else doubted.members[drawn]
        assert state.maps is not None
        maps = enlarge(state.maps.values[list(doubted.classes)], self._lattice)
        self._evidence_before = self._evidence(state, maps, self._judges)
        self._best: tuple[Tensor, float] | None = saved["best"] if saved else None
        """Maps, and the mean evidence of the images."""
        self.num_attempts: int = saved["num_attempts"] if saved else 0
        self._ascent = self._from_nothing(state)

    @property
    def _lattice(self) -> Lattice:
        return self.ground.lattice

    @property
    def is_done(self) -> bool:
        """Whether all attempts are made."""
        return self.num_attempts == _NUM_ATTEMPTS

    def step(self, state: TrainingState) -> tuple[float, str]:
        """Let the maps of an attempt climb on some of their images.

        Returns:
            Mean evidence of the images, and a note on it.
        """
        which = f"{len(self.doubted.classes)} newcomers, attempt {self.num_attempts + 1} of {_NUM_ATTEMPTS}"
        members = self.doubted.members
        drawn = torch.randperm(len(members), generator=state.generator)[: self.batch_size]
        _, note = self._ascent.step(state, members[drawn])
        gain = self._ascent.gains[-1]
        if self._ascent.is_done:
            self._judge(state)
        return gain, f"{which}, {note}"

    def state_dict(self) -> dict[str, Any]:
        """What the attempts that are over have come to; one that was cut short begins anew."""
        return {"judges": self._judges, "best": self._best, "num_attempts": self.num_attempts}

    def chosen(self, state: TrainingState) -> Float[Tensor, "d n n n"] | None:
        """The maps of the best attempt, on the lattice of the ascent; None if images need none of them."""
        if self._best is None:
            return None
        maps, _ = self._best
        return maps if is_better(self._evidence_before, self._evidence(state, maps, self._judges)) else None

    def _judge(self, state: TrainingState) -> None:
        maps = self._ascent.maps
        evidence = float(self._evidence(state, maps, self._judges).mean())
        if self._best is None or evidence > self._best[1]:
            self._best = maps, evidence
        self.num_attempts += 1
        if not self.is_done:
            self._ascent = self._from_nothing(state)

    def _from_nothing(self, state: TrainingState) -> Ascent:
        num_maps = len(self.doubted.classes)
        members, num_start = self.doubted.members, NUM_IMAGES_TO_START
        return ascent_from_nothing(state, self.ground, self.plan, members, num_maps, self.batch_size, num_start)

    def _evidence(
        self, state: TrainingState, maps: Float[Tensor, "d n n n"], rows: Int[Tensor, "m"]
    ) -> Float[Tensor, "m"]:
        """Log probability of images over that of noise alone, maps as likely as each other."""
        band, comparer = self.ground.band, self.ground.comparer
        found = [
            comparer.compare(maps, state.weighted(index, band), band, state.shift_prior, balance=0.0).log_evidence
            for index in rows.split(self.batch_size)
        ]
        return torch.logsumexp(torch.cat(found), dim=1)
