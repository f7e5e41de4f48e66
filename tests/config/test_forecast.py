"""What a training will cost follows from what was measured, and is what a training then needs."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cryohydra.config import rehearsal
from cryohydra.config.forecast import _in_usual_band, foresee
from cryohydra.config.inputs import open_input
from cryohydra.config.measured import Cost, measure_batches, through
from cryohydra.config.reading import read_settings
from cryohydra.config.rehearsal import rehearse
from cryohydra.config.settings import Settings
from cryohydra.data.sources import Subset
from cryohydra.io.ctf_file import write_ctf_file
from cryohydra.io.mrc import write_stack
from cryohydra.training.ab_initio import AbInitio
from cryohydra.training.gibbs import GibbsSampling, Visit
from cryohydra.training.gradient_search import GradientSearch
from cryohydra.training.stage import StepResult
from cryohydra.training.state import TrainingState

NUM, BOX = 40, 16
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A small training of noise."""
    folder = tmp_path_factory.mktemp("forecast")
    write_stack(folder / "p.mrcs", np.random.default_rng(0).normal(size=(NUM, BOX, BOX)).astype(np.float32), 4.0)
    write_ctf_file(folder / "ctf.pkl", np.tile([BOX, 4.0, 15000.0, 15000.0, 0, 300, 2.7, 0.1, 0], (NUM, 1)))
    values = {"particles": folder / "p.mrcs", "ctf": folder / "ctf.pkl", "n_classes": 2, "z_dim": 1, "seed": 0}
    small = {"hypervolume_dim": 8, "hypervolume_layers": 1, "pe_dim": 4, "n_imgs_pose_search": 200, "epochs_sgd": 3}
    return read_settings({**values, **small, "base_healpy": 1, "t_extent": 1}).settings


def test_a_line_through_two_measurements_gives_both_back() -> None:
    first, second = Cost(1.0, 0, 1000, 0), Cost(2.5, 0, 1600, 0)
    line = through(10, first, 40, second)
    assert line.seconds + 10 * line.seconds_per_image == pytest.approx(1.0)
    assert line.seconds_for(80, batch_size=40) == pytest.approx(5.0)
    assert line.peak_for(40)[0] == pytest.approx(1600) and line.peak_for(70)[0] == pytest.approx(2200)


def test_memory_that_is_held_for_a_moment_is_seen() -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not tell the peak of a while")
    megabytes = 64
    # In a process of its own, as rehearsals are: one that has done much takes what it needs from what it freed.
    script = f"""
import torch
from cryohydra.config.measured import measure
cost = measure(lambda: float(torch.ones({megabytes}, 2**18).sum()), torch.device("cpu"))
again = measure(lambda: None, torch.device("cpu"))
print(cost.held_bytes / 2**20, cost.peak_bytes / 2**20, again.peak_bytes / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    held, peak, peak_after = map(float, done.stdout.split())
    # Of the libraries, a little comes or goes.
    assert peak - held == pytest.approx(megabytes, abs=8)
    assert peak_after < peak - 0.5 * megabytes


def test_batches_grow_until_they_take_long_enough() -> None:
    sizes: list[int] = []
    measure_batches(sizes.append, 100, CPU, first=8)
    assert sizes == [8, 8, 32, 100]


def test_what_is_paid_once_is_not_counted_for_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the first batch takes; by a clock that work alone moves on."""
    clock = SimpleNamespace(now=0.0)

    def work(size: int) -> None:
        clock.now += 0.2 + 0.001 * size

    monkeypatch.setattr("cryohydra.config.measured.time", SimpleNamespace(perf_counter=lambda: clock.now))
    found = measure_batches(work, 400, CPU, first=8, enough_seconds=0.1)
    assert found.seconds_for(400, batch_size=400) == pytest.approx(0.6)


def test_a_small_training_is_rehearsed_and_foreseen(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "NUM_REHEARSED", NUM)
    told: list[str] = []
    compared: set[int] = set()
    step = GibbsSampling.step

    def spy(sampling: GibbsSampling, state: TrainingState) -> Visit:
        compared.add(sampling.plan.radius(sampling.step_count))
        return step(sampling, state)

    monkeypatch.setattr(GibbsSampling, "step", spy)
    measured = rehearse(settings, NUM, 4, told.append)
    # The bands that are timed are those that are compared, up to the last.
    first = measured.stages[0]
    assert isinstance(first, AbInitio)
    assert set(measured.ab_initio) == compared and first.annealing.last_radius in compared
    whole = open_input(settings.model_copy(update={"lazy": True})).source
    forecast = foresee(settings, whole, measured)
    assert [stage.name for stage in forecast.stages] == ["opening", "ab initio", "search", "refinement", "writing"]
    assert all(0 < stage.seconds <= stage.bound_seconds for stage in forecast.stages)
    assert told[0] == "opening images" and told[-1] == "writing"
    assert forecast.images_bytes == NUM * BOX**2 * 4
    # Poses alone are eleven numbers for each class.
    assert forecast.tables_bytes > NUM * 2 * 11 * 4

    # One checkpoint where each stage ends, and beside these as many as are asked for.
    seldom, always = (
        foresee(settings.model_copy(update={"log_heavy_interval": epochs}), whole, measured) for epochs in (0, 1)
    )
    assert seldom.stages[-1].course == "3 checkpoints"
    assert seldom.disk_bytes <= forecast.disk_bytes < always.disk_bytes

    # A hundred times as many images: their pixels and tables come on top, and epochs take longer.
    many = replace(measured, stages=rehearse_plan(settings, 100 * NUM))
    larger = foresee(settings, Subset(whole, torch.zeros(100 * NUM, dtype=torch.long)), many)
    assert larger.memory_bytes - forecast.memory_bytes >= 99 * NUM * BOX**2 * 4
    refinement, before = larger.stages[3], forecast.stages[3]
    # Larger batches save what each costs once.
    assert 5 * before.seconds < refinement.seconds <= 101 * before.seconds
    assert foresee(settings.model_copy(update={"lazy": True}), whole, measured).images_bytes == 0


def test_the_published_search_is_foreseen_by_its_own_steps(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(stage: GradientSearch, state: TrainingState, index: torch.Tensor) -> StepResult:
        time.sleep(0.5)
        return StepResult(loss=0.0)

    monkeypatch.setattr(GradientSearch, "step", slow)
    older = {"quick_config": {"engine": "published"}, "batch_size_hps": 8}
    published = read_settings({**settings.model_dump(exclude_unset=True), **older}).settings
    measured = rehearse(published, NUM, 4, lambda note: None)
    whole = open_input(published.model_copy(update={"lazy": True})).source
    searching = foresee(published, whole, measured).stages[2]
    # 200 visits are five epochs of five batches, and one more.
    assert searching.name == "gradient search"
    assert searching.seconds == pytest.approx(0.5 * measured.stages[1].max_images / 8, rel=0.2)


def test_memory_follows_the_band_that_is_compared() -> None:
    line = through(10, Cost(1.0, 0, 1000, 0), 40, Cost(2.5, 0, 1600, 0))
    narrow = replace(line, bytes_per_image=0.0)
    usual = _in_usual_band({10: narrow, 20: line})
    assert usual.peak_for(40)[0] == pytest.approx(line.peak_bytes + 40 * line.bytes_per_image / 4)
    assert _in_usual_band({20: line}) == line


def rehearse_plan(settings: Settings, num_particles: int) -> tuple:
    """The stages planned for as many particles."""
    return rehearse(settings, num_particles, 4, lambda text: None).stages
