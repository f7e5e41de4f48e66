"""What a newcomer may get wrong: one clear sentence, exit code 2, nothing written, nothing lost."""

import os
import pickle
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import yaml

from cryohydra.cli.main import main
from cryohydra.config.files import read_configs
from cryohydra.io.ctf_file import write_ctf_file
from cryohydra.io.mrc import write_stack
from cryohydra.io.pickles import write_pickle
from cryohydra.io.pose_file import write_pose_file
from cryohydra.io.run_folder import RunFolder

NUM_IMAGES, BOX_SIZE = 12, 16
CTF_ROW = [BOX_SIZE, 4.0, 15000.0, 15000.0, 0, 300, 2.7, 0.1, 0]

STAR = """
data_

loop_
_rlnImageName
_rlnDefocusU
_rlnVoltage
_rlnSphericalAberration
_rlnAmplitudeContrast
_rlnDetectorPixelSize
_rlnMagnification
"""


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every file with its content, every folder; not the lock, which holds nothing."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if path.name != ".training.lock"
    }


def refused(words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command line that must be refused, and what it said."""
    before = snapshot(folder)
    capsys.readouterr()
    try:
        code = main(words)
    except SystemExit as stop:  # argparse
        code = stop.code if isinstance(stop.code, int) else -1
    said = capsys.readouterr().err
    assert code == 2, said
    assert "Traceback" not in said
    assert len(said.strip()) > 30, "an error says what came, what was wanted and what to do"
    assert snapshot(folder) == before
    return said


def images(num_images: int = NUM_IMAGES, height: int = BOX_SIZE, width: int = BOX_SIZE) -> np.ndarray:
    """Noise."""
    return np.random.default_rng(0).standard_normal((num_images, height, width)).astype(np.float32)


def with_value(value: float, where: object) -> np.ndarray:
    """Noise with something put in."""
    stack = images()
    stack[where] = value  # type: ignore[index]
    return stack


class Danger:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, ("true",)


def stack(content: np.ndarray) -> Callable[[Path], Path]:
    """A file of images."""

    def write(folder: Path) -> Path:
        return write_images(folder / "bad.mrcs", content)

    return write


def write_images(path: Path, content: np.ndarray) -> Path:
    """Images of any shape and with anything in them, as other programs may write them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # mrcfile's own, of values that are not finite
        with mrcfile.new(path, overwrite=True) as file:
            file.set_data(content)
            file.set_image_stack()
    return path


def raw(name: str, content: bytes | str) -> Callable[[Path], Path]:
    """A file of bytes."""

    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return folder / name

    return write


def folder_named(name: str) -> Callable[[Path], Path]:
    """A folder where a file is wanted."""

    def write(folder: Path) -> Path:
        (folder / name).mkdir()
        return folder / name

    return write


def cut(num_bytes: int) -> Callable[[Path], Path]:
    """A stack of which the end is missing."""

    def write(folder: Path) -> Path:
        stack(images())(folder)
        (folder / "bad.mrcs").write_bytes((folder / "bad.mrcs").read_bytes()[:num_bytes])
        return folder / "bad.mrcs"

    return write


def complex_stack(folder: Path) -> Path:
    """Mode 4."""
    path = cut(10**9)(folder)
    content = bytearray(path.read_bytes())
    content[12:16] = (4).to_bytes(4, "little")
    path.write_bytes(bytes(content))
    return path


def star(*rows: str) -> Callable[[Path], Path]:
    """A STAR 3.0 file beside a good stack named s.mrcs."""

    def write(folder: Path) -> Path:
        write_stack(folder / "s.mrcs", images(), 4.0)
        (folder / "bad.star").write_text(STAR + "".join(row + "\n" for row in rows))
        return folder / "bad.star"

    return write


def records(**fields: np.ndarray) -> Callable[[Path], Path]:
    """A .cs file."""

    def write(folder: Path) -> Path:
        dtype = [(name.replace("__", "/"), value.dtype, value.shape[1:]) for name, value in fields.items()]
        table = np.zeros(len(next(iter(fields.values()))), dtype=dtype)
        for name, value in fields.items():
            table[name.replace("__", "/")] = value
        with open(folder / "bad.cs", "wb") as file:
            np.save(file, table)
        return folder / "bad.cs"

    return write


GOOD_STAR_END = "15000 300 2.7 0.1 4.0 10000"

PARTICLES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "nowhere.mrcs", "no such file|does not exist"),
    "empty": (raw("empty.mrcs", b""), "truncated"),
    "folder": (folder_named("images.mrcs"), "folder|directory"),
    "folder without a name": (folder_named("images"), "is a folder"),
    "header only in part": (cut(500), "truncated"),
    "truncated": (cut(3000), "truncated"),
    "no mrc file": (raw("bad.mrcs", "these are no images" * 100), "not an MRC file"),
    "complex numbers": (complex_stack, "mode 4"),
    "not square": (stack(images(height=16, width=18)), "square"),
    "odd": (stack(images(height=15, width=15)), "even"),
    "nan": (stack(with_value(np.nan, (3, 2, 2))), "not finite.*3"),
    "infinite": (stack(with_value(np.inf, (4, 2, 2))), "not finite.*4"),
    "constant": (stack(with_value(1.5, 5)), "constant.*5"),
    "unknown kind": (raw("bad.tif", b"II*"), "unknown kind"),
    "empty list": (raw("bad.txt", "\n"), "bad.txt"),
    "list of missing stacks": (raw("bad.txt", "a.mrcs\nb.mrcs\n"), "a.mrcs"),
    "list of no text": (raw("bad.txt", b"\xff\xfe\x00\x81"), "bad.txt"),
    "star empty": (raw("bad.star", ""), "bad.star"),
    "star of no text": (raw("bad.star", b"\x00\xff\xfe" * 50), "bad.star"),
    "star of other things": (raw("bad.star", "data_\nloop_\n_rlnMicrographName\na.mrc\n"), "rlnImageName"),
    "star with a short row": (star("1@s.mrcs 15000"), "STAR"),
    "star of no image": (star(), "bad.star"),
    "star without number": (star(f"s.mrcs {GOOD_STAR_END}"), "number@file"),
    "star of a missing stack": (star(f"1@gone.mrcs {GOOD_STAR_END}"), "gone.mrcs"),
    "star beyond the end": (star(f"13@s.mrcs {GOOD_STAR_END}"), "13"),
    "star of image 0": (star(f"0@s.mrcs {GOOD_STAR_END}"), "0"),
    "star of words for numbers": (star("1@s.mrcs deep 300 2.7 0.1 4.0 10000"), "rlnDefocusU"),
    "star of nan": (star("1@s.mrcs nan 300 2.7 0.1 4.0 10000"), "bad.star"),
    "star of no magnification": (star("1@s.mrcs 15000 300 2.7 0.1 4.0 0"), "magnification of 0"),
    "cs empty": (raw("bad.cs", b""), "bad.cs"),
    "cs of text": (raw("bad.cs", "no records"), "bad.cs"),
    "cs of a plain array": (raw("bad.cs", b"\x93NUMPY\x01\x00"), "bad.cs"),
    "cs of other things": (records(uid=np.arange(3)), "blob"),
    "cs of a missing stack": (
        records(blob__path=np.array([b"gone.mrc"] * 3), blob__idx=np.arange(3, dtype=np.uint32)),
        "gone.mrc",
    ),
}


