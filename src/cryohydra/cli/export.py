"""`drgnai export`: results for RELION and cryoSPARC."""

import argparse
from pathlib import Path
from typing import Any

from cryohydra.analysis.export import ExportOptions, export_run
from cryohydra.cli.arguments import add_outdir, subparser
from cryohydra.cli.progress import Progress

DESCRIPTION = """\
Write the particles of a run, one file of all and one for each class, for the program they came from:
a .star for RELION (and for stacks with a CTF table), a .cs with its .csg for cryoSPARC. Images are
the original ones by their original names; all columns, the order of rows and the optics groups stay.
New are class, probability, angles, shifts and, where the input had none, the half-set of each
particle. Each file is read again and compared before the export is said to have succeeded. The map
of each class lies beside.
"""

EPILOG = """\
Examples:
  drgnai export OUT                                       everything, to OUT/out/export_E
  drgnai export OUT --classes 0 2 --min-probability 0.9 -o clean
  drgnai export OUT --best-poses 0.8 -o best              without the fifth of each class that fits worst
  drgnai export OUT --ind selected.pkl -o chosen          rows of the particle file, counted from 0
  drgnai export OUT --soft -o weighted                    all particles in each class, weighted
  drgnai export OUT --particles full_size.star -o full    the run saw a downsampled copy

then, in RELION's project folder (classes count from 1 there),
  relion_reconstruct --i OUT/out/export_E/particles.star --class 1 --subset 1 --ctf --o half1.mrc
  relion_reconstruct --i weighted/class_0.star --fom_weighting --ctf --o soft.mrc
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb's flags."""
    parser = subparser(subparsers, "export", "particles and maps for RELION and cryoSPARC", DESCRIPTION, EPILOG)
    add_outdir(parser)
    parser.add_argument("--output", "-o", type=Path, metavar="DIR", help="folder to make; OUT/out/export_E by default")
    parser.add_argument("--epoch", "-e", type=int, default=-1, help="epoch; -1 for the last (default)")
    chosen = parser.add_argument_group("which particles")
    chosen.add_argument(
        "--classes", type=int, nargs="+", default=[], metavar="K", help="classes, from 0; all by default"
    )
    chosen.add_argument(
        "--min-probability", type=float, default=0.0, metavar="P", help="least probability of the class (default 0)"
    )
    chosen.add_argument(
        "--best-poses",
        type=float,
        default=1.0,
        metavar="PART",
        help="part of each class: the particles that it explains best, in the poses found (default 1, all)",
    )
    chosen.add_argument("--ind", type=Path, metavar="FILE", help=".pkl of rows of the run's particle file")
    chosen.add_argument(
        "--soft",
        action="store_true",
        help="give each class all particles, in their poses in it, with its probability as their weight",
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--format", choices=("star", "cs"), help="star: write .star though the input is .cs; by default as the input"
    )
    files.add_argument(
        "--particles", type=Path, metavar="FILE", help="the original particles, if the run saw a smaller copy of them"
    )
    files.add_argument("--passthrough", type=Path, metavar="FILE", help="cryoSPARC's passthrough .cs, joined by uid")
    files.add_argument("--datadir", type=Path, metavar="DIR", help="folder of the images, if they have moved")


def run(args: argparse.Namespace) -> int:
    """Export."""
    progress = Progress()
    options = ExportOptions(
        epoch=args.epoch,
        format=args.format,
        classes=tuple(args.classes),
        min_probability=args.min_probability,
        best_poses=args.best_poses,
        ind=args.ind,
        is_soft=args.soft,
        particles=args.particles,
        passthrough=args.passthrough,
        datadir=args.datadir,
        output=args.output,
    )
    try:
        exported = export_run(
            args.outdir,
            options,
            says=progress.says,
            begins=lambda total: progress.stage_begins("export", total),
            advanced=lambda count: progress.advanced(count, "rows written and read again"),
        )
    finally:
        progress.close()
    for file in exported.files:
        progress.says(f"{file.path}: {file.num_images:,} images, read again and as meant")
    progress.says(f"{len(exported.maps)} map{'s' * (len(exported.maps) != 1)} beside, in {exported.folder}")
    return 0
