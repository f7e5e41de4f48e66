"""`drgnai test`: does this installation compute what it should, on this machine's device?"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import cryohydra
from cryohydra.cli.arguments import subparser
from cryohydra.cli.demo import judge
from cryohydra.cli.demonstration import INSTALLATION_TEST, demonstrate
from cryohydra.cli.progress import Progress, as_time

DESCRIPTION = """\
Reconstruct a very small mixture of two complexes on the device that a training would use here, in a
folder that is removed afterwards, and print the figures. The exit code is 0 if the classes were found.
"""

SEED = 0


def add_parser(subparsers: Any) -> None:
    """The verb has no flags."""
    subparser(subparsers, "test", "see that this installation works", DESCRIPTION)


def run(args: argparse.Namespace) -> int:
    """Reconstruct and print the figures."""
    print(f"cryohydra {cryohydra.__version__}, PyTorch {torch.__version__}, on {describe_device()}")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="drgnai-test-") as folder:
        score = demonstrate(Path(folder), INSTALLATION_TEST, SEED, Progress())
    print(score.to_table())
    print(f"It took {as_time(time.monotonic() - begun)}.")
    code = judge(score.adjusted_rand_index, INSTALLATION_TEST.wanted_agreement)
    print("Installation was successful!" if code == 0 else "Something is wrong with this installation.")
    return code


def describe_device() -> str:
    """The device that a training would use."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} GPU(s), the first {torch.cuda.get_device_name()}"
    return f"the CPU, {torch.get_num_threads()} threads"
