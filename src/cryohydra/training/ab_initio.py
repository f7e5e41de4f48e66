"""The first stage: structures from nothing, at low resolution.

All maps climb together by Gibbs sampling (`GibbsSampling`), on some of the images, until they explain no more. They
begin hot and cool slowly: in cold maps that know nothing yet, images freeze in wrong poses and classes (deterministic
annealing, Rose, Proc. IEEE 1998). What they do not show is looked for in the search, once all else has settled
(`Newcomers`).

Where images of noise alone have taken a class, maps climb once more without them (`EarlierClimb`).
"""

from collections.abc import Iterator
from typing import Any

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.inference.reconstruction import ClassMaps
from cryohydra.inference.selection import needed_classes
from cryohydra.training.annealing import Annealing
from cryohydra.training.earlier_climb import EarlierClimb
from cryohydra.training.gibbs import GibbsSampling, Visit
from cryohydra.training.ground import Ground
from cryohydra.training.listener import Tell
from cryohydra.training.stage import Stage, StepResult
from cryohydra.training.state import SURE, TrainingState

SWEEPS_OF_AN_EPOCH = 5
_SWEEPS_TO_SLOW, _LITTLE_GAIN = 5, 0.01
"""In the last band and cold, over all images, whose mean evidence is compared with that of as many before; and the part
of it by which it must have grown while maps climb."""
MOST_CLIMBING = 0.75
"""Part of all steps, at most, in which maps climb; in the rest they settle."""
_SWEEPS_TO_SETTLE, _LEAST_GAIN = 6, 0.003
"""The same while they settle."""
_SWEEPS_IF_SURE, _LEAST_GAIN_IF_SURE = 4, 0.01
"""The same where classes are told, whatever maps do: then the search sharpens poses better."""

_NUM_SPARE = 3
"""Classes beside those needed for what ab initio has not told, where their number is to be found."""


