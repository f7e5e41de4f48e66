"""What `drgnai check` says: a page for people, a report for scripts."""

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from cryohydra.cli.progress import as_time
from cryohydra.config.forecast import Forecast
from cryohydra.data.inspection import Finding, Inspection
from cryohydra.data.inspection.optics import OpticsGroup

_WIDTH = 110
_MOST_GROUPS = 6
_HEADINGS = {"error": "CANNOT BE TRAINED ON", "warning": "LOOK AT THIS FIRST", "note": "NOTES"}
_KNOWN_FROM = {
    "settings": "as invert_data says",
    "file": "the file says so",
    "images": "the images show it",
    "habit": "the images do not show it; as is usual for such files",
}


def page(
    inspection: Inspection, findings: Sequence[Finding], forecast: Forecast | None, command: str | None
) -> Iterator[str]:
    """Lines for a terminal."""
    num_errors = sum(finding.severity == "error" for finding in findings)
    verdict = "can be trained on" if not num_errors else f"cannot be trained on, {num_errors} thing(s) to mend"
    yield f"{inspection.particles}: {verdict}"
    for severity, heading in _HEADINGS.items():
        some = [finding for finding in findings if finding.severity == severity]
        if some:
            yield f"\n{heading}"
        for finding in some:
            yield from textwrap.wrap(finding.sentence, _WIDTH, initial_indent="  - ", subsequent_indent="    ",
                                     break_long_words=False, break_on_hyphens=False)  # fmt: skip
            if finding.advice:
                yield from textwrap.wrap(finding.advice, _WIDTH, initial_indent="    > ", subsequent_indent="      ",
                                         break_long_words=False, break_on_hyphens=False)  # fmt: skip
    if inspection.table is not None:
        yield "\nIMAGES"
        yield from (f"  {name:<10}{text}" for name, text in _facts(inspection))
    if inspection.groups:
        yield "\nOPTICS"
        yield from _optics_table(inspection.groups)
    if forecast is not None:
        yield f"\nCOST of the command below, measured here on the {_device(forecast)}"
        yield from (f"  {line}" for line in _cost_lines(forecast))
    if command is not None:
        yield "\nNEXT"
        yield f"  {command}"


def report(
    inspection: Inspection, findings: Sequence[Finding], forecast: Forecast | None, command: str | None
) -> dict[str, Any]:
    """The same, for JSON."""
    table, survey = inspection.table, inspection.survey
    content = {
        "particles": str(inspection.particles),
        "can_be_trained_on": all(finding.severity != "error" for finding in findings),
        "findings": [asdict(finding) for finding in findings],
        "num_images": inspection.num_images,
        "num_images_found": inspection.num_there,
        "num_images_looked_at": 0 if survey is None else survey.num_looked_at,
        "files": [] if table is None else [str(stack.path) for stack in table.references.stacks],
        "box_size": None if table is None else table.box_size or None,
        "optics_groups": [asdict(group) for group in inspection.groups],
        "polarity": None if inspection.polarity is None else asdict(inspection.polarity),
        "signal_to_noise": None if survey is None else survey.signal_to_noise,
        "has_poses": inspection.rotation is not None,
        "has_shifts": inspection.has_shifts,
        "tilts": None if inspection.tilts is None else asdict(inspection.tilts),
        "forecast": None
        if forecast is None
        else asdict(forecast) | {"seconds": forecast.seconds, "bound_seconds": forecast.bound_seconds},
        "setup_command": command,
    }
    return {key: _finite(value) for key, value in content.items()}


def _facts(inspection: Inspection) -> Iterator[tuple[str, str]]:
    table, survey = inspection.table, inspection.survey
    assert table is not None
    stacks = table.references.stacks
    files = f"{len(stacks):,} file{'' if len(stacks) == 1 else 's'}"
    looked = "" if survey is None else f"; looked at {survey.num_looked_at:,}"
    yield "number", f"{inspection.num_images:,} described, {inspection.num_there:,} found in {files}{looked}"
    if inspection.tilts is not None:
        tilts = inspection.tilts
        span = str(tilts.most) if tilts.fewest == tilts.most else f"{tilts.fewest} to {tilts.most}"
        yield "tilts", f"{tilts.num_particles:,} particles of {span} tilts"
    if table.box_size:
        sizes = sorted({group.pixel_size_angstrom for group in inspection.groups if group.pixel_size_angstrom > 0})
        wide = "".join(
            f", {size:.5g} A/px: {table.box_size * size:.4g} A wide, Nyquist {2 * size:.4g} A" for size in sizes[:3]
        )
        yield "box", f"{table.box_size} x {table.box_size} px{wide}"
    if inspection.polarity is not None:
        seen = inspection.polarity
        sure = f"; centres stand out by {abs(seen.significance):.0f} standard errors" if seen.significance else ""
        colour = "white on dark" if seen.is_white else "dark on white"
        yield "polarity", f"{colour} ({_KNOWN_FROM[seen.known_from]}{sure})"
    if survey is not None:
        yield "signal", f"about {survey.signal_to_noise:.2g} of the noise's variance, CTF included, whole box"
    known = (
        "none" if inspection.rotation is None else "rotations and shifts" if inspection.has_shifts else "rotations only"
    )
    yield "poses", f"given: {known}"


def _optics_table(groups: Sequence[OpticsGroup]) -> Iterator[str]:
    yield "  group   images    box    A/px     kV   Cs mm  contrast  defocus A: lowest  median  highest  phase shift"
    for group in groups[:_MOST_GROUPS]:
        low, middle, high = group.defocus_angstrom
        yield (
            f"  {group.group:>5}  {group.num_images:>7,}  {group.box_size or '?':>5}  "
            f"{group.pixel_size_angstrom:>6.4g}  {group.voltage_kv:>5.4g}  "
            f"{group.spherical_aberration_mm:>6.3g}  {group.amplitude_contrast:>8.3g}  "
            f"{low:>17,.0f}  {middle:>6,.0f}  {high:>7,.0f}  {group.phase_shift_degrees[1]:>7.3g} deg"
        )
    if len(groups) > _MOST_GROUPS:
        yield f"  ... and {len(groups) - _MOST_GROUPS} more groups (all are in the JSON)"


def _cost_lines(forecast: Forecast) -> Iterator[str]:
    yield (
        f"memory  {_bytes(forecast.memory_bytes)} at its highest, in {forecast.peak_stage} "
        f"(images {_bytes(forecast.images_bytes)}, tables {_bytes(forecast.tables_bytes)})"
    )
    if forecast.gpu_bytes:
        yield f"GPU     {_bytes(forecast.gpu_bytes)}"
    yield f"disk    {_bytes(forecast.disk_bytes)}"
    yield (
        f"time    {as_time(forecast.seconds)} if it converges as trainings so far did; "
        f"{as_time(forecast.bound_seconds)} at most; without the analysis"
    )
    for stage in forecast.stages:
        yield f"        {stage.name:<24} {as_time(stage.seconds):>8}   {stage.course}"


def _device(forecast: Forecast) -> str:
    return "GPU" if forecast.device == "cuda" else "processor"


def _bytes(count: float) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def _finite(value: Any) -> Any:
    """JSON has no words for NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value
