"""Names in a run folder, and who may write there."""

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from cryohydra.errors import RunFolderBusy, UnreadableFile, UserError
from cryohydra.io.atomic import write_atomically


class RunFolder:
    """The folder of one experiment: what the user asked in it, results in its folder `out`."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self.results = self.path / "out"
        self.configs_path = self.path / "configs.yaml"
        self.train_configs_path = self.results / "train-configs.yaml"
        self.log_path = self.results / "training.log"
        self.metrics_path = self.results / "metrics.jsonl"
        self.status_path = self.results / "status.json"
        self.summaries = self.results / "summaries"

    def weights_path(self, epoch: int) -> Path:
        """Checkpoint."""
        return self.results / f"weights.{epoch}.pkl"

    def pose_path(self, epoch: int) -> Path:
        """Poses of the best classes, as a pose file."""
        return self.results / f"pose.{epoch}.pkl"

    def conformation_path(self, epoch: int) -> Path:
        """Conformations of the best classes."""
        return self.results / f"conf.{epoch}.pkl"

    def class_probability_path(self, epoch: int) -> Path:
        """Class probabilities of each particle."""
        return self.results / f"p_classes.{epoch}.pkl"

    def latents_path(self, epoch: int) -> Path:
        """All of these in one file."""
        return self.results / f"latents.{epoch}.npz"

    def map_path(self, epoch: int, class_index: int) -> Path:
        """Density of a class, counted from 0."""
        return self.results / f"reconstruct.epoch_{epoch}.class_{class_index}.mrc"

    def analysis_path(self, epoch: int) -> Path:
        """Folder of the analysis of an epoch."""
        return self.results / f"analysis_{epoch}"

    def class_analysis_path(self, epoch: int, class_index: int) -> Path:
        """Folder of the analysis of a class, counted from 0."""
        return self.analysis_path(epoch) / f"class_{class_index}"

    def frame_path(self, epoch: int) -> Path:
        """Folder of the maps of all classes in one frame."""
        return self.analysis_path(epoch) / "one_frame"

    def proof_path(self, epoch: int, kind: str) -> Path:
        """Folder of half maps of an epoch and how they agree; `kind` is its last part, such as independent."""
        return self.results / f"proof_{epoch}_{kind}"

    def epochs(self) -> list[int]:
        """Epochs with a checkpoint, in order; pretraining is -1."""
        matches = [re.fullmatch(r"weights\.(-?\d+)\.pkl", file.name) for file in self.results.glob("weights.*.pkl")]
        return sorted(int(match.group(1)) for match in matches if match)

    def latest_epoch(self) -> int:
        """The last epoch with a checkpoint.

        Raises:
            UserError: If there is none.
        """
        epochs = self.epochs()
        if not epochs:
            raise UserError(
                f"{self.results} holds no weights.E.pkl; wanted a run that has been trained. "
                f"Run `drgnai train {self.path}` first."
            )
        return epochs[-1]

    def saved_epoch(self, epoch: int) -> int:
        """An epoch with a checkpoint; -1 stands for the last one.

        Raises:
            UserError: If there is no such epoch, or no folder.
        """
        if not self.path.is_dir():
            raise UserError(f"{self.path} is no folder; give the folder of a run, as made by `drgnai setup`.")
        chosen = self.latest_epoch() if epoch == -1 else epoch
        if chosen not in self.epochs():
            raise UserError(
                f"{self.path} has no epoch {chosen}; there are {', '.join(map(str, self.epochs())) or 'none'}. "
                "Choose one of these with --epoch, or leave it out for the last."
            )
        return chosen

    def has_results(self) -> bool:
        """Whether anything was written by a training."""
        return self.results.is_dir() and any(self.results.iterdir())

    def move_results_aside(self, reason: str) -> Path:
        """Rename the results to old-out_NNN_<reason>, the next free number, and tell where they are."""
        what = re.sub(r"[^A-Za-z0-9.-]+", "-", reason).strip("-") or "results"
        taken = [re.match(r"old-out_(\d+)", entry.name) for entry in self.path.iterdir()]
        number = max((int(match.group(1)) + 1 for match in taken if match), default=0)
        aside = self.path / f"old-out_{number:03d}_{what}"
        os.rename(self.results, aside)
        return aside

    @contextmanager
    def training_lock(self) -> Iterator[None]:
        """Keep other processes from training here; released when this process ends, however it ends.

        Raises:
            RunFolderBusy: If another process holds it.
        """
        # Not in `out`, which may be moved aside under the lock.
        descriptor = os.open(self.path / ".training.lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
                raise RunFolderBusy(
                    f"Another process (pid {holder}) is training in {self.path}; nothing was changed. "
                    "Wait for it, stop it, or choose another folder."
                ) from error
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            yield
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class Status:
    """How far a training is."""

    stage: str
    epoch: int
    images_seen: int
    """In this stage."""
    images_total: int
    """Of this stage; an upper bound."""
    seconds_left: float | None
    """Of this stage, to its upper bound; None if not known yet."""
    warnings: tuple[str, ...]
    state: Literal["running", "finished", "interrupted", "failed"]


def write_status(run: RunFolder, status: Status) -> None:
    """Write status.json."""
    with write_atomically(run.status_path) as temporary:
        temporary.write_text(json.dumps(asdict(status), indent=1) + "\n")


def read_status(run: RunFolder) -> Status:
    """Read status.json.

    Raises:
        UnreadableFile: If it is missing or damaged.
    """
    try:
        content = json.loads(run.status_path.read_text())
        return Status(**{**content, "warnings": tuple(content["warnings"])})
    except FileNotFoundError as error:
        raise UnreadableFile(f"{run.status_path} does not exist: no training has begun in {run.path}.") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UnreadableFile(f"{run.status_path} cannot be read ({error}); a training writes it again.") from error
