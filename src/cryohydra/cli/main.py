"""The command `drgnai`: finds the verb, runs it, and turns what goes wrong into one sentence."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

import cryohydra
from cryohydra.errors import UserError

VERBS = {
    "check": "look at particles before training: what is wrong, what it will cost, what to type",
    "setup": "describe an experiment: which images, what is known, what is asked",
    "train": "reconstruct: classes, maps, poses, conformations",
    "analyze": "volumes, plots and a report.html from a trained run",
    "export": "particles and maps of a run for RELION and cryoSPARC",
    "assign": "class, pose and conformation of particles that a run has never seen",
    "prove": "half maps and FSC of each class: do the images bear out what the network shows?",
    "explore": "look at the particles of a run in a page, select them, see their volumes",
    "filter": "the older name of explore",
    "demo": "simulate a small mixture, reconstruct it and compare with the truth",
    "test": "see that this installation works on this machine's device",
    "flip": "give classes of a run the other hand, maps and poses together",
    "reclass": "merge, drop or split classes into a new run",
    "downsample": "crop images in Fourier space, with their metadata",
    "simulate": "make a mixture dataset from atomic models or maps",
    "score": "compare a run with the truth of a simulated dataset",
    "checksum": "numbers by which two runs can be told apart",
}
"""Each is the module of its name in this package, with `add_parser(subparsers)` and `run(args)`."""

DESCRIPTION = """\
From cryo-EM particle images of a mixture of flexible complexes to K structures, each with its own
motion, and for every particle its class probabilities, pose and conformation; with nothing known
beforehand.
"""

EPILOG = """\
A first run:
  drgnai demo my-demo --quick            see the whole way on simulated images, in minutes

Your own images:
  drgnai check particles.star            all that is wrong or doubtful, and what a training will cost
  drgnai setup OUT --particles particles.star --cfgs n_classes=4
  drgnai train OUT                       results go to OUT/out, then they are analysed
  drgnai analyze OUT --class-idx 0 2     more volumes and plots; open OUT/out/analysis_E/report.html

`drgnai VERB --help` explains a verb. All settings are explained in the configs.yaml that setup writes.
"""

USER_ERROR = 2
INTERRUPTED = 130
UNHEARD = 141
"""As shells say of programs that SIGPIPE ends."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code is 0, 2 for what the user can mend, 130 when stopped, 141 if nobody listens."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = _parser(next((word for word in words if not word.startswith("-")), None))
    args = parser.parse_args(words)
    if args.run is None:
        parser.print_help()
        return USER_ERROR
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except UserError as error:
        return _fail(str(error))
    except BrokenPipeError:
        # `head` has seen enough; what is left would fail once more at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNHEARD
    except OSError as error:
        if error.filename is None:
            raise
        return _fail(f"{error.filename}: {error.strerror}. Check the path, your rights and the space on the disk.")
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return INTERRUPTED
    return code


def _parser(verb: str | None) -> argparse.ArgumentParser:
    """The parser, with the flags of one verb: the others are not imported to be listed."""
    parser = argparse.ArgumentParser(
        prog="drgnai", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"cryohydra {cryohydra.__version__}")
    parser.set_defaults(run=None)
    subparsers = parser.add_subparsers(metavar="VERB", title="verbs")
    for name, line in VERBS.items():
        if name == verb:
            module = importlib.import_module(f"cryohydra.cli.{name}")
            module.add_parser(subparsers)
            subparsers.choices[name].set_defaults(run=module.run)
        else:
            subparsers.add_parser(name, help=line)
    return parser


def _fail(sentence: str) -> int:
    print(f"drgnai: {sentence}", file=sys.stderr)
    return USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
