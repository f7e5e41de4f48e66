"""What may lift a search out of where it has settled: trials with other maps, newcomers, in the end fewer classes."""

from typing import Any

from cryohydra.fourier.lattice import enlarge
from cryohydra.inference.selection import without_the_least_missed
from cryohydra.training.annealing import Annealing
from cryohydra.training.newcomers import Doubted, Newcomers
from cryohydra.training.reseeding import Reseeding
from cryohydra.training.stage import StepResult
from cryohydra.training.state import TrainingState

_NEEDED = 1.0
"""Nats for each of its images by which a class must be missed to stay when classes are pruned."""
_MOST_CALLS = 2
"""For newcomers; for a second only if the first were of use."""
_SAVED = ("prunes", "num_pruned", "kept_before_calls")


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
        self.kept_before_calls: list[int] = []
        """For each call for newcomers, how many trials had been kept by then."""
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
        if self.reseeding.settled(state, is_in_doubt):
            return True
        self.doubted = Doubted.of(state) if is_in_doubt and self._may_call() else None
        return self.are_newcomers_due or self._prune(state)

    def climb(self, state: TrainingState) -> tuple[StepResult, bool]:
        """Let the newcomers that are due climb; when they have, try them out if their images need them.

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
            self.kept_before_calls.append(self.reseeding.num_kept)
            self.newcomers, self.doubted, maps = None, None, newcomers.chosen()
            if maps is None:
                goes_on = self._prune(state)
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
        self.doubted = None if doubted is None else Doubted(tuple(doubted["classes"]), doubted["members"].cpu())
        self._attempts_before = saved["attempts"]

    def _may_call(self) -> bool:
        """Whether newcomers may be called, and those called before were of use."""
        calls = self.kept_before_calls
        were_of_use = not calls or self.reseeding.num_kept > calls[-1]
        return self.plan_of_newcomers is not None and len(calls) < _MOST_CALLS and were_of_use

    def _prune(self, state: TrainingState) -> bool:
        """Take away, once, the classes that images can do without; whether there were any."""
        if not self.prunes:
            return False
        self.prunes = False
        stays = None if state.seeds is None else state.seeds.is_seeded
        kept = without_the_least_missed(state.classes.log_evidence, 1, _NEEDED, stays)
        self.num_pruned = state.num_classes - len(kept)
        state.keep_classes(kept)
        return self.num_pruned > 0
