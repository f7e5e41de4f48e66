"""Particles from files made here: what is understood, and what is refused in one sentence."""

from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from cryohydra.data import ParticleSet, open_particles
from cryohydra.errors import InputMismatch, UserError
from cryohydra.io.cs import write_cs
from cryohydra.io.ctf_file import write_ctf_file
from cryohydra.io.mrc import write_stack
from cryohydra.io.pickles import write_pickle
from cryohydra.io.pose_file import write_pose_file
from cryohydra.io.star import StarTable, write_star

NUM, BOX = 20, 16
CTF_ROW = [BOX, 2.0, 1e4, 9e3, 30, 300, 2.7, 0.1, 0]


def blobs(sign: float) -> np.ndarray:
    """A bright or dark blob in noise."""
    axis = np.arange(BOX) - BOX // 2
    blob = np.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / 8)
    return (sign * blob + np.random.default_rng(0).normal(size=(NUM, BOX, BOX))).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """White particles with CTF, poses and labels."""
    write_stack(tmp_path / "a.mrcs", blobs(3), 2.0)
    write_ctf_file(tmp_path / "ctf.pkl", np.tile(CTF_ROW, (NUM, 1)))
    write_pose_file(tmp_path / "pose.pkl", np.stack([np.eye(3)] * NUM), np.full((NUM, 2), [0.25, -0.125]))
    write_pickle(tmp_path / "labels.pkl", np.arange(NUM))
    write_pickle(tmp_path / "ind.pkl", np.array([7, 3]))
    return tmp_path


def write_particles(path: Path, optics: dict[str, list] | None = None, **columns: list) -> None:
    """A STAR file for a.mrcs."""
    base: dict[str, list] = {
        "rlnImageName": [f"{row + 1}@a.mrcs" for row in range(NUM)],
        "rlnDefocusU": [1e4] * NUM,
        "rlnDefocusV": [9e3] * NUM,
        "rlnDefocusAngle": [30] * NUM,
    }
    if optics is None:
        base |= {
            "rlnVoltage": [300] * NUM,
            "rlnSphericalAberration": [2.7] * NUM,
            "rlnAmplitudeContrast": [0.1] * NUM,
            "rlnDetectorPixelSize": [5] * NUM,
            "rlnMagnification": [25000] * NUM,
        }
    blocks = {} if optics is None else {"optics": optics}
    blocks["" if optics is None else "particles"] = base | columns
    tables = {name: {key: np.array(values) for key, values in block.items()} for name, block in blocks.items()}
    write_star(path, {name: StarTable(block) for name, block in tables.items()})


OPTICS: dict[str, list] = {
    "rlnOpticsGroup": [7, 3],
    "rlnVoltage": [300, 200],
    "rlnSphericalAberration": [2.7, 2.0],
    "rlnAmplitudeContrast": [0.1, 0.07],
    "rlnImagePixelSize": [1.0, 1.1],
    "rlnImageSize": [32, 32],
}
ANGLES: dict[str, list] = {"rlnAngleRot": [10] * NUM, "rlnAngleTilt": [20] * NUM, "rlnAnglePsi": [30] * NUM}


def stack_of(folder: Path) -> ParticleSet:
    return open_particles(folder / "a.mrcs", ctf=folder / "ctf.pkl")


def first_optics(particles: ParticleSet) -> dict[str, float]:
    optics = particles.source.optics(torch.tensor([0]))
    return {name: getattr(optics, name).item() for name in vars(optics)}


def test_units_inside(folder: Path) -> None:
    optics = first_optics(stack_of(folder))
    assert optics["spherical_aberration_angstrom"] == pytest.approx(2.7e7)
    assert optics["defocus_angle"] == pytest.approx(np.pi / 6)
    assert (optics["scale"], optics["dose_electrons_per_square_angstrom"], optics["group"]) == (1, 0, 0)


def test_shifts_are_where_the_particle_is(folder: Path) -> None:
    poses = open_particles(folder / "a.mrcs", ctf=folder / "ctf.pkl", pose=folder / "pose.pkl").poses
    assert poses is not None and poses.rotation.shape == (NUM, 1, 1, 3, 3)
    assert poses.shift_px[0].flatten().tolist() == [-0.25 * BOX, 0.125 * BOX]


