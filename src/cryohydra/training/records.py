"""What a training leaves for those who read it, and what is left by a process for which another one writes."""

from typing import Any, Literal, Protocol, runtime_checkable

from cryohydra.training.pictures import Pictures
from cryohydra.training.stage import StepResult
from cryohydra.training.state import TrainingState


@runtime_checkable
class Watch(Protocol):
    """Told what goes on, for curves and figures."""

    def stage_begins(self, name: str, total_images: int, images_before: int) -> None: ...

    def advanced(self, state: TrainingState, num_images: int, result: StepResult) -> None: ...

    def log(self, state: TrainingState) -> None: ...

    def epoch_ended(self, state: TrainingState) -> None: ...

    def status(
        self, state: TrainingState, progress: Literal["running", "finished", "interrupted", "failed"]
    ) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class Records(Protocol):
    """Keeps epochs, and has somebody watch what is between them."""

    def watch(self, log_interval: int, pictures: Pictures) -> Watch: ...

    def write(self, state: TrainingState, stage: int, stage_state: dict[str, Any]) -> None: ...


class NoRecords:
    """Of a process for which another one keeps them."""

    def watch(self, log_interval: int, pictures: Pictures) -> Watch:
        """Nobody."""
        return _Unwatched()

    def write(self, state: TrainingState, stage: int, stage_state: dict[str, Any]) -> None:
        """Nothing."""


class _Unwatched:
    def stage_begins(self, name: str, total_images: int, images_before: int) -> None: ...

    def advanced(self, state: TrainingState, num_images: int, result: StepResult) -> None: ...

    def log(self, state: TrainingState) -> None: ...

    def epoch_ended(self, state: TrainingState) -> None: ...

    def status(
        self, state: TrainingState, progress: Literal["running", "finished", "interrupted", "failed"]
    ) -> None: ...

    def close(self) -> None: ...
