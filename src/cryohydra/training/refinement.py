"""The last stage: gradient steps on fields, poses and conformations."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch.nn.functional import softplus

from cryohydra._device import chunks
from cryohydra._typing import Float, Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.fourier.hartley import shift_hartley
from cryohydra.fourier.lattice import slice_frequencies
from cryohydra.inference.evidence import carry_shares, negative_log_evidence
from cryohydra.inference.likelihood import Likelihood
from cryohydra.inference.softening import honest_sureness, softened
from cryohydra.model.tables import Conformation, RowAdam, moved
from cryohydra.physics.pose import Pose
from cryohydra.training.judge import Judge
from cryohydra.training.listener import Tell
from cryohydra.training.stage import Stage, StepResult
from cryohydra.training.state import TrainingState
from cryohydra.training.team import SharedBatch

_PATIENCE = 2
"""Epochs without a gain for the particles held out after which the stage ends."""
_NUMBERS_PER_POINT = 64
"""That a field holds at a time: on a processor some 16,000 points are predicted together, on a GPU some two million."""


@dataclass(frozen=True)
class Regularisers:
    """Weights of what is added to the loss."""

    kl: float = 0.0
    """Divergence of conformations from the standard normal, per particle."""
    shift_l1: float = 0.0
    """Absolute shift in pixels, per image."""
    smoothness_l2: float = 0.0
    """Squared prediction times frequency in cycles per pixel, per image."""


@dataclass(frozen=True)
class RefinementPlan:
    """What moves, how fast, and when it ends."""

    radius: int
    """Highest frequency compared, in Fourier pixels."""
    first_radius: int | None
    """Where frequency marching starts; None compares the whole band from the first step."""
    frequencies_per_epoch: int
    learns_rotations: bool
    learns_shifts: bool
    learns_weights: Literal["posterior", "learned"]
    lr_fields: float
    lr_poses: float
    lr_scores: float
    pose_optimizer: Literal["adam", "lbfgs"]
    conformation_optimizer: Literal["adam", "lbfgs"]
    pose_only_images: int
    """Image visits at the start in which conformations stay as they are."""
    max_epochs: int
    regularisers: Regularisers = Regularisers()
    uses_bfloat16: bool = False
    least_probability: float = 0.01
    """Classes less probable than this for a particle are passed over in its steps."""


class Refinement(Stage):
    """Descends along equation (4) in everything that is still to be learned."""

    name = "refinement"

    def __init__(self, plan: RefinementPlan, likelihood: Likelihood, *, num_images: int, batch_size: int):
        self.plan = plan
        self.likelihood = likelihood
        self.batch_size = batch_size
        self.num_images = num_images
        self.max_images = plan.max_epochs * num_images
        self.num_seen = 0
        self.judge = Judge()
        self.poses_are_settled = False
        """Whether moving poses alone gains no more: then conformations learn too, before their time."""
        self.epoch_losses: list[float] = []
        self._sum, self._count = 0.0, 0

    def begin(self, state: TrainingState) -> None:
        """Make the optimisers; the fields go on from where the stage before left them, in the band that they know."""
        self.radius = min(self.plan.radius, state.drawn_radius)
        self.field_optimiser = torch.optim.Adam(state.mixture.parameters(), lr=self.plan.lr_fields)
        self.log_odds_of_noise = state.classes.log_odds_of_noise()
        self.sureness_before = state.classes.probability_of_likeliest()
        shape = tuple(state.poses.rotation.shape[:3])
        self.rotation_steps = RowAdam((*shape, 3), self.plan.lr_poses).to(state.device)
        self.shift_steps = RowAdam((*shape, 2), self.plan.lr_poses * _PX_PER_RADIAN).to(state.device)
        self.score_steps = RowAdam(tuple(state.scores.scores.shape), self.plan.lr_scores).to(state.device)
        state.fields_are_fitted = True

    def step(self, state: TrainingState, index: Int[Tensor, "b"]) -> StepResult:
        """Descend on a batch; after every epoch, ask the particles held out whether it helped."""
        if self.judge.best is None:
            self.judge.judge(state, self._evidence_held_out(state))
        result = self.descend(state, index)
        self._sum, self._count = self._sum + result.loss * len(index), self._count + len(index)
        if self._count >= self.num_images:
            self._end_epoch(state)
        return result

    def descend(self, state: TrainingState, index: Int[Tensor, "b"]) -> StepResult:
        """One step on a batch: particles held out move their own poses and conformations, the others the fields too."""
        is_held_out = state.is_held_out(index)
        taught = self._descend(state, index[~is_held_out], teaches=True)
        judging = self._descend(state, index[is_held_out], teaches=False)
        loss = (taught.loss * int((~is_held_out).sum()) + judging.loss * int(is_held_out.sum())) / len(index)
        self.num_seen += len(index)
        return StepResult(loss=loss, note=f"loss {loss:.2f}, band {self._radius()}", terms=taught.terms)

    def _descend(self, state: TrainingState, index: Int[Tensor, "b"], teaches: bool) -> StepResult:
        """The step; each member of a team takes its share of the batch, and tells the others what came of it."""
        if not len(index):
            return StepResult(loss=0.0)
        batch = SharedBatch(state.team.for_batch(len(index)), len(index), state.generator)
        own = batch.team.share(index)
        rows = own.to(state.device)
        state.field_radius = self._radius()
        band = state.band(self._radius())
        seen = _Seen(rows, state.observed(own, band), state.ctf(own, band), state.noise_variance(own, band))
        learns_z = not self._moves_poses_only() and state.mixture.z_dim > 0
        conformation = state.conformations.of(own, state.images)
        if "lbfgs" in (self.plan.pose_optimizer, self.plan.conformation_optimizer):
            self._settle_rows(state, seen, conformation, band, learns_z)
            if self.plan.conformation_optimizer == "lbfgs" and learns_z:
                conformation = state.conformations.of(own, state.images)
        z = conformation.sample(batch.normal)
        leaves = _Leaves.at(state, rows, conformation, z, learns_z)
        self.field_optimiser.zero_grad()
        share = len(own) / len(index)
        loss, log_likelihood, terms = self._backward(state, seen, leaves, band, scale=share)
        if learns_z:
            leaves.hand_back(conformation, z)
        if teaches:
            batch.team.sum_gradients([*state.mixture.parameters(), *state.conformations.parameters()])
            self.field_optimiser.step()
        if learns_z and self.plan.conformation_optimizer == "adam":
            state.conformations.update(teaches)
        if self.plan.pose_optimizer == "adam":
            self._move_poses(state, rows, leaves.turn, leaves.shift_px)
        if self.plan.learns_weights == "learned":
            assert leaves.scores.grad is not None
            state.scores.set(rows, leaves.scores.detach() + self.score_steps.step(rows, leaves.scores.grad))
        state.classes.log_evidence[rows] = log_likelihood
        batch.team.exchange(index, self._tables(state))
        of_all = batch.team.sum(share * torch.stack([loss, *terms.values()]))
        return StepResult(loss=float(of_all[0]), terms=dict(zip(terms, of_all[1:], strict=True)))

    def _tables(self, state: TrainingState) -> list[Tensor]:
        """All that a step changes of particles, a row each."""
        learned = (state.poses, state.conformations, state.scores)
        parts = (*learned, self.rotation_steps, self.shift_steps, self.score_steps)
        tables = [table for part in parts for table in part.buffers() if len(table) == len(state)]
        return [state.classes.log_evidence, *tables]

    def end(self, state: TrainingState, tell: Tell) -> str:
        """Weigh the classes of all particles once more, with everything as it is now.

        In fields that were fitted to all images, each seems to fit best where it was counted to. So where nothing that
        was learned is kept, probabilities stay as they came, from maps that an image is no part of; where it is, images
        that were learned from are to be no surer than those held out tell.
        """
        num_epochs, num_back, softer = len(self.epoch_losses), self.judge.num_since_best, ""
        kept = f"; kept as after epoch {num_epochs - num_back}, where particles held out are explained best"
        self.judge.restore(state)
        if num_back < num_epochs:
            self._weigh(state, torch.arange(len(state)))
        if self.plan.learns_weights == "posterior":
            state.classes.update_weights()
            softer = self._soften(state) if num_back < num_epochs else ""
        last = self.epoch_losses[-1] if self.epoch_losses else float("nan")
        ended = "converged" if self.is_done else "reached its bound"
        kept = kept if num_back else ""
        return f"Refinement: {ended} after {num_epochs} epochs, loss {last:.2f} per particle{kept}{softer}."

    def state_dict(self) -> dict[str, Any]:
        """Optimisers and the course so far."""
        return {
            "field_optimiser": self.field_optimiser.state_dict(),
            "rotation_steps": self.rotation_steps.state_dict(),
            "shift_steps": self.shift_steps.state_dict(),
            "score_steps": self.score_steps.state_dict(),
            "num_seen": self.num_seen,
            "radius": self.radius,
            "epoch_losses": list(self.epoch_losses),
            "is_done": self.is_done,
            "poses_are_settled": self.poses_are_settled,
            "judge": self.judge.state_dict(),
            "log_odds_of_noise": float(self.log_odds_of_noise),
            "sureness_before": self.sureness_before,
        }

    def load_state_dict(self, state: TrainingState, saved: dict[str, Any]) -> None:
        """Go on from there."""
        self.field_optimiser.load_state_dict(saved["field_optimiser"])
        self.rotation_steps.load_state_dict(saved["rotation_steps"])
        self.shift_steps.load_state_dict(saved["shift_steps"])
        self.score_steps.load_state_dict(saved["score_steps"])
        self.num_seen, self.radius = saved["num_seen"], saved["radius"]
        self.epoch_losses = list(saved["epoch_losses"])
        self.is_done = saved["is_done"]
        self.poses_are_settled = saved["poses_are_settled"]
        self.judge.load_state_dict(saved["judge"])
        self.log_odds_of_noise.fill_(saved["log_odds_of_noise"])
        self.sureness_before = saved["sureness_before"].to(state.device)

    def _soften(self, state: TrainingState) -> str:
        """Let images that were learned from be no surer of their classes than those held out tell; what came of it."""
        classes, is_taught = state.classes, ~state.is_held_out(torch.arange(len(state))).to(state.device)
        now = classes.probability_of_likeliest()
        sureness = honest_sureness(self.sureness_before, now, ~is_taught)
        if sureness is None:
            return ""
        classes.log_evidence[is_taught] = softened(classes.log_evidence[is_taught], classes.log_weight, sureness)
        classes.update_weights()
        return f"; sure of classes by {sureness:.3f} as particles held out tell, not by {now[is_taught].mean():.3f}"

    def _radius(self) -> int:
        if self.plan.first_radius is None:
            return self.radius
        grown = self.plan.first_radius + self.plan.frequencies_per_epoch * self.num_seen // self.num_images
        return min(self.radius, grown)

    def _moves_poses_only(self) -> bool:
        return self.num_seen < self.plan.pose_only_images and not self.poses_are_settled

    def _classes_that_matter(self, state: TrainingState, rows: Int[Tensor, "b"]) -> list[Tensor]:
        """For each class the positions in the batch of the particles that may be of it."""
        if self.plan.learns_weights == "learned":
            every = torch.arange(len(rows), device=rows.device)
            return [every] * state.num_classes
        posterior = state.classes.log_posterior(rows).exp()
        matters = posterior >= min(self.plan.least_probability, 1 / state.num_classes - 1e-6)
        return [torch.nonzero(column).squeeze(-1) for column in matters.T]

    def _backward(
        self, state: TrainingState, seen: "_Seen", leaves: "_Leaves", band: Band, scale: float = 1.0
    ) -> tuple[Tensor, Float[Tensor, "b k"], dict[str, Tensor]]:
        """Add the gradients of a batch's mean loss times `scale` to fields and leaves.

        Piece by piece: a field holds much for each point until its gradient is known. On a processor large pieces are
        slower, too: their memory is new every time.

        Returns:
            The mean loss, the log likelihood of each class, and what was added to the loss, by name.
        """
        loss, found, terms = band.frequencies.new_zeros(()), [], dict[str, Tensor]()
        for piece in self._pieces(seen, band):
            some = seen.part(piece)
            share = len(some.rows) / len(seen.rows)
            of_piece, log_likelihood, of_terms = self._loss(state, some, leaves.part(piece), band)
            (scale * share * of_piece).backward()
            loss += share * of_piece.detach()
            found.append(log_likelihood)
            for name, term in of_terms.items():
                terms[name] = terms.get(name, 0.0) + share * term.detach()
        return loss, torch.cat(found), terms

    def _pieces(self, seen: "_Seen", band: Band) -> list[slice]:
        return chunks(len(seen.rows), _NUMBERS_PER_POINT * seen.observed.shape[1] * len(band), seen.rows.device)

    def _loss(
        self, state: TrainingState, seen: "_Seen", leaves: "_Leaves", band: Band
    ) -> tuple[Tensor, Float[Tensor, "b k"], dict[str, Tensor]]:
        """Mean loss, log likelihood of each class, and what is added to the loss."""
        pose = moved(state.poses.pose(seen.rows), leaves.turn, leaves.shift_px)
        log_likelihood, smoothness = self._log_likelihood(state, seen, pose, leaves.z, band)
        log_weight = self._log_weight(state, leaves.scores)
        loss = -self._log_probability(log_weight, log_likelihood).mean()
        probability = torch.softmax(log_weight + log_likelihood.detach(), dim=-1).detach()
        terms = self._regularisation(leaves.conformation, pose, smoothness, probability)
        return loss + sum(terms.values()), log_likelihood.detach(), terms

    def _log_probability(
        self, log_weight: Float[Tensor, "*b k"], log_evidence: Float[Tensor, "b k"]
    ) -> Float[Tensor, "b"]:
        """Of each image over that of noise alone, which may be all there is in it: a component of the mixture."""
        of_classes = -negative_log_evidence(log_weight, log_evidence)
        return torch.logaddexp(of_classes, self.log_odds_of_noise) - softplus(self.log_odds_of_noise)

    def _log_likelihood(
        self, state: TrainingState, seen: "_Seen", pose: Pose, z: Float[Tensor, "b k z"], band: Band
    ) -> tuple[Float[Tensor, "b k"], Float[Tensor, ""]]:
        """Log likelihood over all poses of each class, and the smoothness of the predictions.

        A class that does not matter to a particle keeps its share.
        """
        rows = seen.rows
        before = state.classes.log_evidence[rows]
        is_evaluated = torch.zeros_like(before, dtype=torch.bool)
        columns = []
        smoothness = seen.observed.new_zeros(())
        for k, some in enumerate(self._classes_that_matter(state, rows)):
            column = before[:, k]
            is_evaluated[some, k] = True
            if len(some):
                predicted = self._predict(state, k, pose, z, seen.ctf, band, some)
                point = self.likelihood.log_likelihood(predicted, seen.observed[some], seen.noise[some])
                column = column.index_put((some,), point + state.classes.log_pose_volume[rows[some], k])
                weight = band.frequencies.square().sum(-1)
                smoothness = smoothness + (predicted.square() * weight).sum() / len(rows)
            columns.append(column)
        now = torch.stack(columns, dim=1)
        return carry_shares(now, before, is_evaluated, state.classes.log_weight), smoothness

    def _predict(
        self,
        state: TrainingState,
        class_index: int,
        pose: Pose,
        z: Float[Tensor, "b k z"],
        ctf: Float[Tensor, "b t p"],
        band: Band,
        some: Int[Tensor, "n"],
    ) -> Float[Tensor, "n t p"]:
        """Images of one class in its pose and conformation, without noise: eq. 1 at contrast one."""
        frequencies = slice_frequencies(band, pose.rotation[some, :, class_index])
        z_of_tilt = z[some, None, class_index].expand(-1, frequencies.shape[1], -1)
        with torch.autocast(state.device.type, torch.bfloat16, enabled=self.plan.uses_bfloat16):
            slices = state.mixture.field(class_index)(frequencies, z_of_tilt)
        return ctf[some] * shift_hartley(slices.float(), band.frequencies, pose.shift_px[some, :, class_index])

    def _log_weight(self, state: TrainingState, scores: Float[Tensor, "b k"]) -> Float[Tensor, "*b k"]:
        if self.plan.learns_weights == "learned":
            return torch.log_softmax(scores, dim=-1)
        return state.classes.log_weight

    def _regularisation(
        self, conformation: Conformation, pose: Pose, smoothness: Tensor, probability: Float[Tensor, "b k"]
    ) -> dict[str, Tensor]:
        """What is added to the loss, by name.

        Of conformations and shifts each class's counts by its probability; predictions of all classes that matter are
        to be smooth.
        """
        weights = self.plan.regularisers
        terms = {}
        if weights.smoothness_l2:
            terms["L2 Smoothness Loss"] = weights.smoothness_l2 * smoothness
        if conformation.log_std is not None:
            divergence = kl_from_standard_normal(conformation.mean, conformation.log_std)
            terms["KL Div. Conf."] = weights.kl * (probability * divergence).sum(1).mean()
        if weights.shift_l1:
            length = pose.shift_px.abs().sum(-1).mean(1)
            terms["L1 Reg. Trans."] = weights.shift_l1 * (probability * length).sum(1).mean()
        return terms

    def _move_poses(self, state: TrainingState, rows: Tensor, rotation_step: Tensor, shift_step: Tensor) -> None:
        turn = torch.zeros_like(rotation_step.detach())
        shift = torch.zeros_like(shift_step.detach())
        if self.plan.learns_rotations and rotation_step.grad is not None:
            turn = self.rotation_steps.step(rows, rotation_step.grad)
        if self.plan.learns_shifts and shift_step.grad is not None:
            shift = self.shift_steps.step(rows, shift_step.grad)
        if self.plan.learns_rotations or self.plan.learns_shifts:
            state.poses.apply_tangent(rows, turn, shift)

    def _settle_rows(
        self, state: TrainingState, seen: "_Seen", conformation: Conformation, band: Band, learns_z: bool
    ) -> None:
        """Bring the batch's poses or conformations to their optimum by L-BFGS, the fields as they are."""
        mean = conformation.mean.detach().clone()
        leaves = _Leaves.at(state, seen.rows, Conformation(mean, conformation.detached().log_std), mean, learns_z)
        moves_z = self.plan.conformation_optimizer == "lbfgs" and learns_z
        moving = [leaves.conformation.mean] if moves_z else []
        if self.plan.pose_optimizer == "lbfgs":
            moving += [leaves.turn] if self.plan.learns_rotations else []
            moving += [leaves.shift_px] if self.plan.learns_shifts else []
        if not moving:
            return
        # A point estimate is its own draw.
        at_mean = replace(leaves, z=leaves.conformation.mean)
        optimiser = torch.optim.LBFGS(moving, max_iter=5, line_search_fn="strong_wolfe")

        def closure() -> float:
            optimiser.zero_grad()
            # Summed, not averaged: each particle's optimum is its own.
            loss, _, _ = self._backward(state, seen, at_mean, band, scale=float(len(seen.rows)))
            return len(seen.rows) * float(loss)

        optimiser.step(closure)
        if self.plan.pose_optimizer == "lbfgs":
            state.poses.apply_tangent(seen.rows, leaves.turn.detach(), leaves.shift_px.detach())
        if moves_z:
            state.conformations.set_means(seen.rows, leaves.conformation.mean.detach())

    def _end_epoch(self, state: TrainingState) -> None:
        self.epoch_losses.append(self._sum / self._count)
        self._sum, self._count = 0.0, 0
        if self.plan.learns_weights == "posterior":
            state.classes.update_weights()
        self.log_odds_of_noise = state.classes.log_odds_of_noise()
        if self._radius() < self.radius:
            return
        self.judge.judge(state, self._evidence_held_out(state))
        if self.judge.num_since_best >= _PATIENCE:
            self.is_done = not self._moves_poses_only()
            self.poses_are_settled = True
            if not self.is_done:
                self.judge.restore(state)

    @torch.no_grad()
    def _evidence_held_out(self, state: TrainingState) -> Float[Tensor, "h"]:
        """Log evidence of the particles held out, everything as it is."""
        every = torch.arange(len(state))
        held_out = every[state.is_held_out(every)]
        self._weigh(state, held_out)
        log_weight = self._log_weight(state, state.scores.rows(held_out.to(state.device)))
        return self._log_probability(log_weight, state.classes.log_evidence[held_out.to(state.device)])

    @torch.no_grad()
    def _weigh(self, state: TrainingState, particles: Int[Tensor, "n"]) -> None:
        """Evidence of the classes that matter to each particle, poses and conformations as they are."""
        band, own = state.band(self.radius), state.team.share(particles)
        for index in own.split(self.batch_size) if len(own) else ():
            rows = index.to(state.device)
            z = state.conformations.of(index, state.images).mean
            seen = _Seen(rows, state.observed(index, band), state.ctf(index, band), state.noise_variance(index, band))
            for piece in self._pieces(seen, band):
                some = seen.part(piece)
                pose = state.poses.pose(some.rows)
                state.classes.log_evidence[some.rows] = self._log_likelihood(state, some, pose, z[piece], band)[0]
        state.team.exchange(particles, [state.classes.log_evidence])