def test_a_pose_file_may_have_only_rotations(folder: Path) -> None:
    write_pose_file(folder / "pose.pkl", np.stack([np.eye(3)] * NUM), None)
    found = open_particles(folder / "a.mrcs", ctf=folder / "ctf.pkl", pose=folder / "pose.pkl")
    assert found.poses is not None and not found.has_shifts and found.poses.shift_px.abs().max() == 0


def test_pixel_size_is_rescaled_row_by_row(folder: Path) -> None:
    table = np.tile(CTF_ROW, (NUM, 1))
    table[0, :2], table[1, :2] = [2 * BOX, 1.0], [4 * BOX, 0.75]
    write_ctf_file(folder / "ctf.pkl", table)
    found = stack_of(folder)
    sizes = found.source.optics(torch.arange(3)).pixel_size_angstrom.flatten()
    assert sizes.tolist() == [2.0, 3.0, 2.0] and found.source.pixel_size_angstrom == 2.0
    assert any("Pixel sizes go from 2 to 3 A" in note for note in found.notes)


def test_star_30_is_understood(folder: Path) -> None:
    write_particles(folder / "a.star", rlnOriginX=[1.5] * NUM, rlnOriginY=[-2] * NUM, **ANGLES)
    found = open_particles(folder / "a.star")
    assert found.poses is not None and found.poses.shift_px[0].flatten().tolist() == [-1.5, 2]
    stack, star = first_optics(stack_of(folder)), first_optics(found)
    assert star == pytest.approx(stack, rel=1e-6)


def test_star_31_takes_optics_of_each_group(folder: Path) -> None:
    group = [3] + [7] * (NUM - 1)
    origin = {"rlnOriginXAngst": [4.4] * NUM, "rlnOriginYAngst": [-2.2] * NUM}
    write_particles(folder / "a.star", OPTICS, rlnOpticsGroup=group, **origin, **ANGLES)
    found = open_particles(folder / "a.star")
    optics = found.source.optics(torch.arange(2))
    assert optics.voltage_kv.flatten().tolist() == [200, 300]
    # Images of 32 px at 1.1 and 1.0 A are here as 16 px.
    assert optics.pixel_size_angstrom.flatten().tolist() == pytest.approx([2.2, 2.0])
    assert optics.group.flatten().tolist() == [1, 0]
    assert found.poses is not None
    assert found.poses.shift_px[:2, 0, 0].tolist() == [pytest.approx([-2.0, 1.0]), pytest.approx([-2.2, 1.1])]
    write_particles(folder / "a.star", OPTICS, rlnOpticsGroup=[5] * NUM)
    with pytest.raises(InputMismatch, match="optics group 5"):
        open_particles(folder / "a.star")


def test_euler_angles_are_transposed_scipy_matrices(folder: Path) -> None:
    from scipy.spatial.transform import Rotation

    write_particles(folder / "a.star", **ANGLES)
    poses = open_particles(folder / "a.star").poses
    expected = Rotation.from_euler("ZYZ", [10, 20, 30], degrees=True).as_matrix().T
    assert poses is not None and np.allclose(poses.rotation[0, 0, 0], expected, atol=1e-6)


def test_a_text_file_lists_stacks(folder: Path) -> None:
    (folder / "sub").mkdir()
    images = blobs(3)
    write_stack(folder / "sub" / "b.mrcs", images[:8], 2.0)
    write_stack(folder / "sub" / "c.mrcs", images[8:], 2.0)
    (folder / "list.txt").write_text("sub/b.mrcs\n\nsub/c.mrcs\n")
    found = open_particles(folder / "list.txt", ctf=folder / "ctf.pkl")
    everything = torch.arange(NUM)
    assert torch.equal(found.source.images(everything), stack_of(folder).source.images(everything))


def test_selections_keep_rows_of_the_input(folder: Path) -> None:
    arguments = {"ctf": folder / "ctf.pkl", "pose": folder / "pose.pkl", "labels": folder / "labels.pkl"}
    found = open_particles(folder / "a.mrcs", ind=folder / "ind.pkl", **arguments)
    assert found.index.tolist() == [7, 3] and found.labels is not None and found.labels.tolist() == [7, 3]
    every = stack_of(folder)
    assert torch.equal(found.source.images(torch.arange(2)), every.source.images(torch.tensor([7, 3])))
    assert open_particles(folder / "a.mrcs", ind=4, **arguments).index.tolist() == [0, 1, 2, 3]


