"""Settings that change how a training goes, each through a whole one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryohydra.io.latents import Latents, read_latents
from cryohydra.io.run_folder import RunFolder

REFINE = {"quick_config": {"pose_estimation": "refine"}}


@pytest.fixture
def train(prepare: Callable[..., Any], tmp_path: Path) -> Callable[..., Latents]:
    """Train with settings and read what came out."""

    def run(**values: Any) -> Latents:
        trainer, _ = prepare(tmp_path / "run", **{"epochs_sgd": 2} | values)
        trainer.run()
        folder = RunFolder(tmp_path / "run")
        latents = read_latents(folder.latents_path(folder.latest_epoch()))
        for name in ("rotation", "shift_px", "class_probability", "conformation", "log_evidence"):
            assert np.isfinite(getattr(latents, name)).all(), name
        np.testing.assert_allclose(latents.class_probability.sum(1), 1, atol=1e-5)
        return latents

    return run


@pytest.mark.parametrize("search", ["sliced", "exact"])
def test_the_published_engine_runs(train: Callable[..., Latents], search: str) -> None:
    latents = train(
        quick_config={"engine": "published"},
        search=search,
        n_classes=3,
        n_imgs_pretrain=20,
        n_imgs_pose_search=1,
        batch_size_hps=16,
        base_healpy=1,
        n_iter=1,
    )
    assert latents.class_probability.shape[1] == 3


def test_the_published_engine_learns_the_whole_band(prepare: Callable[..., Any], tmp_path: Path) -> None:
    """However little its start from random poses knows."""
    trainer, _ = prepare(tmp_path / "run", quick_config={"engine": "published"}, search="sliced")
    trainer.state.field_radius = 4
    _, searching, refinement = trainer.stages
    for stage in (searching, refinement):
        stage.begin(trainer.state)
    widest = trainer.state.images.band.radius
    assert (searching.refinement.radius, refinement.radius) == (widest, widest)


def test_the_published_engine_runs_without_pretraining(train: Callable[..., Latents]) -> None:
    train(quick_config={"engine": "published"}, search="sliced", n_imgs_pretrain=0, n_imgs_pose_search=1, n_iter=1,
          base_healpy=1, batch_size_hps=16)  # fmt: skip


@pytest.mark.parametrize(
    "optimisers",
    [
        {"pose_table_optimizer_type": "lbfgs"},
        {"conf_table_optimizer_type": "lbfgs", "z_dim": 1},
        {"pose_table_optimizer_type": "lbfgs", "conf_table_optimizer_type": "lbfgs", "z_dim": 1},
        {"pose_table_optimizer_type": "lbfgs", "z_dim": 1, "variational_het": True, "beta_conf": 0.1},
        {"pose_table_optimizer_type": "lbfgs", "conf_table_optimizer_type": "lbfgs", "z_dim": 1, "channels_cnn": 4,
         "depth_cnn": 2, "use_conf_encoder": True, "variational_het": True, "beta_conf": 0.1},
    ],
)  # fmt: skip
def test_rows_can_be_settled_by_lbfgs(train: Callable[..., Latents], optimisers: dict[str, Any]) -> None:
    train(**REFINE, **optimisers)


@pytest.mark.parametrize(
    "values",
    [
        {"output_mask": "frequency_marching", "l_start_fm": 3, "n_frequencies_per_epoch": 2},
        {"l2_smoothness_regularizer": 0.1},
        {"field": "voxel"},
        {"class_weights": "learned"},
        {"likelihood": "pixel_mean"},
        {"z_dim": 1, "pose_only_phase": 60},
    ],
)
def test_a_setting_is_taken(train: Callable[..., Latents], values: dict[str, Any]) -> None:
    train(**REFINE, **values)


def test_shifts_are_pulled_to_zero(train: Callable[..., Latents], tmp_path: Path) -> None:
    free = np.abs(train(**REFINE, lr_pose_table=0.02).shift_px).mean()
    pulled = np.abs(train(**REFINE, lr_pose_table=0.02, trans_l1_regularizer=1e4).shift_px).mean()
    assert pulled < free


def test_centred_images_are_not_shifted(train: Callable[..., Latents]) -> None:
    assert not train(no_trans=True).shift_px.any()
    assert not train(no_trans=True, **REFINE).shift_px.any()


def test_given_shifts_are_kept(train: Callable[..., Latents], tiny_folder: Path) -> None:
    from cryohydra.data.simulated import read_truth

    latents = train(use_gt_trans=True)
    np.testing.assert_allclose(latents.shift_px, read_truth(tiny_folder).shift_px, atol=1e-3)


def test_more_classes_than_there_are_leave_everything_finite(train: Callable[..., Latents]) -> None:
    train(n_classes=5, ind=12, quick_config={"pose_estimation": "fixed"})
