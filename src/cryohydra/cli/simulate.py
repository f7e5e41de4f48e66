"""`drgnai simulate`: a mixture dataset of which everything is known."""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cryohydra.cli.arguments import subparser
from cryohydra.data.simulated import simulate_to_folder
from cryohydra.data.simulated import write_dataset as write_dataset
from cryohydra.errors import UserError
from cryohydra.physics.demo_structures import DEMO_CLASSES
from cryohydra.physics.mixture_files import (
    CarriedStructure,
    MixtureFiles,
    ModelFile,
    Morphing,
    Turning,
    build_classes,
)
from cryohydra.physics.simulation import Imaging

DESCRIPTION = """\
Make particle images of a mixture of which everything is known: classes, poses, shifts, motion, CTF.

Each model is one class: an atomic model (.pdb, .cif, also .gz) or a map (.mrc, .map). After a colon
come the chains to take, after an @ the biological assembly to build:
  4v5d.cif.gz            the whole file
  4v8r.pdb.gz:A*         only chains whose name begins with A
  4v5d.cif.gz:BA,BB      two chains
  1bxn.pdb.gz@1          assembly 1 of the file (BIOMT)

A class moves if --motion names it, by its number from 0:
  --motion 0 turn 'A*' -10 10     chains A* turn from -10 to 10 degrees about the line through
                                  the centres of both parts
  --motion 1 to 1ake.pdb.gz:A     atoms go in straight lines to those of another model of the same atoms
"""

EPILOG = """\
Written to OUT: particles.mrcs (white on dark, noise of variance one) and particles.star (RELION 3.1),
ctf.pkl, pose.pkl, labels.pkl (classes from 0), truth.npz and truth_class_K.mrc for `drgnai score`.
The SNR is the variance of the CTF-filtered images without noise over that of the noise, whole box,
averaged over the images that hold a particle.

Examples:
  drgnai simulate mix --demo --n-images 3000
  drgnai simulate mix --model 4v5d.cif.gz 4v5d.cif.gz:B* --motion 0 turn 'A*' -10 10 --shares 2 1 --snr 0.05
  drgnai setup run --particles mix/particles.star --ctf mix/ctf.pkl --cfgs n_classes=2
"""

DEFAULT_DEMO = ("ribosome", "spliceosome", "tric")


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparser(subparsers, "simulate", "make a mixture dataset from atomic models or maps", DESCRIPTION, EPILOG)
    parser.add_argument("outdir", type=Path, metavar="OUT", help="folder to write to")
    what = parser.add_argument_group("what is in the images")
    what.add_argument("--model", nargs="+", action="extend", default=[], metavar="FILE[:CHAINS][@ASSEMBLY]",
                      help="atomic models or maps, one per class")  # fmt: skip
    what.add_argument("--demo", nargs="*", default=None, metavar="NAME",
                      help=f"structures that the package carries: {', '.join(DEMO_CLASSES)} "
                      f"(without names: {', '.join(DEFAULT_DEMO)})")  # fmt: skip
    what.add_argument("--motion", nargs="+", action="append", default=[], metavar="WORD",
                      help="CLASS turn CHAINS FROM TO, or CLASS to FILE")  # fmt: skip
    what.add_argument("--frames", type=int, default=21, help="steps along a motion (default 21)")
    what.add_argument("--shares", type=float, nargs="+", default=None, metavar="SHARE",
                      help="relative share of each class (default: equal)")  # fmt: skip
    what.add_argument("--resolution", type=float, default=None, metavar="ANGSTROM",
                      help="of maps made from atoms (default: three pixels)")  # fmt: skip
    images = parser.add_argument_group("images")
    images.add_argument("--n-images", type=int, default=3000, help="particles in all (default 3000)")
    images.add_argument("--box", type=int, default=64, help="pixels along an edge (default 64)")
    images.add_argument("--apix", type=float, default=6.5, help="angstrom per pixel (default 6.5)")
    images.add_argument("--snr", type=float, default=0.1, help="signal to noise, inf for none (default 0.1)")
    images.add_argument("--noise", choices=("white", "coloured"), default="white", help="(default white)")
    images.add_argument("--shift-std", type=float, default=1.0, metavar="PIXELS",
                        help="spread of the particles' centres along x and y (default 1)")  # fmt: skip
    images.add_argument("--contrast-std", type=float, default=0.0, help="spread of the contrast (default 0)")
    images.add_argument("--junk", type=float, default=0.0, metavar="PART",
                        help="part of the images that hold noise alone, below 1 (default 0)")  # fmt: skip
    images.add_argument("--seed", type=int, default=0, help="the same seed gives the same images (default 0)")
    optics = parser.add_argument_group("optics")
    optics.add_argument("--defocus", type=float, nargs=2, default=(10_000.0, 25_000.0), metavar=("LOW", "HIGH"),
                        help="underfocus in angstrom (default 10000 25000)")  # fmt: skip
    optics.add_argument("--astigmatism", type=float, default=200.0, metavar="ANGSTROM", help="spread (default 200)")
    optics.add_argument("--kv", type=float, default=300.0, help="voltage (default 300)")
    optics.add_argument("--cs", type=float, default=2.7, metavar="MM", help="spherical aberration (default 2.7)")
    optics.add_argument("--amplitude-contrast", type=float, default=0.1, help="(default 0.1)")
    optics.add_argument("--tilt-angles", type=float, nargs="+", default=(0.0,), metavar="DEGREES",
                        help="make tilt series with these angles, in the order in which they are taken")  # fmt: skip
    optics.add_argument("--dose-per-tilt", type=float, default=0.0, metavar="E/A2", help="(default 0)")


