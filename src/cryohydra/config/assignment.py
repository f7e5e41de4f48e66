"""From a run and particles that it has never seen to a trainer that assigns them to its classes."""

import math
from pathlib import Path

import numpy as np
import torch

from cryohydra._typing import Float, Tensor
from cryohydra.analysis.run import Run
from cryohydra.config.build import build_state, normalisation_of
from cryohydra.config.files import read_configs
from cryohydra.config.inputs import open_input
from cryohydra.config.settings import Settings
from cryohydra.config.stages import build_refinement, grids_of, search_batch, widest_radius
from cryohydra.data.particles import ParticleSet
from cryohydra.errors import InputMismatch, UserError
from cryohydra.inference.pose_search import POSE_SEARCHES
from cryohydra.io.run_folder import RunFolder
from cryohydra.model.checkpoint import Checkpoint, load_checkpoint
from cryohydra.training.assigning import Assigning, KnownSpread
from cryohydra.training.independent_half import start_from_maps
from cryohydra.training.listener import Listener
from cryohydra.training.outputs import EpochWriter
from cryohydra.training.search import SEARCHED_RADIUS
from cryohydra.training.stage import Stage
from cryohydra.training.state import TrainingState
from cryohydra.training.trainer import Trainer

_MOST_EPOCHS = 10
"""In which conformations settle in fields that do not move; few suffice from where they start."""
_WORTH_OF_SHARES = 100.0
"""Particles: as much as the run's shares of classes say beside those of the particles themselves."""
_SAME_PIXEL = 0.01
"""Relative difference of pixel sizes that calibration leaves open."""
_LEAST_SPREAD = 1e-3
"""Of conformations, against classes whose particles all have the same."""


def settings_for(
    run: Run,
    particles: Path,
    listener: Listener,
    *,
    ctf: Path | None = None,
    datadir: Path | None = None,
    ind: Path | None = None,
) -> tuple[Settings, ParticleSet]:
    """The settings of a run turned to other particles, cropped to its pixels if need be, and these.

    Raises:
        UserError: If the run's poses cannot be searched for, or the images show another field of view or are coarser.
    """
    trained = read_configs(run.folder.train_configs_path).settings
    if trained.subtomogram_averaging:
        raise UserError("Poses of tilt series are not searched yet, so that tilt series cannot be assigned to classes.")
    settings = trained.model_copy(
        update={
            "particles": particles.absolute(),
            "ctf": None if ctf is None else ctf.absolute(),
            "datadir": None if datadir is None else datadir.absolute(),
            "ind": None if ind is None else ind.absolute(),
            "downsample": None,
            # What the run was told of its own particles.
            **{
                key: None
                for key in (
                    "pose",
                    "dataset",
                    "labels",
                    "initial_conf",
                    "initial_volumes",
                    "initial_labels",
                    "load",
                    "norm_mean",
                    "norm_std",
                )
            },
            **{key: False for key in ("use_gt_poses", "refine_gt_poses", "use_gt_trans", "pretrain_with_gt_poses")},
            "quick_config": None,
            "n_imgs_pose_search": Settings().n_imgs_pose_search,
            "likelihood": "gaussian",
            "class_weights": "posterior",
            "output_mask": "circ",
            "pose_only_phase": 0,
            "epochs_sgd": min(trained.epochs_sgd, _MOST_EPOCHS),
            "log_heavy_interval": 0,
            # Those that the run has kept.
            "n_classes": run.num_classes,
            "prune_classes": False,
        }
    )
    seen = open_input(settings.model_copy(update={"lazy": True})).source
    smaller = _crop(run, particles, seen.box_size, seen.pixel_size_angstrom)
    if smaller != seen.box_size:
        settings = settings.model_copy(update={"downsample": smaller})
        listener.says(f"Images of {seen.box_size} px are cropped in Fourier space to the run's {smaller} px.")
    return settings, open_input(settings)


