"""The first stage: structures from nothing, at low resolution.

All maps climb together (`Ascent`). When they have settled, those that are missed least, because another shows the same
or because they show nothing clearly, are asked for: newcomers climb from nothing on the images of those classes,
and evidence decides which of all maps stay.
"""

from dataclasses import replace
from typing import Any

import torch

from cryohydra._typing import Bool, Float, Int, Tensor
from cryohydra.fourier.lattice import enlarge
from cryohydra.inference.reconstruction import ClassMaps
from cryohydra.inference.selection import CLEARLY_MISSED, without_the_least_missed
from cryohydra.training.annealing import Annealing
from cryohydra.training.ascent import Ascent, Ground, ascent_from_nothing
from cryohydra.training.grid_comparison import Comparison
from cryohydra.training.listener import Tell
from cryohydra.training.seeds import Seeds
from cryohydra.training.stage import Stage, StepResult
from cryohydra.training.state import TrainingState

_DOUBTED = (1 / 3, 1 / 4)
"""Part of the classes that newcomers may replace, in each round."""
_FEWEST_TEACHERS = 20
"""Images without which no newcomers are called."""
_IMAGES_OF_A_NEWCOMER = 100
"""For each step. The images that newcomers climb on are of several structures: with a quarter of strangers among them,
100 images at a time find the poses of a complex whose own images alone need 50."""
_STEPS_OF_NEWCOMERS = 1.0
"""Of the steps that all classes have."""
_STEPS_AFTERWARDS = 0.25
_NUM_JUDGES = 2000
"""Images whose evidence decides which maps stay, at most."""


