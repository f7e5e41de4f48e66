"""A training in small: every kind of step made once or twice on some of the images, and timed.

It runs in a process of its own, whose memory is then a training's: the libraries, the tables, the lattices, and what
a step holds while it goes on.
"""

import tempfile
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from cryohydra._typing import Float, Int, Tensor
from cryohydra.config.build import build_training
from cryohydra.config.measured import Cost, Linear, measure, measure_batches, peak_bytes
from cryohydra.config.settings import Settings
from cryohydra.config.stages import stages_of
from cryohydra.data.loader import PreparedImages
from cryohydra.data.normalisation import Normalisation
from cryohydra.inference.partition import part_of
from cryohydra.io.run_folder import RunFolder
from cryohydra.model.fitting import FIT_STEPS
from cryohydra.physics.ctf import Optics
from cryohydra.training.ab_initio import AbInitio
from cryohydra.training.gibbs import MOST_DRAWS
from cryohydra.training.gradient_search import GradientSearch
from cryohydra.training.handover import find_variation, fit_fields
from cryohydra.training.known_poses import KnownPoses
from cryohydra.training.monitor import Monitor
from cryohydra.training.parts import NUM_PARTS
from cryohydra.training.pictures import Pictures
from cryohydra.training.refinement import Refinement
from cryohydra.training.search import Searching
from cryohydra.training.stage import Stage
from cryohydra.training.state import TrainingState
from cryohydra.training.trainer import Trainer

NUM_REHEARSED = 512
"""Images: as many as the largest batches have, so that most are rehearsed as they are."""
_STEPS, _WARM_SHARE = 40, 0.75
"""Of ab initio, in which the maps come to know enough for the time to be that of a training, and their part in which
the band grows."""
_FEWEST_FIT_STEPS, _MOST_FIT_STEPS = 10, 40
"""Between them the time of a step is told."""
_FEW = 32
"""Images of the first batches, where larger ones take no less for each."""
_SURE = 50.0
"""In log likelihood: by how much a rehearsed image is of its class, once classes have formed."""


@dataclass(frozen=True)
class Written:
    """A checkpoint with its maps and figures."""

    cost: Cost
    files_bytes: int
    """But for what grows with the particles."""
    files_bytes_per_particle: int

    def size_for(self, num_particles: int) -> int:
        """Bytes on disk."""
        return self.files_bytes + num_particles * self.files_bytes_per_particle


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
    first_search: Linear | None
    """In the band of ab initio, where no poses are held to compare with those found."""
    search: dict[int, Linear]
    """By the band, where a later pass searches."""
    sharpening: dict[int, Linear]
    """By the band, where it takes steps from the poses found."""
    other_steps: Linear | None
    """Of a first stage that is neither ab initio nor a search."""
    gradient_search: Cost | None
    """Of a step of the published engine's search, with its whole batch."""
    pass_end: Cost
    """The maps solved from the sums."""
    varying: Cost
    """Conformations found."""
    fitting: Cost
    """Fields fitted to maps."""
    refinement: dict[int, Linear]
    """By the band: that to which maps are likely to be known, and the widest."""
    writing: dict[str, tuple[Written, Written]]
    """By the stage: in its course, with all that it goes on from, and where it ends."""


