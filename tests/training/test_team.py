"""One training in two processes comes to what it comes to in one."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from cryohydra.errors import InputMismatch
from cryohydra.training.team import ALONE, SharedBatch, Team

MEMBER = Path(__file__).parent / "member_of_a_team.py"
PATIENCE_S = 300.0
LAUNCH = "import sys; from cryohydra.cli.members import launch; sys.exit(launch(sys.argv[1:], 2))"


def found(what: str, size: int, folder: Path, data: Path, *more: Path) -> list[Any]:
    """What each member of a team has found."""
    words = [sys.executable, str(MEMBER), what]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    members = [
        subprocess.Popen([*words, str(rank), str(size), str(folder), str(data), *map(str, more)], env=environment)
        for rank in range(size)
    ]
    try:
        codes = [member.wait(PATIENCE_S) for member in members]
    finally:
        for member in members:
            member.kill()
    assert codes == [0] * size
    return [torch.load(folder / f"{what}_{rank}_of_{size}.pt", weights_only=False) for rank in range(size)]


def assert_same(one: Any, other: Any, what: str = "") -> None:
    """Whether two members hold the same, bit for bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key], f"{what}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), what
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{what}/{number}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other) or torch.equal(one.isnan(), other.isnan()), what
    else:
        assert one == other, what


def posterior(known: dict[str, Any]) -> torch.Tensor:
    classes = known["classes"]
    return torch.softmax(classes["log_weight"] + classes["log_evidence"], dim=1)


