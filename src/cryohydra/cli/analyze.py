"""`drgnai analyze`: look at what a training found."""

import argparse
from pathlib import Path
from typing import Any

from cryohydra.analysis.analyze import analyze
from cryohydra.analysis.options import AnalyzeOptions
from cryohydra.cli.arguments import add_outdir, as_typed, subparser
from cryohydra.cli.progress import Progress
from cryohydra.config.inputs import reopen_input
from cryohydra.errors import UserError
from cryohydra.io.run_folder import RunFolder

DESCRIPTION = """\
Write OUT/out/analysis_E/report.html and, for each class, OUT/out/analysis_E/class_k/ with volumes,
plots of the conformations, class probabilities and orientations, and a notebook; for ChimeraX
classes.cxc and, beside the volumes of each motion, motion.cxc, with the motion as a film (MP4 where
ffmpeg is installed, GIF otherwise). Classes are counted from 0, particles by their row in the
particle file.
"""

EPILOG = """\
Examples:
  drgnai analyze OUT                               all classes of the last epoch
  drgnai analyze OUT --class-idx 0 2 --pc 3        three principal components of two classes
  drgnai analyze OUT --trajectory-1d 12 340 20     20 volumes between the conformations of two particles
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb's flags."""
    default = AnalyzeOptions()
    parser = subparser(subparsers, "analyze", "volumes, plots and a report", DESCRIPTION, EPILOG)
    add_outdir(parser)
    parser.add_argument("--epoch", "-e", type=int, default=default.epoch, help="epoch; -1 for the last (default)")
    parser.add_argument("--class-idx", type=int, nargs="+", metavar="K", help="classes, from 0; all if not given")
    parser.add_argument("--skip-umap", action="store_true", help="leave UMAP out")
    parser.add_argument("--pc", type=int, default=default.pc, help="principal components to traverse (default 2)")
    parser.add_argument("--n-per-pc", type=int, default=default.n_per_pc, help="volumes per component (default 10)")
    parser.add_argument(
        "--ksample", type=int, default=default.ksample, help="volumes at k-means centres, per class (default 20)"
    )
    parser.add_argument("--seed", type=int, default=default.seed, help="of k-means and UMAP; -1 for the run's own")
    parser.add_argument("--invert", action="store_true", help="flip the sign of the volumes that are written")
    more = parser.add_argument_group("volumes at chosen conformations")
    more.add_argument("--sample-z-idx", type=int, nargs="+", metavar="I", help="those of these particles")
    more.add_argument(
        "--trajectory-1d", type=int, nargs=3, metavar=("I", "J", "N"), help="N on the line from particle I to J"
    )
    more.add_argument("--direct-traversal-txt", type=Path, metavar="FILE", help="those of the particles in a file")
    more.add_argument("--z-values-txt", type=Path, metavar="FILE", help="those in a file, z_dim numbers a row")


def run(args: argparse.Namespace) -> int:
    """Analyse."""
    progress = Progress()
    progress.says(f"Report: {analyze_run(args.outdir, options_of_flags(args), progress)}")
    progress.says(f"To explore, select and export particles: {as_typed('explore', args.outdir)}")
    return 0


def analyze_run(outdir: Path, options: AnalyzeOptions, progress: Progress) -> Path:
    """Analyse a run together with the particles that it was trained on, as far as these are still there.

    Returns:
        The report.

    Raises:
        UserError: If the run cannot be read or cannot give what the options ask.
    """
    try:
        particles = reopen_input(RunFolder(outdir))
    except UserError as error:
        particles = None
        progress.says(str(error))
    return analyze(outdir, options, progress.says, particles)


def options_of_flags(args: argparse.Namespace) -> AnalyzeOptions:
    """The flags as a record."""
    return AnalyzeOptions(
        epoch=args.epoch,
        skip_umap=args.skip_umap,
        pc=args.pc,
        n_per_pc=args.n_per_pc,
        ksample=args.ksample,
        seed=args.seed,
        invert=args.invert,
        sample_z_idx=tuple(args.sample_z_idx or ()),
        trajectory_1d=tuple(args.trajectory_1d) if args.trajectory_1d else None,
        direct_traversal_txt=args.direct_traversal_txt,
        z_values_txt=args.z_values_txt,
        class_idx=tuple(args.class_idx or ()),
    )
