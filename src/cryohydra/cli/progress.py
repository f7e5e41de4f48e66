"""What a user sees while a training goes on."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

LOG = logging.getLogger("cryohydra")
SECONDS_BETWEEN_LINES = 20.0


class Progress:
    """A bar with the time left where stderr is a terminal, a line now and then where it is not.

    Sentences go to stdout and to the log.
    """

    def __init__(self) -> None:
        self._draws_bar = sys.stderr.isatty()
        self._bar: tqdm | None = None
        self._name = ""
        self._begun = self._told = time.monotonic()
        self._total = self._done = 0

    def stage_begins(self, name: str, total_images: int) -> None:
        """Start counting, also anew; `total_images` is an upper bound."""
        self._stop()
        self._name, self._total, self._done = name, total_images, 0
        self._begun = self._told = time.monotonic()
        LOG.info("%s begins, up to %d image visits", name, total_images)
        if self._draws_bar:
            self._bar = tqdm(total=total_images, desc=name, unit=" images", file=sys.stderr, dynamic_ncols=True)
        else:
            print(f"{name}: up to {total_images} image visits", file=sys.stderr, flush=True)

    def advanced(self, images: int, note: str) -> None:
        """Count image visits; the note says how well it goes."""
        self._done += images
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=not images)
            self._bar.update(images)
        elif time.monotonic() - self._told >= SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            print(self._line(note), file=sys.stderr, flush=True)

    def stage_ends(self, sentence: str) -> None:
        """Stop counting and say how it ended."""
        self._stop()
        self.says(sentence)

    def says(self, sentence: str) -> None:
        """Tell the user and the log."""
        LOG.info("%s", sentence)
        tqdm.write(sentence, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        """Take the bar away, also when a stage did not come to its end."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _stop(self) -> None:
        self.close()
        if self._done:
            LOG.info("%s made %d image visits", self._name, self._done)
            self._done = 0

    def _line(self, note: str) -> str:
        seconds = time.monotonic() - self._begun
        rate = self._done / seconds
        left = f", at most {as_time((self._total - self._done) / rate)} left" if 0 < self._done <= self._total else ""
        return f"{self._name}: {self._done} of {self._total} images, {rate:.0f}/s{left}; {note}"


def as_time(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Everything the package logs goes to a file too, added at its end."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    level = LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(level)
        handler.close()
