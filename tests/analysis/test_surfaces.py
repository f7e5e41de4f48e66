"""Surfaces, what is packed of maps, scripts and films."""

import base64
import gzip
import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cryohydra.analysis.chimerax import Scene, ShownMap, write_classes_script, write_motion_script
from cryohydra.analysis.embedded_maps import choose_scale, crop_map, pack_series
from cryohydra.analysis.maps import enlarge_map, shrink_map
from cryohydra.analysis.movies import movie_suffix, write_movie
from cryohydra.analysis.surfaces import half_width_above, picture_surface, shown_level
from cryohydra.errors import UserError


def ball(centre: tuple[float, float, float], radius: float, box_size: int = 32) -> torch.Tensor:
    """A ball of density one with a soft edge; centre (x, y, z) in voxels from D//2."""
    axis = torch.arange(box_size) - box_size // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    distance = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2).sqrt()
    return torch.sigmoid(2 * (radius - distance))


def test_the_level_parts_particle_from_solvent() -> None:
    maps = [
        ball((0, 0, 0), 7) + 0.02 * torch.randn(32, 32, 32, generator=torch.Generator().manual_seed(k)) for k in (0, 1)
    ]
    level = shown_level(maps)
    assert 0.2 < level < 0.8
    assert shown_level([3 * density for density in maps]) == pytest.approx(3 * level, rel=0.05)


def test_what_lies_right_and_up_is_drawn_right_and_up() -> None:
    picture = np.asarray(
        Image.open(io.BytesIO(picture_surface(ball((9, 0, 0), 4) + ball((0, 6, 0), 3), 0.5, "#3f90da", size=64)))
    )
    opacity = picture[..., 3] / 255
    y, x = np.mgrid[31.5:-32:-1, -31.5:32]
    assert (opacity * x).sum() > 0 and (opacity * y).sum() > 0
    assert opacity[30:34, 48:52].min() == 1  # x = 9 of 16 voxels


def test_what_is_in_front_hides_what_is_behind() -> None:
    """A small ball towards the viewer, on a large one: its rim shows, since light falls from above and the left."""
    alone = picture_surface(ball((0, 0, 0), 9), 0.5, "#3f90da", size=64)
    behind = picture_surface(ball((0, 0, 0), 9) + ball((0, 0, -9), 3), 0.5, "#3f90da", size=64)
    before = picture_surface(ball((0, 0, 0), 9) + ball((0, 0, 9), 3), 0.5, "#3f90da", size=64)
    alone, behind, before = (
        np.asarray(Image.open(io.BytesIO(png)))[22:42, 22:42].astype(int) for png in (alone, behind, before)
    )
    assert np.abs(behind - alone).max() < 20 < np.abs(before - alone).max()


def test_enlarging_keeps_densities_and_place() -> None:
    density = shrink_map(ball((3, -2, 5), 5, 48), 24)
    large = enlarge_map(density, 72)
    torch.testing.assert_close(large[::3, ::3, ::3], density, atol=2e-3, rtol=0)
    torch.testing.assert_close(shrink_map(large, 24), density, atol=1e-4, rtol=0)


