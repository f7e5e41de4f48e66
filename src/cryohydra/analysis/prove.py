"""The proof of a run: its particles backprojected class by class, and what that says of the neural maps."""

from collections.abc import Callable
from dataclasses import replace

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.analysis.proof import HalvesMade, prove_class
from cryohydra.analysis.proof_files import ProofFolder
from cryohydra.analysis.run import Run
from cryohydra.data.particles import ParticleSet
from cryohydra.errors import InputMismatch, UserError
from cryohydra.fourier.resampling import resample_map
from cryohydra.inference.half_maps import HalfSets, backproject_halves
from cryohydra.inference.partition import half_of
from cryohydra.io.mrc import read_map
from cryohydra.model.checkpoint import load_checkpoint

_FEWEST = 10.0
"""Particles in a half, by probability, of which a map can be made."""


def halves_of(particles: ParticleSet) -> tuple[Int[Tensor, "n"], str]:
    """Which half each particle belongs to, and a sentence on where that comes from."""
    if particles.half is not None:
        return particles.half, "Halves are those of the particle file."
    return half_of(torch.arange(len(particles.source))), "Halves are the model's own."


def sets_of_run(run: Run, particles: ParticleSet) -> HalfSets:
    """Poses of every class and class probabilities as a run left them, shifts in pixels of the images given.

    Raises:
        UserError: If the images are not those of the run, or it kept no poses.
    """
    if particles.index.tolist() != run.latents.particle_index.tolist():
        raise InputMismatch(
            f"The particle file gives {len(particles.index)} particles but {run.folder.path} was trained on "
            f"{len(run.latents)}, or on others; wanted the same rows in the same order."
        )
    training = load_checkpoint(run.folder.weights_path(run.epoch), "cpu").extra.get("training")
    if training is None:
        raise UserError(f"Checkpoint {run.epoch} of {run.folder.path} holds fields but no poses; train anew.")
    sets = HalfSets(
        half=halves_of(particles)[0],
        probability=torch.from_numpy(run.latents.class_probability).float(),
        rotation=training["poses"]["rotation"],
        shift_px=training["poses"]["shift_px"],
    )
    return in_pixels_of(sets, run, particles)


def in_pixels_of(sets: HalfSets, run: Run, particles: ParticleSet) -> HalfSets:
    """Shifts in pixels of the run turned to those of the images: the same places in angstrom."""
    return replace(sets, shift_px=sets.shift_px * (run.pixel_size_angstrom / particles.source.pixel_size_angstrom))


def maps_of(run: Run) -> Float[Tensor, "k d d d"]:
    """The neural map of each class at the run's own box."""
    box_size = run.mixture.box_size
    return torch.stack([neural_map(run, k, box_size, run.pixel_size_angstrom) for k in range(run.num_classes)])


def prove_run(
    run: Run,
    particles: ParticleSet,
    sets: HalfSets,
    made: HalvesMade,
    *,
    advanced: Callable[[int], None] = lambda count: None,
    says: Callable[[str], None] = lambda sentence: None,
) -> ProofFolder:
    """Backproject each class by halves, compare, and write what comes of it.

    Args:
        particles: At the run's box or a larger one.
        advanced: Is told how many images were backprojected.
    """
    folder = ProofFolder(run.folder.proof_path(run.epoch, made.kind))
    for class_index in range(run.num_classes):
        counts = sets.num_particles(class_index)
        if min(counts) < _FEWEST:
            says(
                f"Class {class_index} has {counts[0]:.0f} and {counts[1]:.0f} particles in its halves, too few to make "
                "maps of."
            )
            advanced(len(sets.members(class_index)))
            continue
        maps = backproject_halves(particles.source, sets, class_index, run.device, advanced)
        proof = prove_class(
            maps,
            neural_map(run, class_index, particles.source.box_size, particles.source.pixel_size_angstrom),
            class_index=class_index,
            made=made,
            num_particles=counts,
            pixel_size_angstrom=particles.source.pixel_size_angstrom,
        )
        sentences = proof.sentences(moves=run.z_dim > 0)
        folder.write(proof, maps, sentences)
        says(f"Class {class_index}: " + " ".join(sentences))
    return folder


def neural_map(run: Run, class_index: int, box_size: int, pixel_size_angstrom: float) -> Float[Tensor, "d d d"]:
    """The map that training wrote of a class, in other voxels if need be."""
    density, pixel_size = read_map(run.folder.map_path(run.epoch, class_index))
    return resample_map(torch.from_numpy(density), pixel_size, box_size, pixel_size_angstrom)
