"""`drgnai flip`: the other hand."""

import argparse
from typing import Any

from cryohydra.cli.arguments import add_outdir, subparser
from cryohydra.io.run_folder import RunFolder
from cryohydra.training.flipping import flip_classes

DESCRIPTION = """\
Give classes the other hand: map, field and the poses of their particles together, so that all fits the
images as before. Images do not determine the hand; you know it from handed features (helices turn
right), a known structure, or tilted images. Each class has a hand of its own.

What is flipped is written as a new epoch, after the last one; no file is changed. Analysis, export and
`drgnai train OUT --load` take it as the last epoch.
"""

EPILOG = """\
Examples:
  drgnai flip OUT                     all classes of the last epoch
  drgnai flip OUT --class-idx 0 2     two of them
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb's flags."""
    parser = subparser(subparsers, "flip", "give classes the other hand", DESCRIPTION, EPILOG)
    add_outdir(parser)
    parser.add_argument("--epoch", "-e", type=int, default=-1, help="epoch to flip; -1 for the last (default)")
    parser.add_argument(
        "--class-idx", type=int, nargs="+", default=[], metavar="K", help="classes, from 0; all if not given"
    )


def run(args: argparse.Namespace) -> int:
    """Flip, and say what was written."""
    folder = RunFolder(args.outdir)
    epoch = folder.latest_epoch() if args.epoch == -1 else args.epoch
    new_epoch = flip_classes(folder, epoch, args.class_idx)
    which = f"Classes {', '.join(map(str, args.class_idx))}" if args.class_idx else "All classes"
    print(
        f"{which} of epoch {epoch} have the other hand in epoch {new_epoch}: {folder.latents_path(new_epoch)}, "
        f"pose.{new_epoch}.pkl, reconstruct.epoch_{new_epoch}.class_k.mrc, weights.{new_epoch}.pkl. "
        f"Next: drgnai analyze {args.outdir}"
    )
    return 0
