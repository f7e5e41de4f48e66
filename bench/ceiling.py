"""How well the evidence of the true maps tells the classes of simulated images; found maps can hardly surpass it.

python bench/ceiling.py DATA
python bench/ceiling.py FOLDER/hard-0-data FOLDER/hard-1-data

DATA is what `drgnai simulate` has written, as `mixtures.py` keeps it in its FOLDER. Every image is compared with the
true maps twice, over the grids of the search in its widest band, then by steps; in between, shares of the classes and
noise are learned as the search learns them. No map is learned.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from cost_against_k import Silent
from sklearn.metrics import adjusted_rand_score

from cryohydra.analysis.agreement import calibration
from cryohydra.config.build import build_training
from cryohydra.config.reading import read_settings
from cryohydra.config.stages import grids_of
from cryohydra.data.simulated import Truth, read_truth
from cryohydra.fourier.lattice import Lattice
from cryohydra.inference.local_search import LocalSteps
from cryohydra.inference.pose_search import POSE_SEARCHES
from cryohydra.inference.slices import GridSlicers, LatticeSlices
from cryohydra.io.run_folder import RunFolder
from cryohydra.physics.pose import Pose
from cryohydra.training.search import SEARCHED_RADIUS, Searching
from cryohydra.training.search_pass import SearchPass, which_matter
from cryohydra.training.seed_maps import seed_of_density, seed_of_members
from cryohydra.training.state import TrainingState

_SCALED = 2, 10
"""Fourier pixels between which a true map is scaled to that of its images."""
_NUM_PASSES = 2
_BATCH = 512


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", metavar="DATA", help="folders of simulated images")
    args = parser.parse_args()
    print("| data | images | ARI | accuracy | calibration error | evidence |\n" + "|---" * 6 + "|")
    for data in args.data:
        truth, state = read_truth(data), evidence_of_truth(data)
        labels, posterior = truth.labels[~truth.is_junk], state.classes.log_posterior().exp().cpu().numpy()
        posterior = posterior[~truth.is_junk]
        found = posterior.argmax(1)
        evidence = state.classes.log_probability().mean()
        index = adjusted_rand_score(labels, found)
        error = calibration(posterior, labels, truth.num_classes).expected_error
        accuracy = 100 * float(np.mean(found == labels))
        print(f"| {data} | {len(found)} | {index:.4f} | {accuracy:.1f} % | {error:.3f} | {evidence:.3f} |", flush=True)
    return 0


def evidence_of_truth(data: Path) -> TrainingState:
    """Classes of all images as the true maps tell them."""
    truth = read_truth(data)
    values = {"particles": data / "particles.star", "n_classes": truth.num_classes, "z_dim": 0, "seed": 0}
    settings = read_settings(values).settings
    with tempfile.TemporaryDirectory(prefix="ceiling-") as unused:
        trainer = build_training(settings, RunFolder(Path(unused)), Silent())
    state, search = trainer.state, trainer.stages[1]
    assert isinstance(search, Searching)
    radius = search.last_radius
    lattice = Lattice(state.images.box_size, radius)
    maps = LatticeSlices.of_maps(lattice, true_maps(state, truth, lattice), GridSlicers())
    state.shift_prior = state.shift_prior.learned(float(np.square(truth.shift_px).sum(-1).mean()))
    whole_grids = POSE_SEARCHES["sliced"](grids_of(settings, state, min(radius, SEARCHED_RADIUS)))
    for number in range(_NUM_PASSES):
        steps = LocalSteps(shifts=state.shift_prior.extent_px > 0)
        told = SearchPass(
            *(state, lattice, maps, radius, steps, whole_grids, [maps]),
            number=number,
            is_in_doubt=True,
            is_last=False,
            parts=None,
        )
        for index in torch.arange(len(state)).split(_BATCH):
            told.visit(state, index, which_matter(state, index.to(state.device)))
        state.classes.update_weights()
        state.noise = told.refined_noise(state)
    return state


def true_maps(state: TrainingState, truth: Truth, lattice: Lattice) -> torch.Tensor:
    """Those of all classes, each scaled to the map that its images make in their true poses."""
    labels = torch.from_numpy(np.where(truth.is_junk, -1, truth.labels))
    pose = Pose(*(torch.from_numpy(array).float()[:, :, None] for array in (truth.rotation, truth.shift_px)))
    distance = lattice.distance(state.device)
    is_asked = (distance >= _SCALED[0]) & (distance <= _SCALED[1])
    maps = []
    for k in range(truth.num_classes):
        true = seed_of_density(state, torch.from_numpy(truth.maps[k]).float(), lattice)
        found = seed_of_members(state, torch.nonzero(labels == k)[:, 0], pose, lattice)
        maps.append(true * (true * found)[is_asked].sum() / true.square()[is_asked].sum())
    return torch.stack(maps)


if __name__ == "__main__":
    sys.exit(main())
