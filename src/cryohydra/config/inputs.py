"""The particles that the settings name."""

from cryohydra.config.files import read_configs
from cryohydra.config.paths import check_files_exist
from cryohydra.config.settings import Settings
from cryohydra.data.particles import ParticleSet, open_particles
from cryohydra.errors import UserError
from cryohydra.io.run_folder import RunFolder


def reopen_input(run: RunFolder) -> ParticleSet:
    """Open the particles that a run was trained on, images left on disk.

    Raises:
        UserError: If they are no longer there, or the run does not say which they were.
    """
    settings = read_configs(run.train_configs_path).settings
    return open_input(settings.model_copy(update={"lazy": True}))


def open_input(settings: Settings) -> ParticleSet:
    """Open the particles, with the poses where they are needed.

    Raises:
        UserError: If something is missing, unreadable or does not fit together.
    """
    if settings.particles is None:
        raise UserError("No particle images are given; name their file in particles, or a dataset in dataset.")
    check_files_exist(settings)
    if settings.ctf is None and settings.particles.suffix not in {".star", ".cs"}:
        raise UserError(
            f"{settings.particles} holds no CTF parameters and none are given; name their .pkl file in ctf, "
            "or give the .star or .cs file that describes the images."
        )
    particles = open_particles(
        settings.particles,
        ctf=settings.ctf,
        pose=settings.pose,
        labels=settings.labels,
        ind=settings.ind,
        datadir=settings.datadir,
        downsample=settings.downsample,
        lazy=settings.lazy,
        invert=settings.invert_data,
        num_tilts=settings.num_tilts,
        dose_per_tilt=settings.dose_per_tilt,
        angle_per_tilt=settings.angle_per_tilt,
        dose_exposure_correction=settings.dose_exposure_correction,
    )
    origin = settings.pose or settings.particles
    if settings.needs_poses and particles.poses is None:
        raise UserError(f"Known poses are asked for but {origin} holds none; name a pose file in pose.")
    needs_shifts = settings.use_gt_trans and not settings.no_trans
    if needs_shifts and not particles.has_shifts:
        raise UserError(
            f"Known shifts are asked for but {origin} holds only rotations; "
            "give poses with shifts, or set no_trans if the images are centred."
        )
    return particles
