"""A training in small: every kind of step made once or twice on some of the images, and timed.

It runs in a process of its own, whose memory is then a training's: the libraries, the tables, the lattices, and what
a step holds while it goes on.
"""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.config.build import build_training, stages_of
from cryohydra.config.measured import Cost, Linear, measure, measure_batches, peak_bytes
from cryohydra.config.settings import Settings
from cryohydra.data.loader import PreparedImages
from cryohydra.data.normalisation import Normalisation
from cryohydra.io.run_folder import RunFolder
from cryohydra.physics.ctf import Optics
from cryohydra.training.ab_initio import AbInitio
from cryohydra.training.handover import find_variation, fit_fields
from cryohydra.training.refinement import Refinement
from cryohydra.training.search import Searching
from cryohydra.training.stage import Stage
from cryohydra.training.state import TrainingState
from cryohydra.training.trainer import Trainer

NUM_REHEARSED = 512
"""Images: as many as the largest batches have, so that most are rehearsed as they are."""
_STEPS = 70
"""Of ab initio, in which the maps come to know enough for the time to be that of a training."""
_FIT_STEPS = 40
"""Of the 400 by which a field takes over a map."""
_FITTED_STEPS = 400
_SURE = 50.0
"""In log likelihood: by how much a rehearsed image is of its class, once classes have formed."""


@dataclass(frozen=True)
class Rehearsal:
    """What was measured; bytes are those of the whole process."""

    num_particles: int
    known_radius: int
    """To which maps are likely to be known, in Fourier pixels."""
    stages: tuple[Stage, ...]
    """Planned for all particles, not begun."""
    device: str
    start_bytes: int
    """Before anything is opened."""
    opening: Cost
    per_particle_bytes: int
    """In all tables, images not counted."""
    ab_initio: dict[int, Cost]
    """Of a step with its whole batch, by the band."""
    search: dict[int, Linear]
    """By the band, where a pass searches."""
    sharpening: dict[int, Linear]
    """By the band, where it takes steps from the poses found."""
    other_steps: Linear | None
    """Of a first stage that is neither ab initio nor a search."""
    pass_end: Cost | None
    """The maps solved from the sums."""
    varying: Cost | None
    """Conformations found."""
    fitting: Cost | None
    """Fields fitted to maps."""
    refinement: dict[int, Linear]
    """By the band: that to which maps are likely to be known, and the widest."""
    writing: Cost
    """A checkpoint with its maps."""
    files_bytes: int
    """Of a checkpoint with its maps."""
    files_bytes_per_particle: int


class _Silent:
    """Hears nothing."""

    def stage_begins(self, name: str, total_images: int) -> None: ...
    def advanced(self, images: int, note: str) -> None: ...
    def stage_ends(self, sentence: str) -> None: ...
    def says(self, sentence: str) -> None: ...


class _AsMany:
    """The size of a set of particles: all that plans depend on."""

    def __init__(self, num_particles: int, like: PreparedImages):
        self.num_particles = num_particles
        self.box_size, self.num_tilts = like.box_size, like.num_tilts
        self.pixel_size_angstrom = like.pixel_size_angstrom

    def __len__(self) -> int:
        return self.num_particles

    def images(self, index: Int[Tensor, "b"]) -> Float[Tensor, "b t d d"]:
        raise NotImplementedError("a plan reads no image")

    def optics(self, index: Int[Tensor, "b"]) -> Optics:
        raise NotImplementedError("a plan reads no optics")


def rehearse(settings: Settings, num_particles: int, known_radius: int, says: Callable[[str], None]) -> Rehearsal:
    """Rehearse the training that settings describe, on its first images.

    Args:
        num_particles: Of the whole set, for which the stages are planned.
        known_radius: To which maps are likely to be known, in Fourier pixels.
        says: Told what is rehearsed next.

    Raises:
        UserError: If such a training cannot begin.
    """
    with tempfile.TemporaryDirectory(prefix="drgnai-check-") as folder:
        run = RunFolder(Path(folder))
        run.results.mkdir(parents=True)
        num_images = min(num_particles, NUM_REHEARSED) * (settings.num_tilts or 1)
        some = settings.model_copy(update={"ind": num_images, "load": None, "labels": None, "initial_conf": None})
        return _Rehearsing(some, num_particles, known_radius, run, says).all()


