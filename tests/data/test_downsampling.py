"""A smaller copy of a set of particles is the same particles."""

import json
from dataclasses import fields
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from cryohydra.config.inputs import open_input
from cryohydra.config.settings import Settings
from cryohydra.data import ParticleSet, downsampling, open_particles
from cryohydra.data.downsampling import Downsampled, Downsampling
from cryohydra.errors import InputMismatch, UserError
from cryohydra.fourier.resampling import crop_images
from cryohydra.io.cs import read_cs, write_cs
from cryohydra.io.ctf_file import write_ctf_file
from cryohydra.io.mrc import MrcStack, write_stack
from cryohydra.io.pose_file import write_pose_file
from cryohydra.io.star import StarTable, read_star, write_star
from cryohydra.physics.ctf import Optics

NUM, BOX, SMALL = 12, 32, 20
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.normal(size=(NUM, BOX, BOX)).astype(np.float32)
ROTATIONS = np.stack([np.eye(3)] * NUM)
SHIFTS = RANDOM.uniform(-3, 3, (NUM, 2)).round(3)
DEFOCUS = {"rlnDefocusU": [15000.0 + 10 * row for row in range(NUM)], "rlnDefocusAngle": [30] * NUM}
ANGLES = {"rlnAngleRot": [10] * NUM, "rlnAngleTilt": [20] * NUM, "rlnAnglePsi": [30] * NUM}
LENS = {"rlnVoltage": 300, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1}


def star_table(**columns: object) -> StarTable:
    return StarTable({name: np.array(values) for name, values in columns.items()})


def star_30(folder: Path) -> Path:
    """RELION 3.0: shifts in pixels, the pixel size by way of the magnification."""
    names = [f"{row + 1}@a.mrcs" for row in range(NUM)]
    optics = {key: [value] * NUM for key, value in LENS.items()}
    pixel = {"rlnMagnification": [25000] * NUM, "rlnDetectorPixelSize": [5] * NUM}
    shifts = {"rlnOriginX": SHIFTS[:, 0], "rlnOriginY": SHIFTS[:, 1]}
    table = star_table(rlnImageName=names, **DEFOCUS, **optics, **pixel, **ANGLES, **shifts)
    write_star(folder / "a.star", {"": table})
    return folder / "a.star"