class AbInitio(Stage):
    """Finds K maps and rough poses with nothing known."""

    name = "ab initio"

    def __init__(self, annealing: Annealing, *, num_images: int, batch_size: int, prunes: bool = False):
        """Plan the stage.

        Args:
            num_images: On which maps climb, drawn from all; where there are fewer, some count several times.
            batch_size: About how many of them a step draws anew.
            prunes: Whether classes that images can do without are taken away in the end, but for a few to spare.
        """
        self.annealing = annealing
        self.num_images, self.batch_size, self.prunes = num_images, batch_size, prunes
        self.max_images = annealing.num_steps * batch_size
        self.gains: list[float] = []
        """Mean evidence of each step's images by this visit alone, over that of noise alone."""
        self.settles_from: int | None = None
        """The step from which maps settle; None while they climb."""
        self.earlier: EarlierClimb | None = None
        """What maps had come to before they climbed once more; None if they did not."""

    def begin(self, state: TrainingState) -> None:
        """Lay images into every class at random."""
        ground = Ground.of(state, self.annealing.last_radius)
        order = torch.randperm(len(state), generator=state.generator)
        members = order[torch.arange(self.num_images) % len(state)]
        self.sampling = GibbsSampling.from_nothing(
            state, ground, self.annealing, members, state.num_classes, state.seeds
        )
        self._show(state)
        state.fields_are_fitted = False

    def batches(self, state: TrainingState) -> Iterator[Int[Tensor, "b"]]:
        """Every image that maps climb on some times over, one part of them after the other."""
        self.sampling.lay_anew()
        for _ in range(SWEEPS_OF_AN_EPOCH * self.sampling.num_parts):
            yield self.sampling.next_members()
        self._show(state)

    def step(self, state: TrainingState, index: Int[Tensor, "b"]) -> StepResult:
        """Draw the poses of the part of the images whose turn it is: those of `batches`."""
        sampling = self.sampling
        radius, rows = self.annealing.radius(sampling.step_count), sampling.next_members().to(state.device)
        visit = sampling.step(state)
        self._remember(state, rows, visit)
        self.gains.append(visit.mean_evidence)
        # What its bound ended has no time for more.
        self.is_done = sampling.is_done or (self._has_settled() and not self._climbs_once_more(state))
        return StepResult(loss=-visit.mean_evidence, note=f"band {radius}")

    def end(self, state: TrainingState, tell: Tell) -> str:
        """Leave the maps of all images that lie in them, and the classes' shares of these."""
        sampling, earlier, note = self.sampling, self.earlier, ""
        maps, members = sampling.maps(), sampling.members
        if earlier is not None and earlier.is_bettered(sampling):
            note = f" {int(earlier.is_noise.sum())} images that noise explains better held a class; they are set aside."
        elif earlier is not None:
            earlier.put_back(state)
            maps, members = earlier.maps, earlier.members
        state.maps = _as_maps(sampling, maps)
        rows = members.unique().to(state.device)
        if self.prunes and state.seeds is None:
            note += f" Those needed of {state.num_classes} classes, and {_NUM_SPARE} at most to spare, are left."
            state.keep_classes(needed_classes(state.classes.log_evidence[rows], num_spare=_NUM_SPARE))
        state.classes.update_weights(rows)
        shares = state.classes.log_posterior(rows).exp().mean(0).tolist()
        return (
            f"Ab initio: {state.num_classes} maps of {len(members)} images to {self.annealing.last_radius} Fourier "
            f"pixels; shares " + ", ".join(f"{share:.2f}" for share in shares) + f".{note}"
        )

    def state_dict(self) -> dict[str, Any]:
        """Where the images lie."""
        return {
            "sampling": self.sampling.state_dict(),
            "gains": self.gains,
            "settles_from": self.settles_from,
            "earlier": None if self.earlier is None else vars(self.earlier),
            "max_images": self.max_images,
        }

    def load_state_dict(self, state: TrainingState, saved: dict[str, Any]) -> None:
        """Go on from there."""
        self.sampling.load_state_dict(state, saved["sampling"])
        self.gains, self.settles_from = saved["gains"], saved["settles_from"]
        self.earlier = None if saved["earlier"] is None else EarlierClimb.restored(saved["earlier"], state.device)
        self.max_images = saved["max_images"]

    def _climbs_once_more(self, state: TrainingState) -> bool:
        """Begin anew without images of noise, if they hold a class for the first time; whether it does."""
        # Where something is known of classes, none is left to chance.
        if self.earlier is not None or state.seeds is not None:
            return False
        self.earlier = EarlierClimb.of(state, self.sampling)
        if self.earlier is None:
            return False
        self.earlier.set_aside(state)
        self.sampling = GibbsSampling.from_nothing(
            state, self.sampling.ground, self.annealing, self.earlier.rest, state.num_classes
        )
        self.gains, self.settles_from = [], None
        self.max_images += self.annealing.num_steps * self.batch_size
        return True

    def _has_settled(self) -> bool:
        """Whether cold maps explain no more; once they hardly climb, more draws of an image count, and they settle."""
        sampling = self.sampling
        if not sampling.is_cold:
            # Maps cool slowly so that classes part: where they have, there is nothing to wait for.
            if sampling.step_count % sampling.num_parts == 0 and self._is_sure():
                sampling.cool()
            return False
        if self._gains_less(_LEAST_GAIN_IF_SURE, _SWEEPS_IF_SURE) and self._is_sure():
            return True
        if self.settles_from is not None:
            return self._gains_less(_LEAST_GAIN, _SWEEPS_TO_SETTLE)
        if (
            self._gains_less(_LITTLE_GAIN, _SWEEPS_TO_SLOW)
            or len(self.gains) > MOST_CLIMBING * self.annealing.num_steps
        ):
            sampling.count_more_draws()
            self.settles_from = len(self.gains)
        return False

    def _is_sure(self) -> bool:
        """Whether classes count as told."""
        return float(torch.softmax(self.sampling.log_evidence, dim=1).amax(1).mean()) > SURE

    def _gains_less(self, least_gain: float, num_sweeps: int) -> bool:
        """Whether the last sweeps of their kind added a smaller part of the evidence to that of as many before."""
        plan = self.sampling.plan
        late = self.gains[self.settles_from or max(plan.num_warm_steps, plan.num_cool_steps) :]
        num_steps = num_sweeps * self.sampling.num_parts
        now, before = late[-num_steps:], late[-2 * num_steps : -num_steps]
        return len(before) == num_steps and sum(now) - sum(before) < least_gain * abs(sum(now))

    def _show(self, state: TrainingState) -> None:
        """Let the state hold the maps of all images."""
        state.maps = _as_maps(self.sampling, self.sampling.maps())

    def _remember(self, state: TrainingState, rows: Int[Tensor, "b"], visit: Visit) -> None:
        """Keep where images lie, their likeliest poses in other classes, their evidence, and how far they spread."""
        state.shift_prior = self.sampling.shift_prior
        state.poses.rotation[rows] = visit.likeliest[:, None]
        placement = visit.placement
        state.poses.rotation[rows, 0, placement.class_index] = placement.rotation
        state.poses.shift_px[rows] = (placement.shift_px + state.known_shift_px[rows])[:, None, None]
        state.classes.log_evidence[rows] = visit.log_evidence
        state.classes.log_pose_volume[rows] = 0.0


def _as_maps(sampling: GibbsSampling, values: Float[Tensor, "k n n n"]) -> ClassMaps:
    lattice = sampling.ground.lattice
    return ClassMaps(lattice, values, values.new_zeros(len(values), lattice.radius + 1))
