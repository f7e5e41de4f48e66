"""What a stage of training is to the trainer."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryohydra._typing import Float, Int, Tensor
from cryohydra.data.loader import shuffled_batches
from cryohydra.training.listener import Tell
from cryohydra.training.state import TrainingState


@dataclass(frozen=True)
class StepResult:
    """What a step tells of itself."""

    loss: float
    """Negative log evidence per particle over that of noise alone, or the stage's own loss."""
    note: str = ""
    terms: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)
    """What else to plot, by the name of its curve."""


class Stage(ABC):
    """A way of learning from batches of particles, for as long as it helps."""

    name: str
    """For people and file names."""
    max_images: int
    """Image visits after which it ends at the latest."""
    batch_size: int
    is_done: bool = False
    """Whether it has converged."""

    @abstractmethod
    def begin(self, state: TrainingState) -> None:
        """Prepare."""

    def batches(self, state: TrainingState) -> Iterator[Int[Tensor, "b"]]:
        """Every particle once, in the order in which `step` is to meet them: here a random one.

        An empty batch makes a step that draws its images itself; it counts nothing.
        """
        return shuffled_batches(len(state), self.batch_size, state.generator)

    @abstractmethod
    def step(self, state: TrainingState, index: Int[Tensor, "b"]) -> StepResult:
        """Learn from a batch."""

    @abstractmethod
    def end(self, state: TrainingState, tell: Tell) -> str:
        """Leave everything consistent and say in a sentence how it went."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values with which `load_state_dict` goes on after `begin`."""
        return {}

    def load_state_dict(self, state: TrainingState, saved: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        assert not saved
