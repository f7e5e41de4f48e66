"""From settings to a trainer: the one place where parts are chosen and put together."""

import torch

from cryohydra._device import default_device
from cryohydra._typing import Float, Tensor
from cryohydra.config.inputs import open_input
from cryohydra.config.seeds import read_seeds
from cryohydra.config.settings import Settings
from cryohydra.config.stages import rough_radius, stages_of, widest_radius
from cryohydra.data.loader import PreparedImages
from cryohydra.data.normalisation import Normalisation, measure_normalisation
from cryohydra.data.particles import ParticleSet
from cryohydra.errors import InputMismatch, UserError
from cryohydra.fields import FIELDS
from cryohydra.fields.base import FieldConfig
from cryohydra.fields.mlp import MLPFieldConfig
from cryohydra.fourier.band import Band
from cryohydra.inference.shift_prior import ShiftPrior
from cryohydra.io.pickles import read_pickle
from cryohydra.io.run_folder import RunFolder
from cryohydra.model.checkpoint import Checkpoint, load_checkpoint
from cryohydra.model.conformations import Conformations, EncodedConformations, TabulatedConformations
from cryohydra.model.encoder import ConvolutionalEncoder
from cryohydra.model.mixture import Mixture, build_mixture
from cryohydra.model.tables import ClassScores, Conformation, ConformationTable, PoseTable
from cryohydra.physics.noise import NoiseSpectrum, spectrum_of_corners
from cryohydra.training.listener import Listener
from cryohydra.training.outputs import EpochWriter
from cryohydra.training.pictures import Reference
from cryohydra.training.records import NoRecords
from cryohydra.training.state import ClassTable, TrainingState
from cryohydra.training.team import ALONE, Team
from cryohydra.training.trainer import Trainer

IMAGES_FOR_NOISE = 2000
_FEWEST_IMAGES_OF_A_PROCESS = 16
_LARGEST_SHIFT = 0.16
"""As a fraction of the box: what the default of 20 pixels is in a box of 128."""


def build_training(settings: Settings, run: RunFolder, listener: Listener, team: Team = ALONE) -> Trainer:
    """Read everything that a training needs; write nothing.

    Args:
        team: Whose members all build theirs from the same settings, seed included; the first one writes.

    Raises:
        UserError: If the input or a checkpoint cannot be used with the settings.
    """
    particles = open_input(settings)
    for note in particles.notes:
        listener.says(note)
    if team.size > 1 and len(particles.source) < _FEWEST_IMAGES_OF_A_PROCESS * team.size:
        raise InputMismatch(
            f"{len(particles.source)} particles are too few to be shared by {team.size} processes; "
            f"wanted {_FEWEST_IMAGES_OF_A_PROCESS} for each. Train in fewer processes."
        )
    generator = torch.Generator().manual_seed(settings.with_seed().seed)
    normalisation = normalisation_of(settings, particles, generator)
    state = build_state(settings, particles, normalisation, generator)
    state.team = team
    writer = EpochWriter(
        run,
        field_name=settings.field,
        field_settings=field_of(settings).model_dump(),
        particle_index=particles.index,
        scale=normalisation.std,
        learns_weights=settings.class_weights == "learned",
    )
    first_stage, stage_state = _resume(settings, state)
    return Trainer(
        stages_of(settings, state),
        state,
        writer if team.is_first else NoRecords(),
        listener,
        log_interval=settings.log_interval,
        save_interval=settings.log_heavy_interval,
        first_stage=first_stage,
        stage_state=stage_state,
        reference=Reference(particles.labels, particles.poses, settings.color_palette),
    )


