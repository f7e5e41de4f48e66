"""The analysis of a run, from opening its folder to the report."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure

from cryohydra._typing import Tensor
from cryohydra.analysis.class_analysis import ClassAnalysis, ClassFindings, ShownFigure, show_figure
from cryohydra.analysis.class_plots import (
    LearningCurve,
    plot_differences,
    plot_fsc_curves,
    plot_learning,
    plot_likeness,
    plot_probabilities,
    plot_shares,
)
from cryohydra.analysis.classes import ClassSummary, Likeness, class_warnings, compare_maps, summarise_classes
from cryohydra.analysis.common_frame import Placement, bring_together, write_frame
from cryohydra.analysis.confounders import find_following, tell_following, tell_independence
from cryohydra.analysis.examples import Examples, show_examples
from cryohydra.analysis.findings_in_words import tell_findings, tell_states
from cryohydra.analysis.fsc_curves import FscCurve, read_fsc_curves
from cryohydra.analysis.latent import has_umap
from cryohydra.analysis.maps import SHOWN_BOX_SIZE, shrink_map
from cryohydra.analysis.notebook import write_notebook
from cryohydra.analysis.options import AnalyzeOptions
from cryohydra.analysis.packed_columns import gather_columns
from cryohydra.analysis.palette import Theme
from cryohydra.analysis.proof_files import read_proofs
from cryohydra.analysis.report import ReportContent, write_report
from cryohydra.analysis.requests import Requests, check_requests
from cryohydra.analysis.run import Run
from cryohydra.analysis.structures import gather_structures
from cryohydra.data.particles import ParticleSet

_MOST_SHOWN_DIFFERENCES = 6


def analyze(
    run_path: Path,
    options: AnalyzeOptions | None = None,
    says: Callable[[str], None] = lambda sentence: None,
    particles: ParticleSet | None = None,
) -> Path:
    """Analyse one epoch of a run and write the report.

    Args:
        says: Is told, in sentences, what is going on and what deserves attention.
        particles: What the run was trained on; without it defocus, labels and examples of images are left out.

    Returns:
        The report, an HTML page that needs no other file.

    Raises:
        UserError: If the run cannot be read or cannot give what the options ask; nothing is written then.
    """
    options = options or AnalyzeOptions()
    run = Run.open(run_path, options.epoch)
    requests = check_requests(run, options)
    folder = run.folder.analysis_path(run.epoch)
    folder.mkdir(parents=True, exist_ok=True)
    particles, missing = _particles_of_run(run, particles)
    notes = _general_notes(run, options) + missing
    for note in notes:
        says(note)
    source = None if particles is None else particles.source
    findings = []
    for class_index in requests.classes:
        says(
            f"Class {class_index} of {run.num_classes}: {len(run.members(class_index)):,} particles, epoch {run.epoch}."
        )
        found = ClassAnalysis(run, class_index, requests, options, source, says).perform()
        findings.append(_with_proofs(run, found))
        write_notebook(run, class_index)
    summary = summarise_classes(run.latents.class_probability)
    likeness = _likeness(run, findings, says)
    following = find_following(run, findings, particles)
    warnings = class_warnings(summary, likeness) + tell_following(following)
    for warning in warnings:
        says(warning)
    curves = read_fsc_curves(run.folder, run.epoch)
    content = ReportContent(
        run=run,
        summary=summary,
        sentences=(*tell_findings(run, summary, likeness), *tell_states(findings), tell_independence(following)),
        warnings=warnings,
        notes=notes,
        structures=gather_structures(run, findings, options.invert, says),
        columns=gather_columns(run, particles, requests.seed),
        fsc=curves,
        fsc_figures=_draw_fsc(curves, run, folder),
        differences=_show_side_by_side(run, summary, likeness, options, says),
        overview=_draw_overview(run, summary, likeness, folder),
        examples=_show_examples(run, requests, particles),
        findings=tuple(findings),
        is_inverted=options.invert,
    )
    report = folder / "report.html"
    says("Writing the report.")
    write_report(content, report)
    return report


def _particles_of_run(run: Run, particles: ParticleSet | None) -> tuple[ParticleSet | None, tuple[str, ...]]:
    """The particles if they are those that the run was trained on, and what to say if they are not."""
    without = "so defocus, labels and examples of particles are left out."
    if particles is None:
        return None, (f"The particle file could not be opened, {without}",)
    known = run.latents.particle_index
    if particles.source.box_size == run.mixture.box_size and np.array_equal(particles.index.numpy(), known):
        return particles, ()
    return None, (
        f"The particle file holds {len(particles.source):,} particles of {particles.source.box_size} px now, and not "
        f"the {len(known):,} of {run.mixture.box_size} px that the run was trained on, {without}",
    )


def _show_examples(run: Run, requests: Requests, particles: ParticleSet | None) -> dict[int, Examples]:
    """Of each class that has particles, once its field has learned something."""
    if particles is None or not run.has_fitted_fields:
        return {}
    filled = [index for index in requests.classes if len(run.members(index))]
    return {index: show_examples(run, particles.source, index, requests.seed) for index in filled}


def _draw_fsc(curves: Sequence[FscCurve], run: Run, folder: Path) -> tuple[ShownFigure, ...]:
    """One figure for each way in which halves were made."""
    figures: list[ShownFigure] = []
    for halves in dict.fromkeys(curve.halves for curve in curves):
        some = [curve for curve in curves if curve.halves == halves]
        path = folder / f"fsc_{len(figures)}.png"
        caption = f"Half maps of each class ({halves}), masked and corrected for the mask. The line is at 0.143."

        def draw(theme: Theme, some: Sequence[FscCurve] = some) -> Figure:
            return plot_fsc_curves(some, run.num_classes, theme)

        figures.append(show_figure(path, draw, caption))
    return tuple(figures)


def _with_proofs(run: Run, found: ClassFindings) -> ClassFindings:
    """What `drgnai prove` found out about a class, if it was asked, beside the rest."""
    proofs = read_proofs(run.folder, run.epoch, found.class_index)
    figures = [figure for proof in proofs for figure in proof.figures]
    sentences = [sentence for proof in proofs for sentence in proof.sentences]
    return replace(found, figures=(*found.figures, *figures), notes=(*found.notes, *sentences))


def learning_curves(metrics: Sequence[dict[str, Any]]) -> list[LearningCurve]:
    """The loss of each stage, in the order in which the stages were first met."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for entry in metrics:
        images, loss = entry.get("images"), entry.get("loss")
        if isinstance(images, int | float) and isinstance(loss, int | float) and np.isfinite([images, loss]).all():
            curves.setdefault(str(entry.get("stage", "training")), []).append((float(images), float(loss)))
    return [LearningCurve(stage, *np.array(points).T) for stage, points in curves.items()]


