"""What several verbs share on the command line."""

import argparse
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from cryohydra.errors import UserError


def subparser(subparsers: Any, verb: str, summary: str, description: str, epilog: str = "") -> argparse.ArgumentParser:
    """A parser of one verb whose texts keep their line breaks."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        verb,
        help=summary,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def add_outdir(parser: argparse.ArgumentParser) -> None:
    """The run folder, first of all."""
    parser.add_argument("outdir", type=Path, metavar="OUT", help="folder of the experiment")


def add_cfgs(parser: argparse.ArgumentParser) -> None:
    """Settings by key."""
    parser.add_argument(
        "--cfgs",
        "-c",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="any settings of configs.yaml, several at once: --cfgs n_classes=4 z_dim=2 quick_config.engine=published",
    )


def parse_assignments(words: list[str]) -> dict[str, Any]:
    """Settings written as KEY=VALUE; values as in YAML, a dot goes into quick_config.

    Raises:
        UserError: If a word is not of that form.
    """
    values: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key.strip():
            raise UserError(f"'{word}' after --cfgs is not KEY=VALUE; write, for example, --cfgs n_classes=3 z_dim=2.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"The value in '{word}' cannot be read; put quotes around text with signs.") from error
        outer, dot, inner = key.strip().partition(".")
        if dot:
            values.setdefault(outer, {})[inner] = value
        else:
            values[outer] = value
    return values


def as_typed(*words: str | Path) -> str:
    """A command of this program as it can be typed here: by its name where the shell finds it."""
    program = ["drgnai"] if shutil.which("drgnai") else [sys.executable, "-m", "cryohydra"]
    return shlex.join([*program, *map(str, words)])
