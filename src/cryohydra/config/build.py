"""From settings to a trainer: the one place where parts are chosen and put together."""

import torch

from cryohydra._device import default_device
from cryohydra._typing import Float, Tensor
from cryohydra.config.inputs import open_input
from cryohydra.config.seeds import read_seeds
from cryohydra.config.settings import Settings
from cryohydra.data.loader import PreparedImages
from cryohydra.data.normalisation import Normalisation, measure_normalisation
from cryohydra.data.particles import ParticleSet
from cryohydra.errors import InputMismatch, UserError
from cryohydra.fields import FIELDS
from cryohydra.fields.base import FieldConfig
from cryohydra.fields.mlp import MLPFieldConfig
from cryohydra.fourier.band import Band, largest_radius
from cryohydra.inference.likelihood import GaussianLikelihood, Likelihood, PixelMeanLikelihood
from cryohydra.inference.local_search import LocalSteps
from cryohydra.inference.pose_search import POSE_SEARCHES
from cryohydra.inference.shift_prior import ShiftPrior
from cryohydra.io.pickles import read_pickle
from cryohydra.io.run_folder import RunFolder
from cryohydra.model.checkpoint import Checkpoint, load_checkpoint
from cryohydra.model.conformations import Conformations, EncodedConformations, TabulatedConformations
from cryohydra.model.encoder import ConvolutionalEncoder
from cryohydra.model.mixture import Mixture, build_mixture
from cryohydra.model.tables import ClassScores, Conformation, ConformationTable, PoseTable
from cryohydra.physics.noise import NoiseSpectrum, spectrum_of_corners
from cryohydra.training.ab_initio import MOST_CLIMBING, AbInitio
from cryohydra.training.annealing import Annealing
from cryohydra.training.gibbs import num_parts_of
from cryohydra.training.gradient_search import GradientSearch
from cryohydra.training.known_poses import KnownPoses
from cryohydra.training.listener import Listener
from cryohydra.training.outputs import EpochWriter
from cryohydra.training.pictures import Reference
from cryohydra.training.refinement import Refinement, RefinementPlan, Regularisers
from cryohydra.training.search import Searching, plan_search
from cryohydra.training.stage import Stage
from cryohydra.training.state import ClassTable, TrainingState
from cryohydra.training.trainer import Trainer

IMAGES_FOR_NOISE = 2000
_KNOWN_POSE_PASSES = 30
_AB_INITIO_SHARE = 0.7
"""Of the visits in which poses may be searched, how many may go to finding maps; the rest is the search's."""
_NUM_SWEEPS, _SWEEPS_OF_SEEDS = 100, 10
"""Of ab initio over its images; fewer where every class has a map: only its scale and images' shifts are found."""
_HOT_SWEEPS, _COOL_SWEEPS = 10, 70
"""Of these: in how many it is as hot as at first, and after how many it is cold; before it settles, however few."""
_FEWEST_FOR_MAPS, _IMAGES_OF_A_MAP = 2000, 500
"""Images on which maps climb in ab initio, of all classes together and for each."""
_SEARCH_BATCH, _SEARCH_BATCH_ON_GPU = 512, 4096
"""Images at a time, at least, in the search; what it holds of their scores is bounded besides."""
_LARGEST_SHIFT = 0.16
"""As a fraction of the box: what the default of 20 pixels is in a box of 128."""


def build_training(settings: Settings, run: RunFolder, listener: Listener) -> Trainer:
    """Read everything that a training needs; write nothing.

    Raises:
        UserError: If the input or a checkpoint cannot be used with the settings.
    """
    particles = open_input(settings)
    for note in particles.notes:
        listener.says(note)
    if settings.multigpu:
        listener.says("multigpu is accepted but has no effect yet: the training runs in one process on one device.")
    generator = torch.Generator().manual_seed(settings.with_seed().seed)
    normalisation = normalisation_of(settings, particles, generator)
    state = build_state(settings, particles, normalisation, generator)
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
        writer,
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
    state.seeds = read_seeds(settings, particles, state, _rough_radius(settings, images.box_size))
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