def assert_close(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Whether a stage has ended in the same: sums over images differ in their last digits, which steps amplify."""
    assert float((posterior(one) - posterior(other)).abs().max()) < 0.02
    evidence = [known["classes"]["log_evidence"] for known in (one, other)]
    torch.testing.assert_close(*evidence, rtol=0.01, atol=0.1)
    assert float(degrees_between(one, other).quantile(0.95)) < 0.5
    torch.testing.assert_close(one["noise"], other["noise"], rtol=1e-3, atol=1e-5)
    for maps in zip(one["maps"][0], other["maps"][0], strict=True):
        assert float(torch.corrcoef(torch.stack([values.flatten() for values in maps]))[0, 1]) > 0.9999
    assert torch.equal(one["generator"], other["generator"])
    for name in ("images_seen", "epoch", "field_radius"):
        assert one[name] == other[name]


def degrees_between(one: dict[str, Any], other: dict[str, Any]) -> torch.Tensor:
    """Angle between the poses of each image in its likeliest class."""
    best = posterior(one).argmax(1)
    rotations = [known["poses"]["rotation"][torch.arange(len(best)), 0, best] for known in (one, other)]
    return ((((rotations[0] * rotations[1]).sum((1, 2)) - 1) / 2).clamp(-1, 1).arccos() * 180) / math.pi


def test_a_team_of_one_does_nothing() -> None:
    rows = torch.randn(5, 3)
    assert ALONE.gather(rows, 5) is rows and ALONE.sum(rows) is rows and ALONE.sum_dealt(rows)[0] is rows
    assert torch.equal(ALONE.share(rows), rows) and list(ALONE.deal(3)) == [0, 1, 2]
    assert ALONE.once(lambda: 7, torch.Generator()) == 7 and ALONE.all_of([1, 2], 2) == [1, 2]


@pytest.mark.parametrize("num_images", [1, 5, 12])
def test_shares_are_balanced_and_complete(num_images: int) -> None:
    team = [Team(rank, 3) for rank in range(3)]
    shares = [member.share(torch.arange(num_images)) for member in team]
    assert torch.cat(shares).sort().values.tolist() == list(range(num_images))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert all(len(member.deal(num_images)) for member in team)
    for member in team:
        assert member.dealt(torch.arange(num_images)).tolist() == list(member.deal(num_images))
    assert {member.for_batch(num_images).size for member in team} == {3 if num_images >= 3 else 1}


def test_members_draw_what_one_would_have_drawn() -> None:
    team = [Team(rank, 2) for rank in range(2)]
    generators = [torch.Generator().manual_seed(0) for _ in range(3)]
    shares = [SharedBatch(one, 5, generator).uniform(2) for one, generator in zip(team, generators, strict=False)]
    whole = SharedBatch(ALONE, 5, generators[2]).uniform(2)
    assert torch.equal(whole[0::2], shares[0]) and torch.equal(whole[1::2], shares[1])
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


def test_what_members_tell_each_other(tmp_path: Path, tiny_folder: Path) -> None:
    members = found("units", 2, tmp_path, tiny_folder)
    assert_same(*members)
    told, whole = members[0], torch.arange(14.0).reshape(7, 2)
    assert torch.equal(told["gathered"], whole) and torch.equal(told["one"], whole[:1])
    assert torch.equal(told["sum"], 2 * whole + 1)
    assert_same(told["dealt"], [2 * whole, 2 * whole[:, 0]])
    assert_same(told["dealt_one"], [2 * whole[:1]])
    assert_same(told["together"], [whole[:1] > 0, whole[:1, 0].long(), whole[:1], whole[:1, :0]])
    assert told["count"].tolist() == [1, 2, 0, 0, 1, 1, 2]
    assert torch.equal(told["table"], told["count"][:, None, None].expand(7, 2, 3).float())
    generator = torch.Generator().manual_seed(0)
    assert told["once"][0] == 0 and torch.equal(told["once"][1], torch.rand(2, generator=generator))
    assert torch.equal(told["next"], torch.rand(2, generator=generator))
    assert told["all_of"] == [("from", 0), ("from", 1), ("from", 2)]
    assert told["gradients"][0].tolist() == [1.0, 1.0] and told["gradients"][1] is None


@pytest.mark.slow
def test_two_processes_draw_the_poses_that_one_draws(tmp_path: Path, two_structures: Path) -> None:
    """Later the last digits of maps decide of single draws, and these of all others."""
    one, members = found("sweep", 1, tmp_path, two_structures)[0], found("sweep", 2, tmp_path, two_structures)
    assert_same(*members)
    torch.testing.assert_close(members[0]["maps"], one["maps"], rtol=1e-3, atol=1e-3 * float(one["maps"].abs().max()))
    classes, rotations = (
        [torch.cat([kept[-1][0][axis] for kept in known["sampling"]["laid"]]) for known in (one, members[0])]
        for axis in (0, 1)
    )
    assert float((classes[0] == classes[1]).float().mean()) > 0.99
    assert float(((rotations[0] - rotations[1]).abs().amax((1, 2)) < 1e-3).float().mean()) > 0.98


@pytest.mark.slow
def test_two_processes_search_and_refine_as_one_does(tmp_path: Path, two_structures: Path) -> None:
    _, *one = found("from_nothing", 1, tmp_path, two_structures)[0]
    checkpoint = tmp_path / "0_of_1" / "out" / "weights.0.pkl"
    members = found("from_nothing", 2, tmp_path, two_structures, checkpoint)
    assert_same(*members)
    for alone, together in zip(one, members[0], strict=True):
        assert_close(alone, together)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["known", "encoder", "published"])
def test_two_processes_go_other_ways_as_one_does(way: str, tmp_path: Path, tiny_folder: Path) -> None:
    one, members = found(way, 1, tmp_path, tiny_folder)[0], found(way, 2, tmp_path, tiny_folder)
    assert_same(*members)
    for alone, together in zip(one, members[0], strict=True):
        # 48 images: where a mask has its edge a voxel more or less moves some of them a little.
        told = [float(known["classes"]["log_evidence"].mean()) for known in (alone, together)]
        assert told[0] == pytest.approx(told[1], rel=0.01, abs=0.1)
        assert float((posterior(alone) - posterior(together)).abs().max()) < 0.02
        assert torch.equal(alone["generator"], together["generator"])


@pytest.mark.slow
def test_two_processes_find_from_nothing_what_explains_images_as_well(tmp_path: Path, two_structures: Path) -> None:
    one, members = (
        found("from_nothing", 1, tmp_path, two_structures)[0],
        found("from_nothing", 2, tmp_path, two_structures),
    )
    assert_same(*members)
    for alone, together in zip(one, members[0], strict=True):
        told = [torch.logsumexp(known["classes"]["log_evidence"], 1).mean() for known in (alone, together)]
        assert float(told[1]) == pytest.approx(float(told[0]), rel=0.1)
    # The second class may be the first one's.
    best = [posterior(known[-1]).argmax(1) for known in (one, members[0])]
    agree = float((best[0] == best[1]).float().mean())
    assert max(agree, 1 - agree) > 0.9


def test_who_loses_another_process_says_so(tmp_path: Path, tiny_folder: Path) -> None:
    words = [sys.executable, str(MEMBER), "lost"]
    members = [
        subprocess.Popen([*words, str(rank), "2", str(tmp_path), str(tiny_folder)], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    _, (_, said) = (member.communicate(timeout=PATIENCE_S) for member in members)
    assert members[1].returncode == 1 and "ProcessLost: Another process of this training" in said


@pytest.fixture
def run_folder(tmp_path: Path, two_structures: Path) -> Path:
    """An experiment that takes a while."""
    values = {"particles": str(two_structures / "particles.star"), "n_classes": 2, "z_dim": 0, "seed": 0}
    small = {"hypervolume_dim": 16, "hypervolume_layers": 1, "pe_dim": 8, "n_imgs_pose_search": 40_000}
    (tmp_path / "configs.yaml").write_text(yaml.safe_dump(values | small))
    return tmp_path


@pytest.fixture
def launched(run_folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`drgnai train` in two processes, in the midst of its work."""
    words = ["train", str(run_folder), "--no-analysis"]
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCH, *words], env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + PATIENCE_S
    while not (run_folder / "out" / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    yield launcher
    launcher.terminate()
    launcher.wait(PATIENCE_S)


@pytest.mark.slow
def test_stopping_several_processes_loses_nothing(run_folder: Path, launched: subprocess.Popen[bytes]) -> None:
    launched.send_signal(signal.SIGTERM)
    assert launched.wait(PATIENCE_S) == 130
    assert yaml.safe_load((run_folder / "out" / "status.json").read_text())["state"] == "interrupted"
    assert list((run_folder / "out").glob("weights.*.pkl"))


@pytest.mark.slow
def test_what_there_is_is_saved_where_a_process_is_lost(run_folder: Path, launched: subprocess.Popen[bytes]) -> None:
    _, second = Path(f"/proc/{launched.pid}/task/{launched.pid}/children").read_text().split()
    os.kill(int(second), signal.SIGKILL)
    # Of the lost one, or of the first, which says so: both end within a moment.
    assert launched.wait(PATIENCE_S) in (2, 128 + signal.SIGKILL)
    assert yaml.safe_load((run_folder / "out" / "status.json").read_text())["state"] != "running"
    assert list((run_folder / "out").glob("weights.*.pkl"))


def test_every_process_needs_images(prepare: Any, tmp_path: Path) -> None:
    with pytest.raises(InputMismatch, match="4 processes"):
        prepare(tmp_path, team=Team(0, 4))
