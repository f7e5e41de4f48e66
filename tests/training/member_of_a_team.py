"""One process of a team, which `test_team.py` starts: what it finds is left in a file.

python member_of_a_team.py WHAT RANK SIZE FOLDER DATA [CHECKPOINT]
"""

import copy
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cryohydra.config.build import build_training
from cryohydra.config.reading import read_settings
from cryohydra.io.run_folder import RunFolder
from cryohydra.training import known_poses, search
from cryohydra.training.ab_initio import AbInitio
from cryohydra.training.handover import fit_fields
from cryohydra.training.listener import Unheard
from cryohydra.training.team import ALONE, Team, join, part
from cryohydra.training.trainer import Trainer

SMALL = {
    "seed": 0,
    "n_classes": 2,
    "hypervolume_dim": 16,
    "hypervolume_layers": 1,
    "pe_dim": 8,
    "lr": 1e-3,
    "log_heavy_interval": 0,
    "batch_size_sgd": 16,
    "t_extent": 1.0,
}
FROM_NOTHING = {"z_dim": 0, "epochs_sgd": 2, "n_imgs_pose_search": 1600}
WAYS = {
    "from_nothing": FROM_NOTHING,
    "known": {"z_dim": 1, "epochs_sgd": 2, "refine_gt_poses": True, "variational_het": True},
    "encoder": {"z_dim": 1, "epochs_sgd": 1, "refine_gt_poses": True, "use_conf_encoder": True, "depth_cnn": 2},
    "published": {
        "z_dim": 0,
        "epochs_sgd": 1,
        "n_imgs_pretrain": 48,
        "n_imgs_pose_search": 48,
        "quick_config": {"engine": "published"},
        "search": "sliced",
        "n_iter": 1,
    },
}


def prepare(folder: Path, team: Team, data: Path, values: dict[str, Any]) -> Trainer:
    """A training of this member, with fields that are fitted roughly."""
    for stage in (known_poses, search):
        stage.fit_fields = functools.partial(fit_fields, steps=20)
    run = RunFolder(folder / f"{team.rank}_of_{team.size}")
    run.results.mkdir(parents=True, exist_ok=True)
    settings = read_settings(SMALL | {"particles": data / "particles.star"} | values).settings
    return build_training(settings, run, Unheard(), team)


def train(trainer: Trainer) -> list[dict[str, Any]]:
    """What is known at the end of each stage."""
    known: list[dict[str, Any]] = []
    for stage in trainer.stages:
        stage.end = functools.partial(_end, stage.end, trainer, known)
    trainer.run()
    return known


def _end(end: Callable[..., str], trainer: Trainer, known: list[dict[str, Any]], *args: Any) -> str:
    said = end(*args)
    now = trainer.state.state_dict() | {"fields": trainer.state.mixture.state_dict(), "said": said}
    known.append(copy.deepcopy(now))
    return said


def sweep(trainer: Trainer) -> dict[str, Any]:
    """Where every image lies once ab initio has drawn each a few times."""
    stage, state = trainer.stages[0], trainer.state
    assert isinstance(stage, AbInitio)
    stage.begin(state)
    for _, index in zip(range(stage.sampling.num_parts), stage.batches(state), strict=False):
        stage.step(state, index)
    return stage.state_dict() | {"maps": stage.sampling.maps(), "poses": state.poses.state_dict()}


def units(team: Team) -> dict[str, Any]:
    """What a team makes of small tensors."""
    whole, index = torch.arange(14.0).reshape(7, 2), torch.tensor([4, 1, 0, 6, 5])
    table, count = torch.zeros(7, 2, 3), torch.zeros(7, dtype=torch.long)
    table[team.share(index)], count[team.share(index)] = 1.0 + team.rank, 1 + team.rank
    team.exchange(index, [table, count])
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    parameters[0].grad = torch.full((2,), 1.0 + team.rank) if team.is_first else None
    team.sum_gradients(parameters)
    return {
        "gathered": team.gather(team.share(whole), 7),
        "one": team.gather(team.share(whole[:1]), 1),
        "table": table,
        "count": count,
        "sum": team.sum(whole + team.rank),
        "dealt": team.gather_all(team.sum_dealt(whole, whole[:, 0]), 7),
        "dealt_one": team.gather_all(team.sum_dealt(whole[:1]), 1),
        "together": team.gather_all([whole[:1] > team.rank, whole[:1, 0].long(), whole[:1], whole[:1, :0]], 1),
        "once": team.once(lambda: (team.rank, torch.rand(2, generator=generator)), generator),
        "next": torch.rand(2, generator=generator),
        "all_of": team.all_of([("from", k) for k in team.share(range(3))], 3),
        "gradients": [one.grad for one in parameters],
    }


def main() -> None:
    """See above."""
    what, rank, size, folder, data = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *map(Path, sys.argv[4:6])
    team = ALONE if size == 1 else join(rank, size, torch.device("cpu"), f"file://{folder / 'meeting'}")
    if what == "units":
        found: Any = units(team)
    elif what == "lost":
        found = team.sum(torch.zeros(1)) if rank else None
    elif what == "sweep":
        found = sweep(prepare(folder, team, data, FROM_NOTHING))
    else:
        load = {"load": Path(sys.argv[6])} if len(sys.argv) > 6 else {}
        found = train(prepare(folder, team, data, WAYS[what] | load))
    torch.save(found, folder / f"{what}_{rank}_of_{size}.pt")
    part()


if __name__ == "__main__":
    main()
