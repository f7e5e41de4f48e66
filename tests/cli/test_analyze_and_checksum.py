"""Flags of `analyze`, and sums that tell runs apart."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch

from cryohydra.analysis.options import AnalyzeOptions
from cryohydra.cli import analyze as analyze_verb
from cryohydra.cli.checksum import checksum
from cryohydra.cli.main import main
from cryohydra.fields.mlp import MLPFieldConfig
from cryohydra.io.latents import Latents, write_latents
from cryohydra.io.run_folder import RunFolder
from cryohydra.model.checkpoint import Checkpoint, save_checkpoint
from cryohydra.model.mixture import build_mixture

NUM_PARTICLES = 6


def options(*flags: str) -> AnalyzeOptions:
    """What the flags ask."""
    parser = argparse.ArgumentParser()
    analyze_verb.add_parser(parser.add_subparsers())
    return analyze_verb.options_of_flags(parser.parse_args(["analyze", "OUT", *flags]))


def test_analyze_without_flags_takes_the_defaults() -> None:
    assert options() == AnalyzeOptions()


def test_analyze_flags_reach_the_analysis() -> None:
    flags = "-e 3 --class 0 2 --skip --pc 4 --n-per 5 --ks 7 --seed 1 --inv --sample 8 9 --traj 1 2 3 --z zs.txt"
    assert options(*flags.split()) == AnalyzeOptions(
        epoch=3,
        class_idx=(0, 2),
        skip_umap=True,
        pc=4,
        n_per_pc=5,
        ksample=7,
        seed=1,
        invert=True,
        sample_z_idx=(8, 9),
        trajectory_1d=(1, 2, 3),
        z_values_txt=Path("zs.txt"),
    )


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run with one saved epoch."""
    folder = RunFolder(tmp_path / "run")
    folder.results.mkdir(parents=True)
    config = MLPFieldConfig()
    mixture = build_mixture(config, num_classes=2, box_size=16, z_dim=2, generator=torch.Generator().manual_seed(0))
    checkpoint = Checkpoint(
        epoch=4,
        field_name="mlp",
        field_settings=config.model_dump(),
        box_size=16,
        pixel_size_angstrom=3.0,
        z_dim=2,
        num_classes=2,
        mixture_state=mixture.state_dict(),
    )
    save_checkpoint(folder.weights_path(4), checkpoint)
    write_latents(folder.latents_path(4), random_latents())
    return folder


def random_latents() -> Latents:
    """Anything."""
    random = np.random.default_rng(0)
    probability = random.random((NUM_PARTICLES, 2))
    return Latents(
        rotation=random.random((NUM_PARTICLES, 1, 3, 3)),
        shift_px=random.random((NUM_PARTICLES, 1, 2)),
        class_probability=probability / probability.sum(1, keepdims=True),
        conformation=random.random((NUM_PARTICLES, 2)),
        conformation_std=np.zeros((NUM_PARTICLES, 0)),
        log_evidence=random.random(NUM_PARTICLES),
        particle_index=np.arange(NUM_PARTICLES),
    )


def test_checksum_prints_every_epoch(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checksum", str(run.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["epoch", "4", "total"]
    assert lines[1].split()[1:] == lines[2].split()[1:]


def test_checksum_sees_particles_change_places(run: RunFolder) -> None:
    before = checksum(run, 4)
    latents = random_latents()
    order = [1, 0, *range(2, NUM_PARTICLES)]
    swapped = Latents(**{name: values[order] for name, values in vars(latents).items()})
    write_latents(run.latents_path(4), swapped)
    after = checksum(run, 4)
    assert after.weights == before.weights
    assert after.poses != before.poses
    assert after.conformations != before.conformations
    assert after.classes != before.classes


def test_a_run_whose_particles_are_gone_is_analysed_without_them(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.train_configs_path.write_text(f"particles: {tmp_path}/gone.star\nn_classes: 2\nz_dim: 2\n")
    assert main(["analyze", str(run.path), "--ksample", "2", "--n-per-pc", "2", "--pc", "1", "--skip-umap"]) == 0
    said = "".join(capsys.readouterr())
    assert "gone.star" in said and "examples of particles are left out" in said
    assert (run.analysis_path(4) / "report.html").is_file()
