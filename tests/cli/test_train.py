"""`drgnai train` around the training: results are never lost, stops can be continued, notes are told."""

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from cryohydra.cli import train as verb
from cryohydra.cli.main import main
from cryohydra.config.settings import Settings
from cryohydra.errors import UserError
from cryohydra.io.run_folder import RunFolder


class Trainings:
    """Stands for the training: remembers what it was asked, leaves a checkpoint."""

    def __init__(self) -> None:
        self.asked: list[Settings] = []
        self.ends_with: BaseException | None = None
        self.refuses_with: UserError | None = None
        self.is_sent: signal.Signals | None = None

    def build(self, settings: Settings, run: RunFolder, listener: object, team: object) -> SimpleNamespace:
        if self.refuses_with:
            raise self.refuses_with
        self.asked.append(settings)
        return SimpleNamespace(run=lambda: self._run(run))

    def _run(self, run: RunFolder) -> None:
        run.weights_path(len(self.asked)).write_text("weights")
        if self.ends_with:
            raise self.ends_with
        if self.is_sent:
            signal.raise_signal(self.is_sent)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    stand_in = Trainings()
    monkeypatch.setattr(verb, "build_training", stand_in.build)
    return stand_in


@pytest.fixture
def analysed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders that were analysed."""
    seen: list[Path] = []

    def analyze_run(path: Path, options: object, progress: object) -> Path:
        seen.append(path)
        return path / "report.html"

    monkeypatch.setattr(verb, "analyze_run", analyze_run)
    return seen


@pytest.fixture
def out(tmp_path: Path, particle_files) -> Path:
    folder = tmp_path / "run"
    assert main(["setup", str(folder), *particle_files.flags]) == 0
    return folder


def test_training_is_recorded_and_analysed(out: Path, trainings: Trainings, analysed: list[Path]) -> None:
    assert main(["train", str(out)]) == 0
    record = yaml.safe_load((out / "out" / "train-configs.yaml").read_text())
    assert record["seed"] == trainings.asked[0].seed >= 0
    assert analysed == [out]


def test_analysis_can_be_left_out(out: Path, trainings: Trainings, analysed: list[Path]) -> None:
    assert main(["train", str(out), "--no-an"]) == 0
    assert analysed == []


def test_earlier_results_are_moved_aside(
    out: Path, trainings: Trainings, analysed: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["train", str(out)])
    (out / "out" / "mine.txt").write_text("precious")
    assert main(["train", str(out)]) == 0
    (aside,) = out.glob("old-out_*")
    assert str(aside) in capsys.readouterr().out
    assert (aside / "mine.txt").read_text() == "precious"
    assert (aside / "weights.1.pkl").exists()
    assert [path.name for path in (out / "out").glob("weights*")] == ["weights.2.pkl"]


def test_continuing_keeps_results_and_seed(out: Path, trainings: Trainings, analysed: list[Path]) -> None:
    main(["train", str(out)])
    assert main(["train", str(out), "--load"]) == 0
    first, second = trainings.asked
    assert second.load == out / "out" / "weights.1.pkl"
    assert second.seed == first.seed
    assert list(out.glob("old-out_*")) == []


def test_there_must_be_something_to_continue(out: Path, trainings: Trainings) -> None:
    assert main(["train", str(out), "--load"]) == 2


def test_stopping_tells_how_to_continue(
    out: Path, trainings: Trainings, analysed: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    trainings.ends_with = KeyboardInterrupt()
    assert main(["train", str(out)]) == 130
    assert f"drgnai train {out} --load" in capsys.readouterr().err
    assert analysed == []


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_signals_of_a_cluster_stop_as_ctrl_c_does(
    out: Path, trainings: Trainings, sent: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.signal(sent, signal.SIG_IGN)  # as a shell does for what it starts in the background
    try:
        trainings.is_sent = sent
        assert main(["train", str(out)]) == 130
        assert "--load" in capsys.readouterr().err
        assert signal.getsignal(sent) == signal.SIG_IGN
    finally:
        signal.signal(sent, before)


def test_refused_training_moves_nothing(out: Path, trainings: Trainings, analysed: list[Path]) -> None:
    main(["train", str(out)])
    before = sorted(out.rglob("*"))
    trainings.refuses_with = UserError("No.")
    assert main(["train", str(out)]) == 2
    assert sorted(out.rglob("*")) == before


def test_busy_folder_is_refused(out: Path, trainings: Trainings, capsys: pytest.CaptureFixture[str]) -> None:
    with RunFolder(out).training_lock():
        assert main(["train", str(out)]) == 2
    assert "Another process" in capsys.readouterr().err
    assert trainings.asked == []


def test_key_without_effect_is_said_once(
    out: Path, trainings: Trainings, analysed: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (out / "configs.yaml").write_text((out / "configs.yaml").read_text() + "max_threads: 16\n")
    capsys.readouterr()
    assert main(["train", str(out)]) == 0
    assert capsys.readouterr().out.count("max_threads") == 1


@pytest.mark.parametrize("num_gpus", [0, 1])
def test_without_several_gpus_one_process_trains(
    num_gpus: int,
    out: Path,
    trainings: Trainings,
    analysed: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(verb, "num_gpus", lambda: num_gpus)
    assert main(["train", str(out), "--multigpu"]) == 0
    assert trainings.asked[0].multigpu
    assert "the training runs in one process" in capsys.readouterr().out


@pytest.mark.parametrize("is_setting", [False, True])
def test_all_gpus_on_request(
    is_setting: bool, out: Path, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[list[str], int]] = []

    def launch(words: list[str], num_members: int) -> int:
        started.append((words, num_members))
        return 3

    monkeypatch.setattr(verb, "num_gpus", lambda: 2)
    monkeypatch.setattr(verb, "launch", launch)
    if is_setting:
        (out / "configs.yaml").write_text((out / "configs.yaml").read_text() + "multigpu: true\n")
    flags = ["--load"] if is_setting else ["--multigpu", "--no-analysis"]
    assert main(["train", str(out), *flags]) == 3
    assert started == [(["train", str(out), *sorted(flags, reverse=True)], 2)] and not trainings.asked
