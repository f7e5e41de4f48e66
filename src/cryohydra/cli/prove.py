"""`drgnai prove`: whether the images bear out what the network shows."""

import argparse
from pathlib import Path
from typing import Any

from cryohydra.analysis.proof import SHARED_POSES, HalvesMade, independent_halves
from cryohydra.analysis.proof_files import ProofFolder
from cryohydra.analysis.prove import halves_of, in_pixels_of, maps_of, prove_run, sets_of_run
from cryohydra.analysis.run import Run
from cryohydra.cli.arguments import add_outdir, subparser
from cryohydra.cli.progress import Progress
from cryohydra.config.files import read_configs
from cryohydra.config.independent import search_halves_apart, start_radius
from cryohydra.config.inputs import open_input
from cryohydra.config.settings import Settings
from cryohydra.data.particles import ParticleSet
from cryohydra.errors import UserError
from cryohydra.inference.half_maps import HalfSets

DESCRIPTION = """\
Backproject the particles of each class in two halves, with the model's poses and class probabilities,
and compare: the half maps with each other (FSC, masked and corrected for the mask), and the neural
map with both. Writes OUT/out/proof_E_shared/ with, for each class, class_k_half1.mrc and _half2.mrc,
the FSC as .xml (as EMDB takes it) and .csv, figures, and sentences that say what they mean.

The model's poses were found with all particles together, so this FSC is optimistic: "shared poses, not
gold standard". --independent-halves searches poses and classes of each half anew, apart from the other,
from maps low-passed to a stated resolution, and writes OUT/out/proof_E_independent/: that FSC at 0.143 is
a resolution to publish. It takes as long as the search stage of the training.
"""

EPILOG = """\
Examples:
  drgnai prove OUT                               at the box that was trained on
  drgnai prove OUT --particles full_size.star    the same particles at their full box
  drgnai prove OUT --independent-halves          poses refined separately, for the resolution
  drgnai analyze OUT                             afterwards: the report shows the proof
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb's flags."""
    parser = subparser(subparsers, "prove", "half maps and FSC of each class", DESCRIPTION, EPILOG)
    add_outdir(parser)
    parser.add_argument("--epoch", "-e", type=int, default=-1, help="epoch; -1 for the last (default)")
    parser.add_argument(
        "--particles",
        type=Path,
        metavar="FILE",
        help="the same particles, row by row, at another box, such as the original one",
    )
    parser.add_argument(
        "--independent-halves", action="store_true", help="search poses and classes of each half apart from the other"
    )
    parser.add_argument(
        "--start-resolution",
        type=float,
        metavar="A",
        help="with --independent-halves: low pass of the maps from which both begin, in angstrom "
        "(default: a sixth of the box in Fourier pixels, 10 at most)",
    )
    parser.add_argument("--datadir", type=Path, metavar="DIR", help="folder of the images that FILE names")


def run(args: argparse.Namespace) -> int:
    """Prove and say what came of it."""
    if args.start_resolution is not None and not args.independent_halves:
        raise UserError("--start-resolution has a meaning with --independent-halves only; give both or none.")
    progress = Progress()
    trained = Run.open(args.outdir, args.epoch)
    settings = read_configs(trained.folder.train_configs_path).settings
    particles = open_input(_with_images(settings, args.particles, args.datadir))
    sets, made = sets_of_run(trained, particles), SHARED_POSES
    progress.says(halves_of(particles)[1])
    try:
        if args.independent_halves:
            radius = start_radius(trained.mixture.box_size, trained.pixel_size_angstrom, args.start_resolution)
            made = independent_halves(radius, trained.mixture.box_size * trained.pixel_size_angstrom)
            found = search_halves_apart(settings, open_input(settings), sets.half, maps_of(trained), radius, progress)
            sets = in_pixels_of(found, trained, particles)
        folder = _prove(trained, particles, sets, made, progress)
    finally:
        progress.close()
    progress.says(f"Half maps, FSC and figures: {folder.path}")
    return 0


def prove_at_shared_poses(outdir: Path, progress: Progress) -> None:
    """Half maps and FSC of the last epoch at the model's own poses, as `drgnai prove OUT` makes them.

    Raises:
        UserError: If the run or its particles cannot be read.
    """
    trained = Run.open(outdir)
    settings = read_configs(trained.folder.train_configs_path).settings
    particles = open_input(_with_images(settings, None, None))
    _prove(trained, particles, sets_of_run(trained, particles), SHARED_POSES, progress)


def _prove(run: Run, particles: ParticleSet, sets: HalfSets, made: HalvesMade, progress: Progress) -> ProofFolder:
    progress.stage_begins("backprojection", sets.num_visits)
    return prove_run(
        run,
        particles,
        sets,
        made,
        advanced=lambda count: progress.advanced(count, "half maps"),
        says=progress.says,
    )


def _with_images(settings: Settings, particles: Path | None, datadir: Path | None) -> Settings:
    """The settings of the run, images read as they are needed, at another box if asked."""
    update: dict[str, Any] = {"lazy": True}
    if particles is not None:
        update |= {"particles": particles, "datadir": datadir, "downsample": None}
    return settings.model_copy(update=update)
