"""Nothing is lost when a training stops, and going on is as if it had not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cryohydra.errors import InputMismatch
from cryohydra.io.latents import read_latents
from cryohydra.io.mrc import read_map
from cryohydra.io.run_folder import RunFolder, read_status
from cryohydra.model.checkpoint import load_checkpoint

REFINE = {"quick_config": {"pose_estimation": "refine"}, "lr_pose_table": 0.01}


def _latents(folder: Path):
    run = RunFolder(folder)
    return read_latents(run.latents_path(run.latest_epoch()))


@pytest.mark.parametrize("conformations", [{}, {"z_dim": 1}, {"z_dim": 1, "use_conf_encoder": True, "depth_cnn": 2}])
def test_resuming_after_an_epoch_equals_not_stopping(
    prepare: Callable[..., Any], tmp_path: Path, conformations: dict[str, Any]
) -> None:
    settings = REFINE | conformations | {"channels_cnn": 4}
    trainer, _ = prepare(tmp_path / "whole", **settings)
    trainer.run()
    epochs = RunFolder(tmp_path / "whole").epochs()
    # The last checkpoint is written at the end, the one before it after an epoch of refinement.
    middle = RunFolder(tmp_path / "whole").weights_path(epochs[-2])
    assert load_checkpoint(middle).extra["stage"] == 1
    trainer, listener = prepare(tmp_path / "resumed", load=middle, **settings)
    trainer.run()
    assert listener.stages == ["refinement"]
    whole, resumed = _latents(tmp_path / "whole"), _latents(tmp_path / "resumed")
    for name in ("rotation", "shift_px", "class_probability", "conformation", "log_evidence"):
        np.testing.assert_allclose(getattr(resumed, name), getattr(whole, name), atol=1e-5, rtol=1e-5)
    for k in range(2):
        maps = [read_map(RunFolder(tmp_path / name).map_path(epochs[-1], k))[0] for name in ("whole", "resumed")]
        np.testing.assert_allclose(maps[1], maps[0], atol=1e-5 * np.abs(maps[0]).max())


@pytest.mark.parametrize(("settings", "stage"), [({"n_imgs_pose_search": 500}, 1), (REFINE, 0)])
def test_resuming_between_passes_equals_not_stopping(
    prepare: Callable[..., Any], tmp_path: Path, settings: dict[str, Any], stage: int
) -> None:
    """A pass goes on in the band and with the half maps that the one before it left."""
    settings = settings | {"log_heavy_interval": 1}
    trainer, _ = prepare(tmp_path / "whole", **settings)
    trainer.run()
    run = RunFolder(tmp_path / "whole")
    saved = {epoch: load_checkpoint(run.weights_path(epoch)).extra for epoch in run.epochs()}
    between = [
        epoch
        for epoch, extra in saved.items()
        if extra["stage"] == stage and extra["stage_state"].get("stage", {}).get("pass_count", 0) >= 2
    ]
    trainer, listener = prepare(tmp_path / "resumed", load=run.weights_path(between[0]), **settings)
    trainer.run()
    assert listener.stages[-1] == "refinement" and len(listener.stages) == 2
    whole, resumed = _latents(tmp_path / "whole"), _latents(tmp_path / "resumed")
    for name in ("rotation", "shift_px", "class_probability", "log_evidence"):
        np.testing.assert_allclose(getattr(resumed, name), getattr(whole, name), atol=1e-4, rtol=1e-4)


def test_resuming_between_epochs_of_ab_initio_equals_not_stopping(prepare: Callable[..., Any], tmp_path: Path) -> None:
    settings = {"n_imgs_pose_search": 500, "log_heavy_interval": 1}
    trainer, _ = prepare(tmp_path / "whole", **settings)
    # Fewer than there are: which of them the maps climb on is drawn.
    trainer.stages[0].num_images = 20
    trainer.run()
    run = RunFolder(tmp_path / "whole")
    first = run.weights_path(run.epochs()[0])
    assert load_checkpoint(first).extra["stage"] == 0
    trainer, listener = prepare(tmp_path / "resumed", load=first, **settings)
    trainer.stages[0].num_images = 20
    trainer.run()
    assert listener.stages == ["ab initio", "search", "refinement"]
    whole, resumed = _latents(tmp_path / "whole"), _latents(tmp_path / "resumed")
    for name in ("rotation", "shift_px", "class_probability", "log_evidence"):
        np.testing.assert_allclose(getattr(resumed, name), getattr(whole, name), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("stage", ["ab initio", "search", "refinement"])
def test_an_interrupt_in_any_stage_saves_and_can_be_continued(
    prepare: Callable[..., Any], tmp_path: Path, stage: str
) -> None:
    trainer, stopped = prepare(tmp_path / "run", stop_in=stage)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    run = RunFolder(tmp_path / "run")
    assert read_status(run).state == "interrupted"
    trainer, listener = prepare(tmp_path / "run", load=run.weights_path(run.latest_epoch()))
    trainer.run()
    assert listener.stages[0] == stopped.stages[-1] == stage
    assert listener.stages[-1] == "refinement"
    assert read_status(run).state == "finished"
    latents = _latents(tmp_path / "run")
    assert np.isfinite(latents.rotation).all()
    np.testing.assert_allclose(latents.class_probability.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("stage", ["ab initio", "search", "refinement"])
def test_a_checkpoint_of_another_version_says_so(prepare: Callable[..., Any], tmp_path: Path, stage: str) -> None:
    trainer, _ = prepare(tmp_path / "run", stop_in=stage)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    run = RunFolder(tmp_path / "run")
    trainer, _ = prepare(tmp_path / "run", load=run.weights_path(run.latest_epoch()))
    # What an earlier version did not keep.
    trainer.stage_state["stage"].popitem()
    with pytest.raises(InputMismatch, match=f"middle of {stage} .*another version"):
        trainer.run()


def test_a_pass_that_was_cut_short_begins_anew_with_all_its_images(prepare: Callable[..., Any], tmp_path: Path) -> None:
    trainer, _ = prepare(tmp_path / "run", stop_in="search")
    # Several batches to a pass.
    trainer.stages[1].batch_size = 12
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    run = RunFolder(tmp_path / "run")
    saved = load_checkpoint(run.weights_path(run.latest_epoch())).extra["stage_state"]
    assert saved["stage"]["pass_count"] == 0 and saved["seen"] == 0


def test_a_stage_that_was_stopped_while_its_end_is_written_has_ended(
    prepare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, _ = prepare(tmp_path / "run", log_heavy_interval=0, **REFINE)
    write, stops = trainer.writer.write, [KeyboardInterrupt]

    def stopped(*args: Any) -> None:
        if stops:
            raise stops.pop()
        write(*args)

    monkeypatch.setattr(trainer.writer, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    run = RunFolder(tmp_path / "run")
    assert load_checkpoint(run.weights_path(run.latest_epoch())).extra["stage"] == 1


def test_a_checkpoint_is_written_before_its_maps(
    prepare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who ends a job may not wait until they are drawn."""
    trainer, _ = prepare(tmp_path / "run", **REFINE)

    def killed(state: object, class_index: int) -> torch.Tensor:
        raise SystemExit

    monkeypatch.setattr(type(trainer.state), "class_map", killed)
    with pytest.raises(SystemExit):
        trainer.writer.write(trainer.state, 0, {})
    run = RunFolder(tmp_path / "run")
    assert run.weights_path(trainer.state.epoch).exists() and not list(run.results.glob("*.mrc"))


