"""What `drgnai check` foresees of a training beside what the training then takes: memory, disk and time, by size.

python bench/forecast.py                                  three sizes of simulated mixtures
python bench/forecast.py --sizes 400x32 1000x64 --cpu     in seconds of the processor, where the machine is shared
python bench/forecast.py --classes 4 --z-dim 2
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

CLASSES = ("ribosome", "spliceosome", "tric", "large_subunit")
FIELD_OF_VIEW_ANGSTROM = 432.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["400x32", "800x48", "1200x64"], metavar="NxD")
    parser.add_argument("--classes", type=int, default=3, metavar="K", help="up to 4")
    parser.add_argument("--z-dim", type=int, default=0, metavar="Z")
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what was measured, and measure only what is new")
    parser.add_argument("--cpu", action="store_true", help="count seconds of the processor, not of the clock")
    args = parser.parse_args()
    print("images   box  memory in GB        disk in MB        seconds            by stage, predicted / measured")
    for size in args.sizes:
        num_images, box_size = map(int, size.split("x"))
        with tempfile.TemporaryDirectory(prefix="forecast-") as temporary:
            folder = (args.keep or Path(temporary)) / size
            _compare(folder, num_images, box_size, args)


def _compare(folder: Path, num_images: int, box_size: int, args: argparse.Namespace) -> None:
    values = {
        "particles": str(folder / "data" / "particles.star"),
        "n_classes": args.classes,
        "z_dim": args.z_dim,
        "seed": 0,
    }
    size = num_images, box_size
    if not (folder / "data" / "particles.star").exists():
        _in_a_process(_simulate, folder / "data", *size, CLASSES[: args.classes], args.z_dim > 0, args.snr)
    radius = _in_a_process(_known_radius, values)
    foreseen = _in_a_process(_foresee, values, num_images, radius, args.cpu)
    kept = folder / "taken.json"
    if not kept.exists():
        kept.write_text(json.dumps(_in_a_process(_train, values, folder / "run", args.cpu)))
    taken = json.loads(kept.read_text())
    stages = "  ".join(
        f"{name} {foreseen['stages'].get(name, 0):.0f} / {seconds:.0f}" for name, seconds in taken["stages"].items()
    )
    print(
        f"{num_images:>6}  {box_size:>4}  {_both(foreseen, taken, 'memory', 1e9)}"
        f"  {_both(foreseen, taken, 'disk', 1e6)}  {_both(foreseen, taken, 'seconds', 1)}  {stages}",
        flush=True,
    )


def _both(foreseen: dict[str, Any], taken: dict[str, Any], what: str, unit: float) -> str:
    """Predicted, measured, and by how much the first is off."""
    one, other = foreseen[what] / unit, taken[what] / unit
    return f"{one:.3g} / {other:.3g} ({one / other - 1:+.0%})".ljust(18)


def _in_a_process(work: Callable[..., Any], *values: Any) -> Any:
    """What a function returns that has a fresh process, and its memory, to itself."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(there, work, values))
    process.start()
    there.close()
    content = here.recv()
    process.join()
    return json.loads(content)


def _send(there: Any, work: Callable[..., Any], values: tuple[Any, ...]) -> None:
    there.send(json.dumps(work(*values)))


def _simulate(folder: Path, num_images: int, box_size: int, names: tuple[str, ...], moves: bool, snr: float) -> None:
    from cryohydra.data.simulated import simulate_to_folder
    from cryohydra.physics.demo_structures import demo_class
    from cryohydra.physics.simulation import Imaging

    pixel_size = FIELD_OF_VIEW_ANGSTROM / box_size
    classes = [demo_class(name, box_size, pixel_size, num_frames=21 if moves else 1) for name in names]
    simulate_to_folder(folder, classes, Imaging(pixel_size, snr=snr, shift_std_px=box_size / 48), num_images, seed=0)


