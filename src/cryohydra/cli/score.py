"""`drgnai score`: a run against the truth of a simulated dataset."""

import argparse
from pathlib import Path
from typing import Any

from cryohydra.analysis.ceiling import ceiling_maps
from cryohydra.analysis.truth import read_truth, score_run
from cryohydra.cli.arguments import add_outdir, subparser
from cryohydra.data.particles import open_particles
from cryohydra.io.atomic import write_atomically

DESCRIPTION = """\
Compare a run with what is true of the simulated particles it was given.

Classes: adjusted Rand index, accuracy after matching classes one to one, the whole confusion matrix,
and whether stated probabilities hold (calibration error: 0 is perfect). Per class: the map aligned
over rotation, shift and hand with the true one, and the resolution at which their shell correlation
falls below 0.5; median errors of poses after one rotation and hand (modulo the symmetry of the
class), and of shifts; how the first latent component follows the true motion.
"""

EPILOG = """\
Example:
  drgnai simulate mix --demo
  drgnai setup run --particles mix/particles.star --cfgs n_classes=3
  drgnai train run
  drgnai score run mix --json run/score.json
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparser(subparsers, "score", "compare a run with the truth of a simulated dataset", DESCRIPTION, EPILOG)
    add_outdir(parser)
    parser.add_argument("truth", type=Path, metavar="TRUTH", help="folder that `drgnai simulate` wrote")
    parser.add_argument("--epoch", "-e", type=int, default=-1, help="saved epoch (default: the last)")
    parser.add_argument(
        "--ceiling",
        action="store_true",
        help="also backproject with true poses and labels: the best maps that the images allow",
    )
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="also write all figures as JSON")


def run(args: argparse.Namespace) -> int:
    """Score and print."""
    truth = read_truth(args.truth)
    ceiling = ceiling_maps(open_particles(args.truth / "particles.star").source, truth) if args.ceiling else None
    score = score_run(args.outdir, truth, args.epoch, ceiling)
    if args.json is not None:
        with write_atomically(args.json) as temporary:
            temporary.write_text(score.to_json() + "\n")
    print(score.to_table())
    return 0