@pytest.mark.parametrize("case", PARTICLES)
def test_particles(case: str, tmp_path: Path, particle_files, capsys: pytest.CaptureFixture[str]) -> None:
    write, wanted = PARTICLES[case]
    path = write(tmp_path)
    ctf = [] if path.suffix in {".star", ".cs"} else ["--ctf", str(particle_files.ctf)]
    said = refused(["setup", str(tmp_path / "run"), "--particles", str(path), *ctf], tmp_path, capsys)
    assert_says(said, wanted)


def assert_says(said: str, wanted: str) -> None:
    """A regular expression that crosses lines."""
    assert re.search(wanted, said, re.DOTALL | re.IGNORECASE), said


def pickled(content: object) -> Callable[[Path], Path]:
    """Any object in a pickle."""

    def write(folder: Path) -> Path:
        with open(folder / "bad.pkl", "wb") as file:
            pickle.dump(content, file)
        return folder / "bad.pkl"

    return write


TURNS = np.tile(np.eye(3), (NUM_IMAGES, 1, 1))
COMMON: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "gone.pkl", "no such file"),
    "empty": (raw("bad.pkl", b""), "pickle"),
    "text": (raw("bad.pkl", "numbers"), "pickle"),
    "folder": (folder_named("bad.pkl"), "bad.pkl"),
    "danger": (pickled(Danger()), "could run code"),
    "words": (pickled("words"), "bad.pkl"),
    "dictionary": (pickled({"a": 1}), "bad.pkl"),
    "array of objects": (pickled(np.array([None, "a"], dtype=object)), "bad.pkl"),
    "ragged list": (pickled([[1, 2], [3]]), "bad.pkl"),
    "none": (pickled(None), "bad.pkl"),
}
FILES: dict[str, dict[str, tuple[Callable[[Path], Path], str]]] = {
    "ctf": {
        "short": (pickled(np.tile(CTF_ROW, (5, 1))), "5 images.*12"),
        "columns": (pickled(np.ones((NUM_IMAGES, 8))), "9 columns"),
        "one row": (pickled(np.array(CTF_ROW)), "9 columns"),
        "nan": (pickled(np.tile([*CTF_ROW[:3], np.nan, *CTF_ROW[4:]], (NUM_IMAGES, 1))), "not finite"),
        "volts": (pickled(np.tile([*CTF_ROW[:5], 0, *CTF_ROW[6:]], (NUM_IMAGES, 1))), "voltage"),
        "poses": (pickled((TURNS, np.zeros((NUM_IMAGES, 2)))), "pose file"),
    },
    "pose": {
        "short": (pickled((TURNS[:5], np.zeros((5, 2)))), "5 images.*12"),
        "shape": (pickled(np.zeros((NUM_IMAGES, 4))), "N, 3, 3"),
        "no rotations": (pickled((2 * TURNS, np.zeros((NUM_IMAGES, 2)))), "no rotations"),
        "mirrored": (pickled(TURNS * np.array([1, 1, -1.0])), "no rotations"),
        "nan": (pickled(TURNS * np.nan), "not finite"),
        "pixels": (pickled((TURNS, np.full((NUM_IMAGES, 2), 7.0))), "box"),
        "shifts of another length": (pickled((TURNS, np.zeros((5, 2)))), "12.*2"),
        "nan shifts": (pickled((TURNS, np.full((NUM_IMAGES, 2), np.nan))), "not finite"),
        "ctf": (pickled(np.tile(CTF_ROW, (NUM_IMAGES, 1))), "N, 3, 3"),
    },
    "ind": {
        "beyond": (pickled(np.array([0, 12])), "12"),
        "negative": (pickled(np.array([-1, 2])), "-1"),
        "fractions": (pickled(np.array([0.5, 2])), "whole"),
        "twice": (pickled(np.array([1, 1])), "more than once"),
        "nothing": (pickled(np.array([], dtype=int)), "no image"),
        "plane": (pickled(np.zeros((3, 2), dtype=int)), "list of integers"),
        "nan": (pickled(np.array([np.nan, 1])), "bad.pkl"),
        "mask": (pickled(np.ones(NUM_IMAGES, dtype=bool)), "integers"),
    },
    "labels": {
        "short": (pickled(np.zeros(5, dtype=int)), "5 particles.*12"),
        "words": (pickled(["a"] * NUM_IMAGES), "integers"),
        "plane": (pickled(np.zeros((NUM_IMAGES, 2), dtype=int)), "integers"),
        "fractions": (pickled(np.full(NUM_IMAGES, 0.5)), "whole"),
    },
}


