"""Whether the demonstration works whatever the seed: a table over seeds, failures counted.

python bench/demo_seeds.py --quick --seeds 0 1 2 3 4
python bench/demo_seeds.py --seeds 0 1 2 --folder /scratch/demos
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the small demonstration")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="S")
    parser.add_argument("--timeout", type=float, default=1200, metavar="SECONDS", help="for each seed")
    parser.add_argument("--folder", type=Path, default=None, help="keep the runs there; by default they are removed")
    args = parser.parse_args()
    print(
        "seed  ended      seconds    ARI  accuracy  calibration  degrees of pose        FSC 0.5 in A            notes"
    )
    with tempfile.TemporaryDirectory(prefix="demo-seeds-") as temporary:
        folder = args.folder or Path(temporary)
        num_failed = sum(not run_seed(folder / f"seed-{seed}", seed, args) for seed in args.seeds)
    print(f"{num_failed} of {len(args.seeds)} seeds failed.")
    return 1 if num_failed else 0


def run_seed(out: Path, seed: int, args: argparse.Namespace) -> bool:
    """Run the demonstration in a process of its own, print a row, and tell whether the classes were found."""
    command = [sys.executable, "-m", "cryohydra", "demo", str(out), "--seed", str(seed)]
    begun = time.monotonic()
    try:
        done = subprocess.run(
            [*command, *(["--quick"] if args.quick else [])], capture_output=True, text=True, timeout=args.timeout
        )
        ended = {0: "found", 1: "not found"}.get(done.returncode, f"exit {done.returncode}")
    except subprocess.TimeoutExpired:
        ended = "timeout"
    seconds = time.monotonic() - begun
    path = out / "score.json"
    if not path.exists():
        note = "" if ended == "timeout" else (done.stderr.strip().splitlines() or [""])[-1]
        print(f"{seed:>4}  {ended:<9}  {seconds:>7.0f}  {note}", flush=True)
        return False
    score = json.loads(path.read_text())
    poses = " ".join(_pose(one) for one in score["classes"])
    shells = " ".join(
        "-" if one["run_class"] is None else f"{one['resolution_angstrom']:.0f}" for one in score["classes"]
    )
    agreement, accuracy = score["adjusted_rand_index"], score["matched_accuracy"]
    print(
        f"{seed:>4}  {ended:<9}  {seconds:>7.0f}  {agreement:>5.3f}  {accuracy:>8.1%}"
        f"  {score['calibration']['expected_error']:>11.3f}  {poses:<21}  {shells:<22}  {' '.join(score['failures'])}",
        flush=True,
    )
    return ended == "found"


def _resolution(one: dict) -> str:
    return "-" if one["run_class"] is None else f"{one['resolution_angstrom']:.0f}"


def _pose(one: dict) -> str:
    """Pose error of a class, with a star where it is modulo a pseudo-symmetry."""
    if one["run_class"] is None:
        return "-"
    pseudo = one.get("pseudo_pose_error_degrees")
    return f"{one['pose_error_degrees']:.1f}" if pseudo is None else f"{pseudo:.1f}*"


if __name__ == "__main__":
    sys.exit(main())
