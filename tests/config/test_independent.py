"""Halves refined apart find what is in the images, and in noise nothing beyond their common start."""

from pathlib import Path

import pytest
import torch

from cryohydra.analysis.proof import ClassProof, independent_halves, prove_class
from cryohydra.config.independent import search_halves_apart, start_radius
from cryohydra.config.reading import read_settings
from cryohydra.data.particles import open_particles
from cryohydra.data.simulated import read_truth, simulate_to_folder
from cryohydra.errors import UserError
from cryohydra.fourier.fsc import crossing_shell
from cryohydra.inference.half_maps import backproject_halves
from cryohydra.physics.demo_structures import demo_class
from cryohydra.physics.simulation import Imaging

BOX_SIZE, PIXEL_SIZE, NUM_IMAGES, START = 32, 13.5, 240, 5


class Silent:
    def stage_begins(self, name: str, total_images: int) -> None: ...

    def advanced(self, images: int, note: str) -> None: ...

    def stage_ends(self, sentence: str) -> None: ...

    def says(self, sentence: str) -> None: ...


def prove_apart(folder: Path, snr: float) -> ClassProof:
    """Images of a complex, or what would be, refined in halves from its low-passed map."""
    imaging = Imaging(PIXEL_SIZE, snr=snr, shift_std_px=0.5)
    simulate_to_folder(folder, [demo_class("spliceosome", BOX_SIZE, PIXEL_SIZE)], imaging, NUM_IMAGES, seed=1)
    values = {"particles": folder / "particles.star", "seed": 0, "t_extent": 1.0, "n_imgs_pose_search": 5 * NUM_IMAGES}
    # What a run with more classes has kept.
    values |= {"n_classes": 3, "prune_classes": True}
    settings = read_settings(values).settings
    particles = open_particles(folder / "particles.star", invert=True)
    true = torch.from_numpy(read_truth(folder).maps)
    half = torch.arange(NUM_IMAGES) % 2
    sets = search_halves_apart(settings, particles, half, true, START, Silent())
    return prove_class(
        backproject_halves(particles.source, sets, 0),
        true[0],
        class_index=0,
        made=independent_halves(START, BOX_SIZE * PIXEL_SIZE),
        num_particles=sets.num_particles(0),
        pixel_size_angstrom=PIXEL_SIZE,
    )


def test_noise_has_nothing_beyond_the_common_start(tmp_path: Path) -> None:
    proof = prove_apart(tmp_path, snr=1e-8)
    # Noise turned until it looks like the start does agree where the start is.
    assert float(proof.halves.corrected[1:START].mean()) > 0.3
    # Single shells of noise reach 0.2, with other seeds or other rounding of the last digits; signal would be near 1.
    assert float(proof.halves.unmasked[START + 1 :].mean()) < 0.1
    assert float(proof.halves.corrected[START + 1 :].mean()) < 0.1
    assert "no better than the common start" in " ".join(proof.sentences(moves=False))


def test_what_is_in_the_images_is_found_from_a_rough_start(tmp_path: Path) -> None:
    proof = prove_apart(tmp_path, snr=1.0)
    assert crossing_shell(proof.halves.corrected, 0.143) > 2 * START
    # The true map stands for the network's here.
    assert float(proof.model[START + 1 : 2 * START].min()) > 0.5


def test_the_start_is_what_was_asked_for_and_leaves_something_to_find() -> None:
    assert start_radius(48, 9.0, 54.0) == 8
    assert [start_radius(box_size, 2.0, None) for box_size in (16, 32, 48, 256)] == [4, 5, 8, 10]
    for too in (1000.0, 20.0, -1.0):
        with pytest.raises(UserError, match="finer leaves nothing"):
            start_radius(48, 9.0, too)