@pytest.mark.parametrize(("key", "case"), [(key, case) for key, cases in FILES.items() for case in (*COMMON, *cases)])
def test_files_beside_the_images(
    key: str, case: str, tmp_path: Path, particle_files, capsys: pytest.CaptureFixture[str]
) -> None:
    write, wanted = {**COMMON, **FILES[key]}[case]
    path = write(tmp_path)
    flags = {"particles": str(particle_files.particles), "ctf": str(particle_files.ctf)} | {key: str(path)}
    words = [word for name, value in flags.items() if name != "ind" and name != "labels"
             for word in (f"--{name}", value)]  # fmt: skip
    more = [f"{key}={path}"] if key in ("ind", "labels") else []
    quick = ["--pose-estimation", "fixed"] if key == "pose" else []
    cfgs = ["--cfgs", *more] if more else []
    assert_says(refused(["setup", str(tmp_path / "run"), *words, *quick, *cfgs], tmp_path, capsys), wanted)


SETTINGS = {
    "n_clases=3": "Did you mean 'n_classes'",
    "n_classes=0": "n_classes.*greater",
    "n_classes=three": "n_classes.*integer",
    "n_classes=2.5": "n_classes",
    "n_classes=yes": "n_classes",
    "n_classes=[1,2]": "n_classes",
    "n_classes=": "n_classes",
    "z_dim=-1": "z_dim",
    "lr=-1": "lr",
    "lr=nan": "lr",
    "lr=.inf": "lr",
    "std_noise=0": "std_noise",
    "max_freq=0": "max_freq",
    "ind=0": "ind",
    "ind=13": "ind.*12",
    "field=cube": "field",
    "output_mask=square": "output_mask",
    "quick_config=3": "quick_config",
    "quick_config.engin=published": "Did you mean 'engine'",
    "quick_config.pose_estimation=maybe": "pose_estimation",
    "n_classes": "KEY=VALUE",
    "=3": "KEY=VALUE",
    "n_classes={": "n_classes",
    "n_classes=3: 4": "n_classes",
    "invert_data=perhaps": "invert_data",
    "datadir=/nowhere": "datadir",
    "initial_conf=/nowhere.pkl": "initial_conf",
    "load=/nowhere/weights.3.pkl": "load",
    "hypervolume_dim=0": "hypervolume_dim",
    "window_radius_gt_real=7": "window_radius_gt_real",
    "batch_size_sgd=0": "batch_size_sgd",
    "n_imgs_pose_search=0": "n_imgs_pose_search",
    "seed=-3": "seed",
}


