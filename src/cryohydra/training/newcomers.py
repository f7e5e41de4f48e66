"""Classes that images can do without, all at once, for maps that climb from nothing on the images of these classes.

A complex whose images are few, in much noise and among others may never find its poses by expectation and maximisation:
its images are shared by the classes that show nothing clearly. Once all others have settled, hardly any strangers are
left among these images, and maps that compete for them climb at poses that are drawn (`GibbsSampling`): chance leads
out of wrong ones. Not every attempt finds the poses; the one that best explains images that it is not made of is tried.

The same parts a class that holds two complexes, one of them at poses of the other: on its images alone two maps climb.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch

from cryohydra._typing import Bool, Float, Int, Tensor
from cryohydra.inference.selection import CLEARLY_MISSED, is_better, without_the_least_missed
from cryohydra.training.annealing import Annealing
from cryohydra.training.gibbs import GibbsSampling, Yardstick, num_parts_of
from cryohydra.training.ground import Ground
from cryohydra.training.mixed_classes import members_of
from cryohydra.training.state import TrainingState

_DOUBTED, _MOST_DOUBTED = 1 / 4, 1 / 2
"""Part of the classes that climb anew, but two at least: alone, a map takes up the strangers too."""
_FEWEST_DOUBTED = 2
_ENOUGH_IMAGES, _FEWEST_IMAGES = 150, 50
"""For each map: more classes are doubted until there are enough, since what two tiny classes lack lies in the next one,
which shows nothing clearly either; and what there must be."""
_LEAST_PROBABILITY = 0.15
"""Of all doubted classes together, from which on an image is one of theirs. Maps that show no poses hold few images of
their complex for sure: with those that may be of it there are enough, among more strangers."""
_NUM_ATTEMPTS, _NUM_SWEEPS, _NUM_WARM_SWEEPS = 4, 100, 35
"""Attempts, and sweeps over the images of each: so few find their poses late."""
_NUM_ATTEMPTS_TO_PART, _NUM_SWEEPS_TO_PART = 2, 60
"""Where a class is told to hold two structures: its images are many, so that the first attempt mostly does."""
_LEVEL = 2
"""Of the grid of rotations: finer than in ab initio, since images are few."""
_MOST_IMAGES = 500
"""For each map, drawn from all: enough for a complex of 200 kDa at a signal-to-noise ratio of 0.05."""


@dataclass(frozen=True)
class Doubted:
    """Classes in whose place maps climb anew."""

    classes: tuple[int, ...]
    members: Int[Tensor, "m"]
    """Images that may well be of one of these; some of them, where they are many."""
    is_parted: bool = False
    """Whether they are of the first class alone, which is told to hold more than one structure."""

    @classmethod
    def parting(cls, state: TrainingState, parted: int, free: int) -> "Doubted":
        """A class that is told to hold more than one structure, and one that can be given up for it."""
        members = _some_of(members_of(state, parted), 2, state.generator)
        return cls((parted, free), members, is_parted=True)

    @classmethod
    def of(cls, state: TrainingState) -> "Doubted | None":
        """The classes missed least, as many as have enough images; None if there are too few of either.

        Of classes that are nearly empty one is among them at most.
        """
        stays = _nearly_empty_but_one(state)
        if state.stays is not None:
            stays |= state.stays
        fewest = max(_FEWEST_DOUBTED, round(_DOUBTED * state.num_classes))
        most = max(fewest, int(_MOST_DOUBTED * state.num_classes))
        found = None
        for num_doubted in range(fewest, most + 1):
            classes, members = _missed_least(state, num_doubted, stays)
            if len(classes) < _FEWEST_DOUBTED:
                return None
            if len(members) >= _FEWEST_IMAGES * len(classes):
                found = cls(classes, _some_of(members, len(classes), state.generator))
            if len(members) >= _ENOUGH_IMAGES * len(classes) or len(classes) < num_doubted:
                break
        return found


class Newcomers:
    """Attempts to find what the doubted classes do not show, one after the other."""

    def __init__(self, state: TrainingState, plan: Annealing, doubted: Doubted, saved: dict[str, Any] | None = None):
        """Begin the first attempt, or the next one of those that were saved (`state_dict`)."""
        self.ground = Ground.of(state, plan.last_radius)
        self.doubted = doubted
        num_maps, num_images = len(self.doubted.classes), len(self.doubted.members)
        sweep = num_parts_of(num_images, num_maps)
        is_parted = doubted.is_parted
        self.most_attempts, num_sweeps = (
            (_NUM_ATTEMPTS_TO_PART, _NUM_SWEEPS_TO_PART) if is_parted else (_NUM_ATTEMPTS, _NUM_SWEEPS)
        )
        steps = {"num_steps": num_sweeps * sweep, "num_warm_steps": _NUM_WARM_SWEEPS * sweep, "num_cool_steps": 0}
        self.plan = replace(plan, **steps, level=_LEVEL)
        self._yardstick, self._evidence_before = self._ask_classes(state) if saved is None else _asked(state, saved)
        self._best: tuple[Tensor, Float[Tensor, "m"]] | None = None if saved is None else saved["best"]
        """Maps, and the evidence of each image in maps that it is no part of."""
        self.num_attempts: int = 0 if saved is None else saved["num_attempts"]
        self._sampling = self._from_nothing(state)

    @property
    def is_done(self) -> bool:
        """Whether all attempts are made, or one has parted a class."""
        return self.num_attempts == self.most_attempts or (self.doubted.is_parted and self.chosen() is not None)

    def step(self, state: TrainingState) -> tuple[float, str]:
        """Let the maps of an attempt climb by one step.

        Returns:
            Mean evidence of the images, and a note on it.
        """
        which = f"{len(self.doubted.classes)} newcomers, attempt {self.num_attempts + 1} of {self.most_attempts}"
        sampling = self._sampling
        radius = sampling.plan.radius(sampling.step_count)
        gain = sampling.step(state).mean_evidence
        if sampling.step_count == sampling.plan.num_steps // 2:
            sampling.count_more_draws()
        if sampling.is_done:
            self._judge(state)
        return gain, f"{which}, band {radius}"

    def state_dict(self) -> dict[str, Any]:
        """What the attempts that are over have come to; one that was cut short begins anew."""
        return {
            "unexplained": self._yardstick.unexplained,
            "mean_square_px": self._yardstick.shift_prior.mean_square_px,
            "evidence_before": self._evidence_before,
            "best": self._best,
            "num_attempts": self.num_attempts,
        }

    def chosen(self) -> Float[Tensor, "d n n n"] | None:
        """The maps of the best attempt, on the lattice of ab initio; None if images need none of them."""
        if self._best is None:
            return None
        maps, evidence = self._best
        return maps if is_better(self._evidence_before, evidence) else None

    def _judge(self, state: TrainingState) -> None:
        self._sampling.look_closely(state, self._yardstick)
        evidence = self._sampling.evidence
        if self._best is None or evidence.mean() > self._best[1].mean():
            self._best = self._sampling.maps(), evidence
        self.num_attempts += 1
        if not self.is_done:
            self._sampling = self._from_nothing(state)

    def _from_nothing(self, state: TrainingState) -> GibbsSampling:
        doubted = self.doubted
        return GibbsSampling.from_nothing(state, self.ground, self.plan, doubted.members, len(doubted.classes))

    def _ask_classes(self, state: TrainingState) -> tuple[Yardstick, Float[Tensor, "m"]]:
        """Evidence of the doubted classes as they are, asked as attempts are: in maps that images are no part of."""
        doubted = self.doubted
        sampling = GibbsSampling.from_classes(state, self.ground, self.plan, doubted.members, doubted.classes)
        while not sampling.is_done:
            sampling.step(state)
        sampling.look_closely(state, sampling.yardstick)
        return sampling.yardstick, sampling.evidence


def _some_of(members: Int[Tensor, "m"], num_classes: int, generator: torch.Generator) -> Int[Tensor, "n"]:
    """Of many images as many as are enough, by lot."""
    drawn = torch.randperm(len(members), generator=generator)[: _MOST_IMAGES * num_classes]
    return members[drawn.sort().values]


def _nearly_empty_but_one(state: TrainingState) -> Bool[Tensor, "k"]:
    """Whether each class has too few images for a map, and is not the smallest of these.

    One may be filled by what is found; maps in the place of all would share images of the others until none has enough.
    """
    size = torch.bincount(state.classes.log_posterior().argmax(1), minlength=state.num_classes)
    is_empty = size < _FEWEST_IMAGES
    is_empty[size.argmin()] = False
    return is_empty


def _missed_least(
    state: TrainingState, num_classes: int, stays: Bool[Tensor, "k"]
) -> tuple[tuple[int, ...], Int[Tensor, "m"]]:
    """So many classes, fewer if others are clearly missed or stay; images that may well be of one of these."""
    evidence, num_kept = state.classes.log_evidence, max(state.num_classes - num_classes, 1)
    kept = without_the_least_missed(evidence, num_kept, CLEARLY_MISSED, stays).tolist()
    classes = tuple(k for k in range(state.num_classes) if k not in kept)
    probability = state.classes.log_posterior()[:, list(classes)].exp().sum(1)
    return classes, torch.nonzero(probability > _LEAST_PROBABILITY)[:, 0].cpu()


def _asked(state: TrainingState, saved: dict[str, Any]) -> tuple[Yardstick, Float[Tensor, "m"]]:
    """What classes said when they were asked."""
    shift_prior = state.shift_prior.learned(saved["mean_square_px"])
    return Yardstick(saved["unexplained"].to(state.device), shift_prior), saved["evidence_before"].to(state.device)
