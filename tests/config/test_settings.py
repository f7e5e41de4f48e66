"""Settings: every familiar key, presets, and all problems told at once."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cryohydra.config.reading import read_settings
from cryohydra.config.sections import RETIRED
from cryohydra.config.settings import KEYS, Settings, explanation
from cryohydra.errors import UnknownSetting, UserError

REFERENCE_KEYS = """
outdir quick_config particles ctf pose dataset server datadir ind labels relion31 no_trans invert_data norm_mean
norm_std use_gt_poses refine_gt_poses use_gt_trans load initial_conf log_interval log_heavy_interval verbose_time
shuffle lazy num_workers max_threads fast_dataloading shuffler_size batch_size_known_poses batch_size_hps
batch_size_sgd hypervolume_optimizer_type pose_table_optimizer_type conf_table_optimizer_type
conf_encoder_optimizer_type score_table_optimizer_type lr lr_pose_table lr_conf_table lr_conf_encoder lr_score_table
wd n_imgs_pose_search epochs_sgd pose_only_phase output_mask add_one_frequency_every n_frequencies_per_epoch max_freq
window_radius_gt_real l_start_fm beta_conf trans_l1_regularizer l2_smoothness_regularizer variational_het z_dim
std_z_init use_conf_encoder depth_cnn channels_cnn kernel_size_cnn resolution_encoder n_classes std_noise
explicit_volume hypervolume_layers hypervolume_dim pe_type pe_dim feat_sigma hypervolume_domain pe_type_conf
n_imgs_pretrain pretrain_with_gt_poses l_start l_end n_iter t_extent t_n_grid t_x_shift t_y_shift
no_trans_search_at_pose_search n_kept_poses base_healpy subtomogram_averaging n_tilts dose_per_tilt angle_per_tilt
n_tilts_pose_search average_over_tilts tilt_axis_angle dose_exposure_correction seed color_palette test_installation
multigpu
""".split()

REFERENCE_DEFAULTS = {
    "batch_size_known_poses": 32,
    "batch_size_hps": 8,
    "batch_size_sgd": 256,
    "lr": 1e-4,
    "lr_pose_table": 1e-3,
    "lr_conf_table": 1e-2,
    "n_imgs_pose_search": 500_000,
    "epochs_sgd": 100,
    "z_dim": 4,
    "n_classes": 1,
    "std_noise": 1.0,
    "hypervolume_layers": 3,
    "hypervolume_dim": 256,
    "pe_dim": 64,
    "feat_sigma": 0.5,
    "n_imgs_pretrain": 10_000,
    "l_start": 12,
    "l_end": 32,
    "n_iter": 4,
    "t_extent": 20.0,
    "t_n_grid": 7,
    "n_kept_poses": 8,
    "base_healpy": 2,
    "log_heavy_interval": 5,
}


def test_every_familiar_key_is_known() -> None:
    assert set(REFERENCE_KEYS) <= set(KEYS) | set(RETIRED)


def test_familiar_defaults_are_kept() -> None:
    settings = read_settings({}).settings
    assert {key: getattr(settings, key) for key in REFERENCE_DEFAULTS} == REFERENCE_DEFAULTS


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_explained(key: str) -> None:
    assert len(explanation(key)) > 20
    assert explanation(key).endswith(".")


@pytest.mark.parametrize("key", sorted(RETIRED))
def test_retired_key_says_so_once_and_changes_nothing(key: str) -> None:
    reading = read_settings({key: 1})
    assert [key in note for note in reading.notes] == [True]
    assert reading.settings == read_settings({}).settings


def test_all_problems_are_told_at_once() -> None:
    wrong = {"hypervolume_dimm": 3, "z_dim": -1, "lr": "fast", "l_start": 40, "quick_config": {"engin": "published"}}
    with pytest.raises(UnknownSetting) as caught:
        read_settings(wrong, origin="configs.yaml")
    text = str(caught.value)
    assert "configs.yaml: 5 problems" in text
    assert "Did you mean 'hypervolume_dim'?" in text
    assert "Did you mean 'engine'?" in text
    assert all(word in text for word in ("'z_dim' is -1", "'lr' is 'fast'", "l_start is larger"))


def test_one_problem_is_one_line() -> None:
    with pytest.raises(UserError) as caught:
        read_settings({"n_classes": 0})
    assert "\n" not in str(caught.value)


def test_yes_is_not_a_number_of_classes() -> None:
    with pytest.raises(UserError, match="n_classes"):
        read_settings({"n_classes": True})


def test_yaml_numbers_that_come_as_text_are_numbers() -> None:
    """PyYAML reads 1e-4 as text."""
    assert read_settings({"lr": "1e-4", "ind": "100"}).settings.lr == 1e-4
    assert read_settings({"ind": "100"}).settings.ind == 100
    assert read_settings({"ind": "some.pkl"}).settings.ind == Path("some.pkl")


@pytest.mark.parametrize("written", ["auto", True, False, "true"])
def test_invert_data_takes_auto_and_both_signs(written: object) -> None:
    expected = {"true": True}.get(str(written), written)
    assert read_settings({"invert_data": written}).settings.invert_data == expected


def test_settings_cannot_be_edited() -> None:
    with pytest.raises(ValidationError):
        Settings().n_classes = 2  # type: ignore[misc]


class TestPresets:
    def test_homogeneous_classes_are_rigid(self) -> None:
        assert read_settings({"quick_config": {"reconstruction_type": "homo"}}).settings.z_dim == 0

    def test_what_is_set_wins_over_the_preset(self) -> None:
        values = {"z_dim": 2, "quick_config": {"reconstruction_type": "homo"}}
        assert read_settings(values).settings.z_dim == 2

    def test_tilt_series(self) -> None:
        settings = read_settings({"quick_config": {"capture_setup": "et"}, "n_tilts": 5}).settings
        assert settings.subtomogram_averaging
        assert (settings.t_extent, settings.pose_only_phase, settings.lr_pose_table) == (0, 50_000, 1e-5)
        assert (settings.num_tilts, settings.num_tilts_pose_search) == (5, 5)

    @pytest.mark.parametrize("kind", ["refine", "fixed"])
    def test_known_poses(self, kind: str) -> None:
        settings = read_settings({"pose": "p.pkl", "quick_config": {"pose_estimation": kind}}).settings
        assert settings.pose_estimation == kind
        assert settings.n_imgs_pose_search == 0
        assert settings.needs_poses

    def test_published_engine(self) -> None:
        settings = read_settings({"quick_config": {"engine": "published"}}).settings
        assert (settings.likelihood, settings.class_weights, settings.search) == ("pixel_mean", "learned", "exact")

    def test_no_quick_config_is_no_preset(self) -> None:
        settings = read_settings({}).settings
        assert (settings.z_dim, settings.pose_estimation, settings.conf_estimation) == (4, "abinit", "autodecoder")

    def test_reading_twice_changes_nothing(self) -> None:
        once = read_settings({"quick_config": {"capture_setup": "et", "reconstruction_type": "homo"}}).settings
        assert read_settings(once.model_dump()).settings == once


class TestImplications:
    def test_fixed_poses_have_known_shifts(self) -> None:
        settings = read_settings({"use_gt_poses": True, "pose": "p.pkl"}).settings
        assert settings.use_gt_trans
        assert not settings.searches_shifts

    def test_centred_images_need_no_shifts(self) -> None:
        assert read_settings({"no_trans": True}).settings.t_extent == 0

    def test_both_ways_to_ask_for_a_grid(self) -> None:
        older = read_settings({"explicit_volume": True, "z_dim": 0}).settings
        newer = read_settings({"field": "voxel", "z_dim": 0}).settings
        assert older == newer

    def test_seed_is_drawn_only_if_none_is_given(self) -> None:
        assert 0 <= Settings().with_seed().seed < 10_000
        assert Settings(seed=7).with_seed().seed == 7


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"field": "voxel", "z_dim": 2}, "z_dim"),
        ({"use_conf_encoder": True, "initial_conf": "z.pkl"}, "initial_conf"),
        ({"use_conf_encoder": True, "quick_config": {"capture_setup": "et"}}, "tilt series"),
        ({"use_gt_poses": True, "particles": "p.mrcs"}, "pose"),
        ({"use_gt_trans": True, "particles": "p.mrcs"}, "pose"),
        ({"use_gt_poses": True, "refine_gt_poses": True, "pose": "p.pkl"}, "choose one"),
        ({"subtomogram_averaging": True}, "t_extent"),
        ({"n_tilts": 5, "n_tilts_pose_search": 7}, "n_tilts_pose_search"),
        ({"quick_config": {"capture_setup": "et"}, "average_over_tilts": True, "n_tilts": 4}, "odd"),
        ({"quick_config": {"conf_estimation": "refine"}}, "initial_conf"),
    ],
)
def test_impossible_experiments_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_settings(values)


def test_star_may_hold_the_poses() -> None:
    assert read_settings({"use_gt_poses": True, "particles": "p.star"}).settings.pose_estimation == "fixed"


def test_setting_without_effect_is_named() -> None:
    assert any("variational_het" in note for note in read_settings({"beta_conf": 0.1}).notes)


@given(
    st.dictionaries(
        st.sampled_from(KEYS), st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
    )
)
def test_any_values_give_settings_or_a_user_error(values: dict[str, object]) -> None:
    try:
        read_settings(values)
    except UserError as error:
        assert str(error)


def test_the_number_of_classes_may_be_left_open() -> None:
    settings = read_settings({"n_classes": "auto"}).settings
    assert settings.n_classes > 8 and settings.prune_classes
    assert not read_settings({"n_classes": 3}).settings.prune_classes


@pytest.mark.parametrize("more", [{"quick_config": {"pose_estimation": "fixed"}}, {"class_weights": "learned"}])
def test_a_number_left_open_needs_the_search(more: dict[str, object]) -> None:
    with pytest.raises(UserError, match="give n_classes a number"):
        read_settings({"n_classes": "auto", "pose": "pose.pkl", "z_dim": 0} | more)
