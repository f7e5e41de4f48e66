"""Mixtures of real complexes, simulated, reconstructed ab initio and scored: a row for each set and seed.

python bench/mixtures.py --models DIR --sets alone easy --seeds 0 1 2
python bench/mixtures.py --models DIR --short

DIR holds the atomic models named below as the Protein Data Bank gives them. Every run is a process of its own, as a
user's; one that fails or takes too long is a row too. Rows are kept in FOLDER/rows.jsonl, with their settings; the
table of this call is FOLDER/table.md.
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

RIBOSOME, SPLICEOSOME, TRIC = "4v5d.cif.gz", "3jb9.cif.gz", "pdb4v8r_hex.pdb.gz:A*"
SMALL_SUBUNIT, LARGE_SUBUNIT = "4v5d.cif.gz:A*", "4v5d.cif.gz:B*"
EIGHT = (
    *("1wcm.pdb.gz", "1bxn.pdb.gz@1", "3cf3.pdb.gz@1", "6z6u.pdb.gz"),
    *("1oel.pdb.gz", "1e6v.pdb.gz", "1u6g.pdb.gz", "2cg9.pdb.gz"),
)
TWELVE = (*EIGHT, RIBOSOME, SPLICEOSOME, TRIC, "3j9i.pdb.gz")


@dataclass(frozen=True)
class MixtureSet:
    """Images to simulate, and what is asked of them."""

    models: tuple[str, ...]
    num_images: int
    box_size: int
    pixel_size: float
    snr: float
    num_classes: int
    simulate: tuple[str, ...] = ()
    """Further arguments of `drgnai simulate`."""
    settings: tuple[str, ...] = ("epochs_sgd=1", "hypervolume_dim=128", "lr=0.001")
    is_heterogeneous: bool = False


_UNEQUAL = ("--shares", "20", "18", "16", "14", "12", "10", "7", "3", "--noise", "coloured")
_HARD = MixtureSet(EIGHT, 8000, 48, 6.0, 0.05, 8, _UNEQUAL)
SETS = {
    "alone": MixtureSet(("1u6g.pdb.gz",), 500, 32, 8.0, 0.1, 1),
    # A round complex in a large box.
    "shell": MixtureSet(("6z6u.pdb.gz",), 800, 128, 3.25, 0.1, 1),
    "medium": MixtureSet(("1bxn.pdb.gz@1", "1wcm.pdb.gz", "1u6g.pdb.gz"), 1500, 32, 8.0, 0.1, 3),
    # The same complexes, among images of noise alone.
    "junk": MixtureSet(
        ("1bxn.pdb.gz@1", "1wcm.pdb.gz", "1u6g.pdb.gz"), *(1500, 32, 8.0, 0.1, 3), simulate=("--junk", "0.15")
    ),
    "easy": MixtureSet((RIBOSOME, SPLICEOSOME, TRIC), 4500, 64, 6.5, 0.1, 3),
    "twins": MixtureSet((RIBOSOME, LARGE_SUBUNIT), 3000, 48, 8.7, 0.1, 2),
    "rare": MixtureSet(
        (RIBOSOME, SPLICEOSOME, TRIC, "6z6u.pdb.gz"), 4000, 48, 8.7, 0.1, 4, ("--shares", "33", "33", "33", "1")
    ),
    "motion": MixtureSet(
        (RIBOSOME, LARGE_SUBUNIT, TRIC),
        *(4500, 48, 8.7, 0.1, 3),
        simulate=("--motion", "0", "turn", "A*", "-10", "10"),
        is_heterogeneous=True,
    ),
    # What comes apart: the whole ribosome, its large and its small subunit, beside another machine.
    "assembly": MixtureSet(
        (RIBOSOME, LARGE_SUBUNIT, SMALL_SUBUNIT, SPLICEOSOME),
        *(4000, 48, 8.7, 0.1, 4),
        simulate=("--shares", "40", "30", "20", "10"),
    ),
    # One class more than there are structures, the smallest of which is the rarest.
    "five": MixtureSet(
        ("3j9i.pdb.gz", "1u6g.pdb.gz", "6z6u.pdb.gz", "1wcm.pdb.gz", "2cg9.pdb.gz"),
        *(4000, 48, 6.0, 0.1, 6),
        simulate=("--shares", "30", "25", "20", "15", "10", "--noise", "coloured"),
    ),
    "hard": _HARD,
    "over": replace(_HARD, num_classes=12),
    "under": replace(_HARD, num_classes=4),
    # 45 classes and 45,000 images are a recipe for a bigger machine: the same with more models.
    "field": MixtureSet(TWELVE, 12_000, 128, 3.25, 0.1, 12),
}
_SHORT = ("alone", "medium")

Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, metavar="DIR", help="atomic models")
    everything = [name for name in SETS if name != "field"]
    parser.add_argument("--sets", nargs="+", choices=SETS, default=everything, help="(default: all but field)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="S")
    parser.add_argument("--short", action="store_true", help=f"{' and '.join(_SHORT)} only")
    parser.add_argument("--cfgs", nargs="+", default=[], metavar="KEY=VAL", help="settings beside the set's own")
    parser.add_argument("--timeout", type=float, default=14_400, metavar="SECONDS", help="for each command")
    parser.add_argument("--folder", type=Path, default=None, help="keep data and runs there (default: removed)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mixtures-") as temporary:
        folder: Path = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        print(_line(_COLUMNS), flush=True)
        for name in _SHORT if args.short else args.sets:
            for seed in args.seeds:
                rows.append(run_set(name, seed, folder, args))
                print(_line(_cells(rows[-1])), flush=True)
                with (folder / "rows.jsonl").open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
        separator = _line(["---"] * len(_COLUMNS))
        table = "\n".join([_line(_COLUMNS), separator, *(_line(_cells(row)) for row in rows)])
        (folder / "table.md").write_text(table + "\n")
    return sum(row["ended"] != "ok" for row in rows)


def run_set(name: str, seed: int, folder: Path, args: argparse.Namespace) -> Row:
    """Simulate, set up, train and score one set with one seed."""
    mixture = SETS[name]
    data = folder / f"{name}-{seed}-data"
    # A folder of its own: setup keeps what an earlier one was told.
    out = next(path for i in range(10_000) if not (path := folder / f"{name}-{seed}-{i}").exists())
    size = ["--n-images", mixture.num_images, "--box", mixture.box_size, "--apix", mixture.pixel_size]
    models = [str(args.models / model) for model in mixture.models]
    kind = "het" if mixture.is_heterogeneous else "homo"
    latent = ["z_dim=1"] if mixture.is_heterogeneous else []
    cfgs = [f"n_classes={mixture.num_classes}", f"seed={seed}", "log_heavy_interval=0", *latent, *mixture.settings]
    row: Row = {"set": name, "seed": seed, "ended": "ok", "cfgs": args.cfgs}
    commands = [
        ["simulate", data, "--model", *models, *size, "--snr", mixture.snr, "--seed", seed, *mixture.simulate],
        ["setup", out, "--particles", data / "particles.star", "--reconstruction-type", kind, "--cfgs", *cfgs],
        ["train", out, "--no-analysis"],
        ["score", out, data, "--ceiling", "--json", out / "score.json"],
    ]
    if args.cfgs:
        commands[1] += args.cfgs
    for command in commands:
        if command[0] == "simulate" and (data / "truth.npz").exists():
            continue
        begun = time.monotonic()
        try:
            done = drgnai(command, args.timeout)
        except subprocess.TimeoutExpired:
            return row | {"ended": f"{command[0]}: timeout"}
        if done.returncode:
            return row | {"ended": f"{command[0]}: {(done.stderr.strip().splitlines() or ['?'])[-1]}"}
        if command[0] == "train":
            row["seconds"] = time.monotonic() - begun
    row["largest_so_far_gib"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    row["stages"] = {name: vars(told) for name, told in stages_of(out / "out" / "training.log").items()}
    return row | figures(json.loads((out / "score.json").read_text()))


def drgnai(arguments: Sequence[object], timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a verb as a user would."""
    command = [sys.executable, "-m", "cryohydra", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


@dataclass(frozen=True)
class StageTold:
    """What the log tells of a stage."""

    seconds: float
    image_visits: int


def stages_of(log: Path) -> dict[str, StageTold]:
    """How long each stage took and how many images it looked at; one that begins anew counts in all.

    Images of newcomers are not among those of the search.
    """
    stages: dict[str, StageTold] = {}
    begun = datetime.min
    for line in log.read_text().splitlines():
        found = re.match(r"(\S+ \S+),\d+ INFO cryohydra: (.*)", line)
        if found is None:
            continue
        when = datetime.fromisoformat(found[1])
        made = re.match(r"(.*) made (\d+) image visits", found[2])
        if made is not None:
            before = stages.get(made[1], StageTold(0.0, 0))
            seconds = before.seconds + (when - begun).total_seconds()
            stages[made[1]] = StageTold(seconds, before.image_visits + int(made[2]))
        elif " begins, up to" in found[2]:
            begun = when
    return stages


def figures(score: Row) -> Row:
    """What of a score goes into the table."""
    classes = score["classes"]
    return {
        "ari": score["adjusted_rand_index"],
        "accuracy": score["matched_accuracy"],
        "calibration": score["calibration"]["expected_error"],
        "degrees": [None if one["run_class"] is None else _degrees(one) for one in classes],
        "angstrom": [one["resolution_angstrom"] if one["run_class"] is not None else None for one in classes],
        "ceiling": [one["ceiling_angstrom"] for one in classes],
        "motion": [one["motion_correlation"] for one in classes],
    }


def _degrees(one: Row) -> float:
    """Median pose error, modulo a pseudo-symmetry where there is one."""
    pseudo = one["pseudo_pose_error_degrees"]
    return float(one["pose_error_degrees"] if pseudo is None else pseudo)


_COLUMNS = ["set", "seed", "ended", "s", "s per stage (images/s)", "GiB so far", "ARI", "accuracy", "calibration"]
_COLUMNS += ["degrees of pose", "FSC 0.5 in A", "ceiling in A", "motion"]


def _cells(row: Row) -> list[str]:
    if row["ended"] != "ok":
        return [row["set"], str(row["seed"]), row["ended"], *[""] * (len(_COLUMNS) - 3)]
    stages = ", ".join(
        f"{name} {told['seconds']:.0f} ({told['image_visits'] / max(told['seconds'], 1e-9):.0f})"
        for name, told in row["stages"].items()
    )
    motion = " ".join(f"{value:.2f}" for value in row["motion"] if value is not None)
    return [
        *(
            row["set"],
            str(row["seed"]),
            row["ended"],
            f"{row['seconds']:.0f}",
            stages,
            f"{row['largest_so_far_gib']:.1f}",
        ),
        *(f"{row['ari']:.3f}", f"{row['accuracy']:.1%}", f"{row['calibration']:.3f}"),
        *(_numbers(row["degrees"], 1), _numbers(row["angstrom"], 0), _numbers(row["ceiling"], 0), motion),
    ]


def _numbers(values: Sequence[float | None], digits: int) -> str:
    return " ".join("-" if value is None else f"{value:.{digits}f}" for value in values)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
