from pathlib import Path

import numpy as np
import pytest
import torch

from cryohydra.errors import UnknownSetting, UnreadableFile, UserError
from cryohydra.fields import MLPFieldConfig
from cryohydra.model import Mixture, build_mixture
from cryohydra.model.checkpoint import Checkpoint, load_checkpoint, mixture_from_checkpoint, save_checkpoint
from cryohydra.model.tables import RowAdam

CONFIG = MLPFieldConfig(width=16, pe_dim=8, z_encoding="geom")


def trained() -> Mixture:
    generator = torch.Generator().manual_seed(3)
    mixture = build_mixture(CONFIG, num_classes=2, box_size=16, z_dim=1, generator=generator)
    mixture.field(0).set_radial_amplitude(torch.linspace(5, 1, 9))
    return mixture


def checkpoint(**changes: object) -> Checkpoint:
    values = {
        "epoch": 4,
        "field_name": "mlp",
        "field_settings": CONFIG.model_dump(),
        "box_size": 16,
        "pixel_size_angstrom": 1.5,
        "z_dim": 1,
        "num_classes": 2,
        "mixture_state": trained().state_dict(),
        "extra": {"optimiser": RowAdam((3, 2), lr=0.1).state_dict(), "schedule": [1, 2.5, None, "sgd"]},
    }
    return Checkpoint(**{**values, **changes})


def test_maps_are_the_same_after_saving(tmp_path: Path) -> None:
    path = tmp_path / "weights.4.pkl"
    save_checkpoint(path, checkpoint())
    found = load_checkpoint(path)
    z = torch.tensor([0.3])
    torch.testing.assert_close(mixture_from_checkpoint(found).map(0, z), trained().map(0, z))
    assert found.extra["schedule"] == [1, 2.5, None, "sgd"]
    assert (found.epoch, found.pixel_size_angstrom) == (4, 1.5)
    assert [file.name for file in tmp_path.iterdir()] == ["weights.4.pkl"]


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "weights.4.pkl"
    with pytest.raises(AssertionError, match=r"\['scores'\] is a"):
        save_checkpoint(path, checkpoint(extra={"scores": np.zeros(3)}))
    assert not path.exists()


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="There is no checkpoint"):
        load_checkpoint(tmp_path / "weights.9.pkl")


def test_a_truncated_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "weights.4.pkl"
    save_checkpoint(path, checkpoint())
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UnreadableFile, match="truncated"):
        load_checkpoint(path)


def test_an_empty_file_and_text_are_told(tmp_path: Path) -> None:
    for content in [b"", b"not a checkpoint"]:
        path = tmp_path / "weights.4.pkl"
        path.write_bytes(content)
        with pytest.raises(UnreadableFile):
            load_checkpoint(path)


def test_a_checkpoint_of_another_program_is_told(tmp_path: Path) -> None:
    path = tmp_path / "weights.4.pkl"
    torch.save({"epoch": 4, "model_state_dict": {}}, path)
    with pytest.raises(UnreadableFile, match="lacks field_name"):
        load_checkpoint(path)


def test_weights_of_another_shape_are_told() -> None:
    with pytest.raises(UserError, match="3 classes"):
        mixture_from_checkpoint(checkpoint(num_classes=3))


def test_an_unknown_field_is_told() -> None:
    with pytest.raises(UnknownSetting, match="Did you mean 'mlp'"):
        mixture_from_checkpoint(checkpoint(field_name="mpl"))
