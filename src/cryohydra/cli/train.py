"""`drgnai train`: reconstruct, then analyse."""

import argparse
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryohydra.analysis.options import AnalyzeOptions
from cryohydra.cli.analyze import analyze_run
from cryohydra.cli.arguments import add_outdir, subparser
from cryohydra.cli.progress import Progress, logging_to
from cryohydra.config.build import build_training
from cryohydra.config.files import read_configs, write_train_configs
from cryohydra.config.settings import Settings
from cryohydra.errors import UserError
from cryohydra.io.run_folder import RunFolder

DESCRIPTION = """\
Reconstruct the experiment that OUT/configs.yaml describes. Results go to OUT/out: maps of each class
(reconstruct.epoch_E.class_k.mrc), poses, conformations, class probabilities, checkpoints, and after
the last epoch an analysis with a report.html. Results that are there already are moved to
OUT/old-out_NNN_..., never deleted.
"""

EPILOG = """\
Examples:
  drgnai train OUT                  from the start
  drgnai train OUT --load           go on where an earlier training stopped
  tensorboard --logdir OUT/out      learning curves and pictures while it runs

Ctrl-C, or the SIGTERM by which a cluster ends a job, saves what there is first.
GPUs are used if there are any; CUDA_VISIBLE_DEVICES chooses among them.
"""

INTERRUPTED = 130


def add_parser(subparsers: Any) -> None:
    """Add the verb's flags."""
    parser = subparser(subparsers, "train", "reconstruct", DESCRIPTION, EPILOG)
    add_outdir(parser)
    parser.add_argument("--no-analysis", action="store_true", help="do not analyse the last epoch afterwards")
    parser.add_argument("--load", action="store_true", help="continue from the last checkpoint in OUT/out")
    parser.add_argument("--multigpu", action="store_true", help="accepted, but without effect yet: one device is used")


def run(args: argparse.Namespace) -> int:
    """Train and analyse."""
    outdir: Path = args.outdir
    progress = Progress()
    try:
        with _stopped_by_signals():
            train(outdir, progress, continues=args.load, uses_all_gpus=args.multigpu)
    except KeyboardInterrupt:
        progress.close()
        folder = shlex.quote(str(outdir))
        print(f"Stopped; continue with: drgnai train {folder} --load", file=sys.stderr)
        return INTERRUPTED
    if not args.no_analysis:
        report = analyze_run(outdir, AnalyzeOptions(), progress)
        progress.says(f"Report: {report}")
    return 0


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """What clusters send before they end a job, SIGTERM, stops as Ctrl-C does; so does SIGINT where a shell hid it."""
    before = {one: signal.signal(one, signal.default_int_handler) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def train(outdir: Path, progress: Progress, *, continues: bool = False, uses_all_gpus: bool = False) -> None:
    """Train the experiment in a run folder.

    Args:
        continues: Go on from the last checkpoint in the folder.

    Raises:
        UserError: If the settings or images cannot be used, or another process trains in the folder; then
            nothing has been written or moved.
    """
    run = RunFolder(outdir.absolute())
    reading = read_configs(run.configs_path)
    with run.training_lock():
        settings = _with_checkpoint(reading.settings.with_seed(), run, continues)
        if uses_all_gpus:
            settings = settings.model_copy(update={"multigpu": True})
        for note in reading.notes:
            progress.says(note)
        trainer = build_training(settings, run, progress)
        continues_here = settings.load is not None and settings.load.parent == run.results
        if run.has_results() and not continues_here:
            aside = run.move_results_aside(_what_is_there(run))
            progress.says(f"The results that were in {run.results} are now in {aside}.")
        run.results.mkdir(exist_ok=True)
        write_train_configs(run.train_configs_path, settings)
        with logging_to(run.log_path):
            trainer.run()


def _with_checkpoint(settings: Settings, run: RunFolder, continues: bool) -> Settings:
    """The settings with the last checkpoint, and the seed of the run that wrote it, if it is to be continued."""
    if not continues:
        return settings
    checkpoint = run.weights_path(run.latest_epoch())
    update: dict[str, Any] = {"load": checkpoint}
    if run.train_configs_path.exists():
        update["seed"] = read_configs(run.train_configs_path).settings.seed
    return settings.model_copy(update=update)


def _what_is_there(run: RunFolder) -> str:
    """A word for the name of the folder into which results are moved."""
    try:
        return f"epoch-{run.latest_epoch()}"
    except UserError:
        return "unfinished"