class _Rehearsing:
    def __init__(
        self, settings: Settings, num_particles: int, known_radius: int, run: RunFolder, says: Callable[[str], None]
    ):
        self.says, self.run, self.known_radius = says, run, known_radius
        self.start_bytes = peak_bytes()
        says("opening images")
        built: list[Trainer] = []
        self.opening = measure(
            lambda: built.append(build_training(settings, run, _Silent())),
            torch.device("cpu"),
        )
        self.trainer = built[0]
        self.state: TrainingState = self.trainer.state
        self.device = self.state.device
        images = self.state.images
        whole = PreparedImages(_AsMany(num_particles, images), Normalisation(0.0, 1.0), images.band)
        self.stages = tuple(stages_of(settings, replace(self.state, images=whole)))

    def all(self) -> Rehearsal:
        first, *others = self.trainer.stages
        search = next((stage for stage in others if isinstance(stage, Searching)), None)
        refinement = self.trainer.stages[-1]
        assert isinstance(refinement, Refinement)
        by_band: dict[int, Cost] = {}
        other_steps = pass_end = varying = fitting = None
        searching: dict[int, Linear] = {}
        sharpening: dict[int, Linear] = {}
        if isinstance(first, AbInitio):
            by_band = self._ab_initio(first)
        else:
            self.says(first.name)
            first.begin(self.state)
            self._sort_into_classes()
            other_steps = measure_batches(lambda size: self._fresh_step(first, size), self._batch(first), self.device)
        if search is not None:
            searching, sharpening, pass_end = self._search(search)
        if self.state.maps is not None:
            varying, fitting = self._fit()
        descending = self._refine(refinement)
        per_particle = self._bytes_per_particle(refinement)
        self.says("writing")
        # Most checkpoints end a stage, or are of one that has no optimisers.
        writing = measure(lambda: self.trainer.writer.write(self.state, 0, {}), self.device)
        sizes = {path.name: path.stat().st_size for path in self.run.results.iterdir()}
        lists = sum(size for name, size in sizes.items() if name.startswith(("latents", "pose", "conf", "p_classes")))
        num = len(self.state)
        in_files = lists // num + _row_bytes(_tensors(self.state.state_dict()), num)
        return Rehearsal(
            num_particles=num,
            known_radius=self.known_radius,
            stages=self.stages,
            device=self.device.type,
            start_bytes=self.start_bytes,
            opening=self.opening,
            per_particle_bytes=per_particle,
            ab_initio=by_band,
            search=searching,
            sharpening=sharpening,
            other_steps=other_steps,
            pass_end=pass_end,
            varying=varying,
            fitting=fitting,
            refinement=descending,
            writing=writing,
            files_bytes=max(0, sum(sizes.values()) - num * in_files),
            files_bytes_per_particle=in_files,
        )

    def _batch(self, stage: Stage) -> int:
        return min(stage.batch_size, len(self.state))

    def _index(self, size: int) -> Tensor:
        return torch.randperm(len(self.state), generator=self.state.generator)[:size]

    def _fresh_step(self, stage: Any, size: int) -> None:
        """A step of a pass that does not come to its end."""
        current = getattr(stage, "current", None)
        if current is not None:
            current.num_seen = -len(self.state)
        stage.step(self.state, self._index(size))

    def _ab_initio(self, stage: AbInitio) -> dict[int, Cost]:
        """All of it in few steps, since what is compared closely depends on what the maps know already.

        Of each band the last step counts: the first lays out the grid.
        """
        whole = self.stages[0]
        assert isinstance(whole, AbInitio)
        plan, found = whole.annealing, {}
        num_steps = min(plan.num_steps, _STEPS)
        # How many shifts are compared follows from what is known of them by then.
        memory_of_shifts = plan.memory_of_shifts ** (plan.num_steps / num_steps)
        stage.annealing = replace(plan, num_steps=num_steps, memory_of_shifts=memory_of_shifts)
        stage.begin(self.state)
        for step in range(stage.annealing.num_steps):
            radius = stage.annealing.radius(step)
            if radius not in found:
                self.says(f"ab initio, band {radius}")
            found[radius] = measure(lambda: stage.step(self.state, self._index(self._batch(stage))), self.device)
        return found

    def _search(self, stage: Searching) -> tuple[dict[int, Linear], dict[int, Linear], Cost]:
        batch, first_radius = self._batch(stage), stage.radius
        searching: dict[int, Linear] = {}
        sharpening: dict[int, Linear] = {}
        stage.begin(self.state)
        # Not the first pass, which has no poses to compare with those found.
        stage.pass_count = 1
        for radius in sorted({first_radius, stage.last_radius}):
            for costs, stage.is_searching in ((searching, True), (sharpening, False)):
                what = "searching" if stage.is_searching else "sharpening"
                self.says(f"search, {what} in band {radius}")
                stage.radius, stage.current = radius, None
                self._sort_into_classes()
                costs[radius] = measure_batches(
                    lambda size: self._fresh_step(stage, size), batch, self.device, first=32
                )
        assert stage.current is not None
        done = stage.current
        return searching, sharpening, measure(lambda: done.sums.solve(stage.mask), self.device)

    def _sort_into_classes(self) -> None:
        """Every image sure of one class, as most are late in a training."""
        evidence = torch.zeros_like(self.state.classes.log_evidence)
        evidence[torch.arange(len(evidence)), torch.arange(len(evidence)) % self.state.num_classes] = _SURE
        self.state.classes.log_evidence.copy_(evidence)

    def _fit(self) -> tuple[Cost, Cost]:
        assert self.state.maps is not None
        # In the whole band of the search: halves of few images agree less far than those of all.
        self.state.maps.half_correlation.fill_(0.9)
        self.says("fitting fields")
        found: list[Any] = []
        varying = measure(lambda: found.append(find_variation(self.state)), self.device)
        few, more = (
            measure(partial(fit_fields, self.state, found[0], steps), self.device)
            for steps in (_FIT_STEPS // 4, _FIT_STEPS)
        )
        of_a_step = max(0.0, more.seconds - few.seconds) / (_FIT_STEPS - _FIT_STEPS // 4)
        return varying, replace(more, seconds=more.seconds + of_a_step * (_FITTED_STEPS - _FIT_STEPS))

    def _refine(self, stage: Refinement) -> dict[int, Linear]:
        stage.begin(self.state)
        widest, costs = stage.radius, {}
        # Fields are fitted a little beyond what maps are known to.
        for stage.radius in sorted({min(widest, max(4, self.known_radius) + 2), widest}):
            self.says(f"refinement in band {stage.radius}")
            self._sort_into_classes()
            costs[stage.radius] = measure_batches(
                lambda size: stage.descend(self.state, self._index(size)),
                self._batch(stage),
                self.device,
                first=4,
                # Large batches cost more for each image: their memory is new every time.
                enough_seconds=3.0,
            )
        return costs

    def _bytes_per_particle(self, refinement: Refinement) -> int:
        """Of all tensors with a row for each particle."""
        num = len(self.state)
        judged = {"poses": self.state.poses.state_dict(), "conformations": self.state.conformations.state_dict()}
        held = chain(_tensors(self.state.state_dict()), _tensors(refinement.state_dict()), _tensors(judged))
        return _row_bytes(held, num)


def _row_bytes(tensors: Iterable[Tensor], num: int) -> int:
    """Of one row of all tensors that have one for each particle."""
    return sum(tensor.element_size() * tensor[0].numel() for tensor in tensors if tensor.ndim and len(tensor) == num)


def _tensors(content: Any) -> list[Tensor]:
    """All tensors in nested containers."""
    if isinstance(content, Tensor):
        return [content]
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, list | tuple) else ()
    return [tensor for part in parts for tensor in _tensors(part)]