def _known_radius(values: dict[str, Any]) -> int:
    from cryohydra.data.inspection import inspect_particles

    found = inspect_particles(Path(values["particles"]))
    assert found.survey is not None and found.table is not None
    return found.survey.known_radius(len(found.table) / values["n_classes"])


def _foresee(values: dict[str, Any], num_images: int, known_radius: int, counts_cpu: bool) -> dict[str, Any]:
    import cryohydra.cli.train  # noqa: F401, so that memory is that of a training
    from cryohydra.config import measured
    from cryohydra.config.forecast import foresee
    from cryohydra.config.inputs import open_input
    from cryohydra.config.reading import read_settings
    from cryohydra.config.rehearsal import rehearse

    if counts_cpu:
        measured.time = SimpleNamespace(perf_counter=time.process_time)  # type: ignore[assignment]
    settings = read_settings(values).settings
    rehearsal = rehearse(settings, num_images, known_radius, lambda sentence: None)
    forecast = foresee(settings, open_input(settings.model_copy(update={"lazy": True})).source, rehearsal)
    stages = {stage.name: stage.seconds for stage in forecast.stages}
    print(f"    highest in {forecast.peak_stage}; opened with {rehearsal.opening.held_bytes / 1e9:.2f} GB", flush=True)
    for stage in forecast.stages:
        print(f"    {stage.name}: {stage.seconds:.1f} s, {stage.course}", flush=True)
    return {
        "memory": forecast.memory_bytes,
        "disk": forecast.disk_bytes,
        "seconds": forecast.seconds,
        "stages": stages,
    }


class _Clock:
    """Hears when stages begin and end."""

    def __init__(self, now: Callable[[], float]):
        self.now, self.name, self.begun = now, "", 0.0
        self.seconds: dict[str, float] = {}
        self.steps = Counter[str]()

    def stage_begins(self, name: str, total_images: int) -> None:
        self.name, self.begun, self.steps = name, self.now(), Counter[str]()

    def advanced(self, images: int, note: str) -> None:
        kinds = ("newcomers", "asked", "searching", "sharpening")
        self.steps[next((kind for kind in kinds if kind in note), "steps")] += 1

    def stage_ends(self, sentence: str) -> None:
        self.seconds[self.name] = self.now() - self.begun
        print(f"    {self.name}: {self.seconds[self.name]:.1f} s, {dict(self.steps)}; {sentence}", flush=True)

    def says(self, sentence: str) -> None: ...

    def times_apart(self, work: Callable[..., None]) -> Callable[..., None]:
        """The same work, counted as writing and not to the stage that goes on."""

        def timed(*values: Any) -> None:
            begun = self.now()
            work(*values)
            seconds = self.now() - begun
            self.seconds["writing"] = self.seconds.get("writing", 0.0) + seconds
            self.begun += seconds

        return timed


def _train(values: dict[str, Any], folder: Path, counts_cpu: bool) -> dict[str, Any]:
    import cryohydra.cli.train  # noqa: F401
    from cryohydra.config.build import build_training
    from cryohydra.config.files import write_train_configs
    from cryohydra.config.measured import peak_bytes
    from cryohydra.config.reading import read_settings
    from cryohydra.io.run_folder import RunFolder
    from cryohydra.training.monitor import Monitor
    from cryohydra.training.outputs import EpochWriter

    now = time.process_time if counts_cpu else time.perf_counter
    settings, run = read_settings(values).settings, RunFolder(folder)
    run.results.mkdir(parents=True)
    clock, begun = _Clock(now), now()
    EpochWriter.write = clock.times_apart(EpochWriter.write)  # type: ignore[method-assign]
    Monitor.epoch_ended = clock.times_apart(Monitor.epoch_ended)  # type: ignore[method-assign]
    trainer = build_training(settings, run, clock)
    write_train_configs(run.train_configs_path, settings)
    trainer.run()
    return {
        "memory": peak_bytes(),
        "disk": sum(path.stat().st_size for path in run.results.rglob("*") if path.is_file()),
        "seconds": now() - begun,
        "stages": clock.seconds,
    }


if __name__ == "__main__":
    main()
