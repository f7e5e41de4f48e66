"""quick_config: a few words that set many keys, where the user has not set them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class QuickConfig(BaseModel):
    """Shortcuts: what is imaged, what is asked and what is known."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    capture_setup: Literal["spa", "et"] | None = None
    """spa: single particles. et: tilt series."""
    reconstruction_type: Literal["homo", "het"] | None = None
    """homo: rigid classes. het: classes that move."""
    pose_estimation: Literal["abinit", "refine", "fixed"] | None = None
    """abinit: poses unknown. refine: start from given poses. fixed: keep given poses."""
    conf_estimation: Literal["autodecoder", "encoder", "refine"] | None = None
    """Conformations from a table, an image encoder, or a table that starts from initial_conf."""
    engine: Literal["published"] | None = None
    """published: the likelihood, class weights and search of the 2024 paper, for comparison."""


def tilt_series() -> dict[str, Any]:
    """Settings that suit tilt series."""
    return {
        "subtomogram_averaging": True,
        "t_extent": 0.0,
        "batch_size_known_poses": 8,
        "batch_size_sgd": 32,
        "n_imgs_pose_search": 150_000,
        "pose_only_phase": 50_000,
        "lr_pose_table": 1e-5,
    }


def refined_poses() -> dict[str, Any]:
    """Settings for poses that are known roughly."""
    return {
        "refine_gt_poses": True,
        "pretrain_with_gt_poses": True,
        "n_imgs_pose_search": 0,
        "lr_pose_table": 1e-4,
    }


def fixed_poses() -> dict[str, Any]:
    """Settings for poses that are known well."""
    return {"use_gt_poses": True, "n_imgs_pose_search": 0}


def published_engine() -> dict[str, Any]:
    """Settings under which the model is the published one."""
    return {"likelihood": "pixel_mean", "class_weights": "learned", "search": "exact"}


def settings_of_preset(quick: QuickConfig) -> dict[str, Any]:
    """The keys that a quick_config sets, for those the user left alone."""
    chosen: dict[str, Any] = {}
    if quick.capture_setup == "et":
        chosen |= tilt_series()
    if quick.reconstruction_type == "homo":
        chosen |= {"z_dim": 0}
    if quick.reconstruction_type != "homo" and quick.conf_estimation == "encoder":
        chosen |= {"use_conf_encoder": True}
    if quick.pose_estimation == "refine":
        chosen |= refined_poses()
    if quick.pose_estimation == "fixed":
        chosen |= fixed_poses()
    if quick.engine == "published":
        chosen |= published_engine()
    return chosen
