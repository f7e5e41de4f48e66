"""Classes that images can do without are taken away."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cryohydra.errors import UserError
from cryohydra.io.run_folder import RunFolder
from cryohydra.model.checkpoint import load_checkpoint
from cryohydra.training import ways_out
from cryohydra.training.mixed_classes import Room
from cryohydra.training.ways_out import WaysOut


@pytest.mark.parametrize("more", [{}, {"z_dim": 1}, {"z_dim": 1, "variational_het": True}])
def test_all_that_is_known_of_other_classes_is_forgotten(
    prepare: Callable[..., Any], tmp_path: Path, more: dict[str, Any]
) -> None:
    trainer, _ = prepare(tmp_path, n_classes=4, **more)
    state, ab_initio = trainer.state, trainer.stages[0]
    ab_initio.begin(state)
    ab_initio.step(state, torch.arange(48))
    drawn = state.mixture.map(3, torch.zeros(state.mixture.z_dim)).clone()
    rotation, evidence = state.poses.rotation[:, :, 3].clone(), state.classes.log_evidence[:, 3].clone()
    state.keep_classes(torch.tensor([1, 3]))
    assert state.num_classes == 2 and len(state.maps.values) == 2
    torch.testing.assert_close(state.mixture.map(1, torch.zeros(state.mixture.z_dim)), drawn)
    torch.testing.assert_close(state.poses.rotation[:, :, 1], rotation)
    torch.testing.assert_close(state.classes.log_evidence[:, 1], evidence)
    assert state.classes.log_weight.exp().sum() == pytest.approx(1)
    assert state.conformations.all_means(state.images).shape[1] == 2


def test_a_training_ends_with_the_classes_that_are_needed(
    prepare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evidence says that classes 0 and 2 do: the run goes on, ends and resumes with these two."""

    def pruned(self: WaysOut, state: Any) -> bool:
        if self.prunes:
            state.classes.log_evidence[:] = torch.tensor([30.0, 0.0, 0.0])
            state.classes.log_evidence[::2] = torch.tensor([0.0, 0.0, 30.0])
        return prune(self, state)

    prune = WaysOut._prune
    monkeypatch.setattr(WaysOut, "_prune", pruned)
    settings = {"n_classes": 3, "prune_classes": True, "n_imgs_pose_search": 1000}
    trainer, listener = prepare(tmp_path, **settings)
    trainer.run()
    assert trainer.state.num_classes == 2
    assert any("1 classes that images can do without" in said for said in listener.said)
    run = RunFolder(tmp_path)
    last = run.weights_path(run.latest_epoch())
    assert load_checkpoint(last).num_classes == 2
    again, _ = prepare(tmp_path, load=last, **settings)
    assert again.state.num_classes == 2


@pytest.mark.parametrize(("are_told", "nats"), [(False, 40.0), (True, 40.0), (False, 4.5)])
def test_where_it_is_told_what_is_needed_the_rest_goes_before_anything_is_tried(
    prepare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, are_told: bool, nats: float
) -> None:
    """Two structures, and two more classes that explain the noise of one of them by chance."""
    state = prepare(tmp_path, n_classes=4)[0].state
    evidence = 30.0 + 0.7 * torch.randn(48, 4, generator=torch.Generator().manual_seed(0))
    evidence[::2, 0] += nats
    evidence[1::2, 1:] += nats
    evidence[:12] = evidence[:12] if are_told or nats < 40 else 30.0
    state.classes.log_evidence[:] = evidence
    state.classes.update_weights()
    ways, tried = WaysOut(most_trials=3, newcomers=None, prunes=True), []

    def begun(*_: Any) -> bool:
        tried.append("another map")
        return True

    monkeypatch.setattr(Room, "of", lambda _: Room(free=0, is_there_twice=False, mixed=None))
    monkeypatch.setattr(ways.reseeding, "begun", begun)
    monkeypatch.setattr(ways_out, "_cost_of_maps", lambda _: torch.zeros(4))
    assert ways.open(state, is_in_doubt=True)
    assert (state.num_classes, tried) == ((2, []) if are_told else (4, ["another map"]))
    assert ways.open(state, is_in_doubt=True) and tried


def test_an_encoder_reads_all_classes_at_once(prepare: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give n_classes a number"):
        prepare(tmp_path, z_dim=1, use_conf_encoder=True, prune_classes=True)