def star_31(folder: Path) -> Path:
    """RELION 3.1: two optics groups, shifts in angstrom, rows out of order and one image named twice."""
    names = [f"{row + 1}@a.mrcs" for row in (5, 1, 2, 3, 4, 5, 0, 7, 8, 9, 10, 11)]
    optics = {key: [value] * 2 for key, value in LENS.items()}
    size = {"rlnImagePixelSize": [2.0, 2.2], "rlnImageSize": [BOX, BOX], "rlnOpticsGroup": [1, 2]}
    shifts = {"rlnOriginXAngst": 2 * SHIFTS[:, 0], "rlnOriginYAngst": 2 * SHIFTS[:, 1]}
    group = [1, 2] * (NUM // 2)
    particles = star_table(rlnImageName=names, **DEFOCUS, **ANGLES, **shifts, rlnOpticsGroup=group)
    general = star_table(rlnSomething=["kept as it is"])
    write_star(folder / "a.star", {"optics": star_table(**optics, **size), "particles": particles, "general": general})
    return folder / "a.star"


def cs(folder: Path) -> Path:
    """cryoSPARC: shifts in pixels of 3D alignment, and others whose pixels are those of the images."""
    formats = [("uid", "<u8"), ("blob/path", "S8"), ("blob/idx", "<u4"), ("blob/shape", "<u4", (2,))]
    formats += [(f"blob/{name}", "<f4") for name in ("psize_A", "sign")]
    formats += [(f"ctf/{name}", "<f4") for name in ("accel_kv", "cs_mm", "amp_contrast", "df1_A", "df2_A")]
    formats += [("ctf/df_angle_rad", "<f4"), ("alignments3D/shift", "<f4", (2,)), ("alignments3D/pose", "<f4", (3,))]
    formats += [("alignments3D/psize_A", "<f4"), ("alignments2D/shift", "<f4", (2,))]
    records = np.zeros(NUM, dtype=formats)
    values = {"blob/path": b">a.mrcs", "blob/idx": np.arange(NUM)[::-1], "blob/shape": BOX, "blob/psize_A": 2.0}
    values |= {"blob/sign": 1, "ctf/accel_kv": 300, "ctf/cs_mm": 2.7, "ctf/amp_contrast": 0.1, "ctf/df1_A": 15000}
    values |= {"ctf/df2_A": 15000, "alignments3D/shift": SHIFTS, "alignments3D/psize_A": 1.5, "uid": np.arange(NUM)}
    for name, value in (values | {"alignments2D/shift": SHIFTS}).items():
        records[name] = value
    write_cs(folder / "a.cs", records)
    return folder / "a.cs"


def stack(folder: Path) -> Path:
    return folder / "a.mrcs"


def stack_list(folder: Path) -> Path:
    write_stack(folder / "b.mrcs", PIXELS[:5] + 1, 2.0)
    write_stack(folder / "c.mrcs", PIXELS[5:], 2.0)
    (folder / "a.txt").write_text("b.mrcs\nc.mrcs\n")
    return folder / "a.txt"


KINDS = [star_30, star_31, cs, stack, stack_list]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images, with small stacks of smaller ones."""
    monkeypatch.setattr(downsampling, "_STACK_BYTES", 5 * 4 * SMALL**2)
    write_stack(tmp_path / "a.mrcs", PIXELS, 2.0)
    write_ctf_file(tmp_path / "ctf.pkl", np.tile([BOX, 2.0, 15000, 15000, 0, 300, 2.7, 0.1, 0], (NUM, 1)))
    write_pose_file(tmp_path / "pose.pkl", ROTATIONS, SHIFTS / BOX)
    return tmp_path


def downsample(path: Path, out: Path, box_size: int = SMALL, datadir: Path | None = None) -> Downsampled:
    return Downsampling(path, out, box_size, datadir).run(2, lambda images: None)


def settings_of(path: Path, folder: Path, **more: object) -> Settings:
    files = {} if path.suffix in {".star", ".cs"} else {"ctf": folder / "ctf.pkl", "pose": folder / "pose.pkl"}
    return Settings(particles=path, **files, **more)  # type: ignore[arg-type]


def same_pixels(one: torch.Tensor, other: torch.Tensor) -> None:
    """Equal but for rounding: on some processors a transform sums in another order where images lie otherwise."""
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def same(one: ParticleSet, other: ParticleSet, tolerance: float) -> None:
    """Equal in pixels, but for rounding; in numbers that went through text, nearly."""
    everything = torch.arange(len(one.source))
    same_pixels(one.source.images(everything), other.source.images(everything))
    for field in fields(Optics):
        found, expected = (getattr(s.source.optics(everything), field.name).double() for s in (one, other))
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=0)
    assert one.poses is not None and other.poses is not None and one.has_shifts == other.has_shifts
    torch.testing.assert_close(one.poses.rotation, other.poses.rotation)
    torch.testing.assert_close(one.poses.shift_px, other.poses.shift_px, rtol=tolerance, atol=1e-6)
    assert one.notes == other.notes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lazy", [False, True])
def test_training_crops_as_it_reads_what_downsample_writes(kind, lazy: bool, folder: Path) -> None:
    path = kind(folder)
    written = downsample(path, folder / "small").path
    assert written == folder / "small" / path.name
    on_the_fly = open_input(settings_of(path, folder, downsample=SMALL, lazy=lazy))
    assert on_the_fly.source.box_size == SMALL
    same(on_the_fly, open_input(settings_of(written, folder, lazy=lazy)), tolerance=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_field_of_view_stays(kind, folder: Path) -> None:
    path = kind(folder)
    before = open_input(settings_of(path, folder))
    after = open_input(settings_of(downsample(path, folder / "small").path, folder))
    everything = torch.arange(NUM)
    ratio = BOX / SMALL
    old, new = (found.source.optics(everything).pixel_size_angstrom for found in (before, after))
    torch.testing.assert_close(new, old * ratio)
    assert before.poses is not None and after.poses is not None
    torch.testing.assert_close(after.poses.shift_px * ratio, before.poses.shift_px)
    expected = crop_images(before.source.images(everything), SMALL)
    torch.testing.assert_close(after.source.images(everything), expected)


def test_star_keeps_what_it_does_not_change(folder: Path) -> None:
    path = star_31(folder)
    done = downsample(path, folder / "small")
    before, after = read_star(path), read_star(done.path)
    assert list(after) == list(before) and after["general"].columns["rlnSomething"].tolist() == ["kept as it is"]
    changed = {"rlnImageName", "rlnImagePixelSize", "rlnImageSize"}
    for name in ("optics", "particles"):
        assert list(after[name].columns) == list(before[name].columns)
        for column in set(before[name].columns) - changed:
            assert after[name].column(column).tolist() == before[name].column(column).tolist()
    assert after["optics"].floats("rlnImagePixelSize").tolist() == pytest.approx([3.2, 3.52])
    assert after["optics"].column("rlnImageSize").tolist() == ["20", "20"]
    # The image that two rows name is there once, in the order of first mention.
    names = after["particles"].column("rlnImageName").tolist()
    assert names[0] == names[5] == "000001@a.0000.mrcs" and names[6] == "000001@a.0001.mrcs" and done.num_images == 11


def test_pixels_of_the_images_and_others_are_told_apart_in_cs(folder: Path) -> None:
    before, after = (read_cs(path) for path in (cs(folder), downsample(cs(folder), folder / "small").path))
    assert after.dtype.names == before.dtype.names and after["blob/path"][0] == b">a.0000.mrcs"
    for name in ("uid", "alignments3D/shift", "alignments3D/psize_A", "ctf/df1_A", "blob/sign"):
        assert np.array_equal(after[name], before[name])
    assert np.allclose(after["alignments2D/shift"], before["alignments2D/shift"] * SMALL / BOX)


def test_a_stack_stays_one_stack_with_a_valid_header(folder: Path) -> None:
    done = downsample(folder / "a.mrcs", folder / "small")
    assert sorted(file.name for file in (folder / "small").iterdir()) == ["a.mrcs", "downsample.json"]
    assert mrcfile.validate(done.path)
    assert MrcStack(done.path).pixel_size_angstrom == pytest.approx(3.2)


def test_images_of_two_sizes_come_to_one(folder: Path) -> None:
    write_stack(folder / "b.mrcs", PIXELS[:6, :24, :24], 2.0)
    group = [1] * 6 + [2] * 6
    names = [f"{row + 1}@b.mrcs" for row in range(6)] + [f"{row + 1}@a.mrcs" for row in range(6, NUM)]
    size = {"rlnImagePixelSize": [2.0, 1.5], "rlnImageSize": [24, BOX], "rlnOpticsGroup": [1, 2]}
    optics = star_table(**{key: [value] * 2 for key, value in LENS.items()}, **size)
    particles = {"rlnImageName": names, **DEFOCUS, "rlnOriginX": [1.0] * NUM, "rlnOpticsGroup": group}
    write_star(folder / "a.star", {"optics": optics, "particles": star_table(**particles)})
    with pytest.raises(InputMismatch, match="drgnai downsample"):
        open_particles(folder / "a.star")
    written = downsample(folder / "a.star", folder / "small").path
    found = open_particles(written, invert=False).source
    pixel_size = found.optics(torch.arange(NUM)).pixel_size_angstrom.flatten()
    assert pixel_size.tolist() == pytest.approx([2.4] * 12)
    images = found.images(torch.arange(NUM))[:, 0]
    same_pixels(images[:6], crop_images(torch.from_numpy(PIXELS[:6, :24, :24]).clone(), SMALL))
    same_pixels(images[6:], crop_images(torch.from_numpy(PIXELS[6:]), SMALL))
    shifts = read_star(written)["particles"].floats("rlnOriginX")
    assert shifts.tolist() == pytest.approx([20 / 24] * 6 + [20 / 32] * 6)
    particles["rlnOpticsGroup"] = [1] * NUM
    write_star(folder / "a.star", {"optics": optics, "particles": star_table(**particles)})
    with pytest.raises(InputMismatch, match="optics group 1 of .* boxes of 24 and 32 px"):
        downsample(folder / "a.star", folder / "other")


def test_a_box_that_the_optics_table_remembers_counts(folder: Path) -> None:
    # Pixel sizes belong to 64 px; the images were cropped to 32 px by a program that left the table as it was.
    names = [f"{row + 1}@a.mrcs" for row in range(NUM)]
    size = {"rlnImagePixelSize": [1.0], "rlnImageSize": [64], "rlnOpticsGroup": [1]}
    optics = star_table(**{key: [value] for key, value in LENS.items()}, **size)
    particles = star_table(rlnImageName=names, **DEFOCUS, rlnOpticsGroup=[1] * NUM)
    write_star(folder / "a.star", {"optics": optics, "particles": particles})
    written = downsample(folder / "a.star", folder / "small").path
    assert open_particles(written).source.pixel_size_angstrom == pytest.approx(3.2)


def test_names_are_relative_to_the_project_if_the_output_lies_in_it(folder: Path) -> None:
    path = star_31(folder)
    inside = downsample(path, folder / "project" / "small", datadir=folder).path
    assert read_star(inside)["particles"].column("rlnImageName")[0] == "000001@project/small/a.0000.mrcs"
    beside = downsample(path, folder.parent / f"{folder.name}-small", datadir=folder).path
    same(open_particles(inside, datadir=folder), open_particles(beside), tolerance=0)


def test_what_was_stopped_goes_on(folder: Path) -> None:
    path, out = star_30(folder), folder / "small"

    def stop(images: int) -> None:
        if len(list(out.glob("[!.]*.mrcs"))) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Downsampling(path, out, SMALL).run(1, stop)
    first = out / "a.0000.mrcs"
    assert first.exists() and not (out / "a.star").exists() and not (out / "a.0002.mrcs").exists()
    assert not list(out.glob(".*")), "a half-written stack was left"
    written_at, told = first.stat().st_mtime_ns, []
    done = Downsampling(path, out, SMALL).run(2, told.append)
    assert (done.num_images, done.num_kept) == (NUM, 5) and sum(told) == NUM
    assert first.stat().st_mtime_ns == written_at
    same(open_particles(done.path), open_particles(downsample(path, folder / "at-once").path), tolerance=0)
    before = {file: file.stat().st_mtime_ns for file in out.iterdir()}
    assert downsample(path, out).num_kept == NUM
    assert {file: file.stat().st_mtime_ns for file in out.iterdir()} == before


@pytest.mark.parametrize("kind", [star_31, stack])
def test_nothing_of_others_is_touched(kind, folder: Path) -> None:
    path, out = kind(folder), folder / "small"
    with pytest.raises(UserError, match="holds other files"):
        downsample(path, folder)
    downsample(path, out)
    for change in (
        lambda: downsample(path, out, 18),
        lambda: (write_stack(folder / "a.mrcs", PIXELS + 1, 2.0), downsample(path, out)),
    ):
        with pytest.raises(UserError, match="other images or to another size"):
            change()
    assert json.loads((out / "downsample.json").read_text())["box_size"] == SMALL


@pytest.mark.parametrize(("box_size", "message"), [(19, "to 19 px"), (34, "to 34 px"), (0, "to 0 px"), (32, "already")])
def test_sizes_that_make_no_sense_are_refused(box_size: int, message: str, folder: Path) -> None:
    with pytest.raises(UserError, match=message):
        downsample(folder / "a.mrcs", folder / "small", box_size)
    assert not (folder / "small").exists()


def test_training_refuses_sizes_that_make_no_sense(folder: Path) -> None:
    with pytest.raises(UserError, match="images of 32 px, which cannot be cropped in Fourier space to 34 px"):
        open_input(settings_of(folder / "a.mrcs", folder, downsample=34))


def test_images_that_are_not_finite_are_named(folder: Path) -> None:
    image = np.memmap(folder / "a.mrcs", "<f4", "r+", 1024 + 7 * BOX * BOX * 4, (BOX, BOX))
    image[3, 4] = np.nan
    image.flush()
    done = downsample(folder / "a.mrcs", folder / "small")
    assert done.broken == (f"image 8 of {folder / 'a.mrcs'}",)
    with pytest.raises(UserError, match="constant: rows 7"):
        open_particles(done.path, ctf=folder / "ctf.pkl")


def test_real_particles(shared_data: Path, tmp_path: Path) -> None:
    particles = shared_data / "particles" / "cryodrgn_tests"
    found = []
    for name in ("empiar_10076_7.star", "empiar_10076_7.cs"):
        written = downsample(particles / name, tmp_path / name, 128).path
        found.append(open_particles(written).source)
    everything = torch.arange(7)
    assert torch.equal(found[0].images(everything), found[1].images(everything))
    assert found[0].pixel_size_angstrom == pytest.approx(1.31 * 2.5, abs=1e-3)
    assert found[1].pixel_size_angstrom == pytest.approx(1.31 * 2.5, abs=1e-3)
