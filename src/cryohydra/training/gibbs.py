"""Maps that climb at one pose of each image, drawn by its posterior in the maps of all others, and settle at several.

An average over all poses that are possible holds maps in wrong ones, and an image that is compared with a map that it
is part of is held where it was. So the images go through in parts: those of one are taken out of the sums, compared
with the maps of all other parts, and added anew, each at a class and a pose that are drawn (Gibbs sampling; Geman and
Geman, IEEE PAMI 1984). What images say of such maps is not flattered by what they gave to them.

Of one draw of each image maps are noisier than of an average over poses, and in that noise a small complex loses its
poses again. So once maps have climbed, the last few draws of an image count together (`count_more_draws`), each a part
of it (an average over a chain, as in stochastic approximation: Delyon, Lavielle and Moulines, Ann. Statist. 1999).
"""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.hartley import shift_hartley
from cryohydra.fourier.lattice import correct_interpolation, enlarge
from cryohydra.geometry.rotations import random_rotations
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.reconstruction import ClassSums
from cryohydra.inference.shift_prior import ShiftPrior
from cryohydra.inference.slices import GridSlicers, LatticeSlices
from cryohydra.training.annealing import Annealing
from cryohydra.training.ground import Ground, followed, power_over_noise, unexplained_power
from cryohydra.training.pose_draws import DrawnPoses, Placement, TurnedGrid, log_evidence_on_grid, shift_step
from cryohydra.training.seeds import Seeds
from cryohydra.training.state import TrainingState
from cryohydra.training.team import SharedBatch

_FEWEST_PARTS = 6
_IMAGES_OF_A_PART = 40
"""For each map: the fewer, the sooner maps follow."""
_FEWEST_IMAGES_OF_A_PART = 80
MOST_DRAWS = 4
"""Of each image that count together."""
_NUM_SWEEPS_TO_SETTLE = 8
"""Over all images, for maps that there are already: in the first noise is not known yet, nor are there enough draws."""
_MEMORY_OF_EVIDENCE = 0.8
"""Part of the evidence that is left of what an image said before: each time it meets few poses, in other maps."""
_RESCALED = 0.5, 2.0
"""By how much a map that is held may be too strong or too weak for one batch to say so."""
_MOST_SAID = 30.0
"""Evidence of the mean image over noise, in nats: of a peak that is steeper no coarse grid hits a flank."""
_LEAST_SCALE = 0.1
"""Of a map that is held: one that is in no image stays weak, and is there if images need it after all."""


@dataclass(frozen=True)
class _Laid:
    """How one draw has laid the images of a part into the maps."""

    placement: Placement
    near_shifts: Float[Tensor, "b s 2"]
    of_shift: Float[Tensor, "b s"]
    """How much of an image each of these has."""
    radius: int
    """Up to which they count."""
    score: Float[Tensor, "b p"]
    """Of each image, moved back by the mean over these shifts."""
    power: Float[Tensor, "b p"]


@dataclass(frozen=True)
class Visit:
    """What a step found of the images of a part."""

    placement: Placement
    likeliest: Float[Tensor, "b k 3 3"]
    """Rotation in each class, of a coarse grid."""
    log_evidence: Float[Tensor, "b k"]
    """By several visits, over that of noise alone."""
    mean_evidence: float
    """Of the images by this visit alone, classes as likely as each other; by several it grows long after maps do."""


@dataclass(frozen=True)
class Yardstick:
    """What evidence is told by: only evidence that is told by the same compares."""

    unexplained: Float[Tensor, "r"]
    """Power over that of the noise which is noise to maps, in each shell."""
    shift_prior: ShiftPrior

    def weighted(
        self, images: WeightedImages, band: Band, temperature: Float[Tensor, ""] | float = 1.0
    ) -> WeightedImages:
        """Images to which what maps leave unexplained is noise."""
        trust = 1 / (temperature * self.unexplained[band.shells])
        return WeightedImages(images.score * trust, images.power * trust, images.constant)


