"""What was found, in sentences."""

from collections.abc import Sequence

import numpy as np

from cryohydra.analysis.class_analysis import ClassFindings
from cryohydra.analysis.classes import ClassSummary, Likeness
from cryohydra.analysis.run import Run

_SURE = 0.9


def tell_findings(run: Run, summary: ClassSummary, likeness: Likeness | None) -> tuple[str, ...]:
    """A few sentences that a reader may quote."""
    said = [_tell_sizes(run, summary)]
    if run.num_classes > 1:
        sure = float((run.latents.class_probability.max(axis=1) > _SURE).mean())
        said.append(f"{100 * sure:.1f} % of the particles belong to one class with a probability above {_SURE:g}.")
    num_junk = int((run.junk_probability > 0.5).sum())
    if num_junk:
        share = 100 * num_junk / len(run.latents)
        said.append(f"{_count(num_junk, 'particle')} ({share:.1f} %) fit no class better than noise does.")
    if likeness is not None:
        off_diagonal = likeness.correlation[~np.eye(len(likeness.correlation), dtype=bool)]
        most = float(np.nanmax(off_diagonal))
        how = "after alignment" if likeness.is_aligned else "as they lie"
        said.append(f"The two maps most alike correlate to {most:.2f} {how}, at low frequencies.")
    if run.z_dim:
        axes = "an axis" if run.z_dim == 1 else f"{run.z_dim} axes"
        said.append(f"Each class may move along {axes}; whether it does is seen in its motions.")
    return tuple(said)


def tell_states(findings: Sequence[ClassFindings]) -> tuple[str, ...]:
    """How many states each class has, with their shares; nothing of rigid and empty classes."""
    said = []
    single: dict[str, list[int]] = {}
    for found in findings:
        if found.states is None:
            continue
        share, finest = found.states.landscape.share, found.states.finest_angstrom
        if len(share) > 1:
            percent = ", ".join(f"{100 * part:.0f} %" for part in share)
            said.append(f"Class {found.class_index}: {len(share)} states, {percent}.")
        elif finest is not None:
            why = f"to {finest:.0f} Å, images do not tell conformations apart"
            single.setdefault(why, []).append(found.class_index)
        else:
            why = "there are too few images, or none, to tell conformations apart"
            single.setdefault(why, []).append(found.class_index)
    for why, classes in single.items():
        which = ", ".join(str(index) for index in classes)
        of_each = "" if len(classes) == 1 else " each"
        said.append(f"Class{'es' if len(classes) > 1 else ''} {which}: one state{of_each}; {why}.")
    return tuple(said)


def _tell_sizes(run: Run, summary: ClassSummary) -> str:
    particles = _count(len(run.latents), "particle")
    if run.num_classes == 1:
        return f"{particles} make one map."
    share = 100 * np.sort(summary.share)[::-1]
    if share[0] - share[-1] < 1:
        sizes = f"each holds {share.mean():.0f} %"
    else:
        sizes = f"the largest holds {share[0]:.1f} %, the smallest {share[-1]:.1f} %"
    return f"{particles} fall into {run.num_classes} classes: {sizes} by probability."


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
