"""The loop over stages; it knows none of them by name."""

from collections.abc import Sequence
from typing import Any

from cryohydra.errors import InputMismatch, ProcessLost
from cryohydra.training.listener import Listener
from cryohydra.training.pictures import Pictures, Reference
from cryohydra.training.records import Records, Watch
from cryohydra.training.stage import Stage
from cryohydra.training.state import TrainingState


class Trainer:
    """Takes a state through stages, and leaves every epoch that matters in the run folder."""

    def __init__(
        self,
        stages: Sequence[Stage],
        state: TrainingState,
        writer: Records,
        listener: Listener,
        *,
        log_interval: int,
        save_interval: int,
        first_stage: int = 0,
        stage_state: dict[str, Any] | None = None,
        reference: Reference | None = None,
    ):
        """Receive the parts.

        Args:
            save_interval: Epochs between checkpoints with figures; 0 for a checkpoint at the end of each stage, and no
                figures.
            first_stage: Where to go on.
            stage_state: What that stage had come to; None to begin it.
            reference: What was given of the particles, for the figures only.
        """
        self.stages = stages
        self.state = state
        self.writer = writer
        self.listener = listener
        self.log_interval = log_interval
        self.save_interval = save_interval
        self.first_stage = first_stage
        self.stage_state = stage_state
        self.reference = reference

    def run(self) -> None:
        """Train to the end; an interrupt, or the loss of another process, saves what there is and passes on."""
        monitor = self.writer.watch(self.log_interval, Pictures(self.reference))
        try:
            for number in range(self.first_stage, len(self.stages)):
                self._run_stage(number, monitor)
            monitor.status(self.state, "finished")
        except KeyboardInterrupt:
            monitor.status(self.state, "interrupted")
            raise
        except BaseException:
            monitor.status(self.state, "failed")
            raise
        finally:
            monitor.close()

    def _run_stage(self, number: int, monitor: Watch) -> None:
        stage, state = self.stages[number], self.state
        visits_per_epoch = len(state)
        seen = 0
        drawn_before = state.generator.get_state()
        stage.begin(state)
        if self.stage_state is not None and number == self.first_stage:
            # What beginning draws was drawn before the stop.
            state.generator.set_state(drawn_before)
            self._go_on(stage, self.stage_state["stage"])
            seen = self.stage_state["seen"]
        self.listener.stage_begins(stage.name, max(stage.max_images - seen, 0))
        monitor.stage_begins(stage.name, stage.max_images, seen)
        begun, announced, sentence = seen, stage.max_images, ""
        try:
            while seen < stage.max_images and not stage.is_done:
                begun = seen
                state.epoch += 1
                for index in stage.batches(state):
                    result = stage.step(state, index)
                    seen += len(index)
                    state.images_seen += len(index)
                    self.listener.advanced(len(index), result.note)
                    monitor.advanced(state, len(index), result)
                    if stage.is_done or seen >= max(stage.max_images, visits_per_epoch):
                        break
                if stage.max_images != announced:
                    announced = stage.max_images
                    self.listener.stage_begins(stage.name, announced - seen)
                    monitor.stage_begins(stage.name, announced, seen)
                is_last = stage.is_done or seen >= stage.max_images
                if not is_last and self.save_interval and (state.epoch + 1) % self.save_interval == 0:
                    self.writer.write(state, number, {"stage": stage.state_dict(), "seen": seen})
                    monitor.epoch_ended(state)
            begun = seen
            sentence = stage.end(state, lambda note: self.listener.advanced(0, note))
            self.writer.write(state, number + 1, {})
        except (KeyboardInterrupt, ProcessLost):
            # No word of the others is needed for what follows.
            if sentence:
                self.writer.write(state, number + 1, {})
            else:
                # A pass that was cut short begins anew: its images do not count yet.
                self.writer.write(state, number, {"stage": stage.state_dict(), "seen": begun})
            raise
        monitor.log(state)
        if self.save_interval:
            monitor.epoch_ended(state)
        self.listener.stage_ends(sentence)

    def _go_on(self, stage: Stage, saved: dict[str, Any]) -> None:
        try:
            stage.load_state_dict(self.state, saved)
        except (KeyError, TypeError, RuntimeError) as error:
            raise InputMismatch(
                f"The last checkpoint is of the middle of {stage.name} and was written by another version of this "
                "program, which keeps other things of it. Continue with that version, or train anew without --load."
            ) from error