def test_packed_maps_come_back() -> None:
    density = ball((2, 1, -3), 6)
    scale = choose_scale([density], 2, 64.0)
    packed = pack_series("two", [crop_map(density, scale), crop_map(0.5 * density, scale)], scale)
    levels = np.frombuffer(gzip.decompress(base64.b64decode(packed.payload)), dtype=np.uint8)
    first, second = scale.lowest + levels.reshape(2, *(scale.size,) * 3) / 255.0 * (scale.highest - scale.lowest)
    step = (scale.highest - scale.lowest) / 255
    cropped = crop_map(density, scale).numpy().clip(max=scale.highest)
    seen = cropped > scale.level
    np.testing.assert_allclose(first[seen], cropped[seen], atol=step)
    assert second.max() == pytest.approx(0.5, abs=0.02)
    # Voxel n//2 is the centre, so a page turns classes about the middle of the box.
    z, y, x = (np.argwhere(first > 0.5).mean(axis=0) - scale.size // 2) * scale.voxel_angstrom / 2.0
    np.testing.assert_allclose([x, y, z], [2, 1, -3], atol=0.1)


def test_a_map_of_nothing_can_be_packed() -> None:
    scale = choose_scale([torch.zeros(24, 24, 24)], 1, 60.0)
    assert 0 < scale.lowest < scale.level < scale.highest
    assert crop_map(torch.zeros(24, 24, 24), scale).shape == (scale.size,) * 3


def test_all_that_is_shown_is_kept() -> None:
    density = ball((11, 0, 0), 3)
    half_width = half_width_above([density], 0.5)
    assert 14 / 32 <= half_width <= 0.5
    assert half_width_above([ball((0, 0, 0), 4)], 0.5) < 0.2


def test_scripts_name_files_as_seen_from_their_folder(tmp_path: Path) -> None:
    (tmp_path / "analysis").mkdir()
    maps = [ShownMap(tmp_path / f"map {k}.mrc", "#3f90da") for k in range(2)]
    for shown in maps:
        shown.path.touch()
    scene = Scene(level=0.25, box_angstrom=100.0, shown_angstrom=60.0)
    script = tmp_path / "analysis" / "classes.cxc"
    write_classes_script(script, maps, scene)
    named = re.findall(r'open "(.+)" id', script.read_text())
    assert [(script.parent / name).resolve() for name in named] == [shown.path.resolve() for shown in maps]
    motion = tmp_path / "motion.cxc"
    write_motion_script(motion, [ShownMap(shown.path, shown.colour, is_inverted=True) for shown in maps], scene)
    assert "level -0.25" in motion.read_text() and "level 0.25" in script.read_text()
    (camera,) = {re.search("view matrix .*", file.read_text()).group() for file in (script, motion)}  # type: ignore[union-attr]
    x, y, z = (float(part) for part in camera.split(",")[3::4])
    assert (x, y) == (50, 50)
    # A cone of 30 degrees from there holds what is to be shown.
    assert (z - 50 - 30) * np.tan(np.radians(15)) == pytest.approx(30, abs=0.01)


def frames(count: int) -> np.ndarray:
    """A square that goes from left to right."""
    shown = np.full((count, 32, 48, 3), 255, dtype=np.uint8)
    for number, frame in enumerate(shown):
        frame[8:24, 4 * number : 4 * number + 12] = (200, 20, 20)
    return shown


def test_a_film_without_ffmpeg_goes_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / f"motion{movie_suffix()}"
    assert path.name == "motion.gif"
    write_movie(path, frames(5))
    with Image.open(path) as film:
        assert film.n_frames == 8 and film.info["loop"] == 0
        places = []
        for number in range(film.n_frames):
            film.seek(number)
            places.append(np.asarray(film.convert("RGB"))[16, :, 1].argmin())
    assert places == [0, 4, 8, 12, 16, 12, 8, 4]


def test_a_film_with_ffmpeg_is_mp4(tmp_path: Path) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed; apt-get install ffmpeg")
    path = tmp_path / f"motion{movie_suffix()}"
    write_movie(path, frames(5))
    assert path.name == "motion.mp4"
    done = subprocess.run(
        ["ffmpeg", "-loglevel", "error", "-i", str(path), "-pix_fmt", "rgb24", "-f", "rawvideo", "-"],
        capture_output=True,
        check=True,
    )
    shown = np.frombuffer(done.stdout, dtype=np.uint8).reshape(-1, 32, 48, 3)
    # Half way from white to the square's green: compression blurs its edges.
    places = [int((frame[16, :, 1] < 128).argmax()) for frame in shown]
    assert np.allclose(places, [0, 4, 8, 12, 16, 12, 8, 4], atol=1)


def test_without_a_working_ffmpeg_a_film_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = tmp_path / "ffmpeg"
    stand_in.write_text("#!/bin/sh\necho no encoder >&2\nexit 1\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / f"motion{movie_suffix()}"
    with pytest.raises(UserError, match=r"ffmpeg could not write .*no encoder.*take it off PATH"):
        write_movie(path, frames(2))
    assert not path.exists()


def test_a_still_film_is_one_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    write_movie(tmp_path / "motion.gif", frames(1))
    with Image.open(tmp_path / "motion.gif") as film:
        assert film.n_frames == 1


def test_maps_of_many_classes_are_packed_coarser() -> None:
    """Noise has no empty space and does not compress: 45 classes with 20 states each still fit into a page."""
    density = torch.randn(64, 64, 64, generator=torch.Generator().manual_seed(0))
    num_maps = 45 * 21
    scale = choose_scale([density], num_maps, 400.0)
    packed = pack_series("", [crop_map(density, scale)], scale)
    assert num_maps * len(packed.payload) < 11_000_000
    assert scale.size < choose_scale([density], 3, 400.0).size
