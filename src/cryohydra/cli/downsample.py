"""`drgnai downsample`: smaller images with metadata that fit them."""

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from cryohydra.cli.arguments import subparser
from cryohydra.cli.progress import Progress
from cryohydra.data.downsampling import Downsampling
from cryohydra.errors import UserError

DESCRIPTION = """\
Crop images in Fourier space to a smaller box: the same field of view on larger pixels, up to the new
Nyquist frequency. OUT gets the images in stacks and a file of the kind and name of PARTICLES that
describes them, with all rows and columns: .star in, .star out; .cs in, .cs out; .mrcs in, .mrcs out.
Pixel sizes, image sizes and shifts in pixels are brought up to date for each optics group; shifts in
angstrom stay. Values are scaled so that white noise keeps its variance: images normalised to a
background of mean 0 and standard deviation 1 stay so. Images of different sizes come to one box.

What was stopped goes on when it is started again; nothing in OUT is overwritten. A ctf.pkl and a
pose.pkl serve the smaller images as they are. To train on smaller images without writing them:
drgnai setup ... --cfgs downsample=128
"""

EPILOG = """\
Examples:
  drgnai downsample particles.star -D 128 -o small
  drgnai downsample J42_particles.cs -D 128 -o small --datadir /path/to/project
  drgnai downsample Extract/job9/particles.star -D 128 -o small --datadir .     for RELION, run here

The last one names images as they are found from --datadir, since OUT lies in it; otherwise names
are relative to OUT.
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb's flags."""
    parser = subparser(subparsers, "downsample", "crop images in Fourier space", DESCRIPTION, EPILOG)
    parser.add_argument("particles", type=Path, metavar="PARTICLES", help="images: .mrcs, .mrc, .txt, .star or .cs")
    parser.add_argument("-D", dest="box_size", type=int, required=True, metavar="D", help="new box, in pixels, even")
    parser.add_argument("-o", dest="folder", type=Path, required=True, metavar="OUT", help="folder to write to")
    parser.add_argument("--datadir", type=Path, metavar="FOLDER", help="where the images are that the file names")
    parser.add_argument("--threads", type=int, metavar="N", help="images at a time (default: one for each processor)")


def run(args: argparse.Namespace) -> int:
    """Downsample, and say what was written."""
    num_threads = torch.get_num_threads() if args.threads is None else args.threads
    if num_threads < 1:
        raise UserError(f"--threads is {num_threads}; wanted at least 1.")
    work = Downsampling(args.particles, args.folder, args.box_size, args.datadir)
    progress, begun = Progress(), time.monotonic()
    progress.stage_begins("downsampling", work.num_images)
    try:
        done = work.run(num_threads, lambda images: progress.advanced(images, f"{args.box_size} px"))
    except KeyboardInterrupt:
        progress.stage_ends(f"Stopped; the same command goes on with what is in {args.folder}.")
        raise
    finally:
        progress.close()
    num_new, seconds = done.num_images - done.num_kept, time.monotonic() - begun
    rate = f" ({num_new / seconds:.0f} images/s)" if num_new else ""
    kept = f", {done.num_kept} of them were there" if done.num_kept else ""
    progress.stage_ends(f"{done.path}: {done.num_images} images of {args.box_size} px{kept}{rate}.")
    if done.broken:
        more = ", ..." if len(done.broken) > 5 else ""
        progress.says(
            f"{len(done.broken)} images had values that are not finite and are blank now: "
            f"{', '.join(done.broken[:5])}{more}. Training refuses them: leave them out with `ind`."
        )
    return 0
