"""The folder of a proof: half maps, correlations and figures of each class, and what the report shows of them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryohydra._typing import Tensor
from cryohydra.analysis.class_analysis import ShownFigure
from cryohydra.analysis.drawing import save_figure
from cryohydra.analysis.palette import DARK, LIGHT
from cryohydra.analysis.proof import GOLD, HALF, ClassProof
from cryohydra.analysis.proof_plots import plot_half_map_fsc, plot_local_agreement, plot_model_fsc
from cryohydra.errors import UnreadableFile
from cryohydra.inference.half_maps import HalfMaps
from cryohydra.io.atomic import write_atomically
from cryohydra.io.fsc_file import write_fsc_csv, write_fsc_xml
from cryohydra.io.mrc import write_map
from cryohydra.io.run_folder import RunFolder

_FIGURES = {
    "fsc": (plot_half_map_fsc, "Half maps against each other: {label}. Corrected is masked less what the mask adds."),
    "model": (plot_model_fsc, "Neural map against the backprojection of the same particles, under the same mask."),
    "local": (plot_local_agreement, "Central slices, and where in them both maps agree; yellow is the mask."),
}


@dataclass(frozen=True)
class ShownProof:
    """What the report shows of one proof of a class."""

    sentences: tuple[str, ...]
    figures: tuple[ShownFigure, ...]


class ProofFolder:
    """Written class by class; what an earlier proof left is moved aside before the first."""

    def __init__(self, path: Path):
        self.path = path
        self._is_new = True

    def write(self, proof: ClassProof, maps: HalfMaps, sentences: tuple[str, ...]) -> None:
        """Write everything of a class, its record last: where it is, all is."""
        if self._is_new:
            _move_aside(self.path)
            self.path.mkdir(parents=True)
            self._is_new = False
        for name, density in (
            ("_half1", maps.halves[0]),
            ("_half2", maps.halves[1]),
            ("", proof.filtered),
            ("_mask", proof.mask),
        ):
            write_map(self._file(proof, f"{name}.mrc"), _array(density), proof.pixel_size_angstrom)
        frequency = proof.frequency_per_angstrom
        title = f"class {proof.class_index}, masked and corrected: {proof.made.label}"
        write_fsc_xml(self._file(proof, "_fsc.xml"), title, frequency, _array(proof.halves.corrected))
        curves = {
            "unmasked": proof.halves.unmasked,
            "masked": proof.halves.masked,
            "phase_randomised": proof.halves.randomised,
            "corrected": proof.halves.corrected,
            "neural_against_backprojection": proof.model,
            "perfect_against_backprojection": proof.expected,
        }
        write_fsc_csv(self._file(proof, "_fsc.csv"), frequency, {name: _array(curve) for name, curve in curves.items()})
        captions = {}
        for name, (plot, caption) in _FIGURES.items():
            captions[name] = caption.format(label=proof.made.label)
            for theme, ending in ((LIGHT, ".png"), (DARK, "_dark.png")):
                save_figure(plot(proof, theme), self._file(proof, f"_{name}{ending}"))
        with write_atomically(self._file(proof, ".json")) as temporary:
            temporary.write_text(json.dumps(_record(proof, sentences, captions), indent=1, ensure_ascii=False) + "\n")

    def _file(self, proof: ClassProof, ending: str) -> Path:
        return self.path / f"class_{proof.class_index}{ending}"


def read_proofs(folder: RunFolder, epoch: int, class_index: int) -> tuple[ShownProof, ...]:
    """What was found out about a class of an epoch; nothing if nobody has asked.

    Raises:
        UnreadableFile: If a proof is damaged.
    """
    records = sorted(folder.proof_path(epoch, "").parent.glob(f"proof_{epoch}_*/class_{class_index}.json"))
    return tuple(_read_proof(path) for path in records)


def _read_proof(path: Path) -> ShownProof:
    try:
        record = json.loads(path.read_text())
        figures = tuple(
            ShownFigure(
                caption,
                path.with_name(f"{path.stem}_{name}.png").read_bytes(),
                path.with_name(f"{path.stem}_{name}_dark.png").read_bytes(),
            )
            for name, caption in record["captions"].items()
        )
        return ShownProof(tuple(record["sentences"]), figures)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UnreadableFile(
            f"{path} cannot be read as a proof ({error}); wanted what `drgnai prove` wrote. Move {path.parent} away, "
            "or prove again."
        ) from error


def _record(proof: ClassProof, sentences: tuple[str, ...], captions: dict[str, str]) -> dict[str, Any]:
    """What another program may want to know."""
    curves = {"corrected": proof.halves.corrected, "unmasked": proof.halves.unmasked, "neural": proof.model}
    size = proof.box_size * proof.pixel_size_angstrom
    start = None if proof.made.start_radius is None else size / proof.made.start_radius
    return {
        "class": proof.class_index,
        "halves": proof.made.label,
        "common_start_angstrom": start,
        "particles": proof.num_particles,
        "box_size": proof.box_size,
        "pixel_size_angstrom": proof.pixel_size_angstrom,
        "resolution_angstrom": {
            name: {f"{threshold:g}": proof.resolution(curve, threshold).angstrom for threshold in (GOLD, HALF)}
            for name, curve in curves.items()
        },
        "phases_random_from_angstrom": size / proof.halves.first_randomised,
        "sentences": sentences,
        "captions": captions,
    }


def _move_aside(path: Path) -> None:
    """Give a folder that is there already the next free name."""
    if path.exists():
        number = 0
        while (aside := path.with_name(f"old-{path.name}_{number:03d}")).exists():
            number += 1
        path.rename(aside)


def _array(values: Tensor) -> np.ndarray:
    return values.cpu().numpy()
