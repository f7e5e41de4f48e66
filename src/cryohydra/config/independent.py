"""Poses and classes of two halves of the particles, found apart from each other."""

from dataclasses import replace

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.config.build import build_state, normalisation_of
from cryohydra.config.settings import Settings
from cryohydra.config.stages import build_search, widest_radius
from cryohydra.data.particles import ParticleSet
from cryohydra.data.sources import Subset
from cryohydra.errors import UserError
from cryohydra.inference.half_maps import HalfSets
from cryohydra.physics.pose import Pose
from cryohydra.training.independent_half import search_anew, start_from_maps
from cryohydra.training.listener import Listener

_LARGEST_START = 10
"""Fourier pixels, as far as ab initio goes: enough for poses, and well short of what is to be shown."""


def start_radius(box_size: int, pixel_size_angstrom: float, resolution_angstrom: float | None) -> int:
    """The band of the common start, in Fourier pixels: of the resolution asked for, or a sixth of the box.

    Raises:
        UserError: If it leaves too little to find poses by, or nothing to find out.
    """
    if resolution_angstrom is None:
        return max(4, min(_LARGEST_START, box_size // 6))
    size = box_size * pixel_size_angstrom
    radius = round(size / resolution_angstrom) if resolution_angstrom > 0 else 0
    if not 3 <= radius <= box_size // 3:
        raise UserError(
            f"A start of {resolution_angstrom:g} Å is asked for; wanted {3 * pixel_size_angstrom:.3g} to "
            f"{size / 3:.3g} Å: coarser says nothing of poses, finer leaves nothing to be found out."
        )
    return radius


def search_halves_apart(
    settings: Settings,
    particles: ParticleSet,
    half: Int[Tensor, "n"],
    maps: Float[Tensor, "k d d d"],
    radius: int,
    listener: Listener,
) -> HalfSets:
    """Search all poses and classes anew, each half against maps of its own particles only.

    Of what the run found only the maps are used, up to `radius`; its poses, classes and noise are not. Classes are
    rigid.

    Raises:
        UserError: If the particles are tilt series.
    """
    if particles.source.num_tilts > 1:
        raise UserError("Halves of tilt series cannot be refined apart yet; leave --independent-halves out.")
    num_particles, num_classes = len(particles.source), len(maps)
    sets = HalfSets(
        half=half,
        probability=torch.zeros(num_particles, num_classes),
        rotation=torch.zeros(num_particles, 1, num_classes, 3, 3),
        shift_px=torch.zeros(num_particles, 1, num_classes, 2),
    )
    rigid = settings.model_copy(
        update={
            **{key: None for key in ("initial_conf", "initial_volumes", "initial_labels", "load")},
            **{key: False for key in ("use_gt_poses", "refine_gt_poses", "pretrain_with_gt_poses")},
            # Shifts that came with fixed poses are as much of both halves as these are.
            "use_gt_trans": settings.use_gt_trans and not settings.use_gt_poses,
            "z_dim": 0,
            "search": "sliced",
            # Those that a run has kept.
            "n_classes": len(maps),
            "prune_classes": False,
        }
    )
    for h in (0, 1):
        rows = torch.nonzero(half == h).flatten()
        generator = torch.Generator().manual_seed(rigid.with_seed().seed + h)
        mine = _only(particles, rows)
        normalisation = normalisation_of(rigid, mine, generator)
        state = build_state(rigid, mine, normalisation, generator)
        start_from_maps(state, maps / normalisation.std, radius)
        bound = max(2, rigid.n_imgs_pose_search // len(state) + 1) * len(state)
        widest = widest_radius(rigid, state.images.box_size)
        # Of a common outline the halves would learn more in common than the start holds.
        apart = rigid.model_copy(update={"l_end": widest})
        # A trial kept in one half only would make a class another structure there.
        # Chosen by how well they fit the start, images would agree beyond it.
        state.classes.may_be_noise = False
        stage = build_search(apart, state, bound, radius, most_trials=0, follows_density=False)
        listener.stage_begins(f"half {h + 1}", stage.max_images)
        for count, note in search_anew(state, stage):
            listener.advanced(count, note)
        listener.stage_ends(
            f"Half {h + 1}: {stage.pass_count} passes over {len(state)} particles, band {stage.radius}."
        )
        sets.probability[rows] = state.classes.log_posterior().exp().cpu()
        sets.rotation[rows] = state.poses.rotation.cpu()
        sets.shift_px[rows] = state.poses.shift_px.cpu()
    return sets


def _only(particles: ParticleSet, rows: Int[Tensor, "m"]) -> ParticleSet:
    """Some of the particles, with given shifts if there are any."""
    poses = particles.poses
    return replace(
        particles,
        source=Subset(particles.source, rows),
        poses=None if poses is None else Pose(poses.rotation[rows], poses.shift_px[rows]),
        labels=None,
        index=particles.index[rows],
        rows=particles.rows[rows],
        half=None,
        micrograph=None,
    )
