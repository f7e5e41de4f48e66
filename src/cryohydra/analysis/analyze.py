"""The analysis of a run, from opening its folder to the report."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cryohydra.analysis.class_analysis import ClassAnalysis, ClassFindings, ShownFigure, show_figure
from cryohydra.analysis.class_plots import (
    LearningCurve,
    plot_learning,
    plot_likeness,
    plot_probabilities,
    plot_shares,
)
from cryohydra.analysis.classes import ClassSummary, Likeness, class_warnings, compare_maps, summarise_classes
from cryohydra.analysis.latent import has_umap
from cryohydra.analysis.notebook import write_notebook
from cryohydra.analysis.options import AnalyzeOptions
from cryohydra.analysis.report import ReportContent, write_report
from cryohydra.analysis.requests import check_requests
from cryohydra.analysis.run import Run


def analyze(
    run_path: Path, options: AnalyzeOptions | None = None, says: Callable[[str], None] = lambda sentence: None
) -> Path:
    """Analyse one epoch of a run and write the report.

    Args:
        says: Is told, in sentences, what is going on and what deserves attention.

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
    notes = _general_notes(run, options)
    for note in notes:
        says(note)
    findings = []
    for class_index in requests.classes:
        says(
            f"Class {class_index} of {run.num_classes}: {len(run.members(class_index)):,} particles, epoch {run.epoch}."
        )
        findings.append(ClassAnalysis(run, class_index, requests, options, says).perform())
        write_notebook(run, class_index)
    summary = summarise_classes(run.latents.class_probability)
    likeness = _likeness(run, findings, says)
    warnings = class_warnings(summary, likeness)
    for warning in warnings:
        says(warning)
    content = ReportContent(
        run=run,
        summary=summary,
        warnings=warnings,
        notes=notes,
        overview=_draw_overview(run, summary, likeness, folder),
        findings=tuple(findings),
        is_inverted=options.invert,
    )
    report = folder / "report.html"
    says("Writing the report.")
    write_report(content, report)
    return report


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
    if run.z_dim and options.pc > run.z_dim:
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