def test_datadir_finds_images_by_name_and_by_path(folder: Path) -> None:
    write_particles(folder / "a.star", rlnImageName=[f"{row + 1}@Extract/job1/a.mrcs" for row in range(NUM)])
    assert len(open_particles(folder / "a.star", datadir=folder).source) == NUM
    (folder / "project" / "Extract" / "job1").mkdir(parents=True)
    (folder / "a.mrcs").rename(folder / "project" / "Extract" / "job1" / "a.mrcs")
    assert len(open_particles(folder / "a.star", datadir=folder / "project").source) == NUM


def test_files_of_one_name_are_not_taken_for_each_other(folder: Path) -> None:
    images = blobs(3)
    names = []
    for job, half in (("job1", images[:10]), ("job2", images[10:])):
        (folder / job).mkdir()
        write_stack(folder / job / "a.mrcs", half, 2.0)
        names += [f"{row + 1}@{job}/a.mrcs" for row in range(10)]
    write_particles(folder / "a.star", rlnImageName=names)
    found = open_particles(folder / "a.star", datadir=folder).source.images(torch.arange(NUM))
    assert torch.equal(found, stack_of(folder).source.images(torch.arange(NUM)))


@pytest.mark.parametrize("sign", [-3, 3])
def test_either_contrast_ends_dark_on_white(folder: Path, sign: float) -> None:
    write_stack(folder / "a.mrcs", blobs(sign), 2.0)
    found = stack_of(folder)
    assert found.source.images(torch.arange(NUM))[:, 0, BOX // 2, BOX // 2].mean() < -2
    assert any("dark particles on white" in note for note in found.notes) == (sign < 0)


def test_undecided_contrast_is_said(folder: Path) -> None:
    write_stack(folder / "a.mrcs", blobs(0), 2.0)
    found = stack_of(folder)
    assert any("do not show whether" in note for note in found.notes)
    expected = -torch.from_numpy(blobs(0))[:, None]
    assert torch.equal(found.source.images(torch.arange(NUM)), expected)


def test_a_faint_ring_of_ice_in_many_images_decides_nothing(folder: Path) -> None:
    axis = np.arange(BOX) - BOX // 2
    ice = np.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / 32)
    noise = np.random.default_rng(0).normal(size=(1000, BOX, BOX))
    write_stack(folder / "a.mrcs", (0.06 * ice + noise).astype(np.float32), 2.0)
    write_ctf_file(folder / "ctf.pkl", np.tile(CTF_ROW, (1000, 1)))
    assert any("do not show whether" in note for note in stack_of(folder).notes)


@pytest.mark.parametrize("invert", [True, False])
def test_the_user_decides_the_sign(folder: Path, invert: bool) -> None:
    found = open_particles(folder / "a.mrcs", ctf=folder / "ctf.pkl", invert=invert)
    expected = torch.from_numpy(blobs(3))[:, None] * (-1 if invert else 1)
    assert torch.equal(found.source.images(torch.arange(NUM)), expected)


def cs_records(sign: float) -> np.ndarray:
    names = ["blob/path", "blob/idx", "blob/shape", "blob/psize_A", "blob/sign", "ctf/accel_kv", "ctf/cs_mm"]
    names += ["ctf/amp_contrast", "ctf/df1_A", "ctf/df2_A", "ctf/df_angle_rad", "ctf/tilt_A"]
    formats = ["S10", "<u4", ("<u4", (2,)), *["<f4"] * 8, ("<f4", (2,))]
    records = np.zeros(NUM, dtype=list(zip(names, formats, strict=True)))
    values = [b">a.mrcs", np.arange(NUM), BOX, 2.0, sign, 300, 2.7, 0.1, 1e4, 9e3, np.pi / 6, 0]
    for name, value in zip(names, values, strict=True):
        records[name] = value
    return records


def test_the_sign_in_a_cs_is_checked_against_pixels(folder: Path) -> None:
    write_cs(folder / "a.cs", cs_records(1))
    found = open_particles(folder / "a.cs").source.images(torch.arange(NUM))
    assert torch.equal(found, stack_of(folder).source.images(torch.arange(NUM)))
    write_cs(folder / "a.cs", cs_records(-1))
    with pytest.raises(UserError, match="states that particles are dark, but .* white .* Set invert_data"):
        open_particles(folder / "a.cs")
    assert len(open_particles(folder / "a.cs", invert=True).source) == NUM


