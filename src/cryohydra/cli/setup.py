"""`drgnai setup`: write what the user asks for, after seeing that the images can be read."""

import argparse
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cryohydra.cli.arguments import add_cfgs, add_outdir, parse_assignments, subparser
from cryohydra.config.catalogue import find_dataset, with_dataset
from cryohydra.config.files import read_values, write_configs
from cryohydra.config.inputs import open_input
from cryohydra.config.paths import with_resolved_paths
from cryohydra.config.reading import Reading, read_settings
from cryohydra.config.sections import RETIRED
from cryohydra.config.settings import Settings
from cryohydra.data.inspection import inspect_particles
from cryohydra.data.inspection.optics import check_optics, ctf_rows
from cryohydra.data.particles import ParticleSet
from cryohydra.errors import UserError
from cryohydra.io.run_folder import RunFolder

DESCRIPTION = """\
Describe an experiment in OUT/configs.yaml, with every setting explained there, after opening the
images to see that they can be used. If OUT/configs.yaml exists, what you give here changes it and
the rest of it stays.
"""

EPILOG = """\
Examples:
  drgnai setup OUT --particles particles.star                      one rigid structure, nothing known
  drgnai setup OUT --particles particles.star --n-classes auto     how many rigid structures are there?
  drgnai setup OUT --particles p.mrcs --ctf ctf.pkl --reconstr het --n-classes 5 --cfgs z_dim=2
  drgnai setup OUT --particles J42_particles.cs --datadir /raw --pose-estimation refine
  drgnai setup OUT --particles p.star --cfgs n_classes=4 initial_volumes=[ribosome.mrc]   one class is known
  drgnai setup OUT --cfgs std_noise=2                              change one setting of an experiment

Then: drgnai train OUT
"""

QUICK_DEFAULTS = {
    "capture_setup": "spa",
    "reconstruction_type": "homo",
    "pose_estimation": "abinit",
    "conf_estimation": "autodecoder",
}
PATH_FLAGS = ("particles", "ctf", "pose", "datadir")


def add_parser(subparsers: Any) -> None:
    """Add the verb's flags."""
    parser = subparser(subparsers, "setup", "describe an experiment", DESCRIPTION, EPILOG)
    add_outdir(parser)
    inputs = parser.add_argument_group("images")
    inputs.add_argument("--particles", metavar="FILE", help="images: .mrcs, .mrc, .txt, .star or .cs")
    inputs.add_argument(
        "--dataset", metavar="NAME", help="instead of files: a label in $DRGNAI_DATASETS, or a .yaml of one dataset"
    )
    add_experiment(parser, inputs)


def add_experiment(parser: argparse.ArgumentParser, inputs: Any) -> None:
    """What belongs to the images, in the group `inputs`, and what is asked of them."""
    inputs.add_argument("--ctf", metavar="FILE", help="CTF parameters, .pkl (not needed with .star and .cs)")
    inputs.add_argument("--pose", metavar="FILE", help="known poses, .pkl (.star and .cs may hold them)")
    inputs.add_argument("--datadir", metavar="FOLDER", help="where the images are that a .star or .cs names")
    quick = parser.add_argument_group("what is asked (quick_config)")
    quick.add_argument("--capture-setup", choices=["spa", "et"], help="single particles (default) or tilt series")
    quick.add_argument(
        "--n-classes",
        metavar="K",
        help="number of classes (default: 1), or auto: start with many and keep those that images need",
    )
    quick.add_argument(
        "--reconstruction-type", choices=["het", "homo"], help="classes that move, or rigid ones (default)"
    )
    quick.add_argument(
        "--pose-estimation",
        choices=["abinit", "refine", "fixed"],
        help="poses unknown (default), known roughly, or known well",
    )
    quick.add_argument(
        "--conf-estimation",
        choices=["encoder", "autodecoder", "refine"],
        help="conformations from an image encoder, a table (default), or a table started from initial_conf",
    )
    add_cfgs(parser)


def run(args: argparse.Namespace) -> int:
    """Check, write, and say what was understood."""
    experiment = set_up(args.outdir, values_of_flags(args))
    for line in experiment.lines:
        print(line)
    return 0


@dataclass(frozen=True)
class Experiment:
    """An experiment as it was written down."""

    run: RunFolder
    reading: Reading
    lines: tuple[str, ...]
    """What to tell the user."""


def values_of_flags(args: argparse.Namespace) -> dict[str, Any]:
    """Settings by key, only those that were given."""
    values = parse_assignments(args.cfgs)
    given = {key: getattr(args, key) for key in (*PATH_FLAGS, "dataset", "n_classes") if getattr(args, key) is not None}
    quick = {key: getattr(args, key) for key in QUICK_DEFAULTS if getattr(args, key) is not None}
    if quick:
        written = values.get("quick_config")
        values["quick_config"] = {**(written if isinstance(written, Mapping) else {}), **quick}
    return with_resolved_paths(values | given, [Path.cwd()])