@pytest.mark.parametrize("word", SETTINGS)
def test_settings(word: str, tmp_path: Path, particle_files, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [*particle_files.flags, "--cfgs", word]
    assert_says(refused(["setup", str(tmp_path / "run"), *flags], tmp_path, capsys), SETTINGS[word])


def test_all_problems_are_told_at_once(tmp_path: Path, particle_files, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [*particle_files.flags, "--cfgs", "n_clases=3", "z_dim=-1", "lr=fast"]
    said = refused(["setup", str(tmp_path / "run"), *flags], tmp_path, capsys)
    assert all(word in said for word in ("n_classes", "z_dim", "lr"))


@pytest.fixture
def out(tmp_path: Path, particle_files) -> Path:
    """An experiment that could be trained."""
    folder = tmp_path / "run"
    assert main(["setup", str(folder), *particle_files.flags]) == 0
    return folder


EDITS = {
    "unknown key": (lambda text: text + "\nhypervolume_dimm: 3\n", "Did you mean 'hypervolume_dim'"),
    "bad value": (lambda text: text + "\nn_classes: many\n", "n_classes"),
    "tabs": (lambda text: text + "\n\tn_classes: 3\n", "YAML"),
    "no yaml": (lambda text: "particles: [\n", "YAML"),
    "list": (lambda text: "- 1\n- 2\n", "key: value"),
    "word": (lambda text: "hello\n", "key: value"),
    "empty": (lambda text: "", "particles"),
    "other images": (lambda text: "particles: /nowhere.mrcs\n", "nowhere.mrcs"),
    "key twice": (lambda text: text + "\nn_classes: 2\nn_classes: 3\n", "n_classes"),
}


@pytest.mark.parametrize("case", EDITS)
@pytest.mark.parametrize("verb", ["train", "setup"])
def test_edited_configs(case: str, verb: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit, wanted = EDITS[case]
    (out / "configs.yaml").write_text(edit((out / "configs.yaml").read_text()))
    assert_says(refused([verb, str(out)], out.parent, capsys), wanted)


def test_configs_of_no_text(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (out / "configs.yaml").write_bytes(b"\xff\xfe\x00")
    refused(["train", str(out)], out.parent, capsys)


def test_images_that_vanish_before_training(out: Path, particle_files, capsys: pytest.CaptureFixture[str]) -> None:
    particle_files.particles.unlink()
    assert_says(refused(["train", str(out)], out.parent, capsys), "p.mrcs")


def test_images_that_spoil_before_training(out: Path, particle_files, capsys: pytest.CaptureFixture[str]) -> None:
    """Earlier results stay where they are."""
    write_images(particle_files.particles, with_value(np.nan, 2))
    (out / "out" / "weights.3.pkl").write_bytes(b"precious")
    assert_says(refused(["train", str(out)], out.parent, capsys), "not finite")


ORDER = {
    "train without setup": (["train", "{new}"], "drgnai setup"),
    "train a missing experiment in a folder": (["train", "{empty}"], "drgnai setup"),
    "analyze without training": (["analyze", "{out}"], "drgnai train"),
    "analyze nothing": (["analyze", "{new}"], "no folder|does not exist"),
    "checksum without training": (["checksum", "{out}"], "drgnai train"),
    "checksum nothing": (["checksum", "{new}"], "drgnai"),
    "continue nothing": (["train", "{out}", "--load"], "drgnai train"),
    "score without training": (["score", "{out}", "{empty}"], "truth"),
    "setup in a file": (["setup", "{file}"], "file|folder|directory"),
    "train in a file": (["train", "{file}"], "file|folder|directory|drgnai setup"),
    "setup below a file": (["setup", "{file}/deeper"], "file|folder|directory|particles"),
    "analyze a file": (["analyze", "{file}"], "folder"),
    "unknown verb": (["reconstruct", "{out}"], "invalid choice"),
    "unknown flag": (["train", "{out}", "--fast"], "unrecognized"),
    "no folder": (["train"], "required"),
    "epoch of words": (["analyze", "{out}", "--epoch", "last"], "invalid int"),
    "dataset without catalogue": (["setup", "{new}", "--dataset", "toy"], "DRGNAI_DATASETS"),
    "nothing to simulate": (["simulate", "{new}"], "model|demo"),
    "simulate a missing model": (["simulate", "{new}", "--model", "gone.pdb"], "gone.pdb"),
    "simulate an unknown structure": (["simulate", "{new}", "--demo", "unicorn"], "unicorn"),
    "simulate no image": (["simulate", "{new}", "--demo", "--n-images", "0"], "images"),
    "simulate an odd box": (["simulate", "{new}", "--demo", "--box", "65"], "even"),
    "simulate without pixels": (["simulate", "{new}", "--demo", "--apix", "0"], "apix|pixel"),
    "simulate below no noise": (["simulate", "{new}", "--demo", "--snr", "-1"], "snr"),
    "simulate shares of others": (["simulate", "{new}", "--demo", "--shares", "1", "2"], "share"),
    "simulate motion of words": (["simulate", "{new}", "--demo", "--motion", "0", "dance"], "--motion"),
}


@pytest.mark.parametrize("case", ORDER)
def test_order_of_things(
    case: str, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DRGNAI_DATASETS", raising=False)
    folder = out.parent
    (folder / "file").write_text("mine")
    (folder / "empty").mkdir()
    places = {"new": folder / "new", "empty": folder / "empty", "out": out, "file": folder / "file"}
    words, wanted = ORDER[case]
    assert_says(refused([word.format(**places) for word in words], folder, capsys), wanted)


def test_a_folder_that_cannot_be_made(particle_files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    flags = ["setup", str(tmp_path / "file" / "run"), *particle_files.flags]
    assert_says(refused(flags, tmp_path, capsys), "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("verb", ["setup", "train"])
def test_no_right_to_write(
    verb: str, out: Path, particle_files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (out / "out").chmod(0o555)
    out.chmod(0o555)
    try:
        assert_says(refused([verb, str(out), *(["-c", "n_classes=2"] if verb == "setup" else [])], tmp_path, capsys),
                    "permission")  # fmt: skip
    finally:
        out.chmod(0o755)


def test_no_right_to_write_as_anyone(tmp_path: Path, particle_files, capsys: pytest.CaptureFixture[str]) -> None:
    """/proc refuses even root."""
    if not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    said = refused(["setup", "/proc/drgnai-run", *particle_files.flags], tmp_path, capsys)
    assert_says(said, "/proc/drgnai-run")


def test_a_folder_in_which_another_process_trains(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A process of its own, since a lock binds processes."""
    hold = (
        "import sys; from pathlib import Path; from cryohydra.io.run_folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).training_lock(): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        for words in (["train", str(out)], ["train", str(out), "--load"]):
            said = refused(words, out.parent, capsys)
            assert_says(said, f"Another process.*{other.pid}")
        assert other.stdin is not None
        other.stdin.close()
    with RunFolder(out).training_lock():
        pass


def test_datasets_of_a_bad_catalogue(
    tmp_path: Path, particle_files, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = tmp_path / "catalogue.yaml"
    monkeypatch.setenv("DRGNAI_DATASETS", str(catalogue))
    words = ["setup", str(tmp_path / "run"), "--dataset", "toy"]
    refused(words, tmp_path, capsys)
    for text, wanted in (
        ("toys: {particles: a.mrcs, ctf: c.pkl}", "Did you mean 'toys'"),
        ("toy: 3", "wanted"),
        ("toy: {ctf: c.pkl}", "particles"),
        ("toy: {particles: a.mrcs, ctf: c.pkl, colour: red}", "colour"),
        ("toy: {particles: a.mrcs, ctf: c.pkl}", "a.mrcs"),
        ("{", "YAML"),
        ("", "toy"),
    ):
        catalogue.write_text(text)
        assert_says(refused(words, tmp_path, capsys), wanted)


def test_initial_conformations_of_another_shape(
    tmp_path: Path, particle_files, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    write_pickle(tmp_path / "z.pkl", np.zeros((NUM_IMAGES, 3)))
    cfgs = ["--cfgs", "z_dim=2", f"initial_conf={tmp_path / 'z.pkl'}"]
    assert main(["setup", str(out), *particle_files.flags, "--conf", "refine", *cfgs]) == 0
    assert_says(refused(["train", str(out)], tmp_path, capsys), "z.pkl.*3")


def trained(out: Path, *cfgs: str) -> None:
    """Train for as short as can be, with known poses."""
    write_pose_file(out.parent / "poses.pkl", TURNS, np.zeros((NUM_IMAGES, 2)))
    small = ["hypervolume_dim=8", "hypervolume_layers=1", "pe_dim=4", "epochs_sgd=1", "log_heavy_interval=1"]
    flags = ["--pose", str(out.parent / "poses.pkl"), "--pose-estimation", "fixed", "--cfgs", *small, *cfgs]
    assert main(["setup", str(out), *flags]) == 0
    assert main(["train", str(out), "--no-analysis"]) == 0


def test_a_trained_run(out: Path, particle_files, capsys: pytest.CaptureFixture[str]) -> None:
    """Epochs that are not there, checkpoints of other settings, files that were damaged or lost."""
    trained(out, "n_classes=2")
    folder = out.parent
    last = RunFolder(out).latest_epoch()
    analyses = {
        ("--epoch", "77"): "no epoch 77.*Choose",
        ("--epoch", "-7"): "no epoch -7",
        ("--class-idx", "2"): "class",
        ("--class-idx", "-1"): "class",
        ("--sample-z-idx", "99"): "99",
        ("--trajectory-1d", "0", "99", "3"): "99",
        ("--ksample", "0"): "ksample",
        ("--n-per-pc", "0"): "n-per-pc|n_per_pc",
        ("--pc", "-1"): "pc",
        ("--z-values-txt", str(folder / "gone.txt")): "gone.txt",
        ("--direct-traversal-txt", str(folder)): "text file",
    }
    for flags, wanted in analyses.items():
        assert_says(refused(["analyze", str(out), *flags], folder, capsys), wanted)

    for change, back, wanted in (
        ("n_classes=3", "n_classes=2", "n_classes"),
        ("ind=6", "ind=null", "6 particles|12 particles"),
        ("hypervolume_dim=16", "hypervolume_dim=8", "settings"),
        ("field=voxel", "field=mlp", "settings|field"),
        ("z_dim=1", "z_dim=0", "z_dim"),
    ):
        assert main(["setup", str(out), "--cfgs", change]) == 0
        assert_says(refused(["train", str(out), "--load"], folder, capsys), wanted)
        assert main(["setup", str(out), "--cfgs", back]) == 0

    weights = RunFolder(out).weights_path(last)
    whole = weights.read_bytes()
    for damage in (b"", whole[:500], b"no weights", pickle.dumps({"a": 1})):
        weights.write_bytes(damage)
        for words in (["train", str(out), "--load"], ["analyze", str(out)], ["checksum", str(out)]):
            assert_says(refused(words, folder, capsys), weights.name)
    weights.write_bytes(whole)
    for damage in (b"", b"PK no archive", None):
        latents = RunFolder(out).latents_path(last)
        latents.unlink() if damage is None else latents.write_bytes(damage)
        assert_says(refused(["analyze", str(out)], folder, capsys), latents.name)


def test_recorded_settings_that_were_damaged(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(out)
    record = RunFolder(out).train_configs_path
    record.write_text("seed: [")
    assert_says(refused(["train", str(out), "--load"], out.parent, capsys), "train-configs.yaml")
    assert_says(refused(["analyze", str(out)], out.parent, capsys), "train-configs.yaml")


def test_the_good_case_is_good(out: Path, particle_files) -> None:
    """What the cases above break is whole."""
    write_ctf_file(particle_files.ctf, np.tile(CTF_ROW, (NUM_IMAGES, 1)))
    assert yaml.safe_load((out / "configs.yaml").read_text())["particles"] == str(particle_files.particles)
    assert read_configs(out / "configs.yaml").settings.n_classes == 1
