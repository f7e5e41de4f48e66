"""What a training goes through, by its settings: the stages and their bounds."""

import torch

from cryohydra.config.settings import Settings
from cryohydra.errors import UserError
from cryohydra.fourier.band import largest_radius
from cryohydra.inference.likelihood import GaussianLikelihood, Likelihood, PixelMeanLikelihood
from cryohydra.inference.local_search import LocalSteps
from cryohydra.inference.pose_search import POSE_SEARCHES
from cryohydra.inference.pose_search.base import SearchPlan
from cryohydra.training.ab_initio import MOST_CLIMBING, AbInitio
from cryohydra.training.annealing import Annealing
from cryohydra.training.gibbs import num_parts_of
from cryohydra.training.gradient_search import GradientSearch
from cryohydra.training.known_poses import KnownPoses
from cryohydra.training.refinement import Refinement, RefinementPlan, Regularisers
from cryohydra.training.search import Searching, plan_search
from cryohydra.training.stage import Stage
from cryohydra.training.state import TrainingState

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


def rough_radius(settings: Settings, box_size: int) -> int:
    """As far as ab initio goes, and all that is taken of maps to start from, in Fourier pixels."""
    return min(Annealing.last_radius, widest_radius(settings, box_size), settings.l_end)


def _ab_initio(settings: Settings, state: TrainingState, bound: int) -> AbInitio:
    last_radius, num_classes = rough_radius(settings, state.images.box_size), state.num_classes
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
    return AbInitio(
        annealing,
        num_images=num_images,
        batch_size=-(-num_images // num_parts),
        prunes=settings.prune_classes,
    )


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


def grids_of(settings: Settings, state: TrainingState, radius: int) -> SearchPlan:
    """Grids of poses up to a radius in Fourier pixels, for one search of images."""
    return plan_search(
        radius,
        base_level=settings.base_healpy,
        num_refinements=settings.n_iter,
        box_size=state.images.box_size,
        shifts=state.shift_prior,
        num_kept=settings.n_kept_poses,
    )


def search_batch(settings: Settings, state: TrainingState) -> int:
    """Images at a time of a search: of each process as many, since each cuts the slices that its images share."""
    usual = _SEARCH_BATCH_ON_GPU if state.device.type == "cuda" else _SEARCH_BATCH
    return min(max(settings.batch_size_hps, usual) * state.team.size, len(state))


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
    radius = min(settings.l_end, widest_radius(settings, state.images.box_size))
    return GradientSearch(
        POSE_SEARCHES["sliced"](grids_of(settings, state, radius)),
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