def set_up(outdir: Path, flags: Mapping[str, Any]) -> Experiment:
    """Write configs.yaml from what it held and what is given now, if the images can be used.

    Raises:
        UserError: If settings or images cannot be used; then nothing has been written.
    """
    run = RunFolder(outdir.absolute())
    exists = run.configs_path.exists()
    before = read_values(run.configs_path) if exists else {}
    values = combined_values(before, flags, with_defaults=not exists)
    reading = read_settings(values, origin=str(run.configs_path) if exists else "The settings")
    # Lazily: a look at up to a thousand images is enough here, training sees them all.
    particles, doubts = _opened(reading.settings.model_copy(update={"lazy": True}))

    changes = _changes(before, values) if exists else ()
    run.results.mkdir(parents=True, exist_ok=True)
    if changes:
        backup = run.configs_path.with_suffix(".yaml.before")
        shutil.copyfile(run.configs_path, backup)
        changes = (f"Changed in {run.configs_path} (as it was: {backup.name}):", *changes)
    if changes or not exists:
        write_configs(run.configs_path, values)
    written = changes or ((f"{run.configs_path} stays as it is.",) if exists else (f"Wrote {run.configs_path}.",))
    lines = (*_describe(particles), *particles.notes, *doubts, *reading.notes, *written)
    lines += (f"Next: drgnai train {outdir}",)
    return Experiment(run, reading, lines)


def _opened(settings: Settings) -> tuple[ParticleSet, list[str]]:
    """The particles, and what is doubtful about their optics.

    Raises:
        UserError: If they cannot be used, with all else that is wrong with the files.
    """
    try:
        particles = open_input(settings)
    except UserError as problem:
        _add_what_else_is_wrong(settings, problem)
        raise
    source = particles.source
    optics = ctf_rows(source.optics(torch.arange(len(source))), source.box_size)
    found = check_optics(optics, str(settings.ctf or settings.particles))
    wrong = [f"{one.sentence} {one.advice}" for one in found if one.severity == "error"]
    if wrong:
        raise UserError("\n".join(wrong))
    return particles, [f"{one.sentence} {one.advice}" for one in found]


def _add_what_else_is_wrong(settings: Settings, problem: UserError) -> None:
    """Look at the files, without their images, and raise all of their problems if there are several."""
    if settings.particles is None or not settings.particles.is_file():
        return
    found = inspect_particles(
        settings.particles,
        ctf=settings.ctf,
        pose=settings.pose,
        datadir=settings.datadir,
        downsample=settings.downsample,
        max_images=0,
    )
    others = [f"{one.sentence} {one.advice}" for one in found.findings if one.severity == "error"]
    sentences = [str(problem), *(one for one in others if one.casefold() != str(problem).casefold())]
    if len(sentences) > 1:
        told = "".join(f"\n  - {sentence}" for sentence in sentences)
        raise type(problem)(f"{len(sentences)} things are to be mended:{told}") from problem


def combined_values(before: Mapping[str, Any], flags: Mapping[str, Any], with_defaults: bool) -> dict[str, Any]:
    """Flags over the dataset they name, over what was there before."""
    quick = flags.get("quick_config")
    dataset = find_dataset(str(flags["dataset"])) if flags.get("dataset") is not None else {}
    values = {**before, **dataset, **flags}
    if isinstance(quick, Mapping) or (with_defaults and quick is None):
        start = _quick_defaults(values, quick or {}) if with_defaults else before.get("quick_config") or {}
        values["quick_config"] = {**start, **(quick or {})}
    return with_dataset(values)


def _quick_defaults(values: Mapping[str, Any], quick: Mapping[str, Any]) -> dict[str, str]:
    """The defaults, with classes that move if something is asked that only those have."""
    moves = "conf_estimation" in quick or values.get("z_dim") not in (None, 0)
    return QUICK_DEFAULTS | ({"reconstruction_type": "het"} if moves else {})


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """A line for each setting that is not what it was."""
    old, new = _flat(before), _flat(after)
    keys = [key for key in new if key not in old or str(old[key]) != str(new[key])]
    return tuple(f"  {key}: {old.get(key, 'not set')} -> {new[key]}" for key in keys if key not in RETIRED)


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    quick = values.get("quick_config")
    shortcuts = quick if isinstance(quick, Mapping) else {}
    others = {key: value for key, value in values.items() if key != "quick_config"}
    return {f"quick_config.{key}": value for key, value in shortcuts.items()} | others


def _describe(particles: ParticleSet) -> tuple[str, ...]:
    source = particles.source
    tilts = f" of {source.num_tilts} tilts" if source.num_tilts > 1 else ""
    size = f"{source.box_size} x {source.box_size} px, {source.pixel_size_angstrom:.4g} A/px"
    known = "none" if particles.poses is None else ("with shifts" if particles.has_shifts else "rotations only")
    return (f"{len(source)} particles{tilts}, {size}; given poses: {known}.",)