def _general_notes(run: Run, options: AnalyzeOptions) -> tuple[str, ...]:
    """What holds for every class."""
    notes = []
    if not run.has_fitted_fields:
        notes.append(
            f"At epoch {run.epoch} the classes were known as maps only and no conformations had been learned, "
            "so all volumes of a class are the same. Let the training go on, or analyse a later epoch."
        )
    if run.z_dim > 2 and not options.skip_umap and not has_umap():
        notes.append(
            "UMAP plots were left out because umap-learn is not installed; principal components are shown instead. "
            "To have them: pip install umap-learn, then analyse again."
        )
    if run.z_dim and options.pc > max(run.z_dim, AnalyzeOptions().pc):
        notes.append(f"Traversals go along the {run.z_dim} of {options.pc} components that z_dim {run.z_dim} allows.")
    return tuple(notes)


def _likeness(run: Run, findings: Sequence[ClassFindings], says: Callable[[str], None]) -> Likeness | None:
    """How alike the maps of the classes are; only classes that hold particles and were analysed take part."""
    densities = {found.class_index: found.density for found in findings if found.num_particles}
    if len(densities) < 2:
        return None
    return compare_maps([densities.get(index) for index in range(run.num_classes)], says)


def _draw_overview(run: Run, summary: ClassSummary, likeness: Likeness | None, folder: Path) -> tuple[ShownFigure, ...]:
    """Figures of the run as a whole, also written beside the report."""
    probability, best_class = run.latents.class_probability, run.latents.best_class
    best_probability = probability.max(axis=1)
    curves = learning_curves(run.metrics())
    figures = []
    if curves:
        caption = "Loss against images seen. Stages have losses of their own and do not compare."
        figures.append(show_figure(folder / "learning_curve.png", lambda theme: plot_learning(curves, theme), caption))
    if run.num_classes > 1:
        shares = show_figure(
            folder / "shares.png",
            lambda theme: plot_shares(summary.share, summary.hard_share, theme),
            "Shares of the classes: bars are mean probabilities, dots the particles counted by best class.",
        )
        probabilities = show_figure(
            folder / "probabilities.png",
            lambda theme: plot_probabilities(best_probability, best_class, run.num_classes, theme),
            "How sure each particle is of its best class, coloured by class.",
        )
        # Pairs of like height: shares beside the curve, then the two tall ones.
        figures = [shares, *figures, probabilities]
    if likeness is not None:
        how = "each pair aligned over rotation, shift and hand" if likeness.is_aligned else "not aligned"
        caption = f"Correlation of the classes' maps at low frequencies, {how}."
        correlation = likeness.correlation
        figures.append(show_figure(folder / "likeness.png", lambda theme: plot_likeness(correlation, theme), caption))
    return tuple(figures)