def build_state(
    settings: Settings, particles: ParticleSet, normalisation: Normalisation, generator: torch.Generator
) -> TrainingState:
    """What is known before the first stage."""
    device = default_device()
    images = _images(settings, particles, normalisation, device)
    noise = _noise(particles, normalisation, generator)
    mixture = build_mixture(
        field_of(settings),
        num_classes=settings.n_classes,
        box_size=images.box_size,
        z_dim=settings.z_dim,
        generator=generator,
    )
    state = TrainingState(
        images=images,
        noise=NoiseSpectrum(noise.variance.to(device)),
        mixture=mixture.to(device),
        poses=_poses(settings, particles).to(device),
        conformations=_conformations(settings, particles, generator).to(device),
        classes=ClassTable(len(images), settings.n_classes).to(device),
        scores=ClassScores(len(images), settings.n_classes).to(device),
        maps=None,
        fields_are_fitted=False,
        known_shift_px=_known_shift(settings, particles).to(device),
        shift_prior=_shift_prior(settings, images.box_size),
        generator=generator,
        device=device,
        finds_conformations=settings.z_dim > 0 and not settings.use_conf_encoder and settings.initial_conf is None,
    )
    # Learned scores and the published likelihood tell no probabilities.
    state.classes.may_be_noise = settings.class_weights == "posterior" and settings.likelihood == "gaussian"
    state.seeds = read_seeds(settings, particles, state, rough_radius(settings, images.box_size))
    return state


def field_of(settings: Settings) -> FieldConfig:
    """The field's own settings."""
    if settings.field != "mlp":
        return FIELDS[settings.field]()
    return MLPFieldConfig(
        layers=settings.hypervolume_layers,
        width=settings.hypervolume_dim,
        pe_dim=settings.pe_dim,
        feat_sigma=settings.feat_sigma,
        z_encoding=settings.pe_type_conf or "none",
    )


def _shift_prior(settings: Settings, box_size: int) -> ShiftPrior:
    if settings.no_trans:
        return ShiftPrior.uninformed(0.0)
    extent_px = min(settings.t_extent, _LARGEST_SHIFT * box_size) if settings.searches_shifts else 0.0
    return ShiftPrior.uninformed(extent_px, (settings.t_x_shift, settings.t_y_shift))


def normalisation_of(settings: Settings, particles: ParticleSet, generator: torch.Generator) -> Normalisation:
    """How images are brought to one scale."""
    measured = measure_normalisation(particles.source, generator=generator)
    mean = measured.mean if settings.norm_mean is None else settings.norm_mean
    std = measured.std if settings.norm_std is None else settings.norm_std
    return Normalisation(mean, std)


def _images(
    settings: Settings, particles: ParticleSet, normalisation: Normalisation, device: torch.device
) -> PreparedImages:
    box_size = particles.source.box_size
    band = Band(box_size, widest_radius(settings, box_size), device)
    window = settings.window_radius_gt_real if settings.likelihood == "pixel_mean" else None
    return PreparedImages(particles.source, normalisation, band, window)


def _noise(particles: ParticleSet, normalisation: Normalisation, generator: torch.Generator) -> NoiseSpectrum:
    source = particles.source
    chosen = torch.randperm(len(source), generator=generator)[:IMAGES_FOR_NOISE]
    images = torch.cat([normalisation.apply(source.images(part)) for part in chosen.split(128)])
    group = source.optics(chosen).group
    num_groups = int(source.optics(torch.arange(len(source))).group.max()) + 1
    return spectrum_of_corners(images.flatten(0, 1), group.flatten(), num_groups)


def _poses(settings: Settings, particles: ParticleSet) -> PoseTable:
    source = particles.source
    table = PoseTable(len(source), source.num_tilts, settings.n_classes)
    if settings.pose_estimation != "abinit":
        assert particles.poses is not None, "open_input sees to it"
        table.set(torch.arange(len(source)), particles.poses)
        if settings.no_trans:
            table.shift_px.zero_()
    return table


def _known_shift(settings: Settings, particles: ParticleSet) -> Float[Tensor, "n 2"]:
    """Shifts that ab initio takes as given; elsewhere they are part of the poses."""
    shift = torch.zeros(len(particles.source), 2)
    if settings.pose_estimation == "abinit" and settings.use_gt_trans and not settings.no_trans:
        assert particles.poses is not None, "open_input sees to it"
        return particles.poses.shift_px[:, 0, 0]
    return shift


