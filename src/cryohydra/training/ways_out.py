"""What may lift a search out of where it has settled: trials with other maps, newcomers, in the end fewer classes."""

import math
from typing import Any

import torch

from cryohydra._typing import Float, Tensor
from cryohydra.fourier.lattice import enlarge
from cryohydra.inference.selection import Missed, fitted_log_weight, needed_classes
from cryohydra.training.annealing import Annealing
from cryohydra.training.mixed_classes import Room
from cryohydra.training.newcomers import Doubted, Newcomers
from cryohydra.training.reseeding import Reseeding
from cryohydra.training.stage import StepResult
from cryohydra.training.state import SURE, TrainingState

_LEAST = 1e-20
_TOLD = 5.0
"""Nats for each of its images by which a class is missed that is no mixture of others."""
_SAVED = ("prunes", "num_pruned", "may_call")


class WaysOut:
    """One way after the other, each as long as it is of use."""

    def __init__(self, most_trials: int, newcomers: Annealing | None, prunes: bool):
        """Plan them.

        Args:
            most_trials: How often at most a class that is hardly missed is put to better use (`Reseeding`).
            newcomers: How maps climb in the place of classes that images can do without (`Newcomers`); None for never.
            prunes: Whether classes that images can do without are taken away in the end.
        """
        self.reseeding = Reseeding(most_trials)
        self.plan_of_newcomers = newcomers
        self.doubted: Doubted | None = None
        """In whose place newcomers are to climb before the next pass; None if none are due."""
        self.may_call = newcomers is not None
        """Whether newcomers may still be called for what no class shows, which they are once."""
        self.newcomers: Newcomers | None = None
        self._attempts_before: dict[str, Any] | None = None
        """Attempts of newcomers that were over when the training was stopped."""
        self.prunes, self.num_pruned = prunes, 0

    @property
    def are_newcomers_due(self) -> bool:
        """Whether newcomers are to climb before the next pass."""
        return self.doubted is not None

    def open(self, state: TrainingState, is_in_doubt: bool) -> bool:
        """Judge what is on trial, and look for another way out of where a search has settled: whether there is one.

        Args:
            is_in_doubt: Whether classes are not told well.
        """
        if self._needed_are_told(state) and self._prune(state):
            return True
        self.reseeding.ended(state)
        room = self._find_room(state)
        if room is not None and is_in_doubt and self._part(state, room):
            return True
        return self._look_further(state, room, is_in_doubt)

    def climb(self, state: TrainingState, is_in_doubt: bool) -> tuple[StepResult, bool]:
        """Let the newcomers that are due climb; when they have, try them out if their images need them.

        Args:
            is_in_doubt: Whether classes are not told well.

        Returns:
            How the step went, and whether the search goes on.
        """
        if self.newcomers is None:
            assert self.plan_of_newcomers is not None and self.doubted is not None
            self.newcomers = Newcomers(state, self.plan_of_newcomers, self.doubted, self._attempts_before)
            self._attempts_before = None
        newcomers, goes_on = self.newcomers, True
        gain, note = newcomers.step(state)
        if newcomers.is_done:
            self.newcomers, self.doubted, maps = None, None, newcomers.chosen()
            if maps is None:
                goes_on = self._look_further(state, self._find_room(state), is_in_doubt)
            else:
                assert state.maps is not None
                classes = list(newcomers.doubted.classes)
                self.reseeding.try_out(state, classes, enlarge(maps, state.maps.lattice))
        return StepResult(loss=-gain, note=note), goes_on

    def end(self, state: TrainingState) -> str:
        """Leave nothing on trial: what came of it all, in half a sentence."""
        self.newcomers = None
        self.reseeding.ended(state)
        # A search that its bound ended, not what it found, has pruned nothing yet.
        if self._prune(state):
            state.classes.update_weights()
        num_kept = self.reseeding.num_kept
        reseeded = f", {num_kept} of the trials with other maps kept" if num_kept else ""
        pruned = f", {self.num_pruned} classes that images can do without taken away" if self.num_pruned else ""
        return reseeded + pruned

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values; an attempt of newcomers that was cut short begins anew."""
        attempts = self._attempts_before if self.newcomers is None else self.newcomers.state_dict()
        saved = {name: getattr(self, name) for name in _SAVED}
        doubted = None if self.doubted is None else vars(self.doubted)
        return saved | {"reseeding": self.reseeding.state_dict(), "doubted": doubted, "attempts": attempts}

    def load_state_dict(self, state: TrainingState, saved: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        for name in _SAVED:
            setattr(self, name, saved[name])
        self.reseeding.load_state_dict(state, saved["reseeding"])
        doubted = saved["doubted"]
        if doubted is not None:
            doubted = Doubted(tuple(doubted["classes"]), doubted["members"].cpu(), doubted["is_parted"])
        self.doubted = doubted
        self._attempts_before = saved["attempts"]

    def _needed_are_told(self, state: TrainingState) -> bool:
        """Whether nothing is in doubt but which of several classes shows a structure: others need not be looked for.

        A class that is missed by less may be several structures whose poses nothing knows yet.
        """
        if not self.prunes or self.reseeding.is_on_trial:
            return False
        evidence = state.classes.log_evidence[~state.classes.is_noise()]
        evidence = evidence[:, needed_classes(evidence, _cost_of_maps(state), state.stays)]
        posterior = torch.softmax(evidence + fitted_log_weight(evidence), dim=1)
        is_told = float(posterior.amax(1).mean()) > SURE
        return is_told and bool(Missed.of(evidence).by_more_than(_TOLD).all())

    def _find_room(self, state: TrainingState) -> Room | None:
        """What could be given up, as long as trials are left."""
        return state.team.once(lambda: Room.of(state), state.generator) if self.reseeding.are_left else None

    def _part(self, state: TrainingState, room: Room) -> bool:
        """Call newcomers for a class that holds more than one structure; whether there is one.

        Where classes are told, its two sides are tried instead: a structure at poses of another leaves doubt, and no
        side of its class shows it.
        """
        if self.plan_of_newcomers is None or room.mixed is None:
            return False
        self.reseeding.num_left -= 1
        self.doubted = Doubted.parting(state, room.mixed, room.free)
        return True

    def _look_further(self, state: TrainingState, room: Room | None, is_in_doubt: bool) -> bool:
        """Another way out; whether there is one."""
        if room is not None and self.reseeding.begun(state, room, is_in_doubt):
            return True
        if is_in_doubt and self.may_call:
            self.doubted = Doubted.of(state)
            self.may_call = self.doubted is None
        return self.are_newcomers_due or self._prune(state)

    def _prune(self, state: TrainingState) -> bool:
        """Take away, once, the classes that images can do without; whether there were any."""
        if not self.prunes:
            return False
        self.prunes = False
        kept = needed_classes(state.classes.log_evidence, _cost_of_maps(state), state.stays)
        self.num_pruned = state.num_classes - len(kept)
        state.keep_classes(kept)
        return self.num_pruned > 0


def _cost_of_maps(state: TrainingState) -> Float[Tensor, "k"]:
    """Nats that the images of each class lose in all by the noise of its map, in maps that they are no part of.

    Half a nat for each number that they determine: of the coefficients of a shell the part of the box that the map
    fills, as far as they are signal. In the map of another class the same images would take away as much of its noise.
    """
    assert state.maps is not None
    signal = state.maps.signal()
    shell = torch.arange(signal.shape[1], device=signal.device)
    density = torch.stack([state.class_map(k).clamp(min=0).flatten() for k in range(state.num_classes)])
    # Of a density that is the same wherever it is not zero this is where it is not zero.
    filled = density.sum(1).square() / (density.square().sum(1) * density.shape[1]).clamp(min=_LEAST)
    return 0.5 * filled * (4 * math.pi * shell.square() * signal).sum(1)