def _show_side_by_side(
    run: Run, summary: ClassSummary, likeness: Likeness | None, options: AnalyzeOptions, says: Callable[[str], None]
) -> tuple[ShownFigure, ...]:
    """Bring the classes into one frame, write them, and draw what differs."""
    if likeness is None:
        return ()
    compared = [k for k in range(run.num_classes) if np.isfinite(likeness.correlation[k, k])]
    first = max(compared, key=lambda k: int(summary.hard_count[k]))
    maps = {k: run.mean_map(k) for k in compared}
    placements = bring_together(maps, likeness.correlation, first, run.pixel_size_angstrom, says)
    folder, sign = run.folder.frame_path(run.epoch), -1 if options.invert else 1
    write_frame(folder, placements, likeness.correlation, run.latents, run.pixel_size_angstrom, sign)
    laid = [placement for placement in placements if placement.neighbour is not None]
    laid.sort(key=lambda placement: -placement.alignment.correlation)
    density = {placement.class_index: placement.density for placement in placements}
    rows = [_difference_row(placement, density) for placement in laid[:_MOST_SHOWN_DIFFERENCES]]
    caption = (
        "Each class, in the middle, laid on the one it is most like, on the left: projections along z, and their "
        "difference, red where the class in the middle has more density, blue where it has less. All classes in this "
        "frame, with poses to match, are in one_frame/."
    )
    return (show_figure(folder / "differences.png", lambda theme: plot_differences(rows, theme), caption),)


def _difference_row(placement: Placement, density: dict[int, Tensor]) -> tuple[str, Float[np.ndarray, "3 n n"]]:
    assert placement.neighbour is not None
    both = density[placement.neighbour], placement.density, placement.difference
    pictures = torch.stack([shrink_map(one, SHOWN_BOX_SIZE).sum(0) for one in both]).numpy()
    hand = ", mirrored" if placement.alignment.is_mirrored else ""
    name = (
        f"class {placement.neighbour} | class {placement.class_index}{hand} | difference; "
        f"alike to {placement.alike_to_angstrom:.0f} Å"
    )
    return name, pictures
