"""Names in a run folder, and who may write there."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cryohydra.errors import RunFolderBusy, UnreadableFile, UserError
from cryohydra.io.latents import Latents, read_latents, write_latents
from cryohydra.io.run_folder import RunFolder, Status, read_status, write_status

HOLD = """
import sys
from pathlib import Path
from cryohydra.io.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])).training_lock():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    (tmp_path / "out").mkdir()
    return RunFolder(tmp_path)


def test_epochs_are_those_with_weights(run: RunFolder) -> None:
    with pytest.raises(UserError, match="drgnai train"):
        run.latest_epoch()
    assert not run.has_results()
    for epoch in (-1, 2, 10):
        run.weights_path(epoch).touch()
    (run.results / "weights.x.pkl").touch()
    assert run.epochs() == [-1, 2, 10] and run.latest_epoch() == 10 and run.has_results()


def test_results_are_moved_never_lost(run: RunFolder) -> None:
    for number in range(3):
        run.results.mkdir(exist_ok=True)
        run.weights_path(0).write_text(str(number))
        aside = run.move_results_aside("het 4 classes")
        assert aside.name == f"old-out_{number:03d}_het-4-classes" and not run.has_results()
    assert [file.read_text() for file in sorted(run.path.glob("old-out_*/weights.0.pkl"))] == list("012")


def test_two_processes_do_not_train_in_one_folder(run: RunFolder) -> None:
    command = [sys.executable, "-c", HOLD, str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(RunFolderBusy, match=f"pid {other.pid}"), run.training_lock():
            pass
        other.communicate("")
    with run.training_lock():
        pass


def test_status_comes_back(run: RunFolder) -> None:
    status = Status("search", 3, 10, 100, None, ("class 2 is empty",), "running")
    write_status(run, status)
    assert read_status(run) == status
    run.status_path.write_text("{")
    with pytest.raises(UnreadableFile, match="status.json"):
        read_status(run)


def test_latents_come_back(run: RunFolder) -> None:
    latents = Latents(
        rotation=np.tile(np.eye(3, dtype=np.float32), (2, 1, 1, 1)),
        shift_px=np.ones((2, 1, 2)),
        class_probability=np.array([[0.2, 0.8], [0.9, 0.1]]),
        conformation=np.zeros((2, 4)),
        conformation_std=np.zeros((2, 0)),
        log_evidence=np.array([-1.0, -2.0]),
        particle_index=np.array([5, 7]),
    )
    write_latents(run.latents_path(3), latents)
    read = read_latents(run.results / "latents.3.npz")
    assert read.best_class.tolist() == [1, 0] and read.particle_index.tolist() == [5, 7]
    assert np.array_equal(read.rotation, latents.rotation) and read.conformation_std.shape == (2, 0)
    run.latents_path(3).write_bytes(run.latents_path(3).read_bytes()[:200])
    with pytest.raises(UnreadableFile, match="latents"):
        read_latents(run.latents_path(3))
