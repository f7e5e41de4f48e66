"""What is wrong with particles is told in one sentence each, all of it at once."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryohydra.data.inspection import Inspection, inspect_particles
from cryohydra.data.particles import open_particles
from cryohydra.io.cs import with_columns, write_cs
from cryohydra.io.ctf_file import write_ctf_file
from cryohydra.io.mrc import write_map, write_stack
from cryohydra.io.pose_file import write_pose_file
from cryohydra.io.star import StarTable, write_star

NUM, BOX, PIXEL = 24, 32, 4.0


def particles(sign: float = 1.0) -> np.ndarray:
    """A blob in noise; bright where the sign is positive."""
    axis = np.arange(BOX) - BOX // 2
    blob = np.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / 18)
    return (2 * sign * blob + np.random.default_rng(0).normal(size=(NUM, BOX, BOX))).astype(np.float32)


@dataclass
class Given:
    """A good set of particles, to be spoilt."""

    folder: Path
    images: np.ndarray = field(default_factory=particles)
    optics: dict[str, list] = field(
        default_factory=lambda: {
            "rlnOpticsGroup": [1, 2],
            "rlnVoltage": [300, 300],
            "rlnSphericalAberration": [2.7, 2.7],
            "rlnAmplitudeContrast": [0.1, 0.1],
            "rlnImagePixelSize": [PIXEL, PIXEL],
            "rlnImageSize": [BOX, BOX],
        }
    )
    rows: dict[str, list] = field(
        default_factory=lambda: {
            "rlnImageName": [f"{row + 1}@p.mrcs" for row in range(NUM)],
            "rlnOpticsGroup": [1 + row % 2 for row in range(NUM)],
            "rlnDefocusU": [12000.0 + 100 * row for row in range(NUM)],
            "rlnDefocusV": [11000.0 + 100 * row for row in range(NUM)],
            "rlnDefocusAngle": [30.0] * NUM,
        }
    )
    file: str = "p.star"
    flags: dict[str, Path] = field(default_factory=dict)

    def written(self) -> Inspection:
        """Written to files, and looked at."""
        if not (self.folder / "p.mrcs").exists():
            with warnings.catch_warnings(), mrcfile.new(self.folder / "p.mrcs") as file:
                warnings.simplefilter("ignore", RuntimeWarning)  # mrcfile's own, of values that are not finite
                file.set_data(self.images)
                file.set_image_stack()
                file.voxel_size = PIXEL
        blocks = {"optics": self.optics, "particles": self.rows}
        tables = {name: {key: np.array(column) for key, column in block.items()} for name, block in blocks.items()}
        write_star(self.folder / "p.star", {name: StarTable(columns) for name, columns in tables.items()})
        return inspect_particles(self.folder / self.file, **self.flags)


@pytest.fixture
def given(tmp_path: Path) -> Given:
    return Given(tmp_path)


def test_a_good_set_has_nothing_to_mend(given: Given) -> None:
    found = given.written()
    assert found.can_be_trained_on and found.num_there == NUM
    assert [finding for finding in found.findings if finding.severity != "note"] == []
    assert found.polarity is not None and found.polarity.is_white and found.polarity.known_from == "images"
    assert [group.num_images for group in found.groups] == [NUM // 2, NUM // 2]
    assert [group.pixel_size_angstrom for group in found.groups] == [PIXEL, PIXEL]


def test_signal_and_noise_are_those_that_were_put_in(given: Given) -> None:
    axis = np.arange(BOX) - BOX // 2
    blob = 2 * np.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / 18)
    survey = given.written().survey
    assert survey is not None
    # White noise of variance one; images have a little more. Two percent: 24 corners of 400 pixels each.
    noise = survey.noise.mean(0)[2:]
    assert noise.mean().item() == pytest.approx(1 / (1 + blob.var()), rel=0.1)
    assert survey.signal_to_noise == pytest.approx(blob.var(), rel=0.25)


def spoilt(column: str, value: object, rows: slice = slice(3, 4)) -> Callable[[Given], None]:
    """Rows of a column replaced."""

    def spoil(given: Given) -> None:
        table = given.optics if column in given.optics and column != "rlnOpticsGroup" else given.rows
        table[column] = list(table[column])
        for row in range(len(table[column]))[rows if table is given.rows else slice(None)]:
            table[column][row] = value

    return spoil


def pixels(value: float, image: int = 3) -> Callable[[Given], None]:
    def spoil(given: Given) -> None:
        given.images[image] = value

    return spoil


def truncated(given: Given) -> None:
    write_stack(given.folder / "p.mrcs", given.images, PIXEL)
    (given.folder / "p.mrcs").write_bytes((given.folder / "p.mrcs").read_bytes()[:-5000])


def two_boxes(given: Given) -> None:
    write_stack(given.folder / "q.mrcs", given.images[:, :16, :16], PIXEL)
    given.rows["rlnImageName"][-1] = "1@q.mrcs"


def many_missing(given: Given) -> None:
    given.rows["rlnImageName"] = [f"1@gone_{row}.mrcs" for row in range(NUM)]


def no_pixel_size(given: Given) -> None:
    del given.optics["rlnImagePixelSize"]
    write_stack(given.folder / "p.mrcs", given.images, PIXEL)
    content = bytearray((given.folder / "p.mrcs").read_bytes())
    content[40:52] = bytes(12)  # the cell
    (given.folder / "p.mrcs").write_bytes(bytes(content))


def no_magnification(given: Given) -> None:
    del given.optics["rlnImagePixelSize"]
    given.optics["rlnDetectorPixelSize"] = [PIXEL, PIXEL]


def no_ctf(given: Given) -> None:
    del given.rows["rlnDefocusU"]


def of_another_number(suffix: str) -> Callable[[Given], None]:
    """219 rows for 220 images, in small."""

    def spoil(given: Given) -> None:
        given.flags[suffix] = given.folder / f"{suffix}.pkl"
        if suffix == "ctf":
            write_ctf_file(given.flags[suffix], np.tile([BOX, PIXEL, 1e4, 1e4, 0, 300, 2.7, 0.1, 0], (NUM - 1, 1)))
        else:
            write_pose_file(given.flags[suffix], np.tile(np.eye(3), (NUM - 1, 1, 1)), None)

    return spoil


def subtomograms(given: Given) -> None:
    given.rows["rlnImageName"] = [f"tomo/particle_{row}.mrcs" for row in range(NUM)]


def copies(given: Given) -> None:
    given.images[7] = given.images[2]


def masked(given: Given) -> None:
    axis = np.arange(BOX) - BOX // 2
    given.images *= np.hypot(axis[:, None], axis[None]) < 0.4 * BOX


def low_passed(given: Given) -> None:
    frequency = np.fft.fftfreq(BOX)
    keep = np.hypot(frequency[:, None], frequency[None]) < 0.2
    given.images[:] = np.fft.ifft2(np.fft.fft2(given.images) * keep).real


def uneven(given: Given) -> None:
    given.images[::2] *= 20


def hot_pixel(given: Given) -> None:
    given.images[5, 4, 4] = 1000


def far_shifts(given: Given) -> None:
    given.rows |= {name: list(np.linspace(0, 90, NUM)) for name in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")}
    given.rows |= {"rlnOriginXAngst": [400.0] * NUM, "rlnOriginYAngst": [0.0] * NUM}


def same_poses(given: Given) -> None:
    given.rows |= {name: [0.0] * NUM for name in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")}


def a_map(given: Given) -> None:
    write_map(given.folder / "p.mrc", particles()[:1].repeat(BOX, axis=0), PIXEL)
    given.file = "p.mrc"


def optimisation_set(given: Given) -> None:
    (given.folder / "set.star").write_text("data_\n\n_rlnTomoParticlesFile   particles.star\n")
    given.file = "set.star"


def flagged(name: str) -> Callable[[Given], None]:
    def spoil(given: Given) -> None:
        given.optics[name] = [0, 1]

    return spoil


ERRORS: dict[str, tuple[Callable[[Given], None], str, str]] = {
    "no such file": (lambda g: setattr(g, "file", "q.star"), "q.star does not exist", "Give the path"),
    "unknown kind": (lambda g: setattr(g, "file", "p.tif"), "unknown kind", ".star, .cs"),
    "missing stack": (spoilt("rlnImageName", "1@gone.mrcs"), "gone.mrcs, which is not there (tried ", "Set datadir"),
    "missing stacks": (many_missing, "so it is with 23 more files", "Set datadir"),
    "truncated": (truncated, "p.mrcs is truncated", "Copy or write it again"),
    "beyond the end": (spoilt("rlnImageName", "99@p.mrcs"), "image 99 of p.mrcs, which holds 24", "correct the row"),
    "premultiplied": (flagged("rlnCtfDataAreCtfPremultiplied"), "multiplied by their CTF", "Extract them again"),
    "phase flipped": (flagged("rlnCtfDataArePhaseFlipped"), "phase-flipped", "Extract them again"),
    "no pixel size": (no_pixel_size, "tell the pixel size", "Add it, or give a ctf file"),
    "pixel size of nothing": (spoilt("rlnImagePixelSize", 0), "pixel size of 0", "Correct the pixel size"),
    "no CTF": (no_ctf, "does not tell the CTF", "--ctf"),
    "219 rows of CTF": (of_another_number("ctf"), "describes 23 images but", "both files unfiltered"),
    "219 poses": (of_another_number("pose"), "describes 23 images but", "both files unfiltered"),
    "nan": (pixels(np.nan), "1 image of all has NaN or infinite values: row 3, counted from 0; the first is image 4 of",
            "`ind`"),
    "constant": (pixels(7.0), "1 image of all is constant: row 3", "`ind`"),
    "volts": (spoilt("rlnVoltage", 300000), "voltage of 300000", "300, not 300000"),
    "micrometres": (lambda g: [spoilt(f"rlnDefocus{c}", 1.5, slice(None))(g) for c in "UV"] and None,
                    "no defocus above 1.5 A", "Multiply by 10,000"),
    "per cent": (spoilt("rlnAmplitudeContrast", 10), "amplitude contrast of 10", "0.1, not 10"),
    "Cs in angstrom": (spoilt("rlnSphericalAberration", 2.7e7), "spherical aberration of 2.7e+07", "2.7, not 2.7e7"),
    "defocus of nan": (spoilt("rlnDefocusU", "nan"), "not finite in 1 row (3)", "leave these images out"),
    "words": (spoilt("rlnDefocusU", "deep"), "no number in column _rlnDefocusU", "Correct it"),
    "two boxes": (two_boxes, "16 px but", "one box"),
    "subtomograms": (subtomograms, "wanted number@file", "export them as 2D particles"),
    "unknown optics group": (lambda g: g.rows["rlnOpticsGroup"].__setitem__(0, 9), "uses optics group 9", "Add it"),
    "optimisation set": (optimisation_set, "no table with a column _rlnImageName", "particles.star"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_what_cannot_be_trained_on(case: str, given: Given) -> None:
    spoil, sentence, advice = ERRORS[case]
    spoil(given)
    found = given.written()
    assert not found.can_be_trained_on
    errors = [finding for finding in found.findings if finding.severity == "error"]
    assert len(errors) == 1, errors
    assert sentence in errors[0].sentence and advice in errors[0].advice, errors


WARNINGS: dict[str, tuple[Callable[[Given], None], str, str]] = {
    "no magnification": (no_magnification, "has no magnification", ""),
    "named twice": (spoilt("rlnImageName", "1@p.mrcs"), "rows 0 and 3 are both image 1 of", "Remove copies"),
    "copies": (copies, "1 image of all is a copy of another: rows 2 and 7", "Remove copies"),
    "masked": (masked, "no noise outside the particles", "as extracted"),
    "low-passed": (low_passed, "hold nothing beyond Fourier pixel", "max_freq="),
    "uneven": (uneven, "differ in standard deviation by a factor of", "normalis"),
    "hot pixel": (hot_pixel, "1 image of all with a pixel more than 30", "dust"),
    "far shifts": (far_shifts, "24 given shifts lead out of the box, up to 100 px of 32", "unit"),
    "same poses": (same_poses, "All given poses are the same", "ab initio"),
    "overfocus": (lambda g: [spoilt(f"rlnDefocus{c}", -9000.0)(g) for c in "UV"] and None, "negative defocus", "sign"),
    "astigmatism": (spoilt("rlnDefocusU", 30000.0), "differ by more than 5000 A for 1 image", "CTF fits"),
    "pixel sizes": (lambda g: g.optics.__setitem__("rlnImagePixelSize", [4.0, 4.4]), "go from 4 to 4.4 A", "Rescale"),
    "density map": (a_map, "is a density map by its header", "stack of particle images"),
}


@pytest.mark.parametrize("case", WARNINGS)
def test_what_to_look_at_first(case: str, given: Given) -> None:
    spoil, sentence, advice = WARNINGS[case]
    spoil(given)
    told = [finding for finding in given.written().findings if finding.severity == "warning"]
    assert any(sentence in finding.sentence and advice in finding.advice for finding in told), told


def test_all_problems_are_told_at_once(given: Given) -> None:
    for case in ("premultiplied", "missing stack", "volts", "per cent", "nan"):
        ERRORS[case][0](given)
    given.images[4] = np.nan  # row 3 is missing
    told = " ".join(finding.sentence for finding in given.written().findings if finding.severity == "error")
    for case in ("premultiplied", "missing stack", "volts", "per cent"):
        assert ERRORS[case][1] in told
    assert "1 image of all has NaN" in told


def test_polarity_that_contradicts_the_file_is_an_error(tmp_path: Path) -> None:
    write_stack(tmp_path / "p.mrcs", particles(sign=-1), PIXEL)
    write_cs(tmp_path / "p.cs", cs_records(sign=1.0))
    (error,) = [f for f in inspect_particles(tmp_path / "p.cs").findings if f.severity == "error"]
    assert "states that particles are white" in error.sentence and "invert_data" in error.sentence + error.advice


def cs_records(sign: float = 1.0) -> np.ndarray:
    """What cryoSPARC tells of the particles."""
    dtype = [("uid", "u8"), ("blob/path", "S40"), ("blob/idx", "u4"), ("blob/shape", "u4", (2,)),
             ("alignments3D/pose", "f4", (3,)), ("alignments3D/shift", "f4", (2,)),
             *((name, "f4") for name in ("blob/psize_A", "blob/sign", "ctf/df1_A", "ctf/df2_A", "ctf/df_angle_rad",
                                         "ctf/accel_kv", "ctf/cs_mm", "ctf/amp_contrast"))]  # fmt: skip
    records = np.zeros(NUM, dtype=dtype)
    records["uid"] = np.random.default_rng(1).permutation(NUM) + 1000
    records["blob/path"], records["blob/idx"], records["blob/shape"] = b"p.mrcs", np.arange(NUM), BOX
    records["blob/psize_A"], records["blob/sign"] = PIXEL, sign
    for name, value in (("df1_A", 12000), ("df2_A", 11000), ("accel_kv", 300), ("cs_mm", 2.7), ("amp_contrast", 0.1)):
        records[f"ctf/{name}"] = value
    records["ctf/df1_A"] += np.arange(NUM)
    records["alignments3D/pose"] = np.random.default_rng(2).normal(size=(NUM, 3))
    return records


def test_passthrough_files_are_joined_on_uid(tmp_path: Path) -> None:
    write_stack(tmp_path / "p.mrcs", particles(), PIXEL)
    whole = cs_records()
    write_cs(tmp_path / "whole.cs", whole)
    own = ["uid", *(name for name in whole.dtype.names if name.startswith("alignments3D"))]
    passed = [name for name in whole.dtype.names if not name.startswith("alignments3D")]
    write_cs(tmp_path / "J7_particles.cs", rows_of(whole, own))
    write_cs(tmp_path / "J7_passthrough_particles.cs", rows_of(whole, passed)[::-1])
    joined, expected = (inspect_particles(tmp_path / name) for name in ("J7_particles.cs", "whole.cs"))
    assert joined.can_be_trained_on and expected.can_be_trained_on
    assert any("taken from" in finding.sentence and "joined on uid" in finding.sentence for finding in joined.findings)
    assert joined.ctf is not None and np.array_equal(joined.ctf, expected.ctf)
    assert joined.rotation is not None and np.array_equal(joined.rotation, expected.rotation)


def test_micrographs_come_from_the_passthrough_file_too(tmp_path: Path) -> None:
    write_stack(tmp_path / "p.mrcs", particles(), PIXEL)
    micrograph = np.arange(NUM) % 3
    paths = np.char.add(np.char.add("J1/m", micrograph.astype(str)), ".mrc").astype("S")
    write_cs(tmp_path / "J7_particles.cs", cs_records())
    passed = with_columns(rows_of(cs_records(), ["uid"]), {"location/micrograph_path": paths})
    write_cs(tmp_path / "J7_passthrough_particles.cs", passed[::-1])
    found = open_particles(tmp_path / "J7_particles.cs", datadir=tmp_path).micrograph
    assert found is not None and found.tolist() == micrograph.tolist()


def rows_of(records: np.ndarray, names: list[str]) -> np.ndarray:
    """Some fields, packed."""
    packed = np.zeros(len(records), dtype=[(name, records.dtype[name]) for name in names])
    for name in names:
        packed[name] = records[name]
    return packed


def test_a_passthrough_file_of_other_particles_is_not_joined(tmp_path: Path) -> None:
    write_stack(tmp_path / "p.mrcs", particles(), PIXEL)
    whole = cs_records()
    write_cs(tmp_path / "J7_particles.cs", rows_of(whole, ["uid", "alignments3D/pose"]))
    whole["uid"][0] = 5
    write_cs(tmp_path / "J7_passthrough_particles.cs", whole)
    (error,) = inspect_particles(tmp_path / "J7_particles.cs").findings
    assert "lacks blob/path" in error.sentence


def test_of_many_images_some_are_looked_at_and_it_says_so(given: Given) -> None:
    given.images[0] = np.nan  # the first is always looked at
    given.written()
    found = inspect_particles(given.folder / "p.star", max_images=5)
    assert found.survey is not None and found.survey.num_looked_at == 5 and found.survey.num_there == NUM
    assert any("1 image of 5 looked at has NaN" in finding.sentence for finding in found.findings)
    assert inspect_particles(given.folder / "p.star", max_images=0).survey is None
