"""`drgnai explore`: look at the particles of a run in a page, and select them."""

import argparse
import os
import subprocess
import sys
import time
import webbrowser
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cryohydra.analysis.run import Run
from cryohydra.cli.arguments import add_outdir, subparser
from cryohydra.config.inputs import open_input
from cryohydra.config.reading import read_settings
from cryohydra.data.particles import ParticleSet
from cryohydra.errors import UserError
from cryohydra.explorer.explorer import Explorer, Opening
from cryohydra.explorer.server import ExplorerServer, serving
from cryohydra.explorer.shelf import Shelf, particles_in
from cryohydra.explorer.sources import Sources

DESCRIPTION = """\
Serve a page, on this machine alone, on which the particles of a run are plotted by any two of their
quantities, selected by drawing around them or by thresholds, and looked at; a click on a particle shows
its volume, drawn by the network. Selections are kept in OUT/explorer/selections/NAME/ind.pkl.
"""

EPILOG = """\
Examples:
  drgnai explore OUT                         the last epoch; the others can be chosen on the page
  drgnai explore OUT --compare OTHER         beside another run of the same particle file
  drgnai explore OUT --port 8000             on a cluster: ssh -L 8000:localhost:8000 there, open the address here
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparser(subparsers, "explore", "look at particles in a page, and select them", DESCRIPTION, EPILOG)
    add_serving_flags(parser)


def add_serving_flags(parser: argparse.ArgumentParser) -> None:
    """What the page needs to be told, also under its older name."""
    add_outdir(parser)
    parser.add_argument("--epoch", "-e", type=int, default=-1, help="epoch to begin with; -1 for the last (default)")
    parser.add_argument(
        "--kmeans", "-k", type=int, default=-1, metavar="N", help="show the N groups of kmeansN; -1 for those there are"
    )
    parser.add_argument("--plot-inds", type=Path, metavar="FILE", help="begin with the particles of this .pkl selected")
    parser.add_argument("--compare", type=Path, nargs="+", default=[], metavar="RUN", help="further runs to look at")
    parser.add_argument("--port", type=int, default=0, help="port of 127.0.0.1 (default: any that is free)")
    parser.add_argument("--no-browser", action="store_true", help="print the address, open nothing")


def run(args: argparse.Namespace) -> int:
    """Serve until stopped."""
    if not 0 <= args.port < 2**16:
        raise UserError(f"--port is {args.port}; wanted 1 to 65535, or none for any that is free.")
    explorer = build_explorer(args.outdir, args.epoch, args.compare, args.kmeans, args.plot_inds)
    with serving(ExplorerServer(explorer.routes(), args.port)) as server:
        try:
            print(f"The explorer is at {server.address}\nStop it with Ctrl-C; what you saved stays.", flush=True)
            if not args.no_browser and has_screen():
                webbrowser.open(server.address)
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            print("Stopped.")
    return 0


def has_screen() -> bool:
    """Whether a window can be opened; without one, a browser of text would take the terminal."""
    return sys.platform in {"darwin", "win32"} or bool({"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ))


def build_explorer(
    outdir: Path, epoch: int = -1, compare: list[Path] | None = None, kmeans: int = -1, plot_inds: Path | None = None
) -> Explorer:
    """Open runs and put the explorer together.

    Raises:
        UserError: If one of the runs, or the selection to begin with, cannot be read.
    """
    print(f"Opening {outdir} and its particles ...", file=sys.stderr, flush=True)
    sources = Sources(outdir, epoch, compare or [], open_particles_of, kmeans)
    for note in sources.notes:
        print(note)
    preselected = np.zeros(len(sources), dtype=bool)
    if plot_inds is not None:
        preselected = particles_in(plot_inds, sources.file_rows())
    colour_by = "class" if kmeans == -1 else "kmeans"

    def export(ind: Path, folder: Path) -> Iterator[str]:
        return export_particles(outdir, sources.first.origin.epoch, ind, folder)

    return Explorer(sources, Shelf(outdir), Opening(colour_by, preselected), export)


def open_particles_of(run: Run) -> ParticleSet:
    """The particles that a run was trained on, their images left on disk.

    Raises:
        UserError: If they cannot be opened as the training found them.
    """
    values: Mapping[str, Any] = {key: value for key, value in run.settings.items() if key != "versions"}
    if not values:
        raise UserError(f"{run.folder.train_configs_path} is missing, which names the particles.")
    return open_input(read_settings({**values, "lazy": True}, str(run.folder.train_configs_path)).settings)


def export_particles(outdir: Path, epoch: int, ind: Path, folder: Path) -> Iterator[str]:
    """Run `drgnai export` in a process of its own, and pass on what it says, line by line.

    Raises:
        UserError: With its last words, if it fails.
    """
    words = ["export", str(outdir), "--epoch", str(epoch), "--ind", str(ind), "-o", str(folder)]
    command = [sys.executable, "-m", "cryohydra", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        last = "it said nothing"
        for line in process.stdout:
            if line.strip():
                last = line.strip()
                yield last
    if process.returncode:
        raise UserError(f"`drgnai export` failed: {last.removeprefix('drgnai: ')}")
