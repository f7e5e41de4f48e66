"""`drgnai reclass`: other classes, made of those of a run, as the start of a new one."""

import argparse
from pathlib import Path
from typing import Any

from cryohydra.cli.arguments import add_outdir, subparser
from cryohydra.cli.progress import Progress
from cryohydra.config.build import build_training, field_of
from cryohydra.config.files import read_configs, read_values, write_configs
from cryohydra.errors import UserError
from cryohydra.io.run_folder import RunFolder
from cryohydra.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cryohydra.training.reclassing import plan_classes, reclass

DESCRIPTION = """\
Merge, drop or split classes of a run and write a new run folder whose training starts from what is
left: the maps, and where poses were given, the poses. Merged classes are laid on the largest of them,
over rotation, shift and hand, with their poses; a split class starts from the two sides of the
direction in which its particles differ most; the particles of a dropped class go where they fit best.
All else is trained anew, with the settings of the run. The run itself is not changed.
"""

EPILOG = """\
Example:
  drgnai reclass OUT --merge 1,4 --drop 3 --split 0 -o NEW
  drgnai train NEW
"""

_NOT_OF_NEW = {"initial_conf": None, "initial_volumes": None, "initial_labels": None}
"""What the run was given to start from, class by class."""


def add_parser(subparsers: Any) -> None:
    """Add the verb's flags."""
    parser = subparser(subparsers, "reclass", "merge, drop or split classes into a new run", DESCRIPTION, EPILOG)
    add_outdir(parser)
    parser.add_argument("-o", dest="new", type=Path, required=True, metavar="NEW", help="folder of the new run")
    parser.add_argument(
        "--merge", action="append", default=[], metavar="K,K", help="classes to make one; repeat it for more"
    )
    parser.add_argument("--drop", type=int, nargs="+", default=[], metavar="K", help="classes to leave out")
    parser.add_argument("--split", type=int, nargs="+", default=[], metavar="K", help="classes to make two of")
    parser.add_argument("--epoch", "-e", type=int, default=-1, help="epoch to start from; -1 for the last (default)")


def run(args: argparse.Namespace) -> int:
    """Write the new run, and say what its classes are."""
    old_run, new_run = RunFolder(args.outdir.absolute()), RunFolder(args.new.absolute())
    if new_run.path.exists() and any(new_run.path.iterdir()):
        raise UserError(f"{args.new} is not empty; give a new folder.")
    epoch = old_run.latest_epoch() if args.epoch == -1 else args.epoch
    weights = old_run.weights_path(epoch)
    origins = plan_classes(load_checkpoint(weights).num_classes, _groups(args.merge), args.drop, args.split)
    settings = read_configs(old_run.train_configs_path).settings
    if settings.quick_config is not None and settings.quick_config.engine == "published":
        raise UserError("Runs of the published engine cannot start from maps; train anew with another n_classes.")
    progress = Progress()
    old = build_training(settings.model_copy(update={"load": weights, "lazy": True}), old_run, progress)
    anew = settings.model_copy(update={"n_classes": len(origins), "load": None, "lazy": True, **_NOT_OF_NEW})
    new = build_training(anew, new_run, progress)
    reclass(old.state, new.state, origins)
    start = new_run.path / "start.pkl"
    new_run.path.mkdir(parents=True, exist_ok=True)
    save_checkpoint(
        start,
        Checkpoint(
            epoch=-1,
            field_name=anew.field,
            field_settings=field_of(anew).model_dump(),
            box_size=new.state.images.box_size,
            pixel_size_angstrom=new.state.images.pixel_size_angstrom,
            z_dim=new.state.mixture.z_dim,
            num_classes=len(origins),
            mixture_state=dict(new.state.mixture.state_dict()),
            # Past the stage that knows nothing, if there is one: maps are there.
            extra={"training": new.state.state_dict(), "stage": len(new.stages) - 2, "stage_state": {}},
        ),
    )
    values = read_values(old_run.configs_path)
    values = {key: value for key, value in values.items() if key not in _NOT_OF_NEW}
    write_configs(new_run.configs_path, values | {"n_classes": len(origins), "load": str(start)})
    for k, origin in enumerate(origins):
        progress.says(f"Class {k}: class {origin} of {args.outdir}, epoch {epoch}.")
    progress.says(f"Wrote {new_run.configs_path} and {start}. Next: drgnai train {args.new}")
    return 0


def _groups(merge: list[str]) -> list[list[int]]:
    try:
        return [[int(word) for word in group.split(",")] for group in merge]
    except ValueError as error:
        raise UserError(f"--merge {' '.join(merge)} cannot be read; write class numbers as --merge 1,4.") from error