@dataclass(frozen=True)
class _Seen:
    """Images of a batch of particles, in a band."""

    rows: Int[Tensor, "b"]
    """In the tables."""
    observed: Float[Tensor, "b t p"]
    ctf: Float[Tensor, "b t p"]
    noise: Float[Tensor, "b t p"]
    """Its variance."""

    def part(self, piece: slice) -> "_Seen":
        """Some of them."""
        return _Seen(self.rows[piece], self.observed[piece], self.ctf[piece], self.noise[piece])


@dataclass(frozen=True)
class _Leaves:
    """What of each particle of a batch gathers gradients."""

    conformation: Conformation
    z: Float[Tensor, "b k z"]
    """A draw from it."""
    turn: Float[Tensor, "b t k 3"]
    """Of the pose held, in radians about its axes."""
    shift_px: Float[Tensor, "b t k 2"]
    """Beside the one held."""
    scores: Float[Tensor, "b k"]

    @classmethod
    def at(
        cls, state: TrainingState, rows: Int[Tensor, "b"], conformation: Conformation, z: Tensor, learns_z: bool
    ) -> "_Leaves":
        """Where particles are; poses do not move yet."""
        shape = state.poses.rotation[rows].shape[:3]
        here = conformation.detached()
        width = None if here.log_std is None else here.log_std.requires_grad_(learns_z)
        return cls(
            conformation=Conformation(here.mean.requires_grad_(learns_z), width),
            z=z.detach().requires_grad_(learns_z),
            turn=torch.zeros(*shape, 3, device=state.device, requires_grad=True),
            shift_px=torch.zeros(*shape, 2, device=state.device, requires_grad=True),
            scores=state.scores.rows(rows).detach().requires_grad_(),
        )

    def part(self, piece: slice) -> "_Leaves":
        """Those of some particles."""
        mean, log_std = self.conformation.mean, self.conformation.log_std
        some = Conformation(mean[piece], None if log_std is None else log_std[piece])
        return _Leaves(some, self.z[piece], self.turn[piece], self.shift_px[piece], self.scores[piece])

    def hand_back(self, conformation: Conformation, z: Float[Tensor, "b k z"]) -> None:
        """Pass gradients on to where the conformations and their draw came from."""
        pairs = [(z, self.z), (conformation.mean, self.conformation.mean)]
        if conformation.log_std is not None and self.conformation.log_std is not None:
            pairs.append((conformation.log_std, self.conformation.log_std))
        gathered = [(origin, leaf.grad) for origin, leaf in pairs if leaf.grad is not None]
        if gathered:
            origins, gradients = zip(*gathered, strict=True)
            torch.autograd.backward(origins, gradients)


_PX_PER_RADIAN = 10.0
"""Shifts in pixels are larger numbers than turns in radians: their steps are longer by this."""


def kl_from_standard_normal(mean: Float[Tensor, "b k z"], log_std: Float[Tensor, "b k z"]) -> Float[Tensor, "b k"]:
    """Kullback-Leibler divergence of N(mean, std^2) from N(0, 1), which is zero only there."""
    return 0.5 * (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).sum(-1)
