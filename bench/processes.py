"""What several processes of one thread each are worth: seconds of each stage in one process and in more.

python bench/processes.py --models DIR
python bench/processes.py --models DIR --images 4000 --processes 2 4

DIR holds atomic models as `mixtures.py` wants them. The search and the refinement of several processes begin from the
maps that ab initio has found in one: all do the same work then, and the efficiency is the time of one process over that
of n, divided by n. Draws of ab initio go other ways once they differ in a digit; that stage is told by image visits.
Give it a machine of its own with as many cores as processes; `--cpu` counts seconds of the processor, where the machine
is shared: then it does not tell how long processes wait for each other.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from mixtures import EIGHT, LARGE_SUBUNIT, RIBOSOME, SPLICEOSOME, TRIC, drgnai

from cryohydra.cli.members import join_others
from cryohydra.config.build import build_training
from cryohydra.config.reading import read_settings
from cryohydra.io.run_folder import RunFolder
from cryohydra.training.team import part

_MODELS = (RIBOSOME, SPLICEOSOME, TRIC, LARGE_SUBUNIT, *EIGHT)
_AFTER_AB_INITIO = "weights.after_ab_initio.pkl"


@dataclass
class Taken:
    """By one stage."""

    stage: str
    steps: float = 0.0
    """Seconds of its steps."""
    end: float = 0.0
    """Of what follows them: components, fields, files."""
    visits: int = 0


class Clock:
    """Listens to a training and takes the time."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.taken: list[Taken] = []
        self._now, self._last = now, 0.0

    def stage_begins(self, name: str, total_images: int) -> None:
        """Start a row."""
        self.taken.append(Taken(name))
        self._last = self._now()

    def advanced(self, images: int, note: str) -> None:
        """Count a step; newcomers' steps count no images, and what is told of the end is none."""
        now, row = self._now(), self.taken[-1]
        if images or not note.startswith(("fitting", "looking")):
            row.steps += now - self._last
            self._last = now
        row.visits += images

    def stage_ends(self, sentence: str) -> None:
        """The rest is the end's."""
        self.taken[-1].end = self._now() - self._last

    def says(self, sentence: str) -> None:
        """Of no interest."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, metavar="DIR", help="atomic models")
    parser.add_argument("--classes", type=int, default=4, metavar="K", help="12 at most")
    parser.add_argument("--images", type=int, default=4000, metavar="N")
    parser.add_argument("--box", type=int, default=64, metavar="D")
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=2, metavar="E", help="of refinement")
    parser.add_argument("--processes", type=int, nargs="+", default=[2], metavar="P")
    parser.add_argument("--cfgs", nargs="*", default=[], metavar="KEY=VALUE", help="other settings")
    parser.add_argument("--cpu", action="store_true", help="count seconds of the processor")
    parser.add_argument("--member", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.member:
        return member(json.loads(args.member[0]), Path(args.member[1]), int(args.member[2]), args.cpu)
    if args.models is None:
        parser.error("--models is needed")
    with tempfile.TemporaryDirectory(prefix="processes-") as temporary:
        compare(Path(temporary), args)
    return 0


def compare(folder: Path, args: argparse.Namespace) -> None:
    """Print a line for each stage and number of processes."""
    models = [args.models / model for model in _MODELS[: args.classes]]
    imaging = ["--n-images", args.images, "--box", args.box, "--apix", 420 / args.box]
    noise = ["--snr", args.snr, "--seed", 0]
    done = drgnai(["simulate", folder / "data", "--model", *models, *imaging, *noise], timeout=3600)
    assert done.returncode == 0, done.stderr
    values = {"particles": str(folder / "data" / "particles.star"), "n_classes": args.classes, "z_dim": 0, "seed": 0}
    values |= {"epochs_sgd": args.epochs, "log_heavy_interval": 0} | dict(one.split("=", 1) for one in args.cfgs)
    alone = run_members(values, folder / "one", 1, args.cpu)
    checkpoint = {"load": str(folder / "one" / _AFTER_AB_INITIO)}
    print("| stage | processes | s of steps | s at its end | visits | efficiency of steps | of all |")
    print("|---|---|---|---|---|---|---|")
    for row in alone:
        print_row(row, row, 1)
    for number in args.processes:
        first = run_members(values, folder / f"first_{number}", number, args.cpu, num_stages=1)
        rest = run_members(values | checkpoint, folder / f"rest_{number}", number, args.cpu)
        for row, of_one in zip([*first, *rest], alone, strict=True):
            print_row(row, of_one, number)


def print_row(row: Taken, of_one: Taken, number: int) -> None:
    """One line of the table; visits that differ are made up for."""
    visits = row.visits / max(of_one.visits, 1)
    steps = visits * of_one.steps / (number * max(row.steps, 1e-9))
    whole = (visits * of_one.steps + of_one.end) / (number * max(row.steps + row.end, 1e-9))
    figures = f"{row.steps:.1f} | {row.end:.1f} | {row.visits} | {steps:.2f} | {whole:.2f}"
    print(f"| {row.stage} | {number} | {figures} |", flush=True)


def run_members(
    values: dict[str, object], folder: Path, number: int, counts_cpu: bool, num_stages: int = 3
) -> list[Taken]:
    """Train in so many processes of one thread each: what the first tells of the stages."""
    folder.mkdir()
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(29400 + os.getpid() % 1000), "WORLD_SIZE": str(number)}
    words = [sys.executable, __file__, "--member", json.dumps(values), str(folder), str(num_stages)]
    words += ["--cpu"] * counts_cpu
    everyone = os.environ | place | {"OMP_NUM_THREADS": "1"}
    members = [
        subprocess.Popen(words, env=everyone | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(number)
    ]
    try:
        assert [one.wait() for one in members] == [0] * number
    finally:
        for one in members:
            one.kill()
    return [Taken(**row) for row in json.loads((folder / "taken.json").read_text())]


def member(values: dict[str, object], folder: Path, num_stages: int, counts_cpu: bool) -> int:
    """One process of a training; the first one leaves what it took."""
    clock = Clock(time.process_time if counts_cpu else time.perf_counter)
    team, run = join_others(), RunFolder(folder / "run")
    if team.is_first:
        run.results.mkdir(parents=True)
    trainer = build_training(read_settings(values).settings, run, clock, team)
    trainer.stages = trainer.stages[:num_stages]
    trainer.run()
    if team.is_first:
        (folder / "taken.json").write_text(json.dumps([asdict(row) for row in clock.taken]))
        run.weights_path(run.epochs()[0]).rename(folder / _AFTER_AB_INITIO)
    part()
    return 0


if __name__ == "__main__":
    sys.exit(main())
