"""Progress without a terminal, and the log."""

import logging
from pathlib import Path

import pytest

from cryohydra.cli import progress as module
from cryohydra.cli.progress import Progress, as_time, logging_to


def test_lines_come_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    progress = Progress()
    progress.stage_begins("search", 1000)
    for _ in range(10):
        now[0] += 5
        progress.advanced(50, "loss 1.0")
    progress.stage_ends("The search has converged.")
    seen = capsys.readouterr()
    assert seen.out == "The search has converged.\n"
    lines = seen.err.splitlines()
    assert len(lines) == 3
    assert lines[1] == "search: 200 of 1000 images, 10/s, at most 80 s left; loss 1.0"


def test_a_stage_that_begins_anew_has_one_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: True, raising=False)
    progress = Progress()
    progress.stage_begins("ab initio", 100)
    first = progress._bar
    progress.stage_begins("ab initio", 200)
    assert first is not None and first.disable and progress._bar is not first
    progress.close()


def test_sentences_reach_the_log(tmp_path: Path) -> None:
    path = tmp_path / "training.log"
    with logging_to(path):
        progress = Progress()
        for images in (70, 30):
            progress.stage_begins("ab initio", 100)
            progress.advanced(images, "")
        progress.stage_ends("All is well.")
        logging.getLogger("cryohydra.training").info("A detail.")
    logging.getLogger("cryohydra").info("Too late.")
    text = path.read_text()
    assert "All is well." in text
    # The second time that it begins it counts anew.
    assert "ab initio made 70 image visits" in text and "ab initio made 30 image visits" in text
    assert "A detail." in text
    assert "Too late." not in text


@pytest.mark.parametrize(("seconds", "words"), [(5.0, "5 s"), (600.0, "10 min"), (7200.0, "2.0 h")])
def test_times_are_said_plainly(seconds: float, words: str) -> None:
    assert as_time(seconds) == words