def test_lens_effects_that_are_not_applied_are_named(folder: Path) -> None:
    records = cs_records(1)
    write_cs(folder / "a.cs", records)
    assert open_particles(folder / "a.cs").notes == ()
    records["ctf/tilt_A"] = [300, 400]
    write_cs(folder / "a.cs", records)
    # 2 pi lambda^2 k^3 x 500 A at k = 1/4 A, lambda = 0.0197 A.
    assert open_particles(folder / "a.cs").notes == (
        "The file describes beam tilt of up to 0.019 rad at Nyquist; it is not applied.",
    )
    optics = OPTICS | {
        "rlnBeamTiltX": [1.0, 0.0],
        "rlnBeamTiltY": [0.0, 0.5],
        "rlnOddZernike": ["[0,0,0,0,0,0]", "[0,0,0,0,0,100]"],
        "rlnEvenZernike": ["[0,0,0,0,0,0,0,0,0]"] * 2,
        "rlnMagMat00": [1.01, 1.0],
        "rlnMagMat01": [0, 0],
        "rlnMagMat10": [0, 0],
        "rlnMagMat11": [1.0, 1.0],
    }
    write_particles(folder / "a.star", optics, rlnOpticsGroup=[7] * NUM)
    notes = " ".join(open_particles(folder / "a.star").notes)
    for name, size in (("beam tilt", 1.0), ("antisymmetric aberrations", 1.6), ("anisotropic magnification", 0.13)):
        assert f"{name} of up to {size:.2g} rad" in notes
    assert " symmetric aberrations" not in notes


@pytest.mark.parametrize("name", ["rlnCtfDataAreCtfPremultiplied", "rlnCtfDataArePhaseFlipped"])
def test_images_that_carry_their_ctf_are_refused(folder: Path, name: str) -> None:
    write_particles(folder / "a.star", OPTICS | {name: [1, 1]}, rlnOpticsGroup=[3] * NUM)
    with pytest.raises(UserError, match=name):
        open_particles(folder / "a.star")


def spoil(folder: Path, row: int, value: float) -> None:
    # Behind the back of mrcfile, which warns.
    image = np.memmap(folder / "a.mrcs", "<f4", "r+", 1024 + row * BOX * BOX * 4, (BOX, BOX))
    image[slice(None) if np.isfinite(value) else 2] = value
    image.flush()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def reshape(path: Path, *shape: int) -> None:
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(np.random.default_rng(0).normal(size=shape).astype(np.float32))


BAD = {
    "missing": (lambda f: (f / "a.mrcs").unlink(), "does not exist"),
    "truncated": (lambda f: truncate(f / "a.mrcs"), "is truncated"),
    "not square": (lambda f: reshape(f / "a.mrcs", NUM, 16, 12), "wanted square"),
    "odd": (lambda f: reshape(f / "a.mrcs", NUM, 15, 15), "wanted an even size"),
    "not a number": (lambda f: spoil(f, 4, np.nan), "not finite: rows 4 of the input.*image 5 of"),
    "infinite": (lambda f: spoil(f, 4, np.inf), "not finite: rows 4"),
    "constant": (lambda f: spoil(f, 6, 1.0), "constant: rows 6"),
    "ctf too long": (lambda f: write_ctf_file(f / "ctf.pkl", np.tile(CTF_ROW, (NUM + 1, 1))), "21 images but .* 20"),
    "ctf of poses": (lambda f: (f / "pose.pkl").rename(f / "ctf.pkl"), "wanted a table of numbers"),
    "pose too short": (lambda f: write_pose_file(f / "pose.pkl", np.eye(3)[None], None), "1 images but .* 20"),
    "pose of ctf": (lambda f: write_pickle(f / "pose.pkl", np.tile(CTF_ROW, (NUM, 1))), "wanted .N, 3, 3"),
    "labels too short": (lambda f: write_pickle(f / "labels.pkl", np.arange(3)), "labels 3 particles but .* 20"),
    "labels of text": (lambda f: write_pickle(f / "labels.pkl", np.array(["a"] * NUM)), "wanted class labels"),
    "labels of a shape": (lambda f: write_pickle(f / "labels.pkl", np.zeros((NUM, 2))), r"shape \(20, 2\)"),
    "half labels": (lambda f: write_pickle(f / "labels.pkl", np.arange(NUM) / 2), "not whole"),
    "ind outside": (lambda f: write_pickle(f / "ind.pkl", np.array([20])), "selects row 20 but"),
    "ind negative": (lambda f: write_pickle(f / "ind.pkl", np.array([-1])), "selects row -1 but"),
    "ind twice": (lambda f: write_pickle(f / "ind.pkl", np.array([1, 1])), "row 1 more than once"),
    "ind empty": (lambda f: write_pickle(f / "ind.pkl", np.array([])), "selects no image"),
    "ind of a dict": (lambda f: write_pickle(f / "ind.pkl", {}), "wanted the rows to use"),
}


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("kind", BAD)
def test_bad_input_gets_one_sentence(folder: Path, kind: str, lazy: bool) -> None:
    make_bad, message = BAD[kind]
    make_bad(folder)
    names = {"ctf": "ctf.pkl", "pose": "pose.pkl", "labels": "labels.pkl"} | (
        {"ind": "ind.pkl"} if "ind" in kind else {}
    )
    with pytest.raises(UserError, match=message) as caught:
        open_particles(folder / "a.mrcs", lazy=lazy, **{key: folder / name for key, name in names.items()})
    assert "\n" not in str(caught.value)


