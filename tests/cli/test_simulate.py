"""`drgnai simulate`."""

import numpy as np
import pytest

from cryohydra.cli.main import main
from cryohydra.data.simulated import read_truth
from cryohydra.io.mrc import write_map

PDB = "ATOM  {:>5}  CA  GLY {}{:>4}    {:8.3f}{:8.3f}{:8.3f}  1.00  0.00           C\n"


@pytest.fixture
def model(tmp_path):
    """Two chains side by side, 40 angstrom apart."""
    generator = np.random.default_rng(1)
    lines, number = [], 1
    for chain, centre in (("A", 0.0), ("B", 40.0)):
        for _ in range(60):
            x, y, z = generator.normal(scale=12, size=3) + [centre, 0, 0]
            lines.append(PDB.format(number, chain, number % 1000, x, y, z))
            number += 1
    path = tmp_path / "model.pdb"
    path.write_text("".join(lines) + "END\n")
    return path


SMALL = ["--box", "24", "--apix", "6", "--n-images", "30", "--frames", "3"]


def test_models_maps_and_a_turning_part(model, tmp_path, capsys):
    axis = np.arange(20) - 10
    square = axis**2 + axis[:, None] ** 2 + axis[:, None, None] ** 2
    write_map(tmp_path / "ball.mrc", np.exp(-square / 18).astype(np.float32), 5.0)
    out = tmp_path / "out"
    words = ["simulate", str(out), "--model", str(model), f"{model}:B", str(tmp_path / "ball.mrc"),
             "--motion", "0", "turn", "A", "-20", "20", "--shares", "3", "2", "1", *SMALL]  # fmt: skip
    assert main(words) == 0
    assert "moves in 3 steps" in capsys.readouterr().out
    truth = read_truth(out)
    assert np.bincount(truth.labels).tolist() == [15, 10, 5]
    assert set(np.round(truth.coordinate[truth.labels == 0])) == {-20, 0, 20}
    assert {path.name for path in out.iterdir()} == {
        "particles.mrcs", "particles.star", "ctf.pkl", "pose.pkl", "labels.pkl", "truth.npz",
        "truth_class_0.mrc", "truth_class_1.mrc", "truth_class_2.mrc",
    }  # fmt: skip


def test_some_of_the_images_hold_noise_alone(model, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["simulate", str(out), "--model", str(model), f"{model}:B", "--junk", "0.2", *SMALL]) == 0
    truth = read_truth(out)
    assert truth.is_junk.sum() == 6
    assert "  6 images of noise alone" in capsys.readouterr().out
    words = ["simulate", str(tmp_path / "no"), "--model", str(model), "--junk", "15", *SMALL]
    assert main(words) != 0
    assert "--junk 15 is no part of the images; give a number from 0 to below 1." in capsys.readouterr().err


def test_a_model_becomes_another(model, tmp_path):
    other = tmp_path / "other.pdb"
    other.write_text(model.read_text())
    out = tmp_path / "out"
    assert main(["simulate", str(out), "--model", str(model), "--motion", "0", "to", str(other), *SMALL]) == 0
    assert set(read_truth(out).coordinate) == {0.0, 0.5, 1.0}


def test_the_structures_of_the_package_and_tilts(tmp_path):
    out = tmp_path / "out"
    words = ["simulate", str(out), "--demo", "tric", "apoferritin", "--box", "24", "--apix", "18", "--n-images", "6",
             "--tilt-angles", "0", "3", "-3", "--dose-per-tilt", "3", "--noise", "coloured"]  # fmt: skip
    assert main(words) == 0
    assert read_truth(out).rotation.shape == (6, 3, 3, 3)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ([], "No model was given"),
        (["--model", "missing.pdb"], "missing.pdb does not exist"),
        (["--demo", "ribozome"], "carries no structure 'ribozome'"),
        (["--demo", "tric", "--shares", "1", "2"], "2 shares were given for 1 models"),
        (["--demo", "tric", "--snr", "-1"], "SNR"),
        (["--demo", "tric", "--apix", "2"], "Take larger pixels"),
        (["--demo", "tric", "--motion", "0", "spin"], "cannot be read"),
        (["--demo", "tric", "--motion", "3", "turn", "A", "0", "5"], "numbered 0 to 0"),
        (["--demo", "tric", "--box", "25", "--apix", "18"], "even number"),
        (["--demo", "tric", "--n-images", "0"], "one or more"),
    ],
)
def test_bad_input_gets_one_sentence(words, answer, tmp_path, capsys):
    assert main(["simulate", str(tmp_path / "out"), *words]) == 2
    error = capsys.readouterr().err
    assert answer in error and "Traceback" not in error
    assert not (tmp_path / "out" / "particles.mrcs").exists()


def test_particles_are_not_overwritten(tmp_path, capsys):
    (tmp_path / "particles.mrcs").write_bytes(b"mine")
    assert main(["simulate", str(tmp_path), "--demo", "tric", *SMALL]) == 2
    assert "not overwritten" in capsys.readouterr().err
    assert (tmp_path / "particles.mrcs").read_bytes() == b"mine"


def test_a_part_that_is_everything_cannot_turn(model, tmp_path, capsys):
    assert main(["simulate", str(tmp_path / "o"), "--model", str(model), "--motion", "0", "turn", "*", "0", "9"]) == 2
    assert "some must turn and some stay" in capsys.readouterr().err
