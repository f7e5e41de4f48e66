"""`drgnai check`: all that can be told of particles before a training."""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cryohydra.analysis.inspection_picture import picture_inspection
from cryohydra.cli.arguments import subparser
from cryohydra.cli.check_page import page, report
from cryohydra.cli.progress import as_time
from cryohydra.cli.setup import add_experiment, combined_values, values_of_flags
from cryohydra.config.forecast import Forecast, foresee
from cryohydra.config.inputs import open_input
from cryohydra.config.reading import read_settings
from cryohydra.config.recommendation import memory_of_machine, recommended, setup_command
from cryohydra.config.rehearsal import Rehearsal, rehearse
from cryohydra.config.settings import Settings
from cryohydra.data.inspection import Finding, Inspection, inspect_particles
from cryohydra.errors import UserError
from cryohydra.io.atomic import write_atomically

DESCRIPTION = """\
Look at particles before training on them. All problems are told at once: files that are missing and
where they were looked for, images that are broken or there twice, CTF parameters that cannot be
true, images whose CTF was applied, another number of rows. Then what the images show (polarity,
signal, noise, defocus, views), what a training will need of memory, disk and time on this machine,
and the `drgnai setup` command to begin with. The exit status is 1 if they cannot be trained on.
"""

EPILOG = """\
Examples:
  drgnai check particles.star                                    RELION 3.0 to 5
  drgnai check J42_particles.cs --datadir /path/to/project       cryoSPARC; passthrough files beside it are joined
  drgnai check p.mrcs --ctf ctf.pkl --cfgs n_classes=8 z_dim=2   what would that cost?
  drgnai check particles.star --no-cost --json check.json        in seconds, for scripts

Cost is measured: a training in small is made on up to 512 of the images, which takes one or two minutes.
"""

CANNOT_BE_TRAINED_ON = 1
SECONDS_BETWEEN_LINES = 3.0


def add_parser(subparsers: Any) -> None:
    """Add the verb's flags."""
    parser = subparser(subparsers, "check", "look at particles before training", DESCRIPTION, EPILOG)
    parser.add_argument("particles", metavar="PARTICLES", help="images: .mrcs, .mrc, .txt, .star or .cs")
    parser.set_defaults(dataset=None)
    add_experiment(parser, parser.add_argument_group("images"))
    looks = parser.add_argument_group("this look")
    looks.add_argument(
        "--images", type=int, default=2000, metavar="N", help="images to look at, evenly spaced (default 2000); 0: all"
    )
    looks.add_argument("--no-cost", action="store_true", help="do not measure what a training will cost")
    looks.add_argument("--json", type=Path, metavar="FILE", help="also write everything as JSON")
    looks.add_argument(
        "--picture", type=Path, metavar="FILE", help="the picture (default: NAME.check.png in the current folder)"
    )


def run(args: argparse.Namespace) -> int:
    """Look, and tell."""
    if args.images < 0:
        raise UserError(f"--images is {args.images}; wanted a number of images, or 0 for all.")
    given = combined_values({}, values_of_flags(args), with_defaults=False)
    given_settings = read_settings(given).settings
    inspection = inspect_particles(
        Path(given["particles"]),
        ctf=given_settings.ctf,
        pose=given_settings.pose,
        datadir=given_settings.datadir,
        downsample=given_settings.downsample,
        invert=given_settings.invert_data,
        max_images=args.images or 2**62,
        seen=_Seen(),
    )
    wanted = recommended(inspection, given)
    values = combined_values({}, wanted, with_defaults=True)
    findings = list(inspection.findings)
    forecast = None
    if inspection.can_be_trained_on:
        forecast, more = _cost(values, inspection, is_measured=not args.no_cost)
        findings += more
    can_be_trained_on = all(finding.severity != "error" for finding in findings)
    command = setup_command(wanted) if can_be_trained_on else None
    picture = _draw(inspection, args.picture)
    for line in page(inspection, findings, forecast, command):
        print(line)
    if picture is not None:
        print(f"\nPicture: {picture}")
    if args.json is not None:
        with write_atomically(args.json) as temporary:
            content = report(inspection, findings, forecast, command)
            temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    return 0 if can_be_trained_on else CANNOT_BE_TRAINED_ON


