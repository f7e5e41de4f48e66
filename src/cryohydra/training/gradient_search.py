"""The published way to search: poses of a batch in the fields as they are, then a gradient step."""

from typing import Any, Literal

import torch

from cryohydra._typing import Int, Tensor
from cryohydra.fourier.lattice import Lattice
from cryohydra.inference.pose_search.base import PoseSearch
from cryohydra.inference.slices import GridSlicers, LatticeSlices, SliceSource
from cryohydra.model.slices import OVERSAMPLING, FieldSlices, render_lattices
from cryohydra.training.listener import Tell
from cryohydra.training.refinement import Refinement
from cryohydra.training.stage import Stage, StepResult
from cryohydra.training.state import TrainingState


class GradientSearch(Stage):
    """Every step searches a batch's poses in all classes and refines at the best ones."""

    name = "gradient search"

    def __init__(
        self,
        search: PoseSearch,
        refinement: Refinement,
        slices: Literal["sliced", "exact"],
        *,
        max_images: int,
        batch_size: int,
    ):
        self.search = search
        self.refinement = refinement
        self.slices = slices
        self.max_images = max_images
        self.batch_size = batch_size
        self._slicers = GridSlicers()

    def begin(self, state: TrainingState) -> None:
        """Begin what descends, in the whole band: what a start from random poses knows is no measure."""
        state.field_radius = None
        self.refinement.begin(state)
        self.radius = max(self.search.plan.radii)

    def step(self, state: TrainingState, index: Int[Tensor, "b"]) -> StepResult:
        """Search, then descend."""
        team = state.team.for_batch(len(index))
        own = team.share(index)
        rows, band = own.to(state.device), state.band(self.radius)
        found = self.search.search(self._slices_of(state), state.weighted(own, band), band, state.classes.log_weight)
        best = found.best_of_class(state.num_classes)
        state.poses.rotation[rows] = best.rotation[:, None]
        state.poses.shift_px[rows] = (best.shift_px + state.known_shift_px[rows][:, None])[:, None]
        team.exchange(index, [state.poses.rotation, state.poses.shift_px])
        result = self.refinement.descend(state, index)
        learns_from_posterior = self.refinement.plan.learns_weights == "posterior"
        if learns_from_posterior and self.refinement.num_seen % len(state) < len(index):
            state.classes.update_weights()
        return result

    def end(self, state: TrainingState, tell: Tell) -> str:
        """Nothing is left open; what comes next begins in the whole band."""
        state.field_radius = None
        return f"Gradient search: band {self.radius}, {self.refinement.num_seen} image visits."

    def state_dict(self) -> dict[str, Any]:
        """That of what descends."""
        return self.refinement.state_dict()

    def load_state_dict(self, state: TrainingState, saved: dict[str, Any]) -> None:
        """Go on from there."""
        self.refinement.load_state_dict(state, saved)

    def _slices_of(self, state: TrainingState) -> SliceSource:
        conformation = torch.stack([state.mean_conformation(k) for k in range(state.num_classes)])
        if self.slices == "exact":
            return FieldSlices(state.mixture, conformation)
        lattice = Lattice(state.images.box_size, self.radius, OVERSAMPLING)
        return LatticeSlices.of_maps(lattice, render_lattices(state.mixture, conformation, lattice), self._slicers)