def stages_of(settings: Settings, state: TrainingState) -> list[Stage]:
    """What a training goes through."""
    if settings.pose_estimation != "abinit":
        return [_known_poses(settings, state), build_refinement(settings, state)]
    if state.images.num_tilts > 1:
        raise UserError(
            "Ab initio poses of tilt series are not supported yet; give poses and choose "
            "--pose-estimation refine or fixed."
        )
    num_search = settings.n_imgs_pose_search
    # At least two epochs: one to find maps, one to give every image a pose in them.
    bound = max(2, num_search // len(state) + 1) * len(state)
    if settings.quick_config is not None and settings.quick_config.engine == "published":
        return [
            _pretraining(settings, state),
            _gradient_search(settings, state, bound),
            build_refinement(settings, state),
        ]
    ab_initio = _ab_initio(settings, state, bound)
    # Whole passes: one that is cut short teaches nothing.
    left = max(1, (bound - ab_initio.max_images) // len(state)) * len(state)
    annealing = ab_initio.annealing
    searching = build_search(settings, state, left, annealing.last_radius, newcomers=annealing)
    return [ab_initio, searching, build_refinement(settings, state)]


def widest_radius(settings: Settings, box_size: int) -> int:
    """The highest frequency ever compared, in Fourier pixels."""
    return min(settings.max_freq or box_size, largest_radius(box_size))


def _shift_prior(settings: Settings, box_size: int) -> ShiftPrior:
    if settings.no_trans:
        return ShiftPrior.uninformed(0.0)
    extent_px = min(settings.t_extent, _LARGEST_SHIFT * box_size) if settings.searches_shifts else 0.0
    return ShiftPrior.uninformed(extent_px, (settings.t_x_shift, settings.t_y_shift))


def _rough_radius(settings: Settings, box_size: int) -> int:
    """As far as ab initio goes, and all that is taken of maps to start from, in Fourier pixels."""
    return min(Annealing.last_radius, widest_radius(settings, box_size), settings.l_end)


def _ab_initio(settings: Settings, state: TrainingState, bound: int) -> AbInitio:
    last_radius, num_classes = _rough_radius(settings, state.images.box_size), state.num_classes
    num_images = max(_FEWEST_FOR_MAPS, _IMAGES_OF_A_MAP * num_classes)
    if settings.n_imgs_pretrain > 0:
        num_images = min(num_images, settings.n_imgs_pretrain)
    num_images = min(num_images, len(state))
    num_parts = num_parts_of(num_images, num_classes)
    has_all = state.seeds is not None and bool(state.seeds.has_map.all())
    num_sweeps = _SWEEPS_OF_SEEDS if has_all else _NUM_SWEEPS
    affordable = min(bound - len(state), int(_AB_INITIO_SHARE * bound))
    num_steps = max(1, min(num_sweeps * num_parts, affordable * num_parts // num_images))
    # Maps that are all known need not be found.
    num_cool_steps = 0 if has_all else min(_COOL_SWEEPS * num_parts, int(MOST_CLIMBING * num_steps))
    annealing = Annealing(
        num_steps=num_steps,
        num_hot_steps=_HOT_SWEEPS * num_cool_steps // _COOL_SWEEPS,
        num_cool_steps=num_cool_steps,
        # However few they are, the last ones are in the whole band.
        num_warm_steps=max(1, min(Annealing.num_warm_steps, num_steps // 2)),
        first_radius=min(Annealing.first_radius, last_radius),
        last_radius=last_radius,
    )
    return AbInitio(annealing, num_images=num_images, batch_size=-(-num_images // num_parts))


def build_search(
    settings: Settings,
    state: TrainingState,
    bound: int,
    first_radius: int,
    newcomers: Annealing | None = None,
    most_trials: int = 3,
    follows_density: bool = True,
) -> Searching:
    """The search, of at most `bound` image visits; see `Searching` for the rest."""
    box_size = state.images.box_size
    return Searching(
        POSE_SEARCHES["sliced"],
        settings.search,
        base_level=settings.base_healpy,
        num_refinements=settings.n_iter,
        first_radius=first_radius,
        last_radius=min(settings.l_end, widest_radius(settings, box_size)),
        num_kept=settings.n_kept_poses,
        max_images=bound,
        batch_size=search_batch(settings, state),
        newcomers=newcomers,
        most_trials=most_trials,
        follows_density=follows_density,
        prunes=settings.prune_classes,
    )


def search_batch(settings: Settings, state: TrainingState) -> int:
    """Images at a time of a search."""
    usual = _SEARCH_BATCH_ON_GPU if state.device.type == "cuda" else _SEARCH_BATCH
    return min(max(settings.batch_size_hps, usual), len(state))


def _known_poses(settings: Settings, state: TrainingState) -> KnownPoses:
    return KnownPoses(
        radius=min(settings.l_end, widest_radius(settings, state.images.box_size)),
        max_passes=_KNOWN_POSE_PASSES,
        num_images=len(state),
        batch_size=max(settings.batch_size_known_poses, 64),
        steps=_local_steps(settings),
    )


def _local_steps(settings: Settings) -> LocalSteps:
    learns_shifts = not (settings.no_trans or settings.use_gt_trans)
    return LocalSteps(count=0 if settings.pose_estimation == "fixed" else LocalSteps.count, shifts=learns_shifts)


def _pretraining(settings: Settings, state: TrainingState) -> KnownPoses:
    stage = KnownPoses(
        radius=min(settings.l_start, widest_radius(settings, state.images.box_size)),
        max_passes=1,
        num_images=len(state),
        batch_size=settings.batch_size_known_poses,
        steps=LocalSteps(count=0),
        random_poses=True,
    )
    if settings.n_imgs_pretrain >= 0:
        stage.max_images = min(stage.max_images, settings.n_imgs_pretrain)
    return stage


def _gradient_search(settings: Settings, state: TrainingState, bound: int) -> GradientSearch:
    box_size = state.images.box_size
    radius = min(settings.l_end, widest_radius(settings, box_size))
    plan = plan_search(
        radius,
        base_level=settings.base_healpy,
        num_refinements=settings.n_iter,
        box_size=box_size,
        shifts=state.shift_prior,
        num_kept=settings.n_kept_poses,
    )
    return GradientSearch(
        POSE_SEARCHES["sliced"](plan),
        build_refinement(settings, state),
        settings.search,
        max_images=bound,
        batch_size=settings.batch_size_hps,
    )


def build_refinement(settings: Settings, state: TrainingState) -> Refinement:
    """The last stage."""
    is_fixed = settings.pose_estimation == "fixed"
    marches = settings.output_mask == "frequency_marching"
    uses_bfloat16 = settings.precision == "bfloat16" or (
        settings.precision == "auto"
        and state.device.type == "cuda"
        and torch.cuda.is_bf16_supported(including_emulation=False)
    )
    plan = RefinementPlan(
        radius=widest_radius(settings, state.images.box_size),
        first_radius=settings.l_start_fm if marches else None,
        frequencies_per_epoch=settings.n_frequencies_per_epoch,
        learns_rotations=not is_fixed,
        learns_shifts=not (is_fixed or settings.no_trans or settings.use_gt_trans),
        learns_weights=settings.class_weights,
        lr_fields=settings.lr,
        lr_poses=settings.lr_pose_table,
        lr_scores=settings.lr_score_table,
        pose_optimizer=settings.pose_table_optimizer_type,
        # An encoder has no table.
        conformation_optimizer="adam" if settings.use_conf_encoder else settings.conf_table_optimizer_type,
        pose_only_images=settings.pose_only_phase if settings.z_dim else 0,
        max_epochs=settings.epochs_sgd,
        regularisers=Regularisers(
            kl=settings.beta_conf if settings.variational_het else 0.0,
            shift_l1=settings.trans_l1_regularizer,
            smoothness_l2=settings.l2_smoothness_regularizer,
        ),
        uses_bfloat16=uses_bfloat16,
    )
    batch_size = settings.batch_size_known_poses if is_fixed else settings.batch_size_sgd
    return Refinement(plan, _likelihood(settings), num_images=len(state), batch_size=min(batch_size, len(state)))


def _likelihood(settings: Settings) -> Likelihood:
    if settings.likelihood == "pixel_mean":
        return PixelMeanLikelihood(settings.std_noise)
    return GaussianLikelihood(settings.std_noise)


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
