"""What a training will need: memory, disk and time, from a rehearsal on this machine and the plan of its stages."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cryohydra.config.build import IMAGES_FOR_NOISE
from cryohydra.config.measured import Linear
from cryohydra.config.rehearsal import Rehearsal, Written, usual_radius
from cryohydra.config.settings import Settings
from cryohydra.data.source import ParticleSource
from cryohydra.training.ab_initio import SWEEPS_OF_AN_EPOCH, AbInitio
from cryohydra.training.class_variation import MOST_VARIED
from cryohydra.training.gradient_search import GradientSearch
from cryohydra.training.known_poses import KnownPoses
from cryohydra.training.map_pass import widened
from cryohydra.training.refinement import Refinement
from cryohydra.training.search import Searching
from cryohydra.training.search_pass import PILOT
from cryohydra.training.stage import Stage

_BYTES_OF_OPTICS = 100
"""Of each image: optics, and where it is in its file."""
_SETTLING_SWEEPS = 30
"""Over the images of ab initio in its last band: between the 15 where classes are told soon, and the 80 or so if
maps cool slowly."""
_SEARCHING_PASSES = 2
"""Over all images; the third finds that steps do as well."""
_SETTLING_PASSES = 4
"""After the band is as wide as it gets: three to settle, and a last search for what went astray."""
_USUAL_PASSES = 8
"""At known poses."""
_USUAL_EPOCHS = 4
"""Of refinement: two in which particles held out gain, and the two without a gain after which it ends."""
_WEIGHED = 1 / 3
"""Of an epoch of refinement: what its images cost without gradients."""
_BYTES_PER_VOXEL = 4
_VOLUMES_OF_ANALYSIS = 40
"""Of each class that moves: two components of ten volumes, twenty k-means centres."""


@dataclass(frozen=True)
class StageForecast:
    """How long a stage takes."""

    name: str
    seconds: float
    """If it converges as those seen did."""
    bound_seconds: float
    """If it only ends at its bound."""
    course: str
    """What was assumed of it."""


@dataclass(frozen=True)
class Forecast:
    """What a training needs; bytes at the highest moment."""

    device: str
    memory_bytes: int
    images_bytes: int
    """Part of the memory: all images, unless they stay on disk."""
    tables_bytes: int
    """Part of the memory: what is known of each particle."""
    peak_stage: str
    """When the memory is highest."""
    gpu_bytes: int
    disk_bytes: int
    """Checkpoints, maps and the analysis."""
    stages: tuple[StageForecast, ...]

    @property
    def seconds(self) -> float:
        """Of the whole training, without its analysis."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def bound_seconds(self) -> float:
        """At most."""
        return sum(stage.bound_seconds for stage in self.stages)


def foresee(settings: Settings, whole: ParticleSource, measured: Rehearsal) -> Forecast:
    """Put rehearsal and plan together.

    Args:
        whole: All particles.
    """
    num = len(whole)
    per_image = whole.num_tilts * whole.box_size**2 * 4 * (not settings.lazy)
    per_row = measured.per_particle_bytes + whole.num_tilts * _BYTES_OF_OPTICS
    extra = num - measured.num_particles
    opening = StageForecast("opening", *2 * (_growing(measured.opening.seconds, measured, num),), "images read once")
    stages = [_stage(stage, measured, num) for stage in measured.stages]
    checkpoints = _checkpoints(settings, measured, num)
    writing = StageForecast(
        "writing", *2 * (sum(written.cost.seconds for written in checkpoints),), f"{len(checkpoints)} checkpoints"
    )
    peaks = _peaks(measured, num, (per_image + per_row) * min(num, measured.num_particles), settings.n_classes)
    peak_stage, (memory, _) = max(peaks.items(), key=lambda item: item[1][0])
    gpu = max(on_gpu for _, on_gpu in peaks.values())
    volumes = settings.n_classes * (1 + _VOLUMES_OF_ANALYSIS * (settings.z_dim > 0))
    return Forecast(
        device=measured.device,
        memory_bytes=int(memory + extra * (per_image + per_row)),
        images_bytes=num * per_image,
        tables_bytes=num * per_row,
        peak_stage=peak_stage,
        gpu_bytes=int(gpu + extra * measured.per_particle_bytes * (gpu > 0)),
        disk_bytes=sum(written.size_for(num) for written in checkpoints)
        + volumes * whole.box_size**3 * _BYTES_PER_VOXEL,
        stages=(opening, *stages, writing),
    )


def _growing(seconds: float, measured: Rehearsal, num: int) -> float:
    """What takes longer the more images there are."""
    return seconds * num / measured.num_particles