def _conformations(settings: Settings, particles: ParticleSet, generator: torch.Generator) -> Conformations:
    num_particles = len(particles.source)
    if settings.use_conf_encoder:
        encoder = ConvolutionalEncoder(
            box_size=particles.source.box_size,
            num_classes=settings.n_classes,
            z_dim=settings.z_dim,
            generator=generator,
            depth=settings.depth_cnn,
            channels=settings.channels_cnn,
            kernel_size=settings.kernel_size_cnn,
            resolution=settings.resolution_encoder,
            is_variational=settings.variational_het,
        )
        return EncodedConformations(encoder, settings.lr_conf_encoder, settings.wd)
    table = ConformationTable(
        num_particles,
        settings.n_classes,
        settings.z_dim,
        settings.std_z_init,
        generator,
        is_variational=settings.variational_het,
    )
    if settings.initial_conf is not None:
        mean = _initial_conformations(settings, particles)
        index = torch.arange(num_particles)
        table.set(index, Conformation(mean, table.conformation(index).log_std))
    return TabulatedConformations(table, settings.lr_conf_table)


def _initial_conformations(settings: Settings, particles: ParticleSet) -> Float[Tensor, "n k z"]:
    assert settings.initial_conf is not None
    given = torch.as_tensor(read_pickle(settings.initial_conf)).float()
    if given.ndim == 2:
        given = given[:, None].expand(-1, settings.n_classes, -1)
    num_described = int(particles.index.max()) + 1
    if given.ndim != 3 or given.shape[1:] != (settings.n_classes, settings.z_dim) or len(given) < num_described:
        raise InputMismatch(
            f"{settings.initial_conf} holds an array of shape {tuple(given.shape)}; wanted "
            f"(particles, {settings.z_dim}) or (particles, {settings.n_classes}, {settings.z_dim}) "
            f"for {num_described} particles. Check z_dim and n_classes."
        )
    return given[particles.index]


def _resume(settings: Settings, state: TrainingState) -> tuple[int, dict[str, object] | None]:
    """Put a checkpoint's content into the state and tell where to go on."""
    if settings.load is None:
        return 0, None
    checkpoint = load_checkpoint(settings.load, state.device)
    if settings.prune_classes and checkpoint.num_classes < state.num_classes:
        state.keep_classes(torch.arange(checkpoint.num_classes, device=state.device))
    _check_fits(checkpoint, state.mixture, state)
    asked = {"field": settings.field} | field_of(settings).model_dump()
    saved = {"field": checkpoint.field_name} | checkpoint.field_settings
    differing = [key for key in asked if key in saved and asked[key] != saved[key]]
    try:
        state.mixture.load_state_dict(checkpoint.mixture_state)
        state.load_state_dict(checkpoint.extra["training"])
    except (RuntimeError, KeyError) as error:
        what = "; ".join(f"{key} {saved[key]}, not {asked[key]}" for key in differing) or "others in its kind of tables"
        raise InputMismatch(
            f"{settings.load} was trained with other settings ({what}). "
            "Continue with the settings it was trained with, or train anew without --load."
        ) from error
    return checkpoint.extra["stage"], checkpoint.extra["stage_state"] or None


def _check_fits(checkpoint: Checkpoint, mixture: Mixture, state: TrainingState) -> None:
    saved = (checkpoint.num_classes, checkpoint.z_dim, checkpoint.box_size)
    wanted = (mixture.num_classes, mixture.z_dim, mixture.box_size)
    if not {"training", "stage", "stage_state"} <= checkpoint.extra.keys():
        raise UserError(f"Checkpoint {checkpoint.epoch} holds fields but no course of a training; train anew.")
    rows = len(checkpoint.extra["training"]["poses"]["rotation"])
    if saved != wanted or rows != len(state):
        raise InputMismatch(
            f"The checkpoint is of {rows} particles and (n_classes, z_dim, box) = {saved}, but the settings ask for "
            f"{len(state)} particles and {wanted}. Continue with the settings it was trained with."
        )
