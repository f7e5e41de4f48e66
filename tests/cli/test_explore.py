"""The verbs that serve the explorer, as a terminal sees them."""

import argparse
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch

from cryohydra.cli import explore, filter
from cryohydra.cli.main import main
from cryohydra.errors import UserError
from cryohydra.fields.mlp import MLPFieldConfig
from cryohydra.io.latents import Latents, write_latents
from cryohydra.io.run_folder import RunFolder
from cryohydra.model.checkpoint import Checkpoint, save_checkpoint
from cryohydra.model.mixture import build_mixture


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Six particles of a rigid class, their images gone."""
    folder = RunFolder(tmp_path / "run")
    folder.results.mkdir(parents=True)
    field = MLPFieldConfig(layers=1, width=8, pe_dim=4)
    mixture = build_mixture(field, num_classes=1, box_size=16, z_dim=0, generator=torch.Generator().manual_seed(0))
    checkpoint = Checkpoint(2, "mlp", field.model_dump(), 16, 3.0, 0, 1, mixture.state_dict())
    save_checkpoint(folder.weights_path(2), checkpoint)
    latents = Latents(
        rotation=np.tile(np.eye(3), (6, 1, 1, 1)),
        shift_px=np.zeros((6, 1, 2)),
        class_probability=np.ones((6, 1)),
        conformation=np.zeros((6, 0)),
        conformation_std=np.zeros((6, 0)),
        log_evidence=np.arange(6.0),
        particle_index=np.arange(6),
    )
    write_latents(folder.latents_path(2), latents)
    return folder


@pytest.mark.parametrize("verb", [explore, filter])
def test_the_older_flags_are_taken(verb: object) -> None:
    parser = argparse.ArgumentParser()
    verb.add_parser(parser.add_subparsers())  # type: ignore[attr-defined]
    name = verb.__name__.rpartition(".")[2]  # type: ignore[attr-defined]
    args = parser.parse_args([name, "OUT", "-e", "3", "-k", "20", "--plot-inds", "ind.pkl"])
    assert (args.epoch, args.kmeans, args.plot_inds) == (3, 20, Path("ind.pkl"))


@pytest.mark.parametrize("verb", ["explore", "filter"])
def test_it_serves_until_stopped(run: RunFolder, verb: str) -> None:
    command = [sys.executable, "-m", "cryohydra", verb, str(run.path), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "http" in line)
        address = line.split()[-1]
        with urllib.request.urlopen(address) as reply:
            assert reply.status == 200
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(address.replace("token=", "token=x"))
        refused.value.close()
        assert refused.value.code == 401
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--epoch", "7"], "no epoch 7"),
        (["--port", "70000"], "--port is 70000"),
        (["--kmeans", "20"], "no kmeans20"),
        (["--plot-inds", "nothing.pkl"], "nothing.pkl does not exist"),
        (["--compare", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_served_is_a_sentence(
    run: RunFolder, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explore", str(run.path), *flags]) == 2
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert sentence.startswith("drgnai: ") and said in sentence
    assert not (run.path / "explorer").exists()


def test_export_is_told_which_particles_and_where(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the verb repeats how it was called."""
    stand_in = tmp_path / "python"
    stand_in.write_text('#!/bin/sh\necho "$@"\n')
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    said = list(explore.export_particles(run.path, 2, Path("ind.pkl"), Path("there")))
    assert said == [f"-m cryohydra export {run.path} --epoch 2 --ind ind.pkl -o there"]


def test_a_failed_export_says_its_last_words(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = tmp_path / "python"
    stand_in.write_text("#!/bin/sh\necho begins\necho drgnai: The disk is full. >&2\nexit 2\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    with pytest.raises(UserError, match="failed: The disk is full."):
        list(explore.export_particles(run.path, 2, Path("ind.pkl"), Path("there")))