def test_other_bad_files_are_refused(folder: Path) -> None:
    for name, content, message in (
        ("a.tif", "", "unknown kind"),
        ("a.star", "nothing", "cannot be read as a STAR file"),
        ("b.star", "data_\nloop_\n_rlnVoltage\n300\n", "no table with a column _rlnImageName"),
        ("c.star", "data_\nloop_\n_rlnImageName\na.mrcs\n", "wanted number@file"),
        ("d.star", "data_\nloop_\n_rlnImageName\n21@a.mrcs\n", "refers to image 21 of .* holds 20"),
        ("e.star", "data_\nloop_\n_rlnImageName\n1@a.mrcs\n", "does not tell the CTF"),
        ("a.cs", "nothing", "cannot be read as a .cs file"),
        ("a.txt", "\n", "is empty"),
        ("b.txt", "no.mrcs\n", "does not exist"),
    ):
        (folder / name).write_text(content)
        with pytest.raises(UserError, match=message):
            open_particles(folder / name)
    with pytest.raises(UserError, match="does not tell the CTF"):
        open_particles(folder / "a.mrcs")
    with pytest.raises(UserError, match="is not a folder"):
        open_particles(folder / "a.mrcs", datadir=folder / "no")
    with pytest.raises(InputMismatch, match="ind is 21"):
        open_particles(folder / "a.mrcs", ctf=folder / "ctf.pkl", ind=21)
    with pytest.raises(InputMismatch, match="does not tell which images are tilts"):
        open_particles(folder / "a.mrcs", ctf=folder / "ctf.pkl", num_tilts=2)
    write_stack(folder / "small.mrcs", np.random.default_rng(0).normal(size=(2, 8, 8)), 2.0)
    (folder / "mixed.txt").write_text("a.mrcs\nsmall.mrcs\n")
    with pytest.raises(InputMismatch, match="8 px but .* 16 px"):
        open_particles(folder / "mixed.txt")


def tilt_star(folder: Path, **columns: list) -> Path:
    """Four particles of five tilts, interleaved, in the order -2, -1, 0, 1, 2 in which no one takes them."""
    write_particles(folder / "tilts.star", rlnGroupName=[f"p{row % 4}" for row in range(NUM)], **columns)
    return folder / "tilts.star"


DOSE_RANK = np.repeat([4, 2, 0, 1, 3], 4)
COSINE = np.repeat(np.cos(np.deg2rad([6, 3, 0, 3, 6])), 4).round(6)


