"""What an image costs in search and refinement against the number of classes, before and once classes have formed.

python bench/cost_against_k.py --models DIR
python bench/cost_against_k.py --models DIR --classes 4 16 --images 2000

DIR holds atomic models as `mixtures.py` wants them. Classes start as the maps that true poses and labels give; then
search and refinement run as a training runs them, to their ends. Figures are seconds of a stage over its image visits.
The first passes of the search compare every image with all classes: they are the column "forming". Fitting a field to
the map of a class costs the same however many images there are, so it has a column of its own.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mixtures import EIGHT, LARGE_SUBUNIT, RIBOSOME, SPLICEOSOME, TRIC, drgnai

from cryohydra.config.build import build_training
from cryohydra.config.reading import read_settings
from cryohydra.data.simulated import read_truth
from cryohydra.fourier.lattice import Lattice
from cryohydra.inference.local_search import LocalSteps
from cryohydra.inference.reconstruction import particle_mask
from cryohydra.io.run_folder import RunFolder
from cryohydra.physics.pose import Pose
from cryohydra.training.map_pass import MapPass
from cryohydra.training.search import Searching
from cryohydra.training.search_pass import PASSES_OVER_ALL_CLASSES
from cryohydra.training.stage import Stage
from cryohydra.training.state import TrainingState

SIXTEEN = (
    *(*EIGHT, RIBOSOME, SPLICEOSOME, TRIC, "3j9i.pdb.gz"),
    *(LARGE_SUBUNIT, "4v5d.cif.gz:A*", "1bxn.pdb.gz", "3cf3.pdb.gz"),
)
_COLUMNS = (
    *("K", "forming: s per image (visits)", "search, formed", "refinement", "both, formed"),
    *("over the first K", "fits: s per class"),
)
FIRST_RADIUS = 12
"""Of the maps that classes start from, in Fourier pixels."""


class Silent:
    """Listens to a training and says nothing."""

    def stage_begins(self, name: str, total_images: int) -> None: ...
    def advanced(self, images: int, note: str) -> None: ...
    def stage_ends(self, sentence: str) -> None: ...
    def says(self, sentence: str) -> None: ...


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, metavar="DIR", help="atomic models")
    parser.add_argument("--classes", type=int, nargs="+", default=[4, 16], metavar="K", help="16 at most")
    parser.add_argument("--images", type=int, default=2000, metavar="N")
    parser.add_argument("--snr", type=float, default=0.3, help="at which sixteen classes are told (default: 0.3)")
    parser.add_argument("--epochs", type=int, default=2, metavar="E", help="of refinement")
    args = parser.parse_args()
    print(_line(_COLUMNS))
    print(_line(["---"] * len(_COLUMNS)), flush=True)
    first = 0.0
    for num_classes in args.classes:
        with tempfile.TemporaryDirectory(prefix="cost-") as temporary:
            forming, search, refinement, fits = costs(num_classes, Path(temporary), args)
        formed = search + refinement
        first = first or formed.per_image
        figures = [f"{cost.per_image:.4f} ({cost.visits})" for cost in (forming, search, refinement)]
        ratio = f"{formed.per_image / first:.2f}"
        print(
            _line([str(num_classes), *figures, f"{formed.per_image:.4f}", ratio, f"{fits / num_classes:.1f}"]),
            flush=True,
        )
    return 0


@dataclass(frozen=True)
class Cost:
    """Of some image visits."""

    seconds: float = 0.0
    visits: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        """Of both."""
        return Cost(self.seconds + other.seconds, self.visits + other.visits)

    @property
    def per_image(self) -> float:
        """Seconds of a visit."""
        return self.seconds / max(self.visits, 1)


def costs(num_classes: int, folder: Path, args: argparse.Namespace) -> tuple[Cost, Cost, Cost, float]:
    """Of the search while classes form and once they have, of refinement, and seconds of all fits of fields."""
    models = [str(args.models / model) for model in SIXTEEN[:num_classes]]
    imaging = ["--n-images", args.images, "--box", 48, "--apix", 8.7, "--snr", args.snr, "--seed", 0]
    done = drgnai(["simulate", folder / "data", "--model", *models, *imaging], timeout=3600)
    assert done.returncode == 0, done.stderr
    values = {"particles": folder / "data" / "particles.star", "n_classes": num_classes, "z_dim": 0, "seed": 0}
    settings = read_settings(values | {"epochs_sgd": args.epochs, "lr": 1e-3}).settings
    run = RunFolder(folder / "run")
    run.results.mkdir(parents=True)
    trainer = build_training(settings, run, Silent())
    form_classes(trainer.state, folder / "data")
    _, search, refinement = trainer.stages
    assert isinstance(search, Searching)
    search.begin(trainer.state)
    forming = taken(search, trainer.state, lambda: search.pass_count == PASSES_OVER_ALL_CLASSES)
    formed = taken(search, trainer.state, lambda: search.is_done)
    begun = time.perf_counter()
    search.end(trainer.state, lambda _: None)
    fits = time.perf_counter() - begun
    refinement.begin(trainer.state)
    return forming, formed, taken(refinement, trainer.state, lambda: refinement.is_done), fits


def form_classes(state: TrainingState, data: Path) -> None:
    """Maps of the images in their true poses and classes."""
    truth, every = read_truth(data), torch.arange(len(state))
    rotation, shift = (torch.from_numpy(array).float()[:, :, None] for array in (truth.rotation, truth.shift_px))
    state.poses.set(every, Pose(rotation, shift))
    labels = torch.from_numpy(truth.labels).long()
    state.classes.log_evidence.copy_(100.0 * torch.nn.functional.one_hot(labels, state.num_classes))
    lattice = Lattice(state.images.box_size, FIRST_RADIUS)
    done = MapPass(state, lattice, None, FIRST_RADIUS, LocalSteps(count=0))
    for index in every.split(256):
        done.add(state, index, state.weighted(index, done.summed), state.classes.log_posterior(index).exp())
    state.maps = done.sums.solve(particle_mask(lattice)).maps
    state.shift_prior = state.shift_prior.learned(float(shift.square().sum(-1).mean()))


def taken(stage: Stage, state: TrainingState, is_over: Callable[[], bool]) -> Cost:
    """Of a stage as a trainer takes it on, over whole epochs, until it is over or has seen all it may."""
    begun, seen = time.perf_counter(), 0
    while seen < stage.max_images and not is_over():
        for index in stage.batches(state):
            stage.step(state, index)
            seen += len(index)
            if is_over():
                break
    return Cost(time.perf_counter() - begun, seen)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