def build_assignment(
    run: Run, settings: Settings, particles: ParticleSet, folder: RunFolder, listener: Listener
) -> Trainer:
    """What assigns particles to the classes of a run, and leaves the outcome in a folder as a training does.

    Args:
        settings: Of `settings_for`, as are the particles.
        folder: To write to.
    """
    for note in particles.notes:
        listener.says(note)
    generator = torch.Generator().manual_seed(settings.with_seed().seed)
    normalisation = normalisation_of(settings, particles, generator)
    state = build_state(settings, particles, normalisation, generator)
    checkpoint = load_checkpoint(run.folder.weights_path(run.epoch), state.device)
    _take_over(run, checkpoint, settings, state)
    writer = EpochWriter(
        folder,
        field_name=checkpoint.field_name,
        field_settings=checkpoint.field_settings,
        particle_index=particles.index,
        # Maps are written as the run wrote them.
        scale=run.density_scale,
        learns_weights=False,
    )
    return Trainer(
        _stages(run, settings, state),
        state,
        writer,
        listener,
        log_interval=settings.log_interval,
        save_interval=settings.log_heavy_interval,
    )


def _take_over(run: Run, checkpoint: Checkpoint, settings: Settings, state: TrainingState) -> None:
    """Give a state what a run knows: fields, maps and shares of classes."""
    state.teaches = False
    state.mixture = run.mixture
    known = checkpoint.extra.get("training", {})
    state.field_radius = run.radius
    densities = torch.stack([run.mean_map(k) for k in range(run.num_classes)]) / run.density_scale
    start_from_maps(state, densities, min(widest_radius(settings, state.images.box_size), state.drawn_radius))
    state.fields_are_fitted = run.has_fitted_fields
    share = run.latents.class_probability.mean(0)
    state.classes.log_weight.copy_(torch.from_numpy(np.log(share.clip(1e-6))).float())
    state.classes.pseudo_particles = _WORTH_OF_SHARES * state.classes.log_weight.exp()
    if settings.use_conf_encoder and "conformations" in known:
        state.conformations.load_state_dict(known["conformations"])


def _stages(run: Run, settings: Settings, state: TrainingState) -> list[Stage]:
    assert state.maps is not None
    radius = state.maps.lattice.radius
    assigning = Assigning(
        POSE_SEARCHES["sliced"],
        grids_of(settings, state, min(radius, SEARCHED_RADIUS)),
        radius=radius,
        num_images=len(state),
        batch_size=search_batch(settings, state),
        spread=_spread(run) if run.z_dim and run.has_fitted_fields and not settings.use_conf_encoder else None,
    )
    # Rigid fields are their maps: nothing is left to be found in them.
    return [assigning, build_refinement(settings, state)] if run.z_dim and run.has_fitted_fields else [assigning]


def _spread(run: Run) -> KnownSpread:
    """How the conformations of a run's particles lie, in each class; of an empty class, those of all."""
    means, axes = [], []
    for k in range(run.num_classes):
        members = run.members(k)
        mean, spread = _principal_axes(run.latents.conformation[members if len(members) else slice(None)])
        means.append(mean)
        axes.append(spread)
    return KnownSpread(torch.stack(means), torch.stack(axes))


def _principal_axes(conformation: Float[np.ndarray, "m z"]) -> tuple[Float[Tensor, "z"], Float[Tensor, "z z"]]:
    mean = conformation.mean(axis=0)
    centred = conformation - mean
    variance, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    length = np.sqrt(variance.clip(_LEAST_SPREAD**2))
    return torch.from_numpy(mean).float(), torch.from_numpy(length[:, None] * axes.T).float()


def _crop(run: Run, particles: Path, box_size: int, pixel_size_angstrom: float) -> int:
    """Pixels to a side to which images are to be cropped in Fourier space to be like those of a run.

    Raises:
        InputMismatch: If nothing makes them alike.
    """
    wanted, wanted_pixel = run.mixture.box_size, run.pixel_size_angstrom
    across, wanted_across = box_size * pixel_size_angstrom, wanted * wanted_pixel
    if box_size >= wanted and math.isclose(across, wanted_across, rel_tol=_SAME_PIXEL):
        return wanted
    raise InputMismatch(
        f"{particles} has images of {box_size} px of {pixel_size_angstrom:.4g} Å, {across:.0f} Å across, but the run "
        f"knows {wanted} px of {wanted_pixel:.4g} Å, {wanted_across:.0f} Å across; wanted the same field of view in "
        f"pixels as fine or finer, which are cropped. Extract them anew, in a box of {wanted_across:.0f} Å."
    )