def _checkpoints(settings: Settings, measured: Rehearsal, num: int) -> list[Written]:
    """One where a stage ends, and one every few epochs."""
    found: list[Written] = []
    interval, num_before = settings.log_heavy_interval, 0
    for stage in measured.stages:
        in_course, at_end = measured.writing[stage.name]
        num_after = num_before + _usual_epochs(stage, measured.known_radius, num)
        # The last epoch of a stage is written as its end.
        num_in_course = (num_after - 1) // interval - num_before // interval if interval else 0
        found += [in_course] * num_in_course + [at_end]
        num_before = num_after
    return found


def _usual_epochs(stage: Stage, known_radius: int, num: int) -> int:
    if isinstance(stage, Searching):
        return len(_passes(stage, known_radius, num))
    if isinstance(stage, KnownPoses):
        return min(_USUAL_PASSES, stage.max_images // num)
    if isinstance(stage, Refinement):
        return min(_USUAL_EPOCHS, stage.plan.max_epochs)
    if isinstance(stage, AbInitio):
        return math.ceil(_usual_steps(stage) * stage.batch_size / (SWEEPS_OF_AN_EPOCH * stage.num_images))
    return stage.max_images // num


def _stage(stage: Stage, measured: Rehearsal, num: int) -> StageForecast:
    if isinstance(stage, AbInitio):
        return _ab_initio(stage, measured)
    if isinstance(stage, Searching):
        return _search(stage, measured, num)
    if isinstance(stage, Refinement):
        radius = min(measured.refinement)
        epoch = measured.refinement[radius].seconds_for(num, stage.batch_size)
        longest = measured.refinement[max(measured.refinement)].seconds_for(num, stage.batch_size)
        usual, most = _usual_epochs(stage, measured.known_radius, num), stage.plan.max_epochs
        course = f"{usual} epochs of {epoch:.3g} s in band {radius}; at most {most}"
        # At the end all may be weighed once more, without gradients.
        seconds = (usual + _WEIGHED) * epoch
        return StageForecast(stage.name, seconds, max(seconds, (most + _WEIGHED) * longest), course)
    if isinstance(stage, GradientSearch):
        assert measured.gradient_search is not None
        epochs = stage.max_images / num
        epoch = measured.gradient_search.seconds * num / stage.batch_size
        course = f"{epochs:.0f} epochs of {epoch:.3g} s, whatever is found"
        return StageForecast(stage.name, epochs * epoch, epochs * epoch, course)
    assert measured.other_steps is not None
    epoch = measured.other_steps.seconds_for(num, stage.batch_size) + measured.pass_end.seconds
    usual, at_most = _usual_epochs(stage, measured.known_radius, num), stage.max_images / num
    fitting = _fitting(measured, num)
    course = f"{usual} passes of {epoch:.3g} s; at most {at_most:.0f}"
    return StageForecast(stage.name, usual * epoch + fitting, at_most * epoch + fitting, course)


def _ab_initio(stage: AbInitio, measured: Rehearsal) -> StageForecast:
    plan, costs = stage.annealing, measured.ab_initio

    def seconds_of(num_steps: int) -> float:
        radii = [plan.radius(step) for step in range(num_steps)]
        # A rehearsal of very few steps skips bands.
        return sum(costs[min(costs, key=lambda one: abs(one - radius))].seconds for radius in radii)  # noqa: B023

    usual, most = _usual_steps(stage), stage.max_images // stage.batch_size
    course = f"{usual} steps of {stage.batch_size} images, fewer where classes are told soon; at most {most}"
    return StageForecast(stage.name, seconds_of(usual), seconds_of(most), course)


def _usual_steps(stage: AbInitio) -> int:
    """Until maps have climbed and settled."""
    plan = stage.annealing
    return min(plan.num_steps, plan.num_warm_steps + _SETTLING_SWEEPS * stage.num_images // stage.batch_size)


@dataclass(frozen=True)
class _Pass:
    """A visit to all images in the search."""

    radius: int
    num_searched: int


def _passes(stage: Searching, known_radius: int, num: int) -> list[_Pass]:
    """What a search usually goes through, where every pass lets the band grow as far as it may."""
    widest = usual_radius(stage, known_radius)
    radii = [stage.radius]
    while radii[-1] < widest:
        radii.append(min(widest, widened(radii[-1])))
    radii += [widest] * _SETTLING_PASSES
    pilot = min(num, PILOT)
    searched = [num if number < _SEARCHING_PASSES else pilot for number in range(_SEARCHING_PASSES + 1)]
    searched += [0] * (len(radii) - len(searched) - 1) + [pilot]
    passes = [_Pass(*one) for one in zip(radii, searched, strict=True)]
    return passes[: min(stage.num_passes, max(1, stage.max_images // num))]


def _search(stage: Searching, measured: Rehearsal, num: int) -> StageForecast:
    assert measured.first_search is not None

    def seconds_of(one: _Pass) -> float:
        searching = _at_radius(measured.search, one.radius, one.num_searched, stage.batch_size)
        sharpening = _at_radius(measured.sharpening, one.radius, num - one.num_searched, stage.batch_size)
        # Every pass lays its own maps out.
        costs = measured.search if one.num_searched else measured.sharpening
        first = costs[min(costs, key=lambda radius: abs(radius - one.radius))].first_seconds
        return first + searching + sharpening + measured.pass_end.seconds

    passes = _passes(stage, measured.known_radius, num)
    fitting = _fitting(measured, num)
    first = measured.first_search.seconds_for(num, stage.batch_size) + measured.first_search.first_seconds
    usual = first + measured.pass_end.seconds + sum(seconds_of(one) for one in passes[1:]) + fitting
    most_passes = min(stage.num_passes, max(1, stage.max_images // num))
    most = most_passes * seconds_of(_Pass(stage.last_radius, num)) + fitting
    num_searching = sum(one.num_searched > 0 for one in passes)
    course = f"{len(passes)} passes, {num_searching} of them searching; at most {most_passes}"
    return StageForecast(stage.name, usual, max(usual, most), course)


def _at_radius(costs: Mapping[int, Linear], radius: int, num_images: int, batch_size: int) -> float:
    """Seconds in a band between two that were measured, where they grow with its area; as much in a narrower one."""
    low, high = min(costs), max(costs)
    seconds = {r: cost.seconds_for(num_images, batch_size) for r, cost in costs.items()}
    if low == high:
        return seconds[low]
    way = max(0, radius**2 - low**2) / (high**2 - low**2)
    return seconds[low] + way * (seconds[high] - seconds[low])


def _fitting(measured: Rehearsal, num: int) -> float:
    return _growing(measured.varying.seconds, measured, num) + measured.fitting.seconds


def _peaks(measured: Rehearsal, num: int, rehearsed_bytes: int, num_classes: int) -> dict[str, tuple[float, float]]:
    """Bytes of the process and on the GPU when each part is at its highest, with the images and tables rehearsed."""
    rehearsed = measured.num_particles
    opening = measured.opening.peak_bytes - measured.opening.held_bytes - rehearsed_bytes
    for_noise = max(0, opening) * min(num, IMAGES_FOR_NOISE) / min(rehearsed, IMAGES_FOR_NOISE)
    peaks: dict[str, tuple[float, float]] = {
        "opening": (measured.opening.held_bytes + rehearsed_bytes + for_noise, float(measured.opening.gpu_bytes))
    }
    refinement = measured.stages[-1]
    # What was freed before can only hide what a batch takes: the higher of both is nearer.
    batches = [
        ("refinement", line, refinement.batch_size)
        for line in (measured.refinement[min(measured.refinement)], _in_usual_band(measured.refinement))
    ]
    batches += [("search", cost, stage.batch_size) for stage in measured.stages if isinstance(stage, Searching)
                for cost in (measured.first_search, *measured.search.values(), *measured.sharpening.values())
                if cost is not None]  # fmt: skip
    if measured.other_steps is not None:
        batches.append((measured.stages[0].name, measured.other_steps, measured.stages[0].batch_size))
    costs = [("ab initio", cost) for cost in measured.ab_initio.values()]
    costs += [("writing", written.cost) for both in measured.writing.values() for written in both]
    if measured.gradient_search is not None:
        costs.append(("gradient search", measured.gradient_search))
    costs += [("search", measured.pass_end), ("search", measured.fitting)]
    of_class, most = rehearsed / num_classes, min(num / num_classes, MOST_VARIED)
    growth = max(0, measured.varying.peak_bytes - measured.varying.held_bytes) * max(0.0, most / of_class - 1)
    costs.append(("finding motions", replace(measured.varying, peak_bytes=int(measured.varying.peak_bytes + growth))))
    for name, cost in costs:
        peaks[name] = _higher(peaks.get(name), (float(cost.peak_bytes), float(cost.gpu_bytes)))
    for name, line, batch_size in batches:
        peaks[name] = _higher(peaks.get(name), line.peak_for(batch_size))
    return peaks


def _in_usual_band(costs: Mapping[int, Linear]) -> Linear:
    """The cost in the first of two bands: what an image takes grows with the band's area.

    Memory is told best by the widest: smaller batches find theirs among what was freed before.
    """
    usual, widest = min(costs), max(costs)
    line, area = costs[widest], (usual / widest) ** 2
    return replace(
        line, bytes_per_image=area * line.bytes_per_image, gpu_bytes_per_image=area * line.gpu_bytes_per_image
    )


def _higher(one: tuple[float, float] | None, other: tuple[float, float]) -> tuple[float, float]:
    return other if one is None else (max(one[0], other[0]), max(one[1], other[1]))