def test_tilts_are_taken_by_dose_not_by_place(folder: Path) -> None:
    star = tilt_star(folder, rlnCtfBfactor=list(-4.0 * 3 * (DOSE_RANK + 1)), rlnCtfScalefactor=list(COSINE))
    found = open_particles(star, num_tilts=3, labels=write_labels(folder, 4))
    assert found.source.num_tilts == 3 and found.index.tolist() == [0, 1, 2, 3]
    every = open_particles(folder / "a.mrcs", ctf=folder / "ctf.pkl", invert=True)
    expected = every.source.images(torch.tensor([8 + 1, 12 + 1, 4 + 1]))[:, 0]
    assert torch.equal(found.source.images(torch.tensor([1]))[0], expected)
    optics = found.source.optics(torch.tensor([1]))
    assert optics.dose_electrons_per_square_angstrom.tolist() == [[3, 6, 9]]
    assert optics.scale.tolist() == [pytest.approx([1, 0.99863, 0.99863], abs=1e-5)]
    by_rank = open_particles(star, num_tilts=3, dose_per_tilt=2.5).source.optics(torch.tensor([1]))
    assert by_rank.dose_electrons_per_square_angstrom.tolist() == [[0, 2.5, 5]]
    without = open_particles(star, num_tilts=3, dose_exposure_correction=False).source.optics(torch.tensor([1]))
    assert without.scale.unique().tolist() == [1] and without.dose_electrons_per_square_angstrom.unique().tolist() == [
        0
    ]


def write_labels(folder: Path, count: int) -> Path:
    write_pickle(folder / "particle_labels.pkl", np.arange(count))
    return folder / "particle_labels.pkl"


def test_without_dose_tilts_go_by_angle(folder: Path) -> None:
    found = open_particles(tilt_star(folder, rlnCtfScalefactor=list(COSINE)), num_tilts=1)
    every = open_particles(folder / "a.mrcs", ctf=folder / "ctf.pkl", invert=True)
    assert torch.equal(found.source.images(torch.arange(4)), every.source.images(torch.arange(8, 12)))
    assert any("in order of increasing tilt angle" in note for note in found.notes)


def test_without_any_tilt_the_scheme_is_assumed(folder: Path) -> None:
    found = open_particles(tilt_star(folder), num_tilts=5, angle_per_tilt=10.0, dose_per_tilt=3.0)
    expected = np.cos(np.deg2rad([0, 10, 10, 20, 20]))
    assert found.source.optics(torch.tensor([0])).scale[0].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_particles_with_few_tilts_are_left_out_and_said(folder: Path) -> None:
    write_pickle(folder / "ind.pkl", np.delete(np.arange(NUM), [0, 4]))
    found = open_particles(tilt_star(folder), num_tilts=5, ind=folder / "ind.pkl", labels=write_labels(folder, 4))
    assert found.index.tolist() == [1, 2, 3] and found.labels is not None and found.labels.tolist() == [1, 2, 3]
    assert any("fewer than 5 tilts are left out: 1; 3 stay" in note for note in found.notes)
    with pytest.raises(UserError, match="at most 5 tilts for a particle but n_tilts is 6; set n_tilts to 5"):
        open_particles(tilt_star(folder), num_tilts=6)


def test_notes_are_sentences(folder: Path) -> None:
    found = open_particles(tilt_star(folder), num_tilts=5)
    assert found.notes and all(note[0].isupper() or "/" in note for note in found.notes)
    assert replace(found, notes=()).notes == ()


def test_halves_of_an_earlier_refinement_are_kept(folder: Path) -> None:
    subset = [1 + row % 3 // 2 for row in range(NUM)]
    write_particles(folder / "halved.star", rlnRandomSubset=subset)
    kept = open_particles(folder / "halved.star", ind=folder / "ind.pkl")
    assert kept.half is not None and kept.half.tolist() == [subset[7] - 1, subset[3] - 1]
    write_particles(folder / "partly.star", rlnRandomSubset=[0, *subset[1:]])
    partly = open_particles(folder / "partly.star")
    assert partly.half is None and any("rlnRandomSubset" in note for note in partly.notes)


def test_micrographs_are_told_apart_by_their_whole_names(folder: Path) -> None:
    names = [f"day{row % 2}/m{row // 2 % 2}.mrc" for row in range(NUM)]
    write_particles(folder / "named.star", rlnMicrographName=names)
    found = open_particles(folder / "named.star").micrograph
    assert found is not None
    assert [[int(a == b) for b in names] for a in names] == (found[:, None] == found).int().tolist()
    picked = open_particles(folder / "named.star", ind=folder / "ind.pkl").micrograph
    assert picked is not None and picked.tolist() == [found[7], found[3]]
    write_particles(folder / "nameless.star")
    assert open_particles(folder / "nameless.star").micrograph is None
