"""What is known of poses, times where conformations come from, for one class and for three."""

from typing import Any

import numpy as np
import pytest

CONFORMATIONS: dict[str, dict[str, Any]] = {
    "homogeneous": {"z_dim": 0},
    "autodecoder": {"z_dim": 1},
    "encoder": {"z_dim": 1, "use_conf_encoder": True, "lr_conf_encoder": 1e-3},
    "variational": {"z_dim": 1, "variational_het": True, "beta_conf": 0.01},
}
# Of twelve shells. Beyond the eighth a small network and a few epochs do not reach.
KNOWN_SHELLS = slice(1, 8)

each_mode = pytest.mark.parametrize(
    ("num_classes", "conformations"), [(k, name) for k in (1, 3) for name in CONFORMATIONS]
)


@each_mode
def test_fixed_poses(num_classes: int, conformations: str, reconstruct) -> None:
    """Maps and classes are found, and poses stay as they were given."""
    found = reconstruct(
        n_classes=num_classes, quick_config={"pose_estimation": "fixed"}, **CONFORMATIONS[conformations]
    )
    assert found.agreement() > 0.95
    assert found.pose_errors_degrees().max() < 0.1  # star files have few decimals
    assert found.shift_errors_px().max() < 0.01
    for k in range(num_classes):
        assert found.map_agreement(k, found.true_class_of(k))[KNOWN_SHELLS].min() > 0.85


@each_mode
def test_refined_poses(num_classes: int, conformations: str, reconstruct, dataset) -> None:
    """Poses that were turned by six degrees end closer to the truth."""
    found = reconstruct(
        n_classes=num_classes,
        quick_config={"pose_estimation": "refine"},
        pose=dataset.disturbed_poses,
        epochs_sgd=8,
        **CONFORMATIONS[conformations],
    )
    assert found.agreement() > 0.95
    before = np.median(dataset.disturbance_px[found.latents.particle_index])
    assert np.median(found.pose_errors_degrees()) < 0.75 * dataset.disturbance_degrees
    assert np.median(found.shift_errors_px()) < 0.6 * before
    for k in range(num_classes):
        # Poses are still 3 to 4 degrees off.
        assert found.map_agreement(k, found.true_class_of(k))[KNOWN_SHELLS].min() > 0.7


@each_mode
def test_unknown_poses(num_classes: int, conformations: str, reconstruct) -> None:
    """Classes and poses are found with nothing known."""
    found = reconstruct(n_classes=num_classes, epochs_sgd=1, **CONFORMATIONS[conformations])
    assert found.agreement() > 0.9
    # Steps of the last grid are 7.5 degrees; TRiC looks alike from many sides at this resolution.
    errors = found.free_pose_errors_degrees()
    assert errors[0] < 10
    assert errors.get(1, 0.0) < 10
