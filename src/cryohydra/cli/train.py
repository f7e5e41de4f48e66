"""`drgnai train`: reconstruct, then analyse."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from cryohydra.analysis.options import AnalyzeOptions
from cryohydra.cli.analyze import analyze_run
from cryohydra.cli.arguments import add_outdir, subparser
from cryohydra.cli.members import is_member, join_others, launch, leave_at_once, num_gpus, stopped_by_signals
from cryohydra.cli.progress import Progress, logging_to
from cryohydra.config.build import build_training
from cryohydra.config.files import read_configs, write_train_configs
from cryohydra.config.settings import Settings
from cryohydra.errors import ProcessLost, UserError
from cryohydra.io.run_folder import RunFolder
from cryohydra.training.listener import Unheard
from cryohydra.training.team import ALONE, Team, part

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
  drgnai train OUT --multigpu       in one process for each GPU, which share the images
  torchrun --nproc-per-node 4 -m cryohydra train OUT     in processes that another program starts
  tensorboard --logdir OUT/out      learning curves and pictures while it runs

Ctrl-C, or the SIGTERM by which a cluster ends a job, saves what there is first.
A GPU is used if there is one, all with --multigpu; CUDA_VISIBLE_DEVICES chooses among them.
"""

INTERRUPTED = 130
FAILED = 2


def add_parser(subparsers: Any) -> None:
    """Add the verb's flags."""
    parser = subparser(subparsers, "train", "reconstruct", DESCRIPTION, EPILOG)
    add_outdir(parser)
    parser.add_argument("--no-analysis", action="store_true", help="do not analyse the last epoch afterwards")
    parser.add_argument("--load", action="store_true", help="continue from the last checkpoint in OUT/out")
    parser.add_argument("--multigpu", action="store_true", help="train in one process for each visible GPU")


def run(args: argparse.Namespace) -> int:
    """Train and analyse."""
    outdir: Path = args.outdir
    progress = Progress()
    if not is_member() and (args.multigpu or read_configs(RunFolder(outdir).configs_path).settings.multigpu):
        if num_gpus() > 1:
            progress.says(f"Training in {num_gpus()} processes, one for each GPU.")
            return launch(_words(args), num_gpus())
        found = "one GPU" if num_gpus() else "no GPU"
        progress.says(f"multigpu is set, but there is {found} to be seen here: the training runs in one process.")
    team = ALONE
    try:
        with stopped_by_signals():
            team = join_others()
            train(outdir, progress, continues=args.load, uses_all_gpus=args.multigpu, team=team)
    except KeyboardInterrupt:
        progress.close()
        if team.is_first:
            folder = shlex.quote(str(outdir))
            print(f"Stopped; continue with: drgnai train {folder} --load", file=sys.stderr)
        if is_member():
            leave_at_once(INTERRUPTED)
        return INTERRUPTED
    except ProcessLost as error:
        progress.close()
        print(f"drgnai: {error}", file=sys.stderr)
        leave_at_once(FAILED)
    part()
    if team.is_first and not args.no_analysis:
        report = analyze_run(outdir, AnalyzeOptions(), progress)
        progress.says(f"Report: {report}")
    return 0


def _words(args: argparse.Namespace) -> list[str]:
    """The command line that was given."""
    flags = {"--no-analysis": args.no_analysis, "--load": args.load, "--multigpu": args.multigpu}
    return ["train", str(args.outdir), *(flag for flag, is_given in flags.items() if is_given)]


def train(
    outdir: Path, progress: Progress, *, continues: bool = False, uses_all_gpus: bool = False, team: Team = ALONE
) -> None:
    """Train the experiment in a run folder.

    Args:
        continues: Go on from the last checkpoint in the folder.
        team: Of which only the first member touches the folder, and speaks.

    Raises:
        UserError: If the settings or images cannot be used, or another process trains in the folder; then
            nothing has been written or moved.
    """
    run = RunFolder(outdir.absolute())
    if not team.is_first:
        told: Settings = team.told(None)
        build_training(told, run, Unheard(), team).run()
        return
    reading = read_configs(run.configs_path)
    with run.training_lock():
        settings = _with_checkpoint(reading.settings.with_seed(), run, continues)
        if uses_all_gpus:
            settings = settings.model_copy(update={"multigpu": True})
        for note in reading.notes:
            progress.says(note)
        settings = team.told(settings)
        trainer = build_training(settings, run, progress, team)
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
