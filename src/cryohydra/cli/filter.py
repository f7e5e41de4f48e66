"""`drgnai filter`: the older name of `drgnai explore`."""

from typing import Any

from cryohydra.cli.arguments import subparser
from cryohydra.cli.explore import add_serving_flags
from cryohydra.cli.explore import run as run

DESCRIPTION = """\
The page of `drgnai explore`, under the name it had as a prompt: draw around particles, save them under a
name, and find OUT/explorer/selections/NAME/ind.pkl and ind_inverse.pkl.
"""

EPILOG = """\
Examples:
  drgnai filter OUT                                     particles of the last epoch
  drgnai filter OUT --epoch 20 --kmeans 20              coloured by the 20 groups of that epoch's analysis
  drgnai filter OUT --plot-inds ind.pkl                 begin with the particles of a file selected
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparser(subparsers, "filter", "the older name of explore", DESCRIPTION, EPILOG)
    add_serving_flags(parser)
