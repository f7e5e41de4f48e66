"""`drgnai export`: what a run found comes out as its input's program wants it."""

from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
import yaml

from cryohydra.analysis import export
from cryohydra.analysis.export import ExportOptions, export_run
from cryohydra.cli.main import main
from cryohydra.data import open_particles
from cryohydra.data.cs_file import CsFile
from cryohydra.data.simulated import Truth, read_truth, simulate_to_folder
from cryohydra.errors import InputMismatch, UnreadableFile, UserError
from cryohydra.inference.partition import half_of
from cryohydra.io.cs import read_cs, write_cs
from cryohydra.io.latents import read_latents, write_latents
from cryohydra.io.pickles import write_pickle
from cryohydra.io.star import StarTable, read_star, write_star
from cryohydra.physics.demo_structures import demo_class
from cryohydra.physics.simulation import Imaging

from .conftest import BOX_SIZE, EPOCH, NUM_IMAGES, PIXEL_SIZE, MakeTrueRun, write_true_run

ROWS = np.arange(NUM_IMAGES)


def row_of(table: StarTable) -> np.ndarray:
    """Rows of the simulated stack that a table names."""
    return np.array([int(name.split("@")[0]) - 1 for name in table.column("rlnImageName")])


def expected_rotation(truth: Truth, frames: torch.Tensor, rows: np.ndarray, classes: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(truth.rotation[rows, 0]).double() @ frames[classes]


def subset_of(particle: np.ndarray) -> np.ndarray:
    """The half of each particle as RELION counts, from 1."""
    return half_of(torch.from_numpy(particle)).numpy() + 1


def check_poses(
    path: Path, simulated: Path, truth: Truth, frames: torch.Tensor, classes: np.ndarray | None = None
) -> None:
    """What the reader of particles finds in an exported file are the true poses in the frames of the classes."""
    read = open_particles(path, datadir=simulated, lazy=True)
    rows = row_of(read_star(path)["particles"]) if path.suffix == ".star" else read_cs(path)["blob/idx"].astype(int)
    assert read.poses is not None and read.has_shifts
    wanted = expected_rotation(truth, frames, rows, truth.labels[rows] if classes is None else classes)
    assert (read.poses.rotation[:, 0, 0] - wanted).abs().max() < 1e-5
    # In pixels of the box.
    assert np.abs(read.poses.shift_px[:, 0, 0].numpy() - truth.shift_px[rows, 0]).max() < BOX_SIZE * 1e-5


def test_all_particles_come_out_with_what_was_found(
    true_run: MakeTrueRun, simulated: Path, truth: Truth, class_frames: torch.Tensor
) -> None:
    exported = export_run(true_run().path)
    assert exported.folder.name == "export_4" and exported.folder.parent.name == "out"
    assert [(file.path.name, file.num_images) for file in exported.files] == [
        ("particles.star", NUM_IMAGES),
        *((f"class_{k}.star", int((truth.labels == k).sum())) for k in range(2)),
    ]
    for file in exported.files:
        check_poses(file.path, simulated, truth, class_frames)
    table = read_star(exported.folder / "particles.star")["particles"]
    assert (row_of(table) == ROWS).all()
    assert (table.floats("rlnClassNumber") == truth.labels + 1).all()
    assert np.allclose(table.floats("rlnParticleFigureOfMerit"), 0.98 + 0.01 * np.cos(ROWS), atol=1e-6)
    assert (table.floats("rlnRandomSubset") == subset_of(ROWS)).all(), "the halves of the model"
    for k in range(2):
        assert (truth.labels[row_of(read_star(exported.folder / f"class_{k}.star")["particles"])] == k).all()


def test_maps_lie_beside_with_voxel_size_and_origin(true_run: MakeTrueRun, truth: Truth) -> None:
    exported = export_run(true_run(box_size=BOX_SIZE, pixel_size=11.7).path)
    assert [path.name for path in exported.maps] == ["class_0.mrc", "class_1.mrc"]
    for k, path in enumerate(exported.maps):
        assert mrcfile.validate(path)
        with mrcfile.open(path) as file:
            assert file.voxel_size.x == pytest.approx(11.7) and file.header.origin.tolist() == (0, 0, 0)
            assert (int(file.header.nxstart), int(file.header.nzstart)) == (0, 0)
            assert np.array_equal(file.data, truth.maps[k])


def test_selection(true_run: MakeTrueRun, truth: Truth, tmp_path: Path) -> None:
    run = true_run().path
    write_pickle(tmp_path / "ind.pkl", np.arange(10, 100))
    exported = export_run(
        run, ExportOptions(classes=(1,), min_probability=0.98, ind=tmp_path / "ind.pkl", output=tmp_path / "some")
    )
    assert [file.path.name for file in exported.files] == ["particles.star", "class_1.star"]
    wanted = (truth.labels == 1) & (np.cos(ROWS) >= 0) & (ROWS >= 10) & (ROWS < 100)
    for file in exported.files:
        assert (row_of(read_star(file.path)["particles"]) == np.flatnonzero(wanted)).all()
    assert [path.name for path in exported.maps] == ["class_1.mrc"]


def test_the_best_explained_part_of_each_class(true_run: MakeTrueRun, truth: Truth, tmp_path: Path) -> None:
    run = true_run()
    latents = read_latents(run.latents_path(EPOCH))
    evidence = np.random.default_rng(0).permutation(NUM_IMAGES).astype(float)
    write_latents(run.latents_path(EPOCH), replace(latents, log_evidence=evidence))
    exported = export_run(run.path, ExportOptions(best_poses=0.25, output=tmp_path / "best"))
    for k in range(2):
        members = np.flatnonzero(truth.labels == k)
        wanted = np.sort(members[np.argsort(-evidence[members])[: -(-len(members) // 4)]])
        assert row_of(read_star(exported.folder / f"class_{k}.star")["particles"]).tolist() == wanted.tolist()
    with pytest.raises(UserError, match="up to 1"):
        export_run(run.path, ExportOptions(best_poses=0.0, output=tmp_path / "none"))


def test_soft_weights_go_with_the_pose_in_the_class(
    true_run: MakeTrueRun, simulated: Path, truth: Truth, class_frames: torch.Tensor
) -> None:
    exported = export_run(true_run(certainty=0.8).path, ExportOptions(is_soft=True))
    for k in range(2):
        path = exported.folder / f"class_{k}.star"
        table = read_star(path)["particles"]
        assert len(table) == NUM_IMAGES and set(table.column("rlnClassNumber")) == {str(k + 1)}
        sure = 0.8 + 0.01 * np.cos(ROWS)
        weight = np.where(truth.labels == k, sure, 1 - sure)
        assert np.allclose(table.floats("rlnParticleFigureOfMerit"), weight, atol=1e-6)
        check_poses(path, simulated, truth, class_frames, np.full(NUM_IMAGES, k))
    hard = read_star(exported.folder / "particles.star")["particles"]
    assert (hard.floats("rlnClassNumber") == truth.labels + 1).all()


def test_rows_of_a_selected_run_are_those_of_the_input(
    true_run: MakeTrueRun, simulated: Path, truth: Truth, class_frames: torch.Tensor
) -> None:
    index = np.random.default_rng(0).permutation(NUM_IMAGES)[:70]
    exported = export_run(true_run(index=index, settings={"ind": "selected.pkl"}).path)
    table = read_star(exported.folder / "particles.star")["particles"]
    assert (row_of(table) == np.sort(index)).all(), "in the order of the input"
    check_poses(exported.folder / "particles.star", simulated, truth, class_frames)


def described_star(simulated: Path, path: Path, order: np.ndarray, columns: dict[str, np.ndarray]) -> Path:
    """The simulated particles with more columns, in another order, in another file."""
    blocks = read_star(simulated / "particles.star")
    particles = blocks["particles"].having({
        "rlnMicrographName": np.array([f"mics/{row // 50}.mrc" for row in ROWS]),
        "rlnCoordinateX": np.array([f"{row % 50}.5" for row in ROWS]),
        "rlnCoordinateY": np.array(["100"] * NUM_IMAGES),
    })  # fmt: skip
    write_star(path, {**blocks, "particles": particles[order].having(columns)})
    return path


def test_a_run_on_a_smaller_copy_is_mapped_back(
    true_run: MakeTrueRun, simulated: Path, truth: Truth, class_frames: torch.Tensor, tmp_path: Path
) -> None:
    whole = np.random.default_rng(1).permutation(NUM_IMAGES)
    original = described_star(simulated, tmp_path / "original.star", whole, {})
    small = described_star(
        simulated, tmp_path / "small.star", ROWS, {"rlnImageName": np.array([f"{row + 1}@small.mrcs" for row in ROWS])}
    )
    run = true_run(small, box_size=BOX_SIZE // 2, pixel_size=2 * PIXEL_SIZE, index=np.arange(50, 200))
    exported = export_run(run.path, ExportOptions(particles=original))
    table = read_star(exported.folder / "particles.star")["particles"]
    assert (row_of(table) == whole[(whole >= 50) & (whole < 200)]).all()
    check_poses(exported.folder / "particles.star", simulated, truth, class_frames)
    assert (table.floats("rlnRandomSubset") == subset_of(row_of(table) - 50)).all(), "halves follow their particles"

    fewer = described_star(simulated, tmp_path / "fewer.star", whole[whole != 60], {})
    with pytest.raises(InputMismatch, match="lacks 1 of the 150 images of the run, the first in row 60"):
        export_run(run.path, ExportOptions(particles=fewer, output=tmp_path / "none"))
    plain = read_star(simulated / "particles.star")
    write_star(tmp_path / "plain.star", {**plain, "particles": plain["particles"][ROWS[1:]]})
    with pytest.raises(InputMismatch, match="holds 239 particles but .* holds 240"):
        export_run(run.path, ExportOptions(particles=tmp_path / "plain.star", output=tmp_path / "none"))


def test_half_sets_of_the_input_are_kept(true_run: MakeTrueRun, simulated: Path, tmp_path: Path) -> None:
    halves = np.array(["1", "2", "2"] * (NUM_IMAGES // 3))
    particles = described_star(simulated, tmp_path / "halves.star", ROWS, {"rlnRandomSubset": halves})
    exported = export_run(true_run(particles).path)
    table = read_star(exported.folder / "particles.star")["particles"]
    assert table.column("rlnRandomSubset").tolist() == halves.tolist()


def test_columns_of_earlier_poses_are_kept_and_named(true_run: MakeTrueRun, simulated: Path, tmp_path: Path) -> None:
    certain = {"rlnMaxValueProbDistribution": np.array(["0.75"] * NUM_IMAGES)}
    said: list[str] = []
    exported = export_run(
        true_run(described_star(simulated, tmp_path / "a.star", ROWS, certain)).path, says=said.append
    )
    table = read_star(exported.folder / "particles.star")["particles"]
    assert set(table.column("rlnMaxValueProbDistribution")) == {"0.75"}, "it is the pose's, not the class's"
    assert any("rlnMaxValueProbDistribution" in sentence for sentence in said)


def test_relion_3_0_gets_origins_in_pixels(
    true_run: MakeTrueRun, simulated: Path, truth: Truth, class_frames: torch.Tensor, tmp_path: Path
) -> None:
    blocks = read_star(simulated / "particles.star")
    new = {"rlnOpticsGroup", "rlnOriginXAngst", "rlnOriginYAngst"}
    columns = {name: values for name, values in blocks["particles"].columns.items() if name not in new}
    more = {"rlnVoltage": "300", "rlnSphericalAberration": "2.7", "rlnAmplitudeContrast": "0.1",
            "rlnMagnification": "10000", "rlnDetectorPixelSize": f"{PIXEL_SIZE}"}  # fmt: skip
    columns |= {name: np.array([value] * NUM_IMAGES) for name, value in more.items()}
    write_star(tmp_path / "old.star", {"": StarTable(columns)}, version=None)
    run = true_run(tmp_path / "old.star", settings={"datadir": str(simulated)}, box_size=16, pixel_size=2 * PIXEL_SIZE)
    exported = export_run(run.path)
    text = (exported.folder / "particles.star").read_text()
    assert "# version" not in text and "data_\n" in text
    table = read_star(exported.folder / "particles.star")[""]
    assert not table.has("rlnOriginXAngst") and not table.has("rlnOpticsGroup")
    origin = np.stack([table.floats("rlnOriginX"), table.floats("rlnOriginY")], axis=1)
    # The box of 32 px is told by the images only.
    assert np.abs(origin + truth.shift_px[:, 0]).max() < BOX_SIZE * 1e-5
    wanted = expected_rotation(truth, class_frames, ROWS, truth.labels)
    read = open_particles(exported.folder / "particles.star", datadir=simulated)
    assert read.poses is not None and (read.poses.rotation[:, 0, 0] - wanted).abs().max() < 1e-5


def test_a_bare_stack_gets_a_star(
    true_run: MakeTrueRun, simulated: Path, truth: Truth, class_frames: torch.Tensor
) -> None:
    exported = export_run(true_run(simulated / "particles.mrcs", {"ctf": str(simulated / "ctf.pkl")}).path)
    path = exported.folder / "particles.star"
    check_poses(path, simulated, truth, class_frames)
    names = read_star(path)["particles"].column("rlnImageName")
    assert names[4] == f"000005@{simulated / 'particles.mrcs'}"
    ours, theirs = open_particles(path).source, open_particles(simulated / "particles.star").source
    index = torch.arange(NUM_IMAGES)
    assert torch.equal(ours.images(index), theirs.images(index))
    # Both come from one simulation, by way of float32 and of two decimals.
    assert torch.allclose(ours.optics(index).defocus_u_angstrom, theirs.optics(index).defocus_u_angstrom, atol=0.02)
    assert torch.allclose(ours.optics(index).phase_shift, theirs.optics(index).phase_shift)


def test_relion_is_told_that_a_mrc_is_a_stack(true_run: MakeTrueRun, simulated: Path, tmp_path: Path) -> None:
    (tmp_path / "p.mrc").symlink_to(simulated / "particles.mrcs")
    exported = export_run(true_run(tmp_path / "p.mrc", {"ctf": str(simulated / "ctf.pkl")}).path)
    path = exported.folder / "particles.star"
    assert read_star(path)["particles"].column("rlnImageName")[0] == f"000001@{tmp_path}/p.mrc:mrcs"
    assert len(open_particles(path).source) == NUM_IMAGES


def test_an_input_that_has_moved_is_named(true_run: MakeTrueRun, simulated: Path, tmp_path: Path) -> None:
    run = true_run(tmp_path / "gone.star")
    with pytest.raises(UnreadableFile, match="gone.star, the input of the run, does not exist; .* --particles"):
        export_run(run.path)
    exported = export_run(run.path, ExportOptions(particles=simulated / "particles.star"))
    assert exported.files[0].num_images == NUM_IMAGES


@pytest.fixture
def cs_particles(simulated: Path, tmp_path: Path) -> Path:
    """The simulated particles as cryoSPARC would describe them, without poses, one of its columns unknown to us."""
    table = read_star(simulated / "particles.star")["particles"]
    fields = [("uid", "<u8"), ("blob/path", "S40"), ("blob/idx", "<u4"), ("blob/shape", "<u4", (2,)),
              ("blob/psize_A", "<f4"), ("blob/sign", "<f4"), ("ctf/df1_A", "<f4"), ("ctf/df2_A", "<f4"),
              ("ctf/df_angle_rad", "<f4"), ("ctf/accel_kv", "<f4"), ("ctf/cs_mm", "<f4"), ("ctf/amp_contrast", "<f4"),
              ("ctf/phase_shift_rad", "<f4"), ("pick_stats/ncc_score", "<f4")]  # fmt: skip
    records = np.zeros(NUM_IMAGES, dtype=fields)
    records["uid"], records["blob/idx"] = (ROWS * 7919 % 1009).astype(np.uint64) + np.uint64(2**63), ROWS
    records["blob/path"], records["blob/shape"], records["blob/psize_A"] = b"J1/particles.mrcs", BOX_SIZE, PIXEL_SIZE
    records["blob/sign"], records["ctf/accel_kv"], records["ctf/cs_mm"] = 1, 300, 2.7
    records["ctf/amp_contrast"], records["pick_stats/ncc_score"] = 0.1, ROWS
    records["ctf/df1_A"], records["ctf/df2_A"] = table.floats("rlnDefocusU"), table.floats("rlnDefocusV")
    records["ctf/df_angle_rad"] = np.deg2rad(table.floats("rlnDefocusAngle"))
    write_cs(tmp_path / "J1_particles.cs", records)
    return tmp_path / "J1_particles.cs"


def test_cryosparc_gets_a_cs_and_a_csg(
    true_run: MakeTrueRun, cs_particles: Path, simulated: Path, truth: Truth, class_frames: torch.Tensor
) -> None:
    exported = export_run(true_run(cs_particles, {"datadir": str(simulated)}, certainty=0.8).path)
    assert [file.path.name for file in exported.files] == ["particles.cs", "class_0.cs", "class_1.cs"]
    for file in exported.files:
        check_poses(file.path, simulated, truth, class_frames)
        records = read_cs(file.path)
        csg = yaml.safe_load(file.path.with_suffix(".csg").read_text())
        assert csg["group"]["type"] == "particle"
        assert csg["results"] == {
            prefix: {"metafile": f">{file.path.name}", "num_items": len(records), "type": f"particle.{prefix}"}
            for prefix in ("blob", "ctf", "pick_stats", "alignments3D")
        }
    records, before = read_cs(exported.folder / "particles.cs"), read_cs(cs_particles)
    assert before.dtype.names is not None
    assert all(np.array_equal(records[name], before[name]) for name in before.dtype.names)
    assert (records["alignments3D/class"] == truth.labels).all()
    assert np.allclose(records["alignments3D/class_posterior"], 0.8 + 0.01 * np.cos(ROWS), atol=1e-6)
    assert (records["alignments3D/split"] == subset_of(ROWS) - 1).all()
    assert np.allclose(records["alignments3D/shift"], -truth.shift_px[:, 0], atol=BOX_SIZE * 1e-5)
    assert np.allclose(records["alignments3D/psize_A"], PIXEL_SIZE)


def test_uids_find_the_original_of_a_cropped_cs(
    true_run: MakeTrueRun, cs_particles: Path, simulated: Path, truth: Truth, class_frames: torch.Tensor, tmp_path: Path
) -> None:
    records = read_cs(cs_particles)
    records["blob/shape"], records["blob/psize_A"] = BOX_SIZE // 2, 2 * PIXEL_SIZE
    write_cs(tmp_path / "small.cs", records[::-1])
    # The first row of the input of the run is the last of the simulation.
    run = write_true_run(
        tmp_path / "r", truth, class_frames, {"particles": str(tmp_path / "small.cs")}, box_size=16, index=ROWS[::-1]
    )
    latents = dict(np.load(run.latents_path(4)))
    np.savez(run.latents_path(4).with_suffix(""), **{**latents, "particle_index": ROWS})
    exported = export_run(run.path, ExportOptions(particles=cs_particles))
    found = read_cs(exported.folder / "particles.cs")
    assert np.array_equal(found["uid"], read_cs(cs_particles)["uid"])
    check_poses(exported.folder / "particles.cs", simulated, truth, class_frames)


def test_a_cs_can_come_out_as_star(
    true_run: MakeTrueRun, cs_particles: Path, simulated: Path, truth: Truth, class_frames: torch.Tensor, tmp_path: Path
) -> None:
    run, said = true_run(cs_particles), []
    exported = export_run(run.path, ExportOptions(format="star"), says=said.append)
    check_poses(exported.folder / "particles.star", simulated, truth, class_frames)
    assert any("other columns are left behind" in sentence for sentence in said)


def test_cryosparc_imports_star_files_itself(true_run: MakeTrueRun) -> None:
    with pytest.raises(UserError, match="is not of cryoSPARC, which imports .star files itself"):
        export_run(true_run().path, ExportOptions(format="cs"))


def test_images_named_from_the_csg_are_said(true_run: MakeTrueRun, cs_particles: Path) -> None:
    records, said = read_cs(cs_particles), []
    records["blob/path"] = b">J1/particles.mrcs"
    write_cs(cs_particles, records)
    export_run(true_run(cs_particles).path, says=said.append)
    assert any("move .cs and .csg beside" in sentence for sentence in said)


def test_tilts_come_out_with_the_pose_of_each(tmp_path: Path, class_frames: torch.Tensor) -> None:
    classes = [demo_class("tric", 16, 24.0), demo_class("apoferritin", 16, 24.0)]
    imaging = Imaging(24.0, snr=5.0, tilt_angles=(0.0, 0.2, -0.2), dose_per_tilt=3.0, shift_std_px=0.5)
    simulate_to_folder(tmp_path / "tilts", classes, imaging, 10, seed=1)
    truth, star = read_truth(tmp_path / "tilts"), tmp_path / "tilts" / "particles.star"
    # Two of three tilts of each particle were used.
    used = Truth(**{**truth.__dict__, "rotation": truth.rotation[:, :2], "shift_px": truth.shift_px[:, :2]})
    settings = {"particles": str(star), "subtomogram_averaging": True, "n_tilts": 2}
    said: list[str] = []
    run = write_true_run(tmp_path / "run", used, class_frames, settings, box_size=16)
    exported = export_run(run.path, says=said.append)
    before, after = read_star(star)["particles"], read_star(exported.folder / "particles.star")["particles"]
    rows = row_of(after)
    assert rows.tolist() == [row for row in range(30) if row % 3 < 2]
    assert after.column("rlnGroupName").tolist() == before.column("rlnGroupName")[rows].tolist()
    read = open_particles(exported.folder / "particles.star", datadir=tmp_path / "tilts", num_tilts=2)
    assert read.poses is not None
    wanted = torch.from_numpy(used.rotation).double() @ class_frames[truth.labels][:, None]
    assert (read.poses.rotation[:, :, 0] - wanted).abs().max() < 1e-5
    assert (after.floats("rlnRandomSubset") == subset_of(rows // 3)).all(), "tilts of a particle are in one half"
    assert said == ["The run used 20 of the 30 images of its input; the others stay out."]


def test_nothing_is_overwritten(true_run: MakeTrueRun, tmp_path: Path) -> None:
    run = true_run().path
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        export_run(run, ExportOptions(output=tmp_path / "mine"))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    export_run(run)
    with pytest.raises(UserError, match="exists already"):
        export_run(run)


def test_a_failed_export_leaves_nothing(true_run: MakeTrueRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise UnreadableFile("it differs")

    folder = true_run()
    before = sorted(folder.results.iterdir())
    monkeypatch.setattr(export, "write_map", fail)
    with pytest.raises(UnreadableFile):
        export_run(folder.path)
    assert sorted(folder.results.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ExportOptions(classes=(2,)), "Class 2 is asked for but the run has 2, numbered from 0"),
        (ExportOptions(epoch=9), "has no epoch 9; there are 4"),
        (ExportOptions(min_probability=1.1), "a probability from 0 to 1"),
        (ExportOptions(min_probability=1.0), "No particle of .* lower --min-probability"),
        (ExportOptions(passthrough=Path("p.cs")), "is not of cryoSPARC and has no passthrough file"),
        (ExportOptions(particles=Path("nowhere.star")), "nowhere.star does not exist"),
        (ExportOptions(particles=Path("a.xyz")), "unknown kind"),
    ],
)
def test_what_cannot_be_done_is_said(true_run: MakeTrueRun, options: ExportOptions, message: str) -> None:
    folder = true_run()
    before = sorted(folder.results.iterdir())
    with pytest.raises(UserError, match=message):
        export_run(folder.path, options)
    assert sorted(folder.results.iterdir()) == before


def test_an_empty_class_is_said(true_run: MakeTrueRun, truth: Truth) -> None:
    said: list[str] = []
    exported = export_run(true_run(index=np.flatnonzero(truth.labels == 0)).path, says=said.append)
    assert [file.path.name for file in exported.files] == ["particles.star", "class_0.star"]
    assert said[1:] == ["Class 1 has no particle that was asked for; it got no file and no map."]
    assert [path.name for path in exported.maps] == ["class_0.mrc"]


def test_the_command_tells_what_it_wrote(true_run: MakeTrueRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(true_run().path)
    assert main(["export", run, "--classes", "0"]) == 0
    told = capsys.readouterr().out
    assert "export_4/class_0.star" in told and "read again and as meant" in told and "1 map beside" in told
    assert main(["export", run]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_cs_needs_a_uid(tmp_path: Path) -> None:
    write_cs(tmp_path / "a.cs", np.zeros(2, dtype=[("blob/path", "S4"), ("blob/idx", "<u4")]))
    with pytest.raises(UnreadableFile, match="lacks uid, blob/path or blob/idx"):
        CsFile.read(tmp_path / "a.cs")
