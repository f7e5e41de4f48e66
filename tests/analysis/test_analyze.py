"""The whole analysis, on runs of every kind."""

import json
import re
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from cryohydra.analysis import AnalyzeOptions, Run, analyze, class_analysis, classes, drawing, structures
from cryohydra.analysis.analyze import learning_curves
from cryohydra.errors import UserError
from cryohydra.fourier.hartley import volume_to_hartley
from cryohydra.io.mrc import read_map, write_map
from cryohydra.io.pickles import read_pickle
from cryohydra.io.run_folder import RunFolder

from .conftest import BOX_SIZE, MakeRun, write_run

FEW = AnalyzeOptions(ksample=3, n_per_pc=2, pc=1, skip_umap=True)


@pytest.fixture(autouse=True)
def _compare_maps_as_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alignment takes seconds and is tested with the classes; films need not be large."""
    monkeypatch.setattr(classes, "_MOST_ALIGNED_CLASSES", 1)
    monkeypatch.setattr(structures, "_FILM_SIZE", 32)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are laid out but not drawn, to save time where a test is about something else."""
    for module in (drawing, class_analysis):
        monkeypatch.setattr(module, "figure_to_png", lambda figure: b"")


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of two classes after its analysis; only to be read."""
    folder = write_run(tmp_path_factory.mktemp("analysed") / "run", [40, 25], 4, first_particle=50)
    folder.train_configs_path.write_text("particles: '<script>alert(1)</script>'\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classes, "_MOST_ALIGNED_CLASSES", 1)
        patch.setattr(drawing, "_DOTS_PER_INCH", 90)
        analyze(folder.path, FEW)
    return folder


def with_options(**changes: object) -> AnalyzeOptions:
    return AnalyzeOptions(**{"ksample": 3, "n_per_pc": 2, "pc": 1, "skip_umap": True, **changes})  # type: ignore[arg-type]


def test_everything_promised_is_written(analysed: RunFolder) -> None:
    assert (analysed.analysis_path(3) / "report.html").is_file()
    for class_index, count in ((0, 40), (1, 25)):
        of_class = analysed.class_analysis_path(3, class_index)
        expected = """z_pca.png z_pca_marginals.png z_pca_hexbin.png orientations.png cryoDRGN-analysis.ipynb
            kmeans3/vol_002.mrc kmeans3/z_values.txt kmeans3/labels.pkl kmeans3/centers.txt kmeans3/centers_ind.txt
            kmeans3/z_pca.png kmeans3/z_pca_hex.png pc1_2/vol_001.mrc pc1_2/z_values.txt pc1_2/pca_traversal.png
            pc1_2/pca_traversal_hex.png"""
        assert [name for name in expected.split() if not (of_class / name).is_file()] == []
        labels = read_pickle(of_class / "kmeans3" / "labels.pkl")
        assert labels.shape == (65,)
        assert (labels >= 0).sum() == count


def test_volumes_are_the_field_at_the_listed_conformations(analysed: RunFolder) -> None:
    run = Run.open(analysed.path)
    series = analysed.class_analysis_path(3, 0) / "kmeans3"
    conformations = np.loadtxt(series / "z_values.txt", ndmin=2)
    centre_numbers = np.loadtxt(series / "centers_ind.txt", dtype=int)
    np.testing.assert_allclose(run.latents.conformation[centre_numbers - 50], conformations, rtol=1e-5, atol=1e-6)
    for number, conformation in enumerate(conformations):
        density, pixel_size = read_map(series / f"vol_{number:03d}.mrc")
        torch.testing.assert_close(torch.from_numpy(density), run.draw(0, conformation), atol=1e-5, rtol=1e-4)
        assert pixel_size == pytest.approx(3.5)
        assert density.max() > -density.min()
        assert mrcfile.validate(series / f"vol_{number:03d}.mrc")


@pytest.mark.usefixtures("no_pictures")
def test_inverted_volumes_are_the_negative(make_run: MakeRun) -> None:
    folder = make_run([6], 0)
    analyze(folder.path, FEW)
    upright, _ = read_map(folder.class_analysis_path(3, 0) / "vol_000.mrc")
    analyze(folder.path, with_options(invert=True))
    inverted, _ = read_map(folder.class_analysis_path(3, 0) / "vol_000.mrc")
    np.testing.assert_array_equal(inverted, -upright)


@pytest.mark.parametrize(("counts", "z_dim"), [([1], 2), ([2], 0), *(([0, 1, 2, 12], z_dim) for z_dim in (0, 1, 6))])
def test_tiny_and_empty_classes_are_analysed(make_run: MakeRun, counts: list[int], z_dim: int) -> None:
    folder = make_run(counts, z_dim)
    heard: list[str] = []
    report = analyze(folder.path, with_options(pc=9), heard.append)
    for class_index in range(len(counts)):
        assert list(folder.class_analysis_path(3, class_index).rglob("vol_000.mrc"))
    text = report.read_text()
    assert all(f"Class {class_index}" in text for class_index in range(len(counts)))
    if 0 in counts:
        assert any("Class 0 is empty" in sentence for sentence in heard)
    if z_dim:
        assert any(f"along the {z_dim} of 9 components" in sentence for sentence in heard)


def test_a_one_dimensional_conformation_gets_percentile_volumes(make_run: MakeRun) -> None:
    folder = make_run([50], 1)
    analyze(folder.path, with_options(n_per_pc=4))
    of_class = folder.class_analysis_path(3, 0)
    z = Run.open(folder.path).latents.conformation[:, 0]
    np.testing.assert_allclose(np.loadtxt(of_class / "z_values.txt"), np.percentile(z, [5, 35, 65, 95]), rtol=1e-5)
    assert (of_class / "vol_003.mrc").is_file() and (of_class / "z_hist.png").is_file()


@pytest.mark.usefixtures("no_pictures")
def test_tilt_series_are_analysed(make_run: MakeRun) -> None:
    assert analyze(make_run([5, 4], 2, num_tilts=3).path, FEW).is_file()


@pytest.mark.usefixtures("no_pictures")
def test_particles_are_named_by_their_place_in_the_input(make_run: MakeRun) -> None:
    folder = make_run([10, 10], 2, first_particle=100)
    run = Run.open(folder.path)
    first = [int(number) for number in run.latents.particle_index[run.members(0)][:2]]
    second = int(run.latents.particle_index[run.members(1)][0])
    options = with_options(sample_z_idx=(first[0], second, first[1]), trajectory_1d=(first[0], first[1], 3))
    analyze(folder.path, options)
    samples = np.loadtxt(folder.class_analysis_path(3, 0) / "samples" / "z_values.txt", ndmin=2)
    np.testing.assert_allclose(samples, run.latents.conformation[run.members(0)[:2]], rtol=1e-5)
    assert (folder.class_analysis_path(3, 1) / "samples" / "vol_000.mrc").is_file()
    line = folder.class_analysis_path(3, 0) / "trajectories" / f"1d_{first[0]}_{first[1]}_3" / "z_values.txt"
    np.testing.assert_allclose(np.loadtxt(line)[1], samples.mean(axis=0), rtol=1e-5)
    with pytest.raises(UserError, match="particle 5, which is not part of this run"):
        analyze(folder.path, with_options(sample_z_idx=(5,)))


@pytest.mark.usefixtures("no_pictures")
def test_paths_from_files_are_followed(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run([12], 2)
    (tmp_path / "particles.txt").write_text("3 1\n4\n".replace(" ", "\n"))
    (tmp_path / "z.txt").write_text("0 0\n1 -1\n")
    options = with_options(direct_traversal_txt=tmp_path / "particles.txt", z_values_txt=tmp_path / "z.txt")
    analyze(folder.path, options)
    of_class, conformation = folder.class_analysis_path(3, 0), Run.open(folder.path).latents.conformation
    visited = np.loadtxt(of_class / "direct_traversal" / "z_values.txt")
    np.testing.assert_allclose(visited, conformation[[3, 1, 4]], rtol=1e-5)
    np.testing.assert_allclose(np.loadtxt(of_class / "trajectory" / "z_values.txt"), [[0, 0], [1, -1]])


@pytest.mark.usefixtures("no_pictures")
def test_earlier_volumes_of_other_conformations_are_kept(make_run: MakeRun) -> None:
    folder = make_run([12], 2)
    analyze(folder.path, with_options(sample_z_idx=(0, 1)))
    samples = folder.class_analysis_path(3, 0) / "samples"
    before = (samples / "vol_001.mrc").read_bytes()
    analyze(folder.path, with_options(sample_z_idx=(5,)))
    assert not (samples / "vol_001.mrc").exists()
    assert (samples / "old-volumes_000" / "vol_001.mrc").read_bytes() == before
    analyze(folder.path, with_options(sample_z_idx=(5,)))
    assert not (samples / "old-volumes_001").exists()


@pytest.mark.usefixtures("no_pictures")
def test_only_the_chosen_classes_are_analysed(make_run: MakeRun) -> None:
    folder = make_run([8, 8, 8], 0)
    analyze(folder.path, with_options(class_idx=(2, 0)))
    assert sorted(entry.name for entry in folder.analysis_path(3).glob("class_*")) == ["class_0", "class_2"]


BAD = [
    ({"class_idx": (2,)}, "--class-idx 2 names no class"),
    ({"epoch": 8}, "has no epoch 8; there are 3"),
    ({"ksample": 0}, "--ksample is 0"),
    ({"trajectory_1d": (0, 1, 1)}, "asks for 1 volumes"),
    ({"z_values_txt": Path("nowhere.txt")}, "nowhere.txt cannot be opened"),
    ({"sample_z_idx": (-1,)}, "particle -1"),
]


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(("changes", "message"), BAD)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    make_run: MakeRun, changes: dict[str, object], message: str
) -> None:
    folder = make_run([5, 5], 2)
    with pytest.raises(UserError, match=re.escape(message)):
        analyze(folder.path, with_options(**changes))
    assert not folder.analysis_path(3).exists()


@pytest.mark.usefixtures("no_pictures")
def test_files_that_make_no_sense_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run([5], 2)
    for content, message in [("a b\n", "is no table"), ("", "holds nothing"), ("1 2 3\n", "rows of 3 numbers")]:
        (tmp_path / "z.txt").write_text(content)
        with pytest.raises(UserError, match=message):
            analyze(folder.path, with_options(z_values_txt=tmp_path / "z.txt"))


@pytest.mark.usefixtures("no_pictures")
def test_a_line_between_two_classes_is_refused(make_run: MakeRun) -> None:
    folder = make_run([5, 5], 2)
    run = Run.open(folder.path)
    pair = int(run.members(0)[0]), int(run.members(1)[0]), 4
    with pytest.raises(UserError, match="wanted two of one class"):
        analyze(folder.path, with_options(trajectory_1d=pair))


def test_a_folder_without_a_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="drgnai train"):
        analyze(tmp_path)
    with pytest.raises(UserError, match="is no folder"):
        analyze(tmp_path / "absent")


def test_rigid_classes_have_no_conformations_to_visit(make_run: MakeRun) -> None:
    with pytest.raises(UserError, match="rigid"):
        analyze(make_run([5], 0).path, with_options(sample_z_idx=(1,)))


@pytest.mark.usefixtures("no_pictures")
def test_twin_classes_are_pointed_out(make_run: MakeRun) -> None:
    heard: list[str] = []
    report = analyze(make_run([20, 20, 20], 0, twins=True).path, FEW, heard.append)
    alike = [sentence for sentence in heard if "look alike" in sentence]
    assert len(alike) == 1 and alike[0].startswith("Classes 0 and 1")
    assert "Classes 0 and 1 look alike" in report.read_text()


@pytest.mark.usefixtures("no_pictures")
def test_analyses_repeat(make_run: MakeRun) -> None:
    folder = make_run([60], 3)
    labels = folder.class_analysis_path(3, 0) / "kmeans3" / "labels.pkl"
    analyze(folder.path, FEW)
    first = read_pickle(labels)
    analyze(folder.path, FEW)
    np.testing.assert_array_equal(read_pickle(labels), first)


def test_the_report_needs_no_other_file_and_hides_nothing_in_markup(analysed: RunFolder) -> None:
    text = (analysed.analysis_path(3) / "report.html").read_text()
    assert not re.findall(r'(?:src|href|srcset)="(?!data:image/png;base64,|#)', text)
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text
    assert text.count("prefers-color-scheme: dark") > 3


def test_the_notebook_runs_and_saves_numbers_of_the_input(analysed: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    of_class = analysed.class_analysis_path(3, 1)
    monkeypatch.chdir(of_class)
    notebook = json.loads((of_class / "cryoDRGN-analysis.ipynb").read_text())
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    exec("\n".join(code), {"__name__": "notebook"})
    (kept,) = [read_pickle(file) for file in of_class.glob("ind_keep.*_particles.pkl")]
    run = Run.open(analysed.path)
    assert 0 < len(kept) <= 25
    assert np.isin(kept, run.latents.particle_index[run.members(1)]).all()


@pytest.mark.usefixtures("no_pictures")
def test_a_changed_notebook_is_kept(make_run: MakeRun) -> None:
    folder = make_run([5], 0)
    analyze(folder.path, FEW)
    notebook = folder.class_analysis_path(3, 0) / "cryoDRGN-analysis.ipynb"
    notebook.write_text("mine")
    analyze(folder.path, FEW)
    assert notebook.read_text() == "mine"


def test_learning_curves_are_split_by_stage_and_skip_what_is_not_finite(make_run: MakeRun) -> None:
    curves = learning_curves(Run.open(make_run([5], 0).path).metrics() + [{"images": 3, "loss": float("nan")}])
    assert [curve.stage for curve in curves] == ["ab initio", "refinement"]
    assert all(len(curve.loss) == 40 for curve in curves)


def test_densities_have_the_scale_of_the_images(make_run: MakeRun, tmp_path: Path) -> None:
    plain = Run.open(make_run([3], 0).path).draw(0, np.zeros(0))
    scaled = write_run(tmp_path / "scaled", [3], 0, extra={"scale": 5.0})
    torch.testing.assert_close(Run.open(scaled.path).draw(0, np.zeros(0)), 5 * plain)


@pytest.mark.usefixtures("no_pictures")
def test_before_fields_are_fitted_the_maps_of_training_are_shown(make_run: MakeRun) -> None:
    folder = make_run([6], 2, extra={"training": {"fields_are_fitted": False}})
    known = np.random.default_rng(0).normal(size=(BOX_SIZE,) * 3).astype(np.float32)
    write_map(folder.map_path(3, 0), known, 3.5)
    heard: list[str] = []
    analyze(folder.path, FEW, heard.append)
    np.testing.assert_array_equal(read_map(folder.class_analysis_path(3, 0) / "pc1_2" / "vol_001.mrc")[0], known)
    assert any("known as maps only" in sentence for sentence in heard)


def test_a_map_is_of_the_box_of_the_run(make_run: MakeRun) -> None:
    assert Run.open(make_run([3], 2).path).draw(0, np.zeros(2)).shape == (BOX_SIZE,) * 3


def test_only_the_band_that_was_learned_is_drawn(make_run: MakeRun) -> None:
    """Beyond it a network only extrapolates; the maps of the training end there too."""
    run = Run.open(make_run([4], 0, extra={"radius": 5}).path)
    density = run.draw(0, np.zeros(0))
    axis = torch.arange(BOX_SIZE) - BOX_SIZE // 2
    distance = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    hartley = volume_to_hartley(density)
    assert hartley[distance > 5].abs().max() < 1e-5 * hartley.abs().max()
    assert hartley[(distance > 4) & (distance <= 5)].abs().max() > 1e-3 * hartley.abs().max()
