"""The processes of one training: started here or by `torchrun`, told by the environment who they are."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import torch

from cryohydra._device import default_device
from cryohydra.errors import ProcessLost, UserError
from cryohydra.training.team import ALONE, Team, join

_SECONDS_TO_SAVE = 600.0
"""That processes have to end by themselves once another has failed."""
_MEETING_PLACE = "CRYOHYDRA_MEETING_PLACE"
"""Variable of the environment: where processes that were started here meet."""


def num_gpus() -> int:
    """Of this machine, as far as they are visible."""
    return torch.cuda.device_count()


def is_member() -> bool:
    """Whether this process was started as one of several."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def join_others() -> Team:
    """The team that this process was started for; a team of one if it was started by itself.

    Raises:
        UserError: If there is no GPU for it where others have one.
    """
    if not is_member():
        return ALONE
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if num_gpus():
        if local_rank >= num_gpus():
            raise UserError(
                f"Process {local_rank + 1} on this machine finds {num_gpus()} GPUs and needs one of its own. "
                "Start as many processes as there are GPUs."
            )
        torch.cuda.set_device(local_rank)
    meeting_place = os.environ.get(_MEETING_PLACE, "env://")
    return join(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), default_device(), meeting_place)


def launch(words: Sequence[str], num_members: int) -> int:
    """Run a command line of `drgnai` in several processes on this machine; where one fails, all end.

    They meet in a folder that other users cannot read, and talk within the machine only.

    Returns:
        The exit code of the first that failed; 0 if none did.
    """
    threads = str(max(1, (os.cpu_count() or 1) // num_members))
    usual = {"OMP_NUM_THREADS": threads, "GLOO_SOCKET_IFNAME": "lo"}
    with tempfile.TemporaryDirectory(prefix="drgnai-") as private:
        place = {_MEETING_PLACE: f"file://{private}/meeting", "WORLD_SIZE": str(num_members)}
        members = [
            subprocess.Popen(
                [sys.executable, "-m", "cryohydra", *words],
                env=usual | dict(os.environ) | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(num_members)
        ]

        def pass_on(number: int, frame: object) -> None:
            """Stop the members, not this process, which waits for what they save."""
            for member in members:
                member.terminate()

        try:
            with _signals_go_to(pass_on):
                return _first_failure(members)
        finally:
            for member in members:
                member.kill()


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """What clusters send before they end a job, SIGTERM, stops as Ctrl-C does; so does SIGINT where a shell hid it.

    Where what there is is being saved already, for an earlier signal or since another process was lost, nothing stops
    that: a terminal sends a signal to all processes, and who started them another one.
    """

    def stop(number: int, frame: object) -> None:
        handled = sys.exc_info()[1]
        while handled is not None:
            if isinstance(handled, KeyboardInterrupt | ProcessLost):
                return
            handled = handled.__context__
        raise KeyboardInterrupt

    with _signals_go_to(stop):
        yield


def leave_at_once(code: int) -> NoReturn:
    """End this process without a word to the others, for which it would wait otherwise."""
    sys.stdout.flush()
    sys.stderr.flush()
    logging.shutdown()
    os._exit(code)


def _first_failure(members: Sequence[subprocess.Popen[bytes]]) -> int:
    failure = 0
    last = float("inf")
    while any(member.poll() is None for member in members) and time.monotonic() < last:
        time.sleep(0.1)
        failed = [member.returncode for member in members if member.poll()]
        if failed and not failure:
            failure, last = failed[0], time.monotonic() + _SECONDS_TO_SAVE
            for member in members:
                member.terminate()
    failure = failure or next((member.returncode for member in members if member.poll()), 0)
    # As shells say of programs that a signal has ended.
    return failure if failure >= 0 else 128 - failure


@contextmanager
def _signals_go_to(handle: Callable[[int, object], None]) -> Iterator[None]:
    before = {one: signal.signal(one, handle) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
