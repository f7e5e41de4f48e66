"""The settings of one experiment, all keys flat."""

import random
from typing import Literal

from cryohydra.config.presets import QuickConfig
from cryohydra.config.sections import (
    SECTIONS,
    BandSettings,
    EncoderSettings,
    FieldSettings,
    HouseSettings,
    InputSettings,
    KnownSettings,
    MixtureSettings,
    OptimizationSettings,
    SearchSettings,
    StageSettings,
    TiltSettings,
)


class Settings(
    InputSettings,
    KnownSettings,
    MixtureSettings,
    FieldSettings,
    EncoderSettings,
    StageSettings,
    SearchSettings,
    BandSettings,
    OptimizationSettings,
    TiltSettings,
    HouseSettings,
):
    """Every setting of an experiment, presets filled in.

    `Settings()` has the defaults and is not checked across keys; `read_settings` checks everything.
    """

    quick_config: QuickConfig | None = None
    """Shortcuts that set other keys where those are not given."""

    @property
    def pose_estimation(self) -> Literal["abinit", "refine", "fixed"]:
        """What is known of the poses."""
        if self.use_gt_poses:
            return "fixed"
        return "refine" if self.refine_gt_poses else "abinit"

    @property
    def conf_estimation(self) -> Literal["autodecoder", "encoder", "refine"] | None:
        """Where conformations come from; None if the classes are rigid."""
        if self.z_dim == 0:
            return None
        if self.use_conf_encoder:
            return "encoder"
        return "autodecoder" if self.initial_conf is None else "refine"

    @property
    def num_tilts(self) -> int | None:
        """Tilts per particle; None for single particles."""
        return self.n_tilts if self.subtomogram_averaging else None

    @property
    def num_tilts_pose_search(self) -> int:
        """Tilts per particle that the pose search uses; 1 for single particles."""
        if not self.subtomogram_averaging:
            return 1
        return self.n_tilts_pose_search or self.n_tilts

    @property
    def needs_poses(self) -> bool:
        """Whether something of the given poses is used."""
        return self.use_gt_poses or self.refine_gt_poses or self.use_gt_trans or self.pretrain_with_gt_poses

    @property
    def searches_shifts(self) -> bool:
        """Whether the pose search moves images about."""
        known = self.use_gt_trans or self.no_trans_search_at_pose_search
        return self.t_extent > 0 and not known

    def with_seed(self) -> "Settings":
        """The same settings with a seed drawn if none was given."""
        if self.seed >= 0:
            return self
        return self.model_copy(update={"seed": random.SystemRandom().randrange(10_000)})


KEYS = tuple(key for section in SECTIONS for key in section.model_fields) + ("quick_config",)
"""All keys, in the order in which configs.yaml shows them."""

assert set(KEYS) == set(Settings.model_fields)


def explanation(key: str) -> str:
    """The text that explains a key to the user, on one line."""
    return " ".join((Settings.model_fields[key].description or "").split())
