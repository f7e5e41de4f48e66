"""What a search for poses is to the rest of the program."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from cryohydra._registry import Registry
from cryohydra._typing import Bool, Float, Int, Tensor
from cryohydra.fourier.band import Band
from cryohydra.inference.candidates import Candidates
from cryohydra.inference.images import WeightedImages
from cryohydra.inference.shift_prior import ShiftPrior
from cryohydra.inference.slices import SliceSource


@dataclass(frozen=True)
class SearchPlan:
    """From which grid to which, in which bands."""

    base_level: int
    """Level of the first grid of rotations; each next level halves its step."""
    radii: tuple[int, ...]
    """Highest frequency compared at the first and each next level, in Fourier pixels."""
    shifts: ShiftPrior
    """Where particles lie."""
    shift_step_px: float
    """Step of the first grid of shifts; halved with the rotations'."""
    num_kept: int = 8
    """Candidates of all classes carried on for each image: from the first level at least, from others at most."""
    most_kept: int = 64
    """From the first level, at most."""
    kept_mass: float = 0.999
    """Share of the posterior that they must hold, between these bounds."""


@dataclass(frozen=True)
class SearchState:
    """A search between two levels."""

    slices: SliceSource
    images: WeightedImages
    band: Band
    """Of the images; levels compare part of it."""
    log_weight: Float[Tensor, "k"]
    depth: int
    """Levels done."""
    rotation_index: Int[Tensor, "b c"]
    """On the grid of the last level."""
    candidates: Candidates


class PoseSearch(ABC):
    """Finds the poses of images in K densities; images are independent of one another.

    `begin` compares the first grid exhaustively, each `refine` halves the grid around what is worth
    it, `posterior` tells what was found.
    """

    def __init__(self, plan: SearchPlan):
        self.plan = plan

    @abstractmethod
    def begin(
        self,
        slices: SliceSource,
        images: WeightedImages,
        band: Band,
        log_weight: Float[Tensor, "k"],
        is_asked: Bool[Tensor, "b k"] | None = None,
    ) -> SearchState:
        """Compare images with all rotations and shifts of the first level.

        Args:
            is_asked: The classes that each image wants to be compared with, one at least; what is said of the others is
                not heard, so that they need not be compared. None for all.
        """

    @abstractmethod
    def refine(self, state: SearchState) -> SearchState:
        """Compare with the children of the candidates, in the next level's band."""

    def posterior(self, state: SearchState) -> Candidates:
        """What is known after the levels done."""
        return state.candidates

    def search(
        self,
        slices: SliceSource,
        images: WeightedImages,
        band: Band,
        log_weight: Float[Tensor, "k"],
        is_asked: Bool[Tensor, "b k"] | None = None,
    ) -> Candidates:
        """All levels of the plan; see `begin`."""
        state = self.begin(slices, images, band, log_weight, is_asked)
        for _ in self.plan.radii[1:]:
            state = self.refine(state)
        return self.posterior(state)


POSE_SEARCHES: Registry[PoseSearch] = Registry("search")