def _draw(inspection: Inspection, path: Path | None) -> Path | None:
    """The picture, where there is something to see."""
    if inspection.table is None:
        return None
    where = path or Path(f"{inspection.particles.stem}.check.png")
    picture_inspection(inspection, where)
    return where


def _cost(
    values: Mapping[str, Any], inspection: Inspection, *, is_measured: bool
) -> tuple[Forecast | None, list[Finding]]:
    """What a training with the settings recommended will cost, and what stands against it."""
    try:
        settings = read_settings(values).settings.with_seed()
        whole = open_input(settings.model_copy(update={"lazy": True})).source
        if not is_measured:
            return None, []
        assert inspection.survey is not None, "images were found"
        per_class = len(whole) * whole.num_tilts / settings.n_classes
        measured = _rehearse_apart(settings, len(whole), inspection.survey.known_radius(per_class))
    except UserError as problem:
        return None, [Finding.of(problem)]
    forecast = foresee(settings, whole, measured)
    free = memory_of_machine()
    if forecast.memory_bytes <= 0.9 * free:
        return forecast, []
    what = f"A training will need {forecast.memory_bytes / 1e9:.3g} GB of memory; {free / 1e9:.3g} GB are free here."
    is_images = forecast.images_bytes > forecast.memory_bytes / 2
    advice = "Leave images on disk: --cfgs lazy=true." if is_images else (
        f"Halve batch_size_sgd (now {settings.batch_size_sgd}), or lower l_end (now {settings.l_end})."
    )  # fmt: skip
    return forecast, [Finding("warning", what, advice)]


def _rehearse_apart(settings: Settings, num_particles: int, known_radius: int) -> Rehearsal:
    """Rehearse in a process of its own, whose memory is measured.

    Raises:
        UserError: If such a training cannot begin.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_in_its_own_process, args=(settings, num_particles, known_radius, there))
    process.start()
    there.close()
    told = _Telling("measuring what a training costs, one or two minutes")
    try:
        while True:
            content = here.recv()
            if isinstance(content, str):
                told.says(content)
            elif isinstance(content, UserError):
                raise content
            else:
                measured: Rehearsal = content
                return measured
    except EOFError as error:
        process.join()
        raise UserError(
            f"The rehearsal of a training ended without a word (exit status {process.exitcode}), perhaps for want of "
            "memory. Choose fewer classes or leave the cost out with --no-cost."
        ) from error
    finally:
        told.close()
        process.terminate()
        process.join()


def _in_its_own_process(settings: Settings, num_particles: int, known_radius: int, told: Connection) -> None:
    # What a training loads, so that its memory is that of one.
    import cryohydra.cli.train  # noqa: F401

    try:
        told.send(rehearse(settings, num_particles, known_radius, told.send))
    except UserError as problem:
        told.send(problem)
    except KeyboardInterrupt:
        return


class _Telling:
    """One line on a terminal that changes; a line now and then elsewhere. Nothing of what is over at once."""

    def __init__(self, what: str):
        self._what, self._begun = what, time.monotonic()
        self._told = self._begun
        self._is_terminal, self._has_told = sys.stderr.isatty(), False

    def says(self, note: str) -> None:
        """What is done now."""
        now = time.monotonic()
        if now - self._told < (0.2 if self._is_terminal and self._has_told else SECONDS_BETWEEN_LINES):
            return
        self._told, self._has_told = now, True
        line = f"{self._what}: {note} ({as_time(now - self._begun)})"
        print(f"\r{line:<100}" if self._is_terminal else line, end="" if self._is_terminal else "\n", file=sys.stderr)
        sys.stderr.flush()

    def close(self) -> None:
        """Take the line away."""
        if self._is_terminal and self._has_told:
            print("\r" + " " * 100 + "\r", end="", file=sys.stderr, flush=True)


class _Seen:
    """Images looked at, and the time left."""

    def __init__(self) -> None:
        self._telling, self._begun = _Telling("looking at images"), time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        left = (time.monotonic() - self._begun) * (total - done) / done
        self._telling.says(f"{done:,} of {total:,}, {as_time(left)} left")
        if done == total:
            self._telling.close()