class GibbsSampling:
    """Some maps on their way up.

    Each member of a team draws poses for its share of a part, and adds up the images of its share of the classes; all
    know where all lie.
    """

    def __init__(
        self,
        state: TrainingState,
        ground: Ground,
        plan: Annealing,
        members: Int[Tensor, "m"],
        num_maps: int,
        placement: Placement,
        seeds: Seeds | None = None,
    ):
        """Add every image to the maps.

        Args:
            members: The images to climb on.
            placement: Where each lies in the beginning.
            seeds: Maps that are known, of which only the scale follows the images, and labels.
        """
        self.plan, self.ground, self.members, self.seeds = plan, ground, members, seeds
        self.shift_prior, self.team = state.shift_prior, state.team
        num_parts = num_parts_of(len(members), num_maps)
        self.part = torch.randperm(len(members), generator=state.generator) % num_parts
        self.unexplained = unexplained_power(state, ground, members)
        self.log_evidence = torch.zeros(len(members), num_maps, device=state.device)
        """Of each image in the maps of all other parts, the last visits weighing most; over that of noise alone."""
        self.temperature = torch.ones((), device=state.device)
        """By which log likelihoods are divided, so that images that say much can still leave where they are.

        That of the plan comes on top of it.
        """
        self.step_count = 0
        self.most_draws = 1
        """Of each image that count, the last ones; while maps climb, more would hold them back."""
        self.scale = torch.ones(num_maps, device=state.device)
        """Of maps that are held."""
        self._slicers = GridSlicers()
        self._known = None if seeds is None else enlarge(seeds.values, ground.lattice)
        self._laid: list[list[_Laid]] = []
        """Of each part the draws that count, the last one last."""
        for part in range(num_parts):
            rows = self._rows(part).to(state.device)
            there = Placement(placement.class_index[rows], placement.rotation[rows], placement.shift_px[rows])
            shifts = there.shift_px[:, None]
            of_shift = torch.ones_like(shifts[..., 0])
            self._laid.append([self._laid_at(state, part, there, shifts, of_shift, ground.band.radius)])
        self._dealt_as = torch.full((num_maps,), -1, device=state.device)
        """Of each class its number among those whose sums this member keeps; -1 for those of others."""
        dealt = self.team.dealt(self._dealt_as)
        dealt.copy_(torch.arange(len(dealt)))
        self._sums = ClassSums.empty(ground.lattice, len(dealt), state.device, num_parts)
        """Of each part, over its draws that count; the parts are not those of `part_of`."""
        self.lay_anew()

    @classmethod
    def from_nothing(
        cls,
        state: TrainingState,
        ground: Ground,
        plan: Annealing,
        members: Int[Tensor, "m"],
        num_maps: int,
        seeds: Seeds | None = None,
    ) -> "GibbsSampling":
        """Give every image a class and a rotation at random.

        Beside maps that are known others begin empty, and get what those explain least.
        """
        generator, device = state.generator, state.device
        begin = torch.arange(num_maps)
        if seeds is not None and bool(seeds.has_map.any()):
            begin = torch.nonzero(seeds.has_map.cpu())[:, 0]
        class_index = begin[torch.randint(len(begin), (len(members),), generator=generator)].to(device)
        rotation = random_rotations(len(members), generator).to(device)
        centre = torch.tensor(state.shift_prior.centre_px, device=device).expand(len(members), 2)
        return cls(state, ground, plan, members, num_maps, Placement(class_index, rotation, centre), seeds)

    @classmethod
    def from_classes(
        cls, state: TrainingState, ground: Ground, plan: Annealing, members: Int[Tensor, "m"], classes: Sequence[int]
    ) -> "GibbsSampling":
        """Begin where images lie now, each in the likeliest of some classes, in the widest band."""
        rows, device = members.to(state.device), state.device
        likeliest = state.classes.log_posterior(rows)[:, list(classes)].argmax(1)
        taken = torch.tensor(classes, device=device)[likeliest]
        shift_px = state.poses.shift_px[rows, 0, taken] - state.known_shift_px[rows]
        placement = Placement(likeliest, state.poses.rotation[rows, 0, taken], shift_px)
        num_steps = _NUM_SWEEPS_TO_SETTLE * num_parts_of(len(members), len(classes))
        plan = replace(plan, num_steps=num_steps, num_warm_steps=1, num_cool_steps=0, first_radius=plan.last_radius)
        sampling = cls(state, ground, plan, members, len(classes), placement)
        sampling.count_more_draws()
        return sampling

    @property
    def num_parts(self) -> int:
        """Of the images; a step draws the poses of one."""
        return len(self._laid)

    @property
    def evidence(self) -> Float[Tensor, "m"]:
        """Of each image in maps that it is no part of, these as likely as each other; over that of noise alone."""
        return torch.logsumexp(self.log_evidence, dim=1) - math.log(self.log_evidence.shape[1])

    @property
    def is_done(self) -> bool:
        """Whether all steps are made."""
        return self.step_count >= self.plan.num_steps

    @property
    def is_cold(self) -> bool:
        """Whether the next step divides log likelihoods by the plan's temperature no longer."""
        return self.step_count >= self.plan.num_cool_steps

    def next_members(self) -> Int[Tensor, "b"]:
        """Those whose poses the next step draws."""
        return self.members[self._rows(self.step_count % self.num_parts)]

    def step(self, state: TrainingState) -> Visit:
        """Draw the poses of one part anew."""
        part, radius = self.step_count % self.num_parts, self.plan.radius(self.step_count)
        members = self.next_members()
        batch = SharedBatch(self.team, len(members), state.generator)
        band, of_part = Band(self.ground.band.box_size, radius, state.device), self._images_of(state, part)
        whole = of_part.at(self.ground.band.within(radius))
        temperature = self.temperature * self.plan.temperature(self.step_count)
        images = self.yardstick.weighted(whole, band, temperature)
        source = self._slices_without(part)
        grid = TurnedGrid(source, images, band, self.shift_prior, self.plan.level, batch)
        before = self._laid[part][-1].placement.share(self.team)
        log_prior = self._log_prior(state, self.team.share(members))
        drawn = grid.draw(before, log_prior, self.plan.balance(self.step_count))
        score = _moved_back(whole, band, drawn.near_shifts, drawn.of_shift)
        # What is left of images by maps that they are no part of.
        explained = 2 * score * drawn.slices - whole.power[:, 0] * drawn.slices.square()
        left = power_over_noise(whole) - explained
        laid, found, likeliest, left = _laid_by_all(batch, drawn, radius, grid, score, whole.power[:, 0], left)
        self._count(part, laid)
        self.unexplained = followed(self.unexplained, left.mean(0), band, self.plan.memory)
        self._learn_spread(laid, band)
        # While the plan's is above one, as of images with so much more noise.
        log_evidence = self.temperature * found
        said = log_evidence.logsumexp(1).mean()
        self.temperature = torch.lerp((said / _MOST_SAID).clamp(min=1), self.temperature, self.plan.memory)
        mean_evidence = float(said) - math.log(log_evidence.shape[1])
        if self.seeds is not None:
            self._rescale(whole, score, drawn, band)
        self.step_count += 1
        remembered = self._remembered(part, log_evidence)
        return Visit(laid.placement, likeliest, remembered, mean_evidence)

    def cool(self) -> None:
        """Divide log likelihoods by the plan's temperature no longer."""
        self.plan = replace(self.plan, num_cool_steps=self.step_count)

    def count_more_draws(self) -> None:
        """Let the last few draws of each image count from now on: maps of less noise, which follow more slowly."""
        self.most_draws = MOST_DRAWS

    @property
    def yardstick(self) -> Yardstick:
        """By which evidence is told now."""
        return Yardstick(self.unexplained, self.shift_prior)

    def lay_anew(self) -> None:
        """Make the sums anew of where images lie: in sums that are added to and taken from, rounding adds up."""
        sums = self._sums
        for part in range(self.num_parts):
            sums.forget(part)
            for laid in self._laid[part]:
                self._add(part, laid)
        share = torch.tensor([1 / len(kept) for kept in self._laid], device=sums.numerator.device)
        self._whole = tuple(torch.einsum("p,pkn->kn", share, one) for one in (sums.numerator, sums.denominator))

    def look_closely(self, state: TrainingState, yardstick: Yardstick) -> None:
        """Tell the evidence of all images by a fine grid, each still in maps that it is no part of."""
        band = Band(self.ground.band.box_size, self.plan.radius(self.step_count), state.device)
        for part in range(self.num_parts):
            of_part = self._images_of(state, part)
            images = yardstick.weighted(of_part.at(self.ground.band.within(band.radius)), band)
            source = self._slices_without(part)
            found = log_evidence_on_grid(source, images, band, yardstick.shift_prior, self.team)
            rows = self._rows(part)
            self.log_evidence[rows.to(state.device)] = self.team.gather(found, len(rows))

    def maps(self) -> Float[Tensor, "k n n n"]:
        """Those of all images that are laid into them, as wide as the next step's, or as they are known."""
        return self.team.gather(self._dealt_maps(*self._whole), len(self.scale))

    def _slices_without(self, part: int) -> LatticeSlices:
        """Those of the maps of all images but a part's."""
        lattice = self.ground.lattice
        corrected = correct_interpolation(lattice, self._dealt_without(part))
        return LatticeSlices(lattice, self.team.gather(corrected, len(self.scale)), self._slicers)

    def _dealt_without(self, part: int) -> Float[Tensor, "m n n n"]:
        """The maps of all images but a part's that fall to this member."""
        return self._dealt_maps(*(whole - own for whole, own in zip(self._whole, self._share_of(part), strict=True)))

    def _dealt_maps(
        self, numerator: Float[Tensor, "m n3"], denominator: Float[Tensor, "m n3"]
    ) -> Float[Tensor, "m n n n"]:
        """Those that fall to this member (`Team.deal`)."""
        radius = self.plan.radius(self.step_count)
        maps = self.ground.maps_of(numerator, denominator, radius)
        if self.seeds is None or self._known is None:
            return maps
        known = torch.where(self.ground.distance <= radius, self.team.dealt(self._known), 0.0)
        known = known * self.team.dealt(self.scale)[:, None, None, None]
        return torch.where(self.team.dealt(self.seeds.has_map)[:, None, None, None], known, maps)

    def state_dict(self) -> dict[str, Any]:
        """Where every image lies, and what is known of noise and shifts; maps are made anew of where images lie."""
        return {
            "laid": [
                [(astuple(one.placement), one.near_shifts, one.of_shift, one.radius) for one in kept]
                for kept in self._laid
            ],
            "members": self.members,
            "part": self.part,
            "log_evidence": self.log_evidence,
            "unexplained": self.unexplained,
            "scale": self.scale,
            "temperature": self.temperature,
            "step_count": self.step_count,
            "most_draws": self.most_draws,
            "num_cool_steps": self.plan.num_cool_steps,
            "mean_square_px": self.shift_prior.mean_square_px,
        }

    def load_state_dict(self, state: TrainingState, saved: dict[str, Any]) -> None:
        """Go on from there."""
        self.members, self.part = saved["members"].cpu(), saved["part"].cpu()
        for name in ("log_evidence", "unexplained", "scale", "temperature"):
            setattr(self, name, saved[name].to(state.device))
        self.step_count, self.most_draws = saved["step_count"], saved["most_draws"]
        self.plan = replace(self.plan, num_cool_steps=saved["num_cool_steps"])
        self.shift_prior = self.shift_prior.learned(saved["mean_square_px"])
        self._laid = [[self._restored(state, part, *laid) for laid in kept] for part, kept in enumerate(saved["laid"])]
        self.lay_anew()

    def _remembered(self, part: int, now: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        """Evidence by this visit and those before it."""
        rows = self._rows(part).to(now.device)
        if self.step_count > self.num_parts:
            before = self.log_evidence[rows] + math.log(_MEMORY_OF_EVIDENCE)
            now = torch.logaddexp(before, now + math.log(1 - _MEMORY_OF_EVIDENCE))
        self.log_evidence[rows] = now
        return now

    def _rows(self, part: int) -> Int[Tensor, "b"]:
        return torch.nonzero(self.part == part)[:, 0]

    def _images_of(self, state: TrainingState, part: int) -> WeightedImages:
        """The images of a part that fall to this member, in the widest band."""
        return state.weighted(self.team.share(self.members[self._rows(part)]), self.ground.band)

    def _log_prior(self, state: TrainingState, members: Int[Tensor, "b"]) -> Float[Tensor, "b k"]:
        if self.seeds is None:
            return self.log_evidence.new_zeros(len(members), self.log_evidence.shape[1])
        return self.seeds.log_prior(members.to(state.device))

    def _share_of(self, part: int) -> tuple[Float[Tensor, "k n3"], Float[Tensor, "k n3"]]:
        """What a part adds to numerator and denominator of all: the mean of its draws that count."""
        num_draws = len(self._laid[part])
        return self._sums.numerator[part] / num_draws, self._sums.denominator[part] / num_draws

    def _count(self, part: int, drawn: _Laid) -> None:
        """Let one more draw of a part count, and no more than the last few."""
        before, kept = self._share_of(part), [*self._laid[part], drawn]
        for laid in kept[: -self.most_draws]:
            self._add(part, laid, sign=-1)
        self._add(part, drawn)
        self._laid[part] = kept[-self.most_draws :]
        for whole, old, new in zip(self._whole, before, self._share_of(part), strict=True):
            whole += new - old

    def _add(self, part: int, laid: _Laid, sign: int = 1) -> None:
        """Add images of a part to the sums of their classes that this member keeps, or take them out."""
        band = Band(self.ground.band.box_size, laid.radius, self.ground.mask.device)
        class_index, rotation = self._dealt_as[laid.placement.class_index], laid.placement.rotation
        self._sums.add(
            WeightedImages(sign * laid.score[:, None], sign * laid.power[:, None], torch.zeros_like(laid.score[:, 0])),
            band,
            torch.full_like(class_index, part),
            (class_index >= 0).float()[:, None],
            class_index.clamp(min=0)[:, None],
            rotation[:, None, None],
            laid.score.new_zeros(len(class_index), 1, 1, 2),
        )

    def _laid_at(
        self,
        state: TrainingState,
        part: int,
        placement: Placement,
        near_shifts: Float[Tensor, "b s 2"],
        of_shift: Float[Tensor, "b s"],
        radius: int,
    ) -> _Laid:
        """The images of a part where they are told to lie."""
        band = Band(self.ground.band.box_size, radius, state.device)
        images = self._images_of(state, part).at(self.ground.band.within(radius))
        score = _moved_back(images, band, self.team.share(near_shifts), self.team.share(of_shift))
        score, power = self.team.gather_all([score, images.power[:, 0]], len(of_shift))
        return _Laid(placement, near_shifts, of_shift, radius, score, power)

    def _restored(
        self, state: TrainingState, part: int, placement: tuple[Tensor, ...], near: Tensor, of_near: Tensor, radius: int
    ) -> _Laid:
        """What `state_dict` has saved of a draw."""
        there = Placement(*(one.to(state.device) for one in placement))
        return self._laid_at(state, part, there, near.to(state.device), of_near.to(state.device), radius)

    def _learn_spread(self, drawn: _Laid, band: Band) -> None:
        """Re-estimate how far particles lie from the centre, as the noise is re-estimated.

        A point of those nearby stands for its cell, whose own spread is a sixth of the squared step.
        """
        prior, memory = self.shift_prior, self.plan.memory_of_shifts
        if prior.extent_px > 0:
            found = float((drawn.of_shift * prior.square_distance(drawn.near_shifts)).sum(1).mean())
            found += (0.5 * shift_step(band, prior)) ** 2 / 6
            self.shift_prior = prior.learned(memory * prior.mean_square_px + (1 - memory) * found)

    def _rescale(self, whole: WeightedImages, score: Float[Tensor, "b p"], drawn: DrawnPoses, band: Band) -> None:
        """Bring maps that are held to the scale at which they explain images best, little by little."""
        assert self.seeds is not None
        trust = 1 / self.unexplained[band.shells]
        products = (score * drawn.slices) @ trust, (whole.power[:, 0] * drawn.slices.square()) @ trust
        class_index = drawn.placement.class_index
        scored, power = (
            self.team.sum(torch.zeros_like(self.scale).index_add_(0, class_index, one)) for one in products
        )
        # A map in which no image lies is too strong: one that is too weak explains something still.
        best = torch.where(power > 0, scored / power, 0.0).clamp(*_RESCALED)
        best = torch.where(self.seeds.has_map, best, 1.0)
        scale = self.scale * torch.lerp(best, torch.ones_like(best), self.plan.memory)
        self.scale = scale.clamp(min=_LEAST_SCALE)


def _moved_back(
    images: WeightedImages, band: Band, near_shifts: Float[Tensor, "b s 2"], of_shift: Float[Tensor, "b s"]
) -> Float[Tensor, "b p"]:
    """Scores of images as if they were not shifted, in the mean over some shifts."""
    score = shift_hartley(images.score[:, 0, None], band.frequencies, -near_shifts)
    return torch.einsum("bs,bsp->bp", of_shift, score)


def _laid_by_all(
    batch: SharedBatch,
    drawn: DrawnPoses,
    radius: int,
    grid: TurnedGrid,
    score: Float[Tensor, "m p"],
    power: Float[Tensor, "m p"],
    left: Float[Tensor, "m p"],
) -> tuple[_Laid, Float[Tensor, "b k"], Float[Tensor, "b k 3 3"], Float[Tensor, "b p"]]:
    """How all members have laid their images of a part, what the grid tells of them (evidence, likeliest poses), and
    what maps leave of them."""
    there = drawn.placement
    class_index, rotation, shift_px, near_shifts, of_shift, score, power, *told = batch.gather(
        *(there.class_index, there.rotation, there.shift_px, drawn.near_shifts, drawn.of_shift, score, power),
        *(grid.log_evidence, grid.likeliest, left),
    )
    log_evidence, likeliest, left = told
    placement = Placement(class_index, rotation, shift_px)
    return _Laid(placement, near_shifts, of_shift, radius, score, power), log_evidence, likeliest, left


def num_parts_of(num_images: int, num_maps: int) -> int:
    """Into how many parts images go."""
    size = max(_IMAGES_OF_A_PART * num_maps, _FEWEST_IMAGES_OF_A_PART)
    return min(num_images, max(_FEWEST_PARTS, round(num_images / size)))
