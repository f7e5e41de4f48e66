"""What must hold between settings; each rule says what to do when it does not."""

from collections.abc import Callable
from dataclasses import dataclass

from cryohydra.config.settings import Settings


@dataclass(frozen=True)
class Rule:
    """A condition between keys that makes an experiment impossible."""

    keys: tuple[str, ...]
    """The keys it reads; it is not asked when one of them is unusable itself."""
    is_broken: Callable[[Settings], bool]
    sentence: str
    """What is wrong and what to do."""


def _lacks_poses(settings: Settings) -> bool:
    """Poses are used, but neither a pose file nor metadata that may hold poses was given."""
    if not settings.needs_poses or settings.pose is not None or settings.particles is None:
        return False
    return settings.particles.suffix not in {".star", ".cs"}


RULES = (
    Rule(
        ("prune_classes", "use_conf_encoder", "class_weights", "use_gt_poses", "refine_gt_poses"),
        lambda s: (
            s.prune_classes and (s.use_conf_encoder or s.class_weights == "learned" or s.pose_estimation != "abinit")
        ),
        "Classes are pruned by the search for unknown poses, and an encoder or learned weights are made for one number "
        "of them; give n_classes a number.",
    ),
    Rule(
        ("field", "explicit_volume", "z_dim"),
        lambda s: s.field == "voxel" and s.z_dim > 0,
        "A voxel field (explicit_volume) cannot move; set z_dim to 0 or field to mlp.",
    ),
    Rule(
        ("use_conf_encoder", "initial_conf"),
        lambda s: s.use_conf_encoder and s.initial_conf is not None,
        "An encoder predicts conformations and cannot start from initial_conf; "
        "set conf_estimation to refine, or leave initial_conf out.",
    ),
    Rule(
        ("use_conf_encoder", "subtomogram_averaging"),
        lambda s: s.use_conf_encoder and s.subtomogram_averaging,
        "The encoder does not take tilt series; set conf_estimation to autodecoder.",
    ),
    Rule(
        ("quick_config", "initial_conf", "z_dim"),
        lambda s: (
            s.quick_config is not None
            and s.quick_config.conf_estimation == "refine"
            and s.z_dim > 0
            and s.initial_conf is None
        ),
        "conf_estimation refine starts from given conformations; name their file in initial_conf.",
    ),
    Rule(
        ("use_gt_poses", "refine_gt_poses"),
        lambda s: s.use_gt_poses and s.refine_gt_poses,
        "Poses are to be both fixed (use_gt_poses) and refined (refine_gt_poses); choose one.",
    ),
    Rule(
        ("use_gt_poses", "refine_gt_poses", "use_gt_trans", "pretrain_with_gt_poses", "pose", "particles"),
        _lacks_poses,
        "Known poses are asked for but none are given; name their file in pose, "
        "or give a .star or .cs that holds them.",
    ),
    Rule(
        ("subtomogram_averaging", "use_gt_trans", "t_extent", "refine_gt_poses"),
        lambda s: s.subtomogram_averaging and s.searches_shifts and s.pose_estimation == "abinit",
        "Shifts of tilt series are not searched; give them with use_gt_trans, or set t_extent to 0.",
    ),
    Rule(
        ("n_tilts_pose_search", "n_tilts"),
        lambda s: s.n_tilts_pose_search is not None and s.n_tilts_pose_search > s.n_tilts,
        "n_tilts_pose_search is larger than n_tilts; lower it, or leave it out to use all.",
    ),
    Rule(
        ("average_over_tilts", "n_tilts_pose_search", "n_tilts", "subtomogram_averaging"),
        lambda s: s.subtomogram_averaging and s.average_over_tilts and s.num_tilts_pose_search % 2 == 0,
        "average_over_tilts needs an odd number of tilts; set n_tilts_pose_search to an odd number.",
    ),
    Rule(
        ("n_imgs_pose_search", "use_gt_poses", "refine_gt_poses"),
        lambda s: s.n_imgs_pose_search == 0 and s.pose_estimation == "abinit",
        "n_imgs_pose_search is 0, which leaves no pose search, but poses are to be found ab initio; "
        "raise it, or give poses and choose --pose-estimation refine.",
    ),
    Rule(
        ("initial_volumes", "n_classes"),
        lambda s: len(s.initial_volumes or ()) > s.n_classes,
        "initial_volumes names more maps than there are classes; raise n_classes, or leave maps out.",
    ),
    Rule(
        ("initial_volumes", "n_classes", "use_gt_poses", "refine_gt_poses"),
        lambda s: s.pose_estimation != "abinit" and 0 < len(s.initial_volumes or ()) < s.n_classes,
        "initial_volumes has a map for some classes only, but with given poses all classes start together; give one "
        "for each, or initial_labels, or choose --pose-estimation abinit.",
    ),
    Rule(
        ("initial_volumes", "initial_labels", "quick_config"),
        lambda s: (
            (s.initial_volumes is not None or s.initial_labels is not None)
            and s.quick_config is not None
            and s.quick_config.engine == "published"
        ),
        "The published engine starts from nothing; leave initial_volumes and initial_labels out, or the engine.",
    ),
    Rule(
        ("l_start", "l_end"),
        lambda s: s.l_start > s.l_end,
        "l_start is larger than l_end, but the search goes from coarse to fine; exchange them.",
    ),
)
