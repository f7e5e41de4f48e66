"""`drgnai demo`: the whole way, on images whose truth is known."""

import argparse
import time
from pathlib import Path
from typing import Any

from cryohydra.analysis.options import AnalyzeOptions
from cryohydra.cli.analyze import analyze_run
from cryohydra.cli.arguments import add_outdir, as_typed, subparser
from cryohydra.cli.demonstration import DEMO, QUICK_DEMO, demonstrate
from cryohydra.cli.progress import Progress, as_time
from cryohydra.cli.prove import prove_at_shared_poses

DESCRIPTION = """\
Simulate noisy images of a mixture of complexes that the package carries, reconstruct it with nothing
given but the images and the number of classes, and compare with the truth: which particle belongs to
which class, how well the maps agree, how far the poses are off.
"""

EPILOG = """\
Examples:
  drgnai demo my-demo --quick       small images, one to three minutes
  drgnai demo my-demo               one of the complexes moves; 2 to 6 minutes on two cores
  drgnai demo my-demo --seed 1      other images, other starting point

Afterwards OUT is a run folder like any other: try `drgnai analyze OUT`, or change OUT/configs.yaml
and `drgnai train OUT` again. The images and their truth are in OUT/data.
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb's flags."""
    parser = subparser(subparsers, "demo", "simulate, reconstruct, compare", DESCRIPTION, EPILOG)
    add_outdir(parser)
    parser.add_argument("--quick", action="store_true", help="small images, one to three minutes")
    parser.add_argument("--seed", type=int, default=0, help="of the images and the reconstruction (default 0)")


def run(args: argparse.Namespace) -> int:
    """Demonstrate, analyse, and say whether the classes were found."""
    begun = time.monotonic()
    outdir: Path = args.outdir
    demonstration = QUICK_DEMO if args.quick else DEMO
    progress = Progress()
    score = demonstrate(outdir, demonstration, args.seed, progress)
    prove_at_shared_poses(outdir, progress)
    report = analyze_run(outdir, AnalyzeOptions(), progress)
    (outdir / "score.json").write_text(score.to_json() + "\n")
    print(score.to_table())
    print(f"Report: {report}")
    print(f"To explore, select and export particles: {as_typed('explore', outdir)}")
    print(f"Score: {outdir / 'score.json'}; {as_time(time.monotonic() - begun)} in all.")
    return judge(score.adjusted_rand_index, demonstration.wanted_agreement)


def judge(agreement: float, wanted: float) -> int:
    """Say whether the classes were found; the exit code is 1 if not."""
    if agreement >= wanted:
        print(f"The classes were found: adjusted Rand index {agreement:.3f} (wanted {wanted:g}).")
        return 0
    print(f"The classes were NOT found: adjusted Rand index {agreement:.3f} (wanted {wanted:g}).")
    return 1