def run(args: argparse.Namespace) -> int:
    """Simulate and write."""
    files = MixtureFiles(
        models=_models(args),
        motions=dict(_motion(words) for words in args.motion),
        shares=None if args.shares is None else tuple(args.shares),
        box_size=args.box,
        pixel_size_angstrom=args.apix,
        resolution_angstrom=args.resolution,
        num_frames=args.frames,
    )
    imaging = Imaging(
        pixel_size_angstrom=args.apix,
        snr=args.snr,
        noise=args.noise,
        defocus_angstrom=tuple(args.defocus),
        astigmatism_angstrom=args.astigmatism,
        voltage_kv=args.kv,
        spherical_aberration_angstrom=args.cs * 1e7,
        amplitude_contrast=args.amplitude_contrast,
        shift_std_px=args.shift_std,
        contrast_std=args.contrast_std,
        junk=args.junk,
        tilt_angles=tuple(math.radians(angle) for angle in args.tilt_angles),
        dose_per_tilt=args.dose_per_tilt,
    )
    if not 0 <= args.junk < 1:
        raise UserError(f"--junk {args.junk:g} is no part of the images; give a number from 0 to below 1.")
    if (args.outdir / "particles.mrcs").exists():
        raise UserError(
            f"{args.outdir / 'particles.mrcs'} exists already and is not overwritten; choose another folder."
        )
    classes = build_classes(files)
    with tqdm(total=args.n_images, unit="image", disable=not sys.stderr.isatty()) as bar:
        truth = simulate_to_folder(args.outdir, classes, imaging, args.n_images, args.seed, bar.update)
    size = f"{truth.box_size} pixels at {args.apix:g} A"
    print(f"{len(truth.labels)} particles of {size}, SNR {args.snr:g}, {args.noise} noise:")
    for k, name in enumerate(truth.class_names):
        moves = f", moves in {len(classes[k].maps)} steps" if classes[k].has_motion else ""
        print(f"  class {k}: {name}, {int((truth.labels[~truth.is_junk] == k).sum())} particles{moves}")
    if truth.is_junk.any():
        print(f"  {int(truth.is_junk.sum())} images of noise alone")
    print(f"Written to {args.outdir}: particles.mrcs, particles.star, ctf.pkl, pose.pkl, labels.pkl, truth.npz")
    return 0


def _models(args: argparse.Namespace) -> tuple[ModelFile | CarriedStructure, ...]:
    carried = () if args.demo is None else (args.demo or DEFAULT_DEMO)
    return (*(parse_model(text) for text in args.model), *(CarriedStructure(name) for name in carried))


def parse_model(text: str) -> ModelFile:
    """Read FILE[:CHAINS][@ASSEMBLY].

    Raises:
        UserError: If there is no such file.
    """
    rest, assembly, chains = text, None, None
    if not Path(rest).is_file() and "@" in rest:
        rest, _, assembly = rest.rpartition("@")
    if not Path(rest).is_file() and ":" in rest:
        rest, _, names = rest.rpartition(":")
        chains = tuple(name for name in names.split(",") if name)
    if not Path(rest).is_file():
        raise UserError(f"{rest} does not exist; wanted an atomic model or a map, as FILE[:CHAINS][@ASSEMBLY].")
    return ModelFile(Path(rest), chains, assembly)


def _motion(words: list[str]) -> tuple[int, Turning | Morphing]:
    """Read CLASS turn CHAINS FROM TO, or CLASS to FILE."""
    try:
        if words[1] == "turn" and len(words) == 5:
            start, end = math.radians(float(words[3])), math.radians(float(words[4]))
            return int(words[0]), Turning(tuple(words[2].split(",")), start, end)
        if words[1] == "to" and len(words) == 3:
            return int(words[0]), Morphing(parse_model(words[2]))
    except (ValueError, IndexError) as error:
        if isinstance(error, UserError):
            raise
    raise UserError(
        f"--motion {' '.join(words)} cannot be read; write CLASS turn CHAINS FROM TO (degrees), or CLASS to FILE."
    )
