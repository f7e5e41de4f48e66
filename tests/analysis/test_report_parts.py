"""What the report says and shows, part by part."""

import base64
import gzip
import io
import json
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from cryohydra.analysis import AnalyzeOptions, Run, analyze, classes, report, structures
from cryohydra.analysis.confounders import (
    Following,
    grouped_share,
    predicted_share,
    tell_following,
    tell_independence,
    viewing_features,
)
from cryohydra.analysis.examples import show_examples
from cryohydra.analysis.fsc_curves import read_fsc_curves
from cryohydra.analysis.markup import Markup, fill, json_in_page
from cryohydra.analysis.packed_columns import pack_columns, pick_particles
from cryohydra.analysis.quantities import Quantity
from cryohydra.errors import UnreadableFile

from .conftest import MakeRun, particles_of, write_proof, write_run


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alignment takes seconds and is tested with the classes; films need not be large."""
    monkeypatch.setattr(classes, "_MOST_ALIGNED_CLASSES", 1)
    monkeypatch.setattr(structures, "_FILM_SIZE", 32)


def test_words_are_escaped_and_markup_is_not() -> None:
    assert fill("item", text="<b> & 'c'") == "<li>&lt;b&gt; &amp; &#x27;c&#x27;</li>"
    assert fill("item", text=Markup("<b>")) == "<li><b></li>"
    with pytest.raises(KeyError):
        fill("item")


def test_data_cannot_end_its_script() -> None:
    text = json_in_page({"name": "</script><script>alert(1)</script>"})
    assert "</script" not in text
    assert json.loads(text)["name"].startswith("</script>")


def test_what_a_page_has_no_room_for_stays_in_its_folder(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run([12, 9], 1)
    options = AnalyzeOptions(ksample=2, n_per_pc=2)
    whole = analyze(folder.path, options, particles=particles_of(folder)).read_text()
    monkeypatch.setattr(report, "_MOST_BYTES", 0)
    small = analyze(folder.path, options, particles=particles_of(folder)).read_text()
    assert len(small) < 0.9 * len(whole)
    assert small.count("no room") == 2 and "no room" not in whole
    assert (folder.class_analysis_path(3, 1) / "z_hist.png").is_file()


def test_columns_come_back() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=500)
    values[7] = np.nan
    label = generator.integers(0, 3, 500).astype(np.float64)
    constant = np.full(500, 4.5)
    rows = pick_particles(500, seed=1)
    quantities = [
        Quantity("a", "number", "", lambda: values),
        Quantity("b", "label", "", lambda: label, ("x", "y", "z")),
        Quantity("c", "constant", "", lambda: constant),
    ]
    packed = pack_columns(quantities, rows)
    assert packed.keys == ("a", "b", "c") and packed.total == 500
    raw = np.frombuffer(gzip.decompress(base64.b64decode(packed.payload)), dtype="<u2").reshape(3, 500)
    back = [
        np.where(raw[k] == 65535, np.nan, low + raw[k] / 65534 * (high - low))
        for k, (low, high) in enumerate(packed.ranges)
    ]
    np.testing.assert_allclose(back[0], values[rows], atol=1e-4)
    np.testing.assert_allclose(back[1], label[rows], atol=1e-9)
    np.testing.assert_allclose(back[2], constant[rows], atol=1e-9)
    assert len(packed.colours[1]) == 3


def test_a_million_particles_are_thinned() -> None:
    rows = pick_particles(1_000_000, seed=0)
    assert len(rows) == 20_000 and len(np.unique(rows)) == 20_000


def test_conformations_that_follow_the_view_are_found() -> None:
    generator = np.random.default_rng(0)
    rotation = Rotation.random(600, rng=generator).as_matrix()
    features = viewing_features(rotation)
    free = generator.normal(size=(600, 2))
    bound = rotation[:, 2, 2:] ** 2 + 0.1 * generator.normal(size=(600, 1))
    assert predicted_share(features, free) < 0.03
    assert predicted_share(features, bound) > 0.8
    found = [
        Following("The conformations of class 1", "the viewing direction", predicted_share(features, bound)),
        Following("The conformations of class 0", "the defocus", predicted_share(features, free)),
    ]
    (warning,) = tell_following(found)
    assert warning.startswith("The conformations of class 1 follow the viewing direction")
    assert tell_independence(found).startswith("Conformations do not follow the defocus")
    assert tell_independence([]) == ""


def micrographs_of(size: int, num_particles: int) -> np.ndarray:
    return np.arange(num_particles) // size


@pytest.mark.parametrize("size", [2, 5, 40])
def test_conformations_that_follow_the_micrograph_are_found_however_few_it_has(size: int) -> None:
    generator = np.random.default_rng(0)
    group = generator.permutation(micrographs_of(size, 600))
    offset = generator.normal(size=(group.max() + 1, 2))
    found = grouped_share(group, offset[group] + generator.normal(size=(600, 2)))
    assert found is not None
    share, chance = found
    # The true share is a half; its error is that of the variance of so many micrographs.
    assert share == pytest.approx(0.5, abs=0.15) and chance < 0.01


def test_micrographs_that_do_not_matter_are_found_to_matter_no_more_often_than_stated() -> None:
    """A hundred sets of many micrographs with few particles each, whose shares scatter by more than a tenth."""
    shares, alarms = [], 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        group = generator.permutation(np.repeat(np.arange(40), generator.integers(1, 4, 40)))
        found = grouped_share(group, generator.standard_t(3, size=(len(group), 1)))
        if found is not None:
            shares.append(found[0])
            alarms += Following("The classes", "the micrograph", *found).is_notable
    assert len(shares) > 90 and abs(np.mean(shares)) < 0.05 and np.std(shares) > 0.1
    # One in a hundred is expected; five or more come once in 300 times.
    assert alarms < 5


def test_a_single_particle_of_each_micrograph_says_nothing() -> None:
    assert grouped_share(np.arange(300), np.random.default_rng(0).normal(size=(300, 1))) is None


def test_the_report_warns_of_conformations_that_follow_the_micrograph(make_run: MakeRun) -> None:
    folder = make_run([120], 1)
    run = Run.open(folder.path)
    order = np.argsort(run.latents.conformation[:, 0])
    micrograph = np.empty(120, dtype=np.int64)
    micrograph[order] = micrographs_of(6, 120)
    heard: list[str] = []
    particles = replace(particles_of(folder), micrograph=torch.from_numpy(micrograph))
    analyze(folder.path, AnalyzeOptions(ksample=2, n_per_pc=2), heard.append, particles)
    assert any("class 0 follow the micrograph" in sentence for sentence in heard)


def test_the_report_warns_of_conformations_that_follow_the_view(make_run: MakeRun) -> None:
    folder = make_run([120], 1, follows_view=True)
    heard: list[str] = []
    analyze(folder.path, AnalyzeOptions(ksample=2, n_per_pc=2), heard.append)
    assert any("class 0 follow the viewing direction" in sentence for sentence in heard)


def test_a_prediction_lies_on_its_particle(make_run: MakeRun) -> None:
    """Images made from the model without much noise: the third row repeats the first, particle by particle."""
    folder = make_run([40, 20], 2, shift=2.0)
    shown = show_examples(Run.open(folder.path), particles_of(folder).source, 1, seed=0)
    picture = matplotlib.image.imread(io.BytesIO(shown.picture))[..., 0]
    images, _, predicted = picture.reshape(3, 24, 6, 24).transpose(0, 2, 1, 3).reshape(3, 6, -1)
    agreement = np.corrcoef(images, predicted)[:6, 6:]
    assert np.diag(agreement).min() > 0.95
    assert agreement[~np.eye(6, dtype=bool)].mean() < 0.8
    assert set(shown.particles) <= set(Run.open(folder.path).members(1))


def test_density_is_bright_in_examples(make_run: MakeRun) -> None:
    folder = make_run([12], 0)
    picture = show_examples(Run.open(folder.path), particles_of(folder).source, 0, seed=0).picture
    rows = matplotlib.image.imread(io.BytesIO(picture))[..., 0].reshape(3, 24, 6, 24)
    assert (rows[:, 8:16, :, 8:16].mean(axis=(1, 2, 3)) > rows[:, :4].mean(axis=(1, 2, 3)) + 0.02).all()


def test_curves_of_half_maps_are_read(make_run: MakeRun) -> None:
    folder = make_run([4, 4], 0)
    assert read_fsc_curves(folder, 3) == ()
    write_proof(folder, [12.5, 17.0])
    curves = read_fsc_curves(folder, 3)
    assert [(curve.class_index, curve.resolution_angstrom) for curve in curves] == [(0, 12.5), (1, 17.0)]
    assert curves[0].correlation[0] == 1 and curves[0].frequency_per_angstrom[1] == pytest.approx(1 / 84, abs=1e-6)
    (folder.results / "proof_3_shared" / "class_1_fsc.csv").write_text("nothing\n")
    with pytest.raises(UnreadableFile, match="class_1.json"):
        read_fsc_curves(folder, 3)


def test_particles_of_another_run_are_not_shown(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run([5, 4], 0)
    other = write_run(tmp_path / "other", [5, 5], 0)
    heard: list[str] = []
    page = analyze(folder.path, says=heard.append, particles=particles_of(other)).read_text()
    assert any("10 particles of 24 px now, and not the 9" in sentence for sentence in heard)
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert not [name for name in data["particles"]["names"] if name.startswith("defocus")]
    assert "left out" in page
