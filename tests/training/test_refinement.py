"""Parts of the gradient stage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cryohydra.training import refinement
from cryohydra.training.refinement import kl_from_standard_normal


def test_divergence_is_zero_only_at_the_prior_and_positive_elsewhere() -> None:
    prior = kl_from_standard_normal(torch.zeros(1, 1, 4), torch.zeros(1, 1, 4))
    torch.testing.assert_close(prior, torch.zeros(1, 1))
    # N(10, 1) in four dimensions: 4 * 10^2 / 2.
    far = kl_from_standard_normal(torch.full((1, 1, 4), 10.0), torch.zeros(1, 1, 4))
    torch.testing.assert_close(far, torch.full((1, 1), 200.0))
    for log_std in (-1.0, 1.0):
        assert float(kl_from_standard_normal(torch.zeros(1, 1, 4), torch.full((1, 1, 4), log_std))) > 0


def test_divergence_agrees_with_torch(generator: torch.Generator) -> None:
    mean, log_std = torch.randn(3, 2, 4, generator=generator), torch.randn(3, 2, 4, generator=generator)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, log_std.exp()), normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(kl_from_standard_normal(mean, log_std), expected)


@pytest.mark.parametrize("values", [{}, {"use_conf_encoder": True}, {"variational_het": True}])
def test_a_step_made_in_pieces_is_the_step_of_the_whole_batch(
    values: dict[str, Any], prepare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name, numbers_per_point in (("whole", 0), ("pieces", 2**11)):
        monkeypatch.setattr(refinement, "_NUMBERS_PER_POINT", numbers_per_point)
        trainer, _ = prepare(tmp_path / name, z_dim=2, refine_gt_poses=True, **values)
        state, stage = trainer.state, trainer.stages[-1]
        stage.begin(state)
        index = torch.arange(12)
        band = state.band(stage.radius)
        seen = refinement._Seen(index, state.observed(index, band), state.ctf(index, band), state.ctf(index, band))
        assert (len(stage._pieces(seen, band)) > 1) == (name == "pieces")
        losses = [stage.descend(state, index).loss for _ in range(2)]
        found.append((losses, state.poses.rotation.clone(), state.conformations.all_means(state.images)))
        found[-1] += tuple(parameter.detach().clone() for parameter in state.mixture.parameters())
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-5)


def test_the_band_goes_on_growing_after_a_stop(prepare: Callable[..., Any], tmp_path: Path) -> None:
    values = {"refine_gt_poses": True, "output_mask": "frequency_marching", "l_start_fm": 3}
    trainer, _ = prepare(tmp_path, **values)
    state, stage = trainer.state, trainer.stages[-1]
    stage.begin(state)
    stage.descend(state, torch.arange(12))
    widest = stage.radius
    assert state.drawn_radius == 3 < widest
    again = prepare(tmp_path, **values)[0].stages[-1]
    again.begin(state)
    again.load_state_dict(state, stage.state_dict())
    assert again.radius == widest


@pytest.mark.parametrize("num_epochs", [1, 2])
def test_where_nothing_learned_is_kept_class_probabilities_stay_as_they_came(
    num_epochs: int, prepare: Callable[..., Any], tmp_path: Path
) -> None:
    """Of two epochs the first was better than what came."""
    trainer, _ = prepare(tmp_path, refine_gt_poses=True)
    state, stage = trainer.state, trainer.stages[-1]
    stage.begin(state)
    came = torch.linspace(-1, 1, 2 * len(state)).view(-1, 2)
    state.classes.log_evidence.copy_(came)
    stage.judge.judge(state, torch.ones(2))
    state.classes.log_evidence += 1
    stage.judge.judge(state, torch.zeros(2))
    stage.epoch_losses = [0.0] * num_epochs
    stage.end(state, print)
    assert torch.equal(state.classes.log_evidence, came) == (num_epochs == 1)


@pytest.mark.parametrize("is_learned", [True, False])
def test_images_that_were_learned_from_are_no_surer_than_those_held_out_tell(
    is_learned: bool, prepare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What those held out have become surer by was learned of the structures; the rest of one's own noise."""
    trainer, _ = prepare(tmp_path, refine_gt_poses=True)
    state, stage = trainer.state, trainer.stages[-1]
    generator = torch.Generator().manual_seed(0)
    came = torch.randn(len(state), 2, generator=generator)
    is_held_out = torch.arange(len(state)) % 4 == 0
    monkeypatch.setattr(type(state), "is_held_out", lambda self, index: is_held_out[index])
    state.classes.log_evidence.copy_(came)
    stage.begin(state)
    before = state.classes.probability_of_likeliest()
    # Differences grow by a half where they were learned of the structures, fourfold where of noise.
    now = came * torch.where(is_held_out, 1.5, 4.0 if is_learned else 1.5)[:, None]
    monkeypatch.setattr(stage, "_weigh", lambda state, index: state.classes.log_evidence.copy_(now))
    stage.judge.judge(state, torch.ones(2))
    stage.epoch_losses = [0.0]
    said = stage.end(state, print)
    assert ("held out tell" in said) == is_learned
    gain = state.classes.probability_of_likeliest() - before
    assert float(gain[~is_held_out].mean() - gain[is_held_out].mean()) < 0.05
    assert torch.equal(state.classes.log_evidence, now) != is_learned
    torch.testing.assert_close(state.classes.log_evidence[is_held_out], now[is_held_out])
    # The same order of classes, and as much explained.
    assert torch.equal((state.classes.log_evidence[:, 0] > state.classes.log_evidence[:, 1]), now[:, 0] > now[:, 1])


class Told:
    """A likelihood that is what it is told, beside a trace of the prediction."""

    def __init__(self, log_likelihood: float):
        self.told = log_likelihood

    def log_likelihood(self, predicted: torch.Tensor, observed: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return self.told + 1e-3 * (predicted * observed).sum((1, 2))


@pytest.mark.parametrize(("values", "is_muted"), [({}, True), ({"likelihood": "pixel_mean"}, False)])
def test_images_of_noise_alone_teach_fields_nothing(
    values: dict[str, Any], is_muted: bool, prepare: Callable[..., Any], tmp_path: Path
) -> None:
    trainer, _ = prepare(tmp_path, refine_gt_poses=True, **values)
    state, stage = trainer.state, trainer.stages[-1]
    # A quarter of all.
    is_noise = torch.arange(len(state)) % 4 == 0
    state.classes.log_evidence.copy_(torch.where(is_noise, -10.0, 20.0)[:, None])
    state.classes.log_pose_volume.zero_()
    stage.begin(state)
    taught = []
    for which, told in ((~is_noise, 20.0), (is_noise, -10.0)):
        stage.likelihood = Told(told)
        stage.descend(state, torch.nonzero(which)[:12, 0])
        taught.append(sum(float(one.grad.square().sum()) for one in state.mixture.parameters()) ** 0.5)
    assert (taught[1] < 1e-3 * taught[0]) == is_muted
    again = prepare(tmp_path, refine_gt_poses=True, **values)[0].stages[-1]
    again.begin(state)
    again.load_state_dict(state, stage.state_dict())
    assert float(again.log_odds_of_noise) == float(stage.log_odds_of_noise)
