"""Learning curves and status: metrics.jsonl, TensorBoard, status.json."""

import json
import time
from typing import Any, Literal

import torch
from torch.utils.tensorboard import SummaryWriter

from cryohydra._typing import Tensor
from cryohydra.inference.evidence import effective_number
from cryohydra.io.mrc import read_map
from cryohydra.io.run_folder import RunFolder, Status, write_status
from cryohydra.training.pictures import Pictures
from cryohydra.training.records import Watch
from cryohydra.training.stage import StepResult
from cryohydra.training.state import TrainingState

_SECONDS_BETWEEN_STATUS = 5.0


class Monitor(Watch):
    """Writes what a person or a script may want to watch."""

    def __init__(self, run: RunFolder, log_interval: int, pictures: Pictures):
        self.run = run
        self.pictures = pictures
        self.log_interval = log_interval
        self._board = SummaryWriter(str(run.summaries))
        self._since_log, self._loss = 0, 0.0
        self._terms: dict[str, Tensor] = {}
        self._stage, self._total, self._begun, self._seen, self._before = "", 0, time.monotonic(), 0, 0
        self._status_written = 0.0
        self.warnings: tuple[str, ...] = ()

    def stage_begins(self, name: str, total_images: int, images_before: int) -> None:
        """Count for a new stage."""
        self._stage, self._total, self._seen = name, total_images, images_before
        self._begun, self._before = time.monotonic(), images_before

    def advanced(self, state: TrainingState, num_images: int, result: StepResult) -> None:
        """A step was made."""
        self._seen += num_images
        self._since_log += num_images
        self._loss += result.loss * num_images
        for name, value in result.terms.items():
            self._terms[name] = self._terms.get(name, 0) + value * num_images
        # A small set has a point for every epoch at least.
        if self._since_log >= min(self.log_interval, len(state)):
            self.log(state)
        if time.monotonic() - self._status_written > _SECONDS_BETWEEN_STATUS:
            self.status(state, "running")

    def log(self, state: TrainingState) -> None:
        """Write a point of the learning curve."""
        if not self._since_log:
            return
        scalars = {"loss": self._loss / self._since_log}
        posterior = state.classes.log_posterior().exp()
        scalars["classes_per_particle"] = float(effective_number(posterior).mean())
        shares = posterior.mean(0).tolist()
        scalars |= {f"share_{k}": share for k, share in enumerate(shares)}
        line: dict[str, Any] = {"images": state.images_seen, "epoch": state.epoch, "stage": self._stage, **scalars}
        with open(self.run.metrics_path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._board.add_scalar("Data Loss", scalars["loss"], state.images_seen)
        self._board.add_scalar("Classes per Particle", scalars["classes_per_particle"], state.images_seen)
        for k, share in enumerate(shares):
            self._board.add_scalar(f"Share/Class {k}", share, state.images_seen)
        for name, total in self._terms.items():
            self._board.add_scalar(name, float(total) / self._since_log, state.images_seen)
        self._since_log, self._loss, self._terms = 0, 0.0, {}

    def epoch_ended(self, state: TrainingState) -> None:
        """Pictures of what is known, per class; the epoch's maps have been written."""
        posterior = state.classes.log_posterior().exp()
        self._board.add_histogram("Entropy Histogram", torch.special.entr(posterior).sum(1), state.images_seen)
        for k in range(state.num_classes):
            # As just written: drawing a field anew takes minutes for a large box on a CPU.
            density, _ = read_map(self.run.map_path(state.epoch, k))
            middle = torch.from_numpy(density[len(density) // 2].copy())
            low, high = float(middle.min()), float(middle.max())
            picture = (middle - low) / max(high - low, 1e-12)
            self._board.add_image(f"Central Slice/Class {k}", picture[None], state.images_seen)
        for name, value in self.pictures.scalars(state):
            self._board.add_scalar(name, value, state.images_seen)
        for name, values in self.pictures.histograms(state):
            self._board.add_histogram(f"{name} Histogram", values, state.images_seen)
        for name, figure in self.pictures.figures(state):
            self._board.add_figure(name, figure, state.images_seen)
        self._board.flush()

    def status(self, state: TrainingState, progress: Literal["running", "finished", "interrupted", "failed"]) -> None:
        """Write status.json."""
        done = self._seen - self._before
        seconds = time.monotonic() - self._begun
        left = (self._total - self._seen) * seconds / done if done and progress == "running" else None
        status = Status(
            stage=self._stage,
            epoch=state.epoch,
            images_seen=self._seen,
            images_total=self._total,
            seconds_left=left,
            warnings=self.warnings,
            state=progress,
        )
        write_status(self.run, status)
        self._status_written = time.monotonic()

    def close(self) -> None:
        """Finish the files."""
        self._board.close()
