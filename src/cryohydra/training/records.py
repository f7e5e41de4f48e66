"""What a training leaves for those who read it, and what is left by a process for which another one writes."""

from typing import Any, Literal, Protocol, runtime_checkable

from cryohydra.training.pictures import Pictures
from cryohydra.training.stage import StepResult
from cryohydra.training.state import TrainingState


class Watch:
    """Told what goes on, for curves and figures; by itself it makes nothing of it."""

    def stage_begins(self, name: str, total_images: int, images_before: int) -> None:
        """Count for a new stage."""

    def advanced(self, state: TrainingState, num_images: int, result: StepResult) -> None:
        """A step was made."""

    def log(self, state: TrainingState) -> None:
        """Write a point of the learning curve."""

    def epoch_ended(self, state: TrainingState) -> None:
        """Write what there is to see of an epoch."""

    def status(self, state: TrainingState, progress: Literal["running", "finished", "interrupted", "failed"]) -> None:
        """Say how far the training is."""

    def close(self) -> None:
        """Nothing more will be told."""


@runtime_checkable
class Records(Protocol):
    """Keeps epochs, and has somebody watch what is between them."""

    def watch(self, log_interval: int, pictures: Pictures) -> Watch: ...

    def write(self, state: TrainingState, stage: int, stage_state: dict[str, Any]) -> None: ...


class NoRecords:
    """Of a process for which another one keeps them."""

    def watch(self, log_interval: int, pictures: Pictures) -> Watch:
        """Nobody."""
        return Watch()

    def write(self, state: TrainingState, stage: int, stage_state: dict[str, Any]) -> None:
        """Nothing."""
