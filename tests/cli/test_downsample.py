"""`drgnai downsample` on the command line."""

from pathlib import Path

import numpy as np
import pytest

from cryohydra.cli.main import INTERRUPTED, USER_ERROR, main
from cryohydra.data import downsampling
from cryohydra.io.mrc import MrcStack


def test_it_says_what_was_written(particle_files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["downsample", str(particle_files.particles), "-D", "8", "-o", str(tmp_path / "small")]
    assert main([*words, "--threads", "2"]) == 0
    assert "small/p.mrcs: 12 images of 8 px (" in capsys.readouterr().out
    assert MrcStack(tmp_path / "small" / "p.mrcs").box_size == 8
    assert main(words) == 0
    assert "12 images of 8 px, 12 of them were there." in capsys.readouterr().out
    assert main([*words, "--threads", "0"]) == USER_ERROR
    # The CTF file serves both sizes.
    flags = ["--particles", str(tmp_path / "small" / "p.mrcs"), "--ctf", str(particle_files.ctf)]
    assert main(["setup", str(tmp_path / "run"), *flags]) == 0
    assert "12 particles, 8 x 8 px, 8 A/px" in capsys.readouterr().out
    assert main(["setup", str(tmp_path / "fly"), *particle_files.flags, "--cfgs", "downsample=8"]) == 0
    assert "12 particles, 8 x 8 px, 8 A/px" in capsys.readouterr().out


def test_a_stop_tells_how_to_go_on(
    particle_files, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    words = ["downsample", str(particle_files.particles), "-D", "8", "-o", str(tmp_path / "small")]
    with monkeypatch.context() as patch:
        patch.setattr(downsampling, "read_any_images", stop)
        assert main(words) == INTERRUPTED
    assert "the same command goes on" in capsys.readouterr().out
    assert main(words) == 0
    assert len(MrcStack(tmp_path / "small" / "p.mrcs")) == 12


def test_blank_images_are_named(particle_files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = np.memmap(particle_files.particles, "<f4", "r+", 1024, (16, 16))
    image[0, 0] = np.inf
    image.flush()
    assert main(["downsample", str(particle_files.particles), "-D", "8", "-o", str(tmp_path / "small")]) == 0
    assert "1 images had values that are not finite and are blank now: image 1 of" in capsys.readouterr().out
