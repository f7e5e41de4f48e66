"""What a user asked of an analysis, checked against the run before anything is written."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from cryohydra.analysis.options import AnalyzeOptions
from cryohydra.analysis.run import Run
from cryohydra.errors import UnreadableFile, UserError


@dataclass(frozen=True)
class Series:
    """Conformations of one class at which to draw volumes, and the folder for them."""

    folder_name: str
    class_index: int
    conformations: Float[np.ndarray, "v z"]


@dataclass(frozen=True)
class Requests:
    """The classes to analyse and the series asked for beyond the usual ones."""

    classes: tuple[int, ...]
    series: tuple[Series, ...]
    seed: int

    def of_class(self, class_index: int) -> tuple[Series, ...]:
        """The series of one class."""
        return tuple(one for one in self.series if one.class_index == class_index)


def check_requests(run: Run, options: AnalyzeOptions) -> Requests:
    """Resolve options for a run.

    Raises:
        UserError: If the run cannot answer them.
    """
    strangers = [index for index in options.class_idx if not 0 <= index < run.num_classes]
    if strangers:
        raise UserError(
            f"--class-idx {strangers[0]} names no class of this run, which has {run.num_classes}: "
            f"0 to {run.num_classes - 1}. Leave it out to analyse all."
        )
    for name, number in (("pc", options.pc), ("n-per-pc", options.n_per_pc), ("ksample", options.ksample)):
        least = 0 if name == "pc" else 1
        if number < least:
            raise UserError(f"--{name} is {number}; wanted {least} or more.")
    classes = tuple(dict.fromkeys(options.class_idx)) or tuple(range(run.num_classes))
    series = [
        *_samples(run, options),
        *_line(run, options),
        *_direct_traversal(run, options),
        *_listed_conformations(run, options, classes),
    ]
    if series and run.z_dim == 0:
        raise UserError("The classes of this run are rigid (z_dim 0), so there are no conformations to visit.")
    left_out = sorted({one.class_index for one in series} - set(classes))
    if left_out:
        raise UserError(
            f"The particles asked for belong to class {left_out[0]}, which --class-idx leaves out; add it there."
        )
    return Requests(classes=classes, series=tuple(series), seed=_seed(run, options))


def _samples(run: Run, options: AnalyzeOptions) -> list[Series]:
    if not options.sample_z_idx:
        return []
    return _by_class(run, run.rows_of(np.array(options.sample_z_idx), "--sample-z-idx"), "samples")


def _direct_traversal(run: Run, options: AnalyzeOptions) -> list[Series]:
    if options.direct_traversal_txt is None:
        return []
    numbers = _read_numbers(options.direct_traversal_txt, "particle numbers").ravel()
    if not np.array_equal(numbers, numbers.round()):
        raise UserError(f"{options.direct_traversal_txt} holds fractions; wanted whole particle numbers from 0.")
    rows = run.rows_of(numbers.astype(np.int64), str(options.direct_traversal_txt))
    return _by_class(run, rows, "direct_traversal")


def _line(run: Run, options: AnalyzeOptions) -> list[Series]:
    if options.trajectory_1d is None:
        return []
    first, last, num_points = options.trajectory_1d
    if num_points < 2:
        raise UserError(f"--trajectory-1d asks for {num_points} volumes; wanted two or more, given as third number.")
    start, stop = run.rows_of(np.array([first, last]), "--trajectory-1d")
    first_class, last_class = run.latents.best_class[[start, stop]]
    if first_class != last_class:
        raise UserError(
            f"--trajectory-1d goes from particle {first} of class {first_class} to particle {last} of class "
            f"{last_class}; wanted two of one class, since each class has conformations of its own."
        )
    conformation = run.latents.conformation.astype(np.float64)
    points = np.linspace(conformation[start], conformation[stop], num_points)
    return [Series(f"trajectories/1d_{first}_{last}_{num_points}", int(first_class), points)]


def _listed_conformations(run: Run, options: AnalyzeOptions, classes: tuple[int, ...]) -> list[Series]:
    if options.z_values_txt is None:
        return []
    table = _read_numbers(options.z_values_txt, "conformations")
    if run.z_dim == 1 and table.shape[0] == 1:
        table = table.T
    if run.z_dim and table.shape[1] != run.z_dim:
        raise UserError(
            f"{options.z_values_txt} has rows of {table.shape[1]} numbers; wanted {run.z_dim}, the z_dim of this run."
        )
    return [Series("trajectory", index, table) for index in classes]


def _by_class(run: Run, rows: Int[np.ndarray, "m"], folder_name: str) -> list[Series]:
    """Each class's own part of the particles asked for, in the order in which they were named."""
    labels = run.latents.best_class[rows]
    conformation = run.latents.conformation.astype(np.float64)
    return [Series(folder_name, int(index), conformation[rows[labels == index]]) for index in np.unique(labels)]


def _read_numbers(path: Path, what: str) -> Float[np.ndarray, "r c"]:
    try:
        table = np.loadtxt(path, ndmin=2) if path.stat().st_size else np.empty((0, 0))
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be opened ({error.strerror}); wanted a text file of {what}.") from error
    except ValueError as error:
        raise UnreadableFile(f"{path} is no table of numbers ({error}); wanted a text file of {what}.") from error
    if not table.size or not np.isfinite(table).all():
        raise UnreadableFile(f"{path} holds {'nan' if table.size else 'nothing'}; wanted a text file of {what}.")
    return table


def _seed(run: Run, options: AnalyzeOptions) -> int:
    recorded = run.settings.get("seed")
    if options.seed >= 0:
        return options.seed
    return recorded if isinstance(recorded, int) and recorded >= 0 else 0