class AbInitio(Stage):
    """Finds K maps and rough poses with nothing known."""

    name = "ab initio"

    def __init__(self, annealing: Annealing, *, batch_size: int, max_images: int, num_images_to_start: int):
        """Plan the stage.

        Args:
            num_images_to_start: Images that, backprojected in random poses, make the first maps.
        """
        self.annealing = annealing
        self.batch_size = batch_size
        of_a_round = _STEPS_OF_NEWCOMERS + _STEPS_AFTERWARDS
        self.max_images = min(max_images, round(annealing.num_steps * batch_size * (1 + len(_DOUBTED) * of_a_round)))
        self.num_images_to_start = num_images_to_start
        self.num_rounds = 0
        self.num_replaced = 0
        self.gain = 0.0
        """Mean evidence of the last batch that the classes climbed on, over that of noise alone."""

    def begin(self, state: TrainingState) -> None:
        """Start every class from images in random poses."""
        self.ground = Ground.of(state, self.annealing.last_radius)
        self.is_compared = torch.zeros(len(state), dtype=torch.bool)
        """In the whole band, since the maps were last changed but by climbing."""
        self.newcomers: Ascent | None = None
        everyone = torch.arange(len(state))
        self.members = everyone[:0]
        """The images that teach newcomers."""
        self.verdicts: list[Tensor] = []
        """Evidence of batches for all maps, the newcomers last."""
        self.ascent = self._from_nothing(state, self.annealing, everyone, state.num_classes, self.batch_size)
        self.is_seeded = torch.zeros_like(self.ascent.is_held)
        if state.seeds is not None:
            self.is_seeded = state.seeds.is_seeded
            self._plant(state.seeds)
        self._show(state)
        state.fields_are_fitted = False

    def step(self, state: TrainingState, index: Int[Tensor, "b"]) -> StepResult:
        """Let the maps climb, or newcomers, or ask the images which are needed."""
        if self.newcomers is None:
            note = self._climb(state, index)
        elif not self.newcomers.is_done:
            note = self._raise(state, self.newcomers)
        else:
            note = self._ask(state, self.newcomers, index)
        self._show(state)
        return StepResult(loss=-self.gain, note=note)

    def end(self, state: TrainingState, tell: Tell) -> str:
        """Nothing is left open."""
        state.classes.update_weights()
        shares = state.classes.log_posterior().exp().mean(0).tolist()
        replaced = f", {self.num_replaced} of them replaced on the way" if self.num_replaced else ""
        return (
            f"Ab initio: {state.num_classes} maps to {self.annealing.last_radius} Fourier pixels{replaced}; shares "
            + ", ".join(f"{share:.2f}" for share in shares)
            + "."
        )

    def state_dict(self) -> dict[str, Any]:
        """Where the maps are, and the newcomers."""
        return {
            "ascent": self.ascent.state_dict(),
            "newcomers": None if self.newcomers is None else self.newcomers.state_dict(),
            "is_compared": self.is_compared,
            "members": self.members,
            "verdicts": self.verdicts,
            "num_rounds": self.num_rounds,
            "num_replaced": self.num_replaced,
            "gain": self.gain,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from there."""
        self.ascent.load_state_dict(saved["ascent"])
        for name in ("is_compared", "members", "verdicts", "num_rounds", "num_replaced", "gain"):
            setattr(self, name, saved[name])
        # Rows, wherever the checkpoint was read to.
        self.is_compared, self.members = self.is_compared.cpu(), self.members.cpu()
        climber = saved["newcomers"]
        if climber is not None:
            foot = climber["maps"], climber["unexplained"], self.ascent.shift_prior
            batch_size = self._images_of_newcomers(len(climber["maps"]))
            self.newcomers = Ascent(self._plan_of_newcomers(), self.ground, *foot, batch_size)
            self.newcomers.load_state_dict(climber)

    def _plant(self, seeds: Seeds) -> None:
        """Hold maps that are known; the free ones climb beside them, on what these do not explain."""
        ascent, known = self.ascent, seeds.has_map
        ascent.maps = torch.where(known[:, None, None, None], enlarge(seeds.values, self.ground.lattice), ascent.maps)
        ascent.is_held = known

    def _climb(self, state: TrainingState, index: Int[Tensor, "b"]) -> str:
        is_wide = self.ascent.is_wide
        log_prior = None if state.seeds is None else state.seeds.log_prior(index.to(state.device))
        comparison, note = self.ascent.step(state, index, log_prior)
        self.gain = self.ascent.gains[-1]
        self._remember(state, index, comparison)
        self.is_compared[index] = is_wide
        if self.ascent.is_done:
            self._doubt(state)
        return note

    def _doubt(self, state: TrainingState) -> None:
        """Call newcomers for the classes that are missed least, or end."""
        if self.num_rounds == len(_DOUBTED):
            self.is_done = True
            return
        rows = torch.nonzero(self.is_compared)[:, 0]
        num_clear = state.num_classes - round(_DOUBTED[self.num_rounds] * state.num_classes)
        evidence = state.classes.log_evidence[rows.to(state.device)]
        clear = without_the_least_missed(evidence, num_clear, CLEARLY_MISSED, self.is_seeded)
        num_doubted = state.num_classes - len(clear)
        if not num_doubted:
            self.is_done = True
            return
        self.members = rows[_teachers(evidence, clear).cpu()]
        if len(self.members) < _FEWEST_TEACHERS:
            self.is_done = True
            return
        # One more than is looked for: of several that start from nothing, some find the same.
        plan, num_newcomers = self._plan_of_newcomers(), num_doubted + 1
        batch_size = self._images_of_newcomers(num_newcomers)
        self.newcomers = self._from_nothing(state, plan, self.members, num_newcomers, batch_size)
        self.num_rounds += 1

    def _raise(self, state: TrainingState, newcomers: Ascent) -> str:
        """Let newcomers climb on the images that they are called for."""
        size = self._images_of_newcomers(len(newcomers.maps))
        drawn = torch.randperm(len(self.members), generator=state.generator)[:size]
        _, note = newcomers.step(state, self.members[drawn])
        return f"{len(newcomers.maps)} newcomers, {note}"

    def _ask(self, state: TrainingState, newcomers: Ascent, index: Int[Tensor, "b"]) -> str:
        """Ask a batch which maps it needs; when enough were asked, the classes go on with those."""
        pool = torch.cat([self.ascent.maps, newcomers.maps])
        band, comparer = self.ground.band, self.ground.comparer
        self.verdicts.append(
            comparer.compare(pool, state.weighted(index, band), band, state.shift_prior, balance=0.0).log_evidence
        )
        num_asked = sum(map(len, self.verdicts))
        if num_asked >= min(_NUM_JUDGES, len(state)):
            self._choose(state, newcomers, torch.cat(self.verdicts))
        return f"{num_asked} images asked which of {len(pool)} maps they need"

    def _choose(self, state: TrainingState, newcomers: Ascent, verdicts: Float[Tensor, "n m"]) -> None:
        """Put newcomers that are needed more in the place of classes; end if there are none."""
        num_classes = state.num_classes
        stays = torch.nn.functional.pad(self.is_seeded, (0, len(newcomers.maps)))
        kept = without_the_least_missed(verdicts, num_classes, stays=stays)
        chosen = kept[kept >= num_classes] - num_classes
        is_free = torch.ones(num_classes, dtype=torch.bool, device=kept.device)
        is_free[kept[kept < num_classes]] = False
        self.newcomers, self.verdicts = None, []
        self.is_compared[:] = False
        self.num_replaced += len(chosen)
        if len(chosen):
            self.ascent.adopt(torch.nonzero(is_free)[:, 0], newcomers, chosen, _STEPS_AFTERWARDS)
        else:
            self.is_done = True

    def _from_nothing(
        self, state: TrainingState, plan: Annealing, members: Int[Tensor, "m"], num_maps: int, batch_size: int
    ) -> Ascent:
        """Maps of images in random poses, at the foot of their ascent."""
        return ascent_from_nothing(state, self.ground, plan, members, num_maps, batch_size, self.num_images_to_start)

    def _images_of_newcomers(self, num_newcomers: int) -> int:
        """Of a step."""
        return min(_IMAGES_OF_A_NEWCOMER * num_newcomers, len(self.members))

    def _plan_of_newcomers(self) -> Annealing:
        return replace(self.annealing, num_steps=max(1, round(_STEPS_OF_NEWCOMERS * self.annealing.num_steps)))

    def _show(self, state: TrainingState) -> None:
        """Let the state hold what is known."""
        lattice, maps = self.ground.lattice, self.ascent.maps
        state.maps = ClassMaps(lattice, maps, maps.new_zeros(len(maps), lattice.radius + 1))
        state.shift_prior = self.ascent.shift_prior

    def _remember(self, state: TrainingState, index: Int[Tensor, "b"], comparison: Comparison) -> None:
        """Keep each particle's best pose in every class, and the classes' evidence."""
        rows = index.to(state.device)
        found = comparison.found
        state.poses.rotation[rows] = comparison.slicer.rotations[found.rotation_index][:, None]
        shift = comparison.shifts[found.shift_index]
        state.poses.shift_px[rows] = (shift + state.known_shift_px[rows][:, None])[:, None]
        state.classes.log_evidence[rows] = comparison.log_evidence + comparison.log_weight
        state.classes.log_pose_volume[rows] = 0.0


def _teachers(log_evidence: Float[Tensor, "n k"], kept: Int[Tensor, "m"]) -> Bool[Tensor, "n"]:
    """Which images are likeliest of a class that is not kept, and less sure of another without it.

    Those of a class that is there twice are surer: they would teach newcomers the same a third time. Where hardly any
    others are left, they teach all the same: what is looked for may lie among them.
    """
    probability, without = torch.softmax(log_evidence, dim=1), torch.softmax(log_evidence[:, kept], dim=1)
    surest, likeliest = probability.max(1)
    is_doubted = ~torch.isin(likeliest, kept)
    is_in_need = is_doubted & (without.amax(1) < surest)
    return is_in_need if int(is_in_need.sum()) >= _IMAGES_OF_A_NEWCOMER else is_doubted