def usual_radius(stage: Searching, known_radius: int) -> int:
    """The widest band of a search in which maps come to be known to `known_radius`: two Fourier pixels beyond."""
    return min(stage.last_radius, max(stage.radius, known_radius + 2))


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
        other_steps = first_search = gradient_search = None
        searching: dict[int, Linear] = {}
        sharpening: dict[int, Linear] = {}
        writing: dict[str, tuple[Written, Written]] = {}
        with closing(Monitor(self.run, self.trainer.log_interval, Pictures(self.trainer.reference))) as monitor:
            mapping: KnownPoses | Searching | None = search
            if isinstance(first, AbInitio):
                by_band = self._ab_initio(first)
                writing[first.name] = self._written(monitor, first), self._written(monitor)
            else:
                assert isinstance(first, KnownPoses)
                mapping, other_steps = first, self._known_poses(first)
            if search is not None:
                first_search, searching, sharpening = self._search(search)
            assert mapping is not None
            pass_end = self._solve(mapping)
            in_course = self._written(monitor, mapping)
            # As where a stage of passes ends.
            self.state.maps = self.state.maps and self.state.maps.without_halves()
            varying, fitting = self._fit()
            for stage in others:
                if isinstance(stage, GradientSearch):
                    gradient_search = self._gradient_search(stage)
            writing[mapping.name] = in_course, self._written(monitor)
            descending = self._refine(refinement)
            of_refinement = self._written(monitor, refinement), self._written(monitor)
        # Whatever comes before it and is not rehearsed descends as it does.
        writing = {stage.name: writing.get(stage.name, of_refinement) for stage in self.trainer.stages}
        return Rehearsal(
            num_particles=len(self.state),
            known_radius=self.known_radius,
            stages=self.stages,
            device=self.device.type,
            start_bytes=self.start_bytes,
            opening=self.opening,
            per_particle_bytes=_row_bytes(
                chain(_tensors(self.state.state_dict()), _tensors(refinement.state_dict())), len(self.state)
            ),
            ab_initio=by_band,
            first_search=first_search,
            search=searching,
            sharpening=sharpening,
            other_steps=other_steps,
            gradient_search=gradient_search,
            pass_end=pass_end,
            varying=varying,
            fitting=fitting,
            refinement=descending,
            writing=writing,
        )

    def _batch(self, stage: Stage) -> int:
        return min(stage.batch_size, len(self.state))

    def _index(self, size: int) -> Tensor:
        return torch.randperm(len(self.state), generator=self.state.generator)[:size]

    def _fresh_step(self, stage: KnownPoses | Searching, size: int, part: int = 0) -> None:
        """A step of a pass that does not come to its end; where it goes by parts, on images of one, some repeated."""
        if stage.current is not None:
            stage.current.num_seen = -len(self.state)
        index = self._index(size)
        if isinstance(stage, Searching) and stage.goes_by_parts(self.state):
            parts = part_of(torch.arange(len(self.state)), NUM_PARTS)
            there_are = parts.unique()
            rows = torch.nonzero(parts == there_are[part % len(there_are)])[:, 0]
            index = rows[index % len(rows)]
        stage.step(self.state, index)

    def _ab_initio(self, stage: AbInitio) -> dict[int, Cost]:
        """All of it in few steps, since how many shifts are compared depends on what the maps know already.

        Of each band the last step counts: the first lays out the grid.
        """
        whole = self.stages[0]
        assert isinstance(whole, AbInitio)
        plan, found = whole.annealing, {}
        num_steps = min(plan.num_steps, _STEPS)
        num_warm_steps = min(plan.num_warm_steps, max(1, round(_WARM_SHARE * num_steps)))
        # What is known of shifts by then follows.
        memory_of_shifts = plan.memory_of_shifts ** (plan.num_warm_steps / num_warm_steps)
        stage.annealing = replace(
            plan, num_steps=num_steps, num_warm_steps=num_warm_steps, memory_of_shifts=memory_of_shifts
        )
        # As many as in the training, if it takes the same ones again.
        stage.num_images = whole.num_images
        stage.begin(self.state)
        for step in range(num_steps):
            radius = stage.annealing.radius(step)
            if radius not in found:
                self.says(f"ab initio, band {radius}")
            found[radius] = measure(lambda: stage.step(self.state, stage.sampling.next_members()), self.device)
        # A step in which as many draws of an image count as may forgets one: the same part, until it does.
        sampling = stage.sampling
        sampling.count_more_draws()
        for _ in range(MOST_DRAWS):
            sampling.step_count += sampling.num_parts - 1
            radius = stage.annealing.radius(sampling.step_count)
            found[radius] = measure(lambda: stage.step(self.state, sampling.next_members()), self.device)
        return found

    def _known_poses(self, stage: KnownPoses) -> Linear:
        self.says(stage.name)
        stage.begin(self.state)
        if not stage.random_poses:
            # Later passes weigh classes by the maps of the first.
            self._fresh_step(stage, self._batch(stage) // 2)
            self._solve(stage)
            stage.start = stage.current = None
            stage.radius = min(stage.last_radius, max(4, self.known_radius + 2))
        return measure_batches(lambda size: self._fresh_step(stage, size), self._batch(stage), self.device)

    def _search(self, stage: Searching) -> tuple[Linear, dict[int, Linear], dict[int, Linear]]:
        # A pass that has seen all images ends.
        batch = min(self._batch(stage), len(self.state) - 1)

        def in_batches(first: int) -> Linear:
            stage.current = None
            return measure_batches(lambda size: self._fresh_step(stage, size), batch, self.device, first=first)

        searching: dict[int, Linear] = {}
        sharpening: dict[int, Linear] = {}
        stage.begin(self.state)
        self.says("search, first pass")
        # Of whole batches: grids are cut as a whole where many images ask for them.
        first_search = in_batches(batch)
        if stage.parts is not None and batch > 1:
            # So far only the first half has images.
            self._fresh_step(stage, batch, part=1)
        # Later passes compare with the maps of two halves, and with the poses held; in doubt they keep sums of parts.
        self._solve(stage)
        parts = stage.parts
        stage.pass_count = 1
        usual = usual_radius(stage, self.known_radius)
        for radius in sorted({usual, stage.last_radius}):
            stage.radius = radius
            self._sort_into_classes()
            self.says(f"search, searching in band {radius}")
            stage.course.is_searching = True
            searching[radius] = in_batches(batch if radius == usual else _FEW)
            self.says(f"search, sharpening in band {radius}")
            stage.course.is_searching = False
            sharpening[radius] = in_batches(_FEW)
        del parts
        return first_search, searching, sharpening

    def _solve(self, stage: KnownPoses | Searching) -> Cost:
        """The end of a pass: maps from the sums, known as well as those of all images will be."""
        assert stage.current is not None
        done, found = stage.current, []
        cost = measure(lambda: found.append(done.sums.solve(stage.mask)), self.device)
        self.state.maps = found[0].with_halves()
        radius = torch.arange(stage.lattice.radius + 1, device=self.device)
        self.state.maps.half_correlation.copy_(torch.where(radius <= self.known_radius, 0.9, 0.0))
        return cost

    def _sort_into_classes(self) -> None:
        """Every image sure of one class, as most are late in a training."""
        evidence = torch.zeros_like(self.state.classes.log_evidence)
        evidence[torch.arange(len(evidence)), torch.arange(len(evidence)) % self.state.num_classes] = _SURE
        self.state.classes.log_evidence.copy_(evidence)

    def _fit(self) -> tuple[Cost, Cost]:
        self.says("fitting fields")
        found: list[Any] = []
        varying = measure(lambda: found.append(find_variation(self.state)), self.device)
        # The first fit of all takes longer.
        _, few, more = (
            measure(partial(fit_fields, self.state, found[0], steps), self.device)
            for steps in (_FEWEST_FIT_STEPS, _FEWEST_FIT_STEPS, _MOST_FIT_STEPS)
        )
        self.state.fields_are_fitted = True
        of_a_step = max(0.0, more.seconds - few.seconds) / (_MOST_FIT_STEPS - _FEWEST_FIT_STEPS)
        return varying, replace(more, seconds=more.seconds + of_a_step * (FIT_STEPS - _MOST_FIT_STEPS))

    def _gradient_search(self, stage: GradientSearch) -> Cost:
        self.says(stage.name)
        stage.begin(self.state)
        return measure(lambda: stage.step(self.state, self._index(self._batch(stage))), self.device)

    def _refine(self, stage: Refinement) -> dict[int, Linear]:
        assert self.state.maps is not None
        stage.begin(self.state)
        # Fields are fitted a little beyond what maps are known to.
        usual, widest = stage.radius, min(stage.plan.radius, self.state.maps.lattice.radius)
        costs = {}
        self.says("refinement, particles held out")
        stage.step(self.state, self._index(4))
        for stage.radius in sorted({usual, widest}):
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
        self.state.field_radius = usual
        return costs

    def _written(self, monitor: Monitor, stage: Stage | None = None) -> Written:
        """A checkpoint in the course of a stage, or of none where one ends."""
        self.says("writing")
        self.state.epoch += 1
        epoch, num = self.state.epoch, len(self.state)
        stage_state = {} if stage is None else {"stage": stage.state_dict(), "seen": 0}

        def write() -> None:
            self.trainer.writer.write(self.state, 0, stage_state)
            if self.trainer.save_interval:
                monitor.epoch_ended(self.state)

        before = self._bytes_on_disk()
        cost = measure(write, self.device)
        of_lists = (self.run.pose_path, self.run.conformation_path, self.run.class_probability_path)
        lists = sum(path(epoch).stat().st_size for path in (*of_lists, self.run.latents_path))
        each = lists // num + _row_bytes(_tensors([self.state.state_dict(), stage_state]), num)
        return Written(cost, max(0, self._bytes_on_disk() - before - num * each), each)

    def _bytes_on_disk(self) -> int:
        return sum(path.stat().st_size for path in self.run.results.rglob("*") if path.is_file())


def _row_bytes(tensors: Iterable[Tensor], num: int) -> int:
    """Of one row of all tensors that have one for each particle."""
    return sum(tensor.element_size() * tensor[0].numel() for tensor in tensors if tensor.ndim and len(tensor) == num)


def _tensors(content: Any) -> list[Tensor]:
    """All tensors in nested containers."""
    if isinstance(content, Tensor):
        return [content]
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, list | tuple) else ()
    return [tensor for part in parts for tensor in _tensors(part)]
