"""Defects of the reference that gave wrong results in silence: A1 to A20 of docs/decisions/pitfalls.md."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cryohydra.config.build import build_training
from cryohydra.config.files import read_configs
from cryohydra.inference.evidence import log_class_posterior, negative_log_evidence
from cryohydra.inference.likelihood import GaussianLikelihood, PixelMeanLikelihood
from cryohydra.io.latents import read_latents
from cryohydra.io.pickles import read_pickle
from cryohydra.io.pose_file import read_pose_file
from cryohydra.io.run_folder import read_status
from cryohydra.model.checkpoint import load_checkpoint
from cryohydra.physics.ctf import Optics, contrast_transfer
from cryohydra.training.refinement import kl_from_standard_normal
from cryohydra.training.state import ClassTable


class Silent:
    """Hears nothing."""

    def stage_begins(self, name: str, total_images: int) -> None: ...

    def advanced(self, images: int, note: str) -> None: ...

    def stage_ends(self, sentence: str) -> None: ...

    def says(self, sentence: str) -> None: ...


def test_probabilities_follow_the_evidence_not_the_training_time() -> None:
    """A1: a difference of 0.01 in evidence stays a small one however often weights are updated."""
    table = ClassTable(100, 2)
    table.log_evidence[:50, 0] = 0.01
    table.log_evidence[50:, 1] = 0.01
    for _ in range(500):
        table.update_weights()
    probability = table.log_posterior().exp()
    assert probability.max() == pytest.approx(1 / (1 + math.exp(-0.01)), abs=1e-4)


def test_poses_and_classes_go_on_from_a_checkpoint(train) -> None:
    """A2: what a checkpoint holds of each particle is what training continues with."""
    run = train("n_classes=2")
    checkpoint = load_checkpoint(run.weights_path(run.latest_epoch()))
    settings = read_configs(run.train_configs_path).settings
    state = build_training(
        settings.model_copy(update={"load": run.weights_path(run.latest_epoch())}), run, Silent()
    ).state
    saved = checkpoint.extra["training"]
    assert torch.equal(state.poses.rotation, saved["poses"]["rotation"])
    assert torch.equal(state.classes.log_evidence, saved["classes"]["log_evidence"])
    assert state.images_seen == saved["images_seen"] > 0
    identity = torch.eye(3).expand_as(state.poses.rotation)
    assert not torch.allclose(state.poses.rotation, identity)


def test_every_class_has_a_map_and_the_last_epoch_is_saved(train) -> None:
    """A3, A4, A9, A17, on one run."""
    run = train("n_classes=3", "log_heavy_interval=7")
    last = run.latest_epoch()
    assert last == read_status(run).epoch
    assert all(run.map_path(last, k).exists() for k in range(3))
    latents, state = read_latents(run.latents_path(last)), load_checkpoint(run.weights_path(last)).extra["training"]
    rows = np.arange(len(latents))
    rotation = state["poses"]["rotation"].numpy()[rows, :, latents.best_class]
    np.testing.assert_array_equal(latents.rotation, rotation)
    evidence = state["classes"]["log_weight"] + state["classes"]["log_evidence"]
    np.testing.assert_allclose(latents.class_probability, torch.softmax(evidence, 1).numpy(), atol=1e-6)
    np.testing.assert_array_equal(read_pickle(run.class_probability_path(last)), latents.class_probability)


def test_the_pose_file_that_comes_out_can_go_in(train, inputs: dict[str, str]) -> None:
    """A9, A10: fixed poses come back as they were given, in fractions of the box."""
    run = train()
    given, out = read_pose_file(Path(inputs["pose"])), read_pose_file(run.pose_path(run.latest_epoch()))
    np.testing.assert_allclose(out[0], given[0], atol=1e-6)
    assert given[1] is not None and out[1] is not None
    np.testing.assert_allclose(out[1], given[1], atol=1e-6)
    inputs["pose"] = str(run.pose_path(run.latest_epoch()))
    train(name="again")


def test_divergence_from_the_prior_is_positive() -> None:
    """A5: N(10, 1) against N(0, 1) in four dimensions is 200 nats away, and the prior itself none."""
    mean = torch.full((1, 1, 4), 10.0)
    assert float(kl_from_standard_normal(mean, torch.zeros(1, 1, 4))) == pytest.approx(200)
    assert float(kl_from_standard_normal(torch.zeros(1, 1, 4), torch.zeros(1, 1, 4))) == 0
    assert float(kl_from_standard_normal(torch.zeros(1, 1, 4), torch.full((1, 1, 4), -0.5))) > 0


def one_image(scale: float, dose: float) -> Optics:
    """Optics of an image."""
    value = torch.full((1, 1), 1.0)
    return Optics(
        pixel_size_angstrom=4 * value, defocus_u_angstrom=15000 * value, defocus_v_angstrom=15000 * value,
        defocus_angle=0 * value, voltage_kv=300 * value, spherical_aberration_angstrom=2.7e7 * value,
        amplitude_contrast=0.1 * value, phase_shift=0 * value, scale=scale * value,
        dose_electrons_per_square_angstrom=dose * value, group=torch.zeros(1, 1, dtype=torch.long),
    )  # fmt: skip


def test_a_scale_factor_is_no_decay() -> None:
    """A8: the factor of a tilt is the same at every frequency."""
    frequencies = torch.rand(30, 2, generator=torch.Generator().manual_seed(0)) - 0.5
    whole, half = (contrast_transfer(one_image(scale, 0.0), frequencies) for scale in (1.0, 0.5))
    torch.testing.assert_close(half, 0.5 * whole)


def test_scores_rest_while_poses_are_random(train, inputs: dict[str, str]) -> None:
    """A19: the stage with random poses moves maps, not the learned class scores."""
    run = train("n_classes=2")
    settings = replace_engine(read_configs(run.train_configs_path).settings)
    trainer = build_training(settings, run, Silent())
    stage, state = trainer.stages[0], trainer.state
    before = state.scores.scores.clone()
    stage.begin(state)
    stage.step(state, torch.arange(len(state)))
    assert state.maps is not None
    assert torch.equal(state.scores.scores, before)


def replace_engine(settings):
    """Ab initio with the published engine."""
    quick = settings.quick_config.model_copy(update={"pose_estimation": "abinit", "engine": "published"})
    return settings.model_copy(
        update={"quick_config": quick, "use_gt_poses": False, "use_gt_trans": False, "n_imgs_pose_search": 100,
                "class_weights": "learned", "likelihood": "pixel_mean", "search": "exact"}
    )  # fmt: skip


@pytest.mark.parametrize("likelihood", [GaussianLikelihood(), PixelMeanLikelihood(1.0)])
def test_losses_of_one_class_and_of_twins_compare(likelihood, generator: torch.Generator) -> None:
    """A20: a class that is split into equal ones has the same loss, in either likelihood."""
    predicted, observed = torch.randn(2, 5, 1, 40, generator=generator)
    one = likelihood.log_likelihood(predicted, observed, torch.ones(5, 1, 40))[:, None]
    single = negative_log_evidence(torch.zeros(1), one)
    twins = negative_log_evidence(torch.full((3,), -math.log(3)), one.expand(-1, 3))
    torch.testing.assert_close(twins, single)


def test_improbable_classes_have_finite_gradients() -> None:
    """B23: a class of probability exp(-5000) neither is nor makes nan."""
    evidence = torch.tensor([[0.0, -5000.0]], requires_grad=True)
    weight = torch.tensor([-1e4, 0.0], requires_grad=True)
    negative_log_evidence(weight, evidence).sum().backward()
    assert evidence.grad is not None and evidence.grad.isfinite().all()
    assert weight.grad is not None and weight.grad.isfinite().all()
    assert log_class_posterior(weight, evidence).isfinite().all()


def test_map_is_drawn_at_the_mean_conformation(train) -> None:
    """A12: not at that of whichever particle comes first."""
    run = train("z_dim=2", quick=("--pose-estimation", "fixed", "--reconstr", "het"))
    settings = read_configs(run.train_configs_path).settings
    last = run.latest_epoch()
    state = build_training(settings.model_copy(update={"load": run.weights_path(last)}), run, Silent()).state
    mean = state.conformations.all_means(state.images)[:, 0].mean(0)
    torch.testing.assert_close(state.mean_conformation(0), mean, atol=1e-6, rtol=1e-4)
