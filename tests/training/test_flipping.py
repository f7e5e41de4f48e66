"""The other hand fits the images as well as the first."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cryohydra.analysis.run import Run
from cryohydra.cli.main import USER_ERROR, main
from cryohydra.errors import UserError
from cryohydra.fourier.alignment import Alignment, apply_alignment
from cryohydra.fourier.band import Band
from cryohydra.io.latents import read_latents
from cryohydra.io.mrc import read_map
from cryohydra.io.pose_file import read_pose_file
from cryohydra.io.run_folder import RunFolder
from cryohydra.model.checkpoint import load_checkpoint, mixture_from_checkpoint
from cryohydra.training.flipping import flip_classes, invert_through_centre

KNOWN = {"refine_gt_poses": True, "z_dim": 1}


@pytest.fixture
def trained(prepare, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A copy of a finished training of two classes, from poses known roughly."""
    original = tmp_path_factory.getbasetemp() / "flipping"
    if not original.exists():
        prepare(original, **KNOWN)[0].run()
    shutil.copytree(original, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def predictions(run: RunFolder, epoch: int) -> torch.Tensor:
    """What each class of an epoch says of each particle, from the checkpoint alone."""
    checkpoint = load_checkpoint(run.weights_path(epoch))
    saved = checkpoint.extra["training"]
    plane = torch.nn.functional.pad(Band(16, 7).frequencies, (0, 1))
    z = torch.full((len(saved["poses"]["rotation"]), 2, 1), 0.5)
    with torch.no_grad():
        return mixture_from_checkpoint(checkpoint)(plane @ saved["poses"]["rotation"], z)


def files_of(run: RunFolder) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in run.results.rglob("*") if file.is_file()}


@pytest.mark.parametrize("classes", [(), (1,)])
def test_maps_fields_and_poses_are_flipped_together(trained: RunFolder, classes: tuple[int, ...]) -> None:
    old, before = trained.latest_epoch(), files_of(trained)
    new = flip_classes(trained, old, classes)
    after = files_of(trained)
    assert new == old + 1 == trained.latest_epoch() and {file: after[file] for file in before} == before
    # Fields are sums over hundreds of features, with the signs of half of them changed.
    torch.testing.assert_close(predictions(trained, new), predictions(trained, old), rtol=1e-3, atol=1e-3)
    flipped = classes or (0, 1)
    run = Run.open(trained.path)
    for k in range(2):
        written, earlier = (read_map(trained.map_path(epoch, k))[0] for epoch in (new, old))
        assert np.array_equal(written, invert_through_centre(earlier) if k in flipped else earlier)
        drawn = run.mixture.map(k, torch.tensor([0.0]), run.radius).detach().numpy()
        was = Run.open(trained.path, old).mixture.map(k, torch.tensor([0.0]), run.radius).detach().numpy()
        np.testing.assert_allclose(drawn, invert_through_centre(was) if k in flipped else was, atol=1e-4 * was.max())
    latents = [read_latents(trained.latents_path(epoch)) for epoch in (old, new)]
    moved = ~np.isclose(latents[0].rotation, latents[1].rotation).all(axis=(1, 2, 3))
    assert np.array_equal(moved, np.isin(latents[0].best_class, flipped))
    assert np.allclose(read_pose_file(trained.pose_path(new))[0], latents[1].rotation[:, 0])


def test_flipped_twice_is_as_before(trained: RunFolder) -> None:
    old = trained.latest_epoch()
    again = flip_classes(trained, flip_classes(trained, old, ()), ())
    for name in ("rotation", "shift_px", "class_probability"):
        first, last = (getattr(read_latents(trained.latents_path(epoch)), name) for epoch in (old, again))
        assert np.array_equal(first, last)
    first, last = (load_checkpoint(trained.weights_path(epoch)) for epoch in (old, again))
    assert all(torch.equal(first.mixture_state[name], last.mixture_state[name]) for name in first.mixture_state)


def test_training_goes_on_as_it_would_have(prepare, tmp_path: Path, trained: RunFolder) -> None:
    saved = {epoch: load_checkpoint(trained.weights_path(epoch)).extra for epoch in trained.epochs()}
    at_stage_end = next(e for e, extra in saved.items() if extra["stage"] == 1 and not extra["stage_state"])
    new = flip_classes(trained, at_stage_end, ())
    losses = []
    for epoch in (at_stage_end, new):
        trainer, _ = prepare(tmp_path / f"on-{epoch}", load=trained.weights_path(epoch), **KNOWN)
        trainer.run()
        assert trainer.first_stage == 1
        losses.append(trainer.stages[1].epoch_losses)
    assert len(losses[0]) >= 2
    # The order of sums differs; a flipped map with poses as they were loses tens.
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


def test_inversion_is_the_mirror_image_of_alignment() -> None:
    density = torch.randn(16, 16, 16, generator=torch.Generator().manual_seed(0))
    alignment = Alignment(torch.eye(3), torch.zeros(3), True, 0.0)
    still = Alignment(torch.eye(3), torch.zeros(3), False, 0.0)
    expected = apply_alignment(density, alignment)
    inverted = torch.from_numpy(invert_through_centre(density.numpy()).copy())
    torch.testing.assert_close(apply_alignment(inverted, still), expected, atol=1e-4, rtol=0)


def test_what_cannot_be_flipped_is_told(prepare, tmp_path: Path, trained: RunFolder, capsys) -> None:
    with pytest.raises(UserError, match="no class 2; classes are 0 to 1"):
        flip_classes(trained, trained.latest_epoch(), [2])
    within = next(e for e in trained.epochs() if load_checkpoint(trained.weights_path(e)).extra["stage_state"])
    assert main(["flip", str(trained.path), "--epoch", str(within)]) == USER_ERROR
    assert "lies within a stage" in capsys.readouterr().err
    assert main(["flip", str(trained.path), "--class-idx", "1"]) == 0
    assert f"Classes 1 of epoch {trained.latest_epoch() - 1} have the other hand" in capsys.readouterr().out
