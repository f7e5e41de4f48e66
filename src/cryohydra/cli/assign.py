"""`drgnai assign`: classes, poses and conformations of particles that a run has never seen."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from cryohydra.analysis.export import ExportOptions, export_run
from cryohydra.analysis.run import Run
from cryohydra.cli.arguments import add_outdir, subparser
from cryohydra.cli.progress import Progress, logging_to
from cryohydra.config.assignment import build_assignment, settings_for
from cryohydra.config.files import write_train_configs
from cryohydra.errors import UserError
from cryohydra.io.latents import Latents, read_latents
from cryohydra.io.run_folder import RunFolder

DESCRIPTION = """\
Find the class, the pose and the conformation of particles that a run has never seen, in the maps and
fields that it has; these stay as they are. Each particle is compared with all classes in all poses;
then its poses are sharpened in the classes that matter, conformations are found where classes move,
and the evidence gives the probability of each class.

The outcome is a run folder like any other: in NEW/out are pose.E.pkl, conf.E.pkl, p_classes.E.pkl and
latents.E.npz of these particles, in NEW/out/export_E their file with all its columns and with class,
probability, angles and shifts. So `drgnai analyze`, `explore`, `export` and `prove` take NEW, too.
"""

EPILOG = """\
Examples:
  drgnai assign OUT more_particles.star                   to OUT/out/assigned_more_particles
  drgnai assign OUT all.star --ind rest.pkl -o rest       the rows that the run was not trained on
  drgnai assign OUT J99_particles.cs --datadir /raw       another session of the microscope
  drgnai assign OUT particles.mrcs --ctf ctf.pkl          a bare stack
  drgnai explore OUT/out/assigned_more_particles          look at them

Images with finer pixels are cropped to those of the run; the field of view must be the same.
"""

_SURE = 0.9


def add_parser(subparsers: Any) -> None:
    """Add the verb's flags."""
    parser = subparser(subparsers, "assign", "classes and poses of particles never seen", DESCRIPTION, EPILOG)
    add_outdir(parser)
    parser.add_argument("particles", type=Path, metavar="PARTICLES", help="images: .mrcs, .mrc, .txt, .star or .cs")
    parser.add_argument(
        "--out", "-o", type=Path, metavar="NEW", help="folder to make; by default OUT/out/assigned_ and the file's name"
    )
    parser.add_argument("--epoch", "-e", type=int, default=-1, help="epoch of the run; -1 for the last (default)")
    parser.add_argument("--ind", type=Path, metavar="FILE", help=".pkl of rows of PARTICLES to assign; all by default")
    parser.add_argument("--ctf", type=Path, metavar="FILE", help="CTF parameters, if PARTICLES does not hold them")
    parser.add_argument("--datadir", type=Path, metavar="DIR", help="folder of the images that PARTICLES names")


def run(args: argparse.Namespace) -> int:
    """Assign, export and say how many are in which class."""
    progress = Progress()
    trained = Run.open(args.outdir, args.epoch)
    default = trained.folder.results / f"assigned_{args.particles.stem}"
    folder = RunFolder((args.out or default).absolute())
    if folder.path.exists() and (not folder.path.is_dir() or any(folder.path.iterdir())):
        raise UserError(f"{folder.path} exists already and nothing is overwritten; name another with -o, or move it.")
    settings, particles = settings_for(
        trained, args.particles, progress, ctf=args.ctf, datadir=args.datadir, ind=args.ind
    )
    trainer = build_assignment(trained, settings, particles, folder, progress)
    folder.results.mkdir(parents=True)
    write_train_configs(folder.train_configs_path, settings)
    try:
        with folder.training_lock(), logging_to(folder.log_path):
            trainer.run()
        exported = export_run(folder.path, ExportOptions(datadir=args.datadir), says=progress.says)
    finally:
        progress.close()
    for sentence in _sentences(read_latents(folder.latents_path(folder.latest_epoch()))):
        progress.says(sentence)
    progress.says(f"Particles: {exported.files[0].path}. All else: {folder.results}.")
    return 0


def _sentences(latents: Latents) -> list[str]:
    """How many particles are in which class, and how sure that is."""
    best, probability = latents.best_class, latents.class_probability.max(axis=1)
    num_classes = latents.class_probability.shape[1]
    counts = np.bincount(best, minlength=num_classes)
    said = [f"{len(best):,} particles:"]
    for k, count in enumerate(counts):
        line = f"  class {k}: {count:,} ({count / len(best):.0%})"
        if count and num_classes > 1:
            line += f", {np.mean(probability[best == k] > _SURE):.0%} of them with a probability above {_SURE}"
        said.append(line)
    num_strange = int((latents.log_evidence < 0).sum())
    if num_strange:
        said.append(
            f"  {num_strange:,} of them are explained no better by any class than by noise alone: other things, or "
            "junk; log_evidence in latents.E.npz tells which."
        )
    return said
