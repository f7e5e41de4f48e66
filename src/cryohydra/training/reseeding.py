"""What becomes of a class that images can do without: it takes over one side of the class whose images differ most.

Expectation and maximisation never leave a state in which one class shows two structures while another shows none.
A trial does: the class that is missed least is put in the place of one side of a class that holds more than one, or,
where all classes are told, of the images that a class explains worst; the search goes on from there, and if images are
not explained better than before, all is put back.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch

from cryohydra._typing import Bool, Float, Tensor
from cryohydra.inference.reconstruction import ClassMaps
from cryohydra.inference.selection import is_better
from cryohydra.training.mixed_classes import Room, hardly_missed, least_sure, sides_of
from cryohydra.training.state import TrainingState
from cryohydra.training.strangers import find_strangers

_FEWEST_PASSES, _MOST_PASSES = 2, 3
"""In which a trial may show what it is worth. In the first, images are compared with maps that may be made of them."""
_MISSED_BY_STRANGERS, _FEWEST_STRANGERS = 3.0, 10
"""Nats for each of its images by which a class of strangers must be missed to be kept, and how many it must hold."""
_TABLES = ("poses", "classes")
_SAVED = ("num_left", "num_kept", "was_in_vain", "num_passes")


@dataclass(frozen=True)
class Split:
    """A class in two."""

    free: int
    """The class that is given up."""
    parted: int
    """The class whose images differ."""
    sides: Float[Tensor, "2 n n n"]
    """Its map on both sides of the component along which they differ; or as it is, and that of its strangers."""
    is_of_strangers: bool = False


@dataclass(frozen=True)
class Before:
    """All that a trial changes, as it was, and who is to judge it."""

    maps: ClassMaps
    tables: dict[str, dict[str, Tensor]]
    evidence: Float[Tensor, "n"]
    judges: Bool[Tensor, "n"]
    """Images that were of the classes concerned: the others gain by every pass, whatever is tried."""
    of_strangers: int | None = None
    """The class that must be missed, if that is what is asked: a few strangers gain less for each of the judges
    than a pass over grids and one of steps differ by."""

    @classmethod
    def of(cls, state: TrainingState, classes: list[int], of_strangers: int | None = None) -> "Before":
        """Remember a state before other maps come in the place of some classes."""
        assert state.maps is not None
        likeliest = state.classes.log_posterior().argmax(1)
        judges = torch.isin(likeliest, torch.tensor(classes, device=likeliest.device))
        tables = copy.deepcopy({name: getattr(state, name).state_dict() for name in _TABLES})
        return cls(state.maps, tables, state.classes.log_probability(), judges, of_strangers)

    def is_bettered(self, state: TrainingState) -> bool:
        """Whether the judges are explained better now, or strangers miss their class."""
        if self.of_strangers is not None:
            held = int((state.classes.log_posterior().argmax(1) == self.of_strangers).sum())
            others_stay = torch.arange(state.num_classes, device=state.device) != self.of_strangers
            return held >= _FEWEST_STRANGERS and hardly_missed(state, _MISSED_BY_STRANGERS, others_stay) is None
        return is_better(self.evidence[self.judges], state.classes.log_probability()[self.judges])

    def put_back(self, state: TrainingState) -> None:
        """Undo the trial."""
        state.maps = self.maps
        for name, table in self.tables.items():
            getattr(state, name).load_state_dict(table)

    def saved(self) -> dict[str, Any]:
        """Tensors and plain values from which `restored` makes it."""
        return {**vars(self), "maps": self.maps.saved()}

    @classmethod
    def restored(cls, saved: dict[str, Any], state: TrainingState) -> "Before":
        """Undo `saved`."""
        maps = ClassMaps.restored(saved["maps"], state.images.box_size, state.device)
        evidence, judges = saved["evidence"].to(state.device), saved["judges"].to(state.device)
        return cls(maps, saved["tables"], evidence, judges, saved["of_strangers"])


class Reseeding:
    """Trials, one after the other, until one is not worth it."""

    def __init__(self, most_trials: int):
        self.num_left = most_trials
        self.num_kept = 0
        self.was_in_vain = False
        """Whether the last trial was undone: what gave reason to it would again."""
        self.num_passes = 0
        """Of the trial, if there is one."""
        self._before: Before | None = None

    @property
    def is_on_trial(self) -> bool:
        """Whether what is there may yet be put back."""
        return self._before is not None

    @property
    def are_left(self) -> bool:
        """Whether another may be begun."""
        return self.num_left > 0 and not self.was_in_vain

    @property
    def has_had_its_time(self) -> bool:
        """Whether there is a trial of which nothing better is to be expected."""
        return self.is_on_trial and self.num_passes >= _MOST_PASSES

    def begun(self, state: TrainingState, room: Room, is_in_doubt: bool) -> bool:
        """Put the class that can be given up in the place of one side of another, if there is reason to.

        Args:
            is_in_doubt: Whether classes are not told well; then newcomers find what strangers cannot tell.
        """
        split = state.team.once(lambda: find_split(state, room, is_in_doubt), state.generator)
        if split is None:
            return False
        self.num_left -= 1
        of_strangers = split.free if split.is_of_strangers else None
        self.try_out(state, [split.parted, split.free], split.sides, split.parted, of_strangers)
        return True

    def try_out(
        self,
        state: TrainingState,
        classes: list[int],
        maps: Float[Tensor, "c n n n"],
        stems_from: int | None = None,
        of_strangers: int | None = None,
    ) -> None:
        """Put maps in the place of classes, on trial.

        Args:
            stems_from: The class whose poses and evidence the others take over, while it shares its weight with them;
                None if the maps have nothing to do with what was there: then all share what the classes had together.
            of_strangers: The class that is kept if its images would miss it; None if all these are kept if their images
                are explained better.
        """
        assert state.maps is not None
        self._before, self.num_passes = Before.of(state, classes, of_strangers), 0
        state.maps = state.maps.with_others(classes, maps)
        if stems_from is None:
            _pool(state, classes)
        else:
            _share(state, classes, stems_from)

    def keep_if_better(self, state: TrainingState) -> None:
        """After a pass, keep what is on trial if images are explained better; if not, it goes on until it settles."""
        if self._before is None:
            return
        self.num_passes += 1
        if self.num_passes >= _FEWEST_PASSES:
            self._judge(state, self._before)

    def ended(self, state: TrainingState) -> None:
        """Judge the trial, if there is one, and undo it if images are not explained better."""
        if self._before is not None:
            self._judge(state, self._before)
        if self._before is not None:
            self._before.put_back(state)
            self._before, self.was_in_vain = None, True

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {name: getattr(self, name) for name in _SAVED} | {
            "before": None if self._before is None else self._before.saved()
        }

    def load_state_dict(self, state: TrainingState, saved: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        for name in _SAVED:
            setattr(self, name, saved[name])
        self._before = None if saved["before"] is None else Before.restored(saved["before"], state)

    def _judge(self, state: TrainingState, before: Before) -> None:
        if before.is_bettered(state):
            self.num_kept += 1
            self._before, self.was_in_vain = None, False


def find_split(state: TrainingState, room: Room, is_in_doubt: bool) -> Split | None:
    """The class whose images a second map would serve best; None if there is none.

    A class that is there twice is given up also where no class is mixed: then for the class whose images are least
    sure of theirs. One that is missed little is given up also for the strangers of a class, where classes are told.
    """
    free, parted = room.free, room.mixed
    if parted is None and room.is_there_twice:
        parted = least_sure(state, room.others(state))
    if parted is not None:
        return Split(free, parted, sides_of(state, parted))
    if not is_in_doubt and hardly_missed(state, _MISSED_BY_STRANGERS, state.stays) == free:
        strangers = find_strangers(state, room.others(state))
        return None if strangers is None else Split(free, strangers.class_index, strangers.sides, True)
    return None


def _share(state: TrainingState, classes: list[int], stem: int) -> None:
    """Let classes begin with what is known of one of them."""
    for table in (state.poses.rotation, state.poses.shift_px):
        table[:, :, classes] = table[:, :, stem, None]
    tables = state.classes
    tables.log_evidence[:, classes] = tables.log_evidence[:, stem, None]
    tables.log_pose_volume[:, classes] = tables.log_pose_volume[:, stem, None]
    shared = tables.log_weight[classes].logsumexp(0) - math.log(len(classes))
    tables.log_weight[classes] = shared.to(tables.log_weight)


def _pool(state: TrainingState, classes: list[int]) -> None:
    """Let images be as likely of each of some classes as they were of all of them on average, and meet all of them."""
    tables = state.classes
    shared = tables.log_weight[classes].logsumexp(0)
    together = (tables.log_weight + tables.log_evidence)[:, classes].logsumexp(1) - shared
    tables.log_evidence[:, classes] = together[:, None]
    tables.log_weight[classes] = shared - math.log(len(classes))