def test_an_interrupt_at_the_end_of_a_stage_loses_nothing(
    prepare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, _ = prepare(tmp_path / "run", **REFINE)

    def stop(state: object, tell: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.stages[0], "end", stop)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    run = RunFolder(tmp_path / "run")
    trainer, listener = prepare(tmp_path / "run", load=run.weights_path(run.latest_epoch()), **REFINE)
    trainer.run()
    assert listener.stages == ["classes at known poses", "refinement"]


def test_continuing_what_has_ended_ends_at_once(prepare: Callable[..., Any], tmp_path: Path) -> None:
    trainer, _ = prepare(tmp_path / "run", **REFINE)
    trainer.run()
    run = RunFolder(tmp_path / "run")
    before = run.epochs()
    trainer, listener = prepare(tmp_path / "run", load=run.weights_path(before[-1]), **REFINE)
    trainer.run()
    assert listener.stages == []
    assert run.epochs() == before
    assert read_status(run).state == "finished"


@pytest.mark.parametrize("interval", [0, 5])
def test_the_last_epoch_is_always_saved(prepare: Callable[..., Any], tmp_path: Path, interval: int) -> None:
    trainer, _ = prepare(tmp_path / "run", log_heavy_interval=interval, **REFINE)
    trainer.run()
    run = RunFolder(tmp_path / "run")
    assert run.latest_epoch() == trainer.state.epoch
    for path in (run.pose_path, run.conformation_path, run.class_probability_path, run.latents_path):
        assert path(trainer.state.epoch).exists()
    assert all(run.map_path(trainer.state.epoch, k).exists() for k in range(2))


def test_saved_latents_are_those_after_the_last_update(prepare: Callable[..., Any], tmp_path: Path) -> None:
    trainer, _ = prepare(tmp_path / "run", z_dim=1, **REFINE)
    trainer.run()
    latents, state = _latents(tmp_path / "run"), trainer.state
    best = torch.from_numpy(latents.best_class)
    rows = torch.arange(len(best))
    np.testing.assert_array_equal(latents.rotation[:, 0], state.poses.rotation[rows, 0, best].numpy())
    means = state.conformations.all_means(state.images)
    np.testing.assert_array_equal(latents.conformation, means[rows, best].numpy())
    saved = load_checkpoint(RunFolder(tmp_path / "run").weights_path(state.epoch))
    for name, tensor in state.mixture.state_dict().items():
        torch.testing.assert_close(saved.mixture_state[name], tensor)
    # The evidence belongs to these poses, conformations and fields: weighing again changes nothing.
    before = state.classes.log_evidence.clone()
    trainer.stages[-1].end(state, print)
    torch.testing.assert_close(state.classes.log_evidence, before, atol=1e-3, rtol=1e-5)
