import math

import pytest
import torch

from cryohydra.geometry.rotations import geodesic_angle, random_rotations
from cryohydra.model.tables import ClassScores, Conformation, ConformationTable, PoseTable, RowAdam, moved
from cryohydra.physics.pose import Pose

INDEX = torch.tensor([4, 1])


def pose(generator: torch.Generator, *shape: int) -> Pose:
    rotation = random_rotations(math.prod(shape), generator).reshape(*shape, 3, 3)
    return Pose(rotation, torch.randn(*shape, 2, generator=generator))


def test_poses_come_back_and_others_stay(generator: torch.Generator) -> None:
    table, given = PoseTable(5, 3, 2), pose(generator, 2, 3, 2)
    table.set(INDEX, given)
    assert torch.equal(table.pose(INDEX).rotation, given.rotation)
    assert torch.equal(table.pose(INDEX).shift_px, given.shift_px)
    assert torch.equal(table.rotation[0], torch.eye(3).expand(3, 2, 3, 3))


def test_one_class_of_poses_stands_for_all(generator: torch.Generator) -> None:
    table, given = PoseTable(5, 3, 2), pose(generator, 2, 3, 1)
    table.set(INDEX, given)
    assert torch.equal(table.pose(INDEX).rotation[:, :, 1], given.rotation[:, :, 0])


def test_a_step_turns_by_its_length_and_shifts(generator: torch.Generator) -> None:
    table, given = PoseTable(5, 1, 2), pose(generator, 2, 1, 2)
    table.set(INDEX, given)
    step = torch.randn(2, 1, 2, 3, generator=generator)
    table.apply_tangent(INDEX, step, torch.ones(2, 1, 2, 2))
    after = table.pose(INDEX)
    torch.testing.assert_close(geodesic_angle(after.rotation, given.rotation), step.norm(dim=-1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after.shift_px, given.shift_px + 1)


def test_rotations_stay_orthonormal_over_many_steps(generator: torch.Generator) -> None:
    table = PoseTable(2, 1, 1)
    index = torch.arange(2)
    for _ in range(300):
        table.apply_tangent(index, 0.3 * torch.randn(2, 1, 1, 3, generator=generator), torch.zeros(2, 1, 1, 2))
    product = table.rotation @ table.rotation.mT
    torch.testing.assert_close(product, torch.eye(3).expand_as(product), atol=2e-6, rtol=0)
    assert (torch.linalg.det(table.rotation) > 0).all()


def test_the_tangent_gradient_leads_back_to_a_hidden_pose(generator: torch.Generator) -> None:
    hidden, points = pose(generator, 1, 1, 1), torch.randn(20, 3, generator=generator)
    table, optimiser = PoseTable(1, 1, 1), RowAdam((1, 1, 1, 3), lr=0.02)
    nudge = torch.tensor([0.3, -0.2, 0.25]).reshape(1, 1, 1, 3)
    table.set(torch.tensor([0]), moved(hidden, nudge, torch.zeros(1, 1, 1, 2)))
    index = torch.tensor([0])
    for _ in range(200):
        step = torch.zeros(1, 1, 1, 3, requires_grad=True)
        here = moved(table.pose(index), step, torch.zeros(1, 1, 1, 2))
        loss = (points @ here.rotation - points @ hidden.rotation).square().mean()
        (gradient,) = torch.autograd.grad(loss, step)
        table.apply_tangent(index, optimiser.step(index, gradient), torch.zeros(1, 1, 1, 2))
    # Adam of rate 0.02 ends within about its rate.
    assert geodesic_angle(table.rotation, hidden.rotation).max() < 0.02


def test_row_adam_is_adam_when_all_rows_are_given(generator: torch.Generator) -> None:
    start, target = torch.randn(2, 4, 3, generator=generator)
    parameter = start.clone().requires_grad_()
    dense, rows = torch.optim.Adam([parameter], lr=0.1), RowAdam((4, 3), lr=0.1)
    ours = start.clone()
    for _ in range(20):
        dense.zero_grad()
        (parameter - target).pow(4).sum().backward()
        dense.step()
        ours += rows.step(torch.arange(4), 4 * (ours - target).pow(3))
    torch.testing.assert_close(ours, parameter.detach(), atol=1e-5, rtol=1e-5)


def test_rows_not_in_the_batch_keep_still(generator: torch.Generator) -> None:
    optimiser = RowAdam((5, 2), lr=0.1)
    first = optimiser.step(torch.tensor([0, 1]), torch.ones(2, 2))
    optimiser.step(torch.tensor([1]), torch.ones(1, 2))
    assert optimiser.num_steps.tolist() == [1, 2, 0, 0, 0]
    assert optimiser.first[2:].abs().max() == 0
    # The first step of a row has the length of the rate, whenever it comes.
    torch.testing.assert_close(optimiser.step(torch.tensor([4]), 7 * torch.ones(1, 2)), first[:1])
    torch.testing.assert_close(first, torch.full((2, 2), -0.1))


def test_an_empty_row_and_an_empty_batch_are_nothing_special() -> None:
    assert RowAdam((5, 2, 0), lr=0.1).step(INDEX, torch.zeros(2, 2, 0)).shape == (2, 2, 0)
    assert RowAdam((5, 2), lr=0.1).step(torch.zeros(0, dtype=torch.long), torch.zeros(0, 2)).shape == (0, 2)


@pytest.mark.parametrize("is_variational", [False, True])
def test_conformations_start_with_their_spread_and_come_back(is_variational: bool, generator: torch.Generator) -> None:
    table = ConformationTable(500, 2, 3, std_init=0.1, generator=generator, is_variational=is_variational)
    # 3000 draws: the standard error is 1.3 %.
    assert table.mean.std().item() == pytest.approx(0.1, rel=0.06)
    width = torch.full((2, 2, 3), -1.0) if is_variational else None
    given = Conformation(torch.ones(2, 2, 3), width)
    table.set(INDEX, given)
    found = table.conformation(INDEX)
    assert torch.equal(found.mean, given.mean)
    assert (found.log_std is not None) == is_variational


def test_a_draw_has_the_posterior_s_mean_and_width(generator: torch.Generator) -> None:
    posterior = Conformation(torch.full((4000, 1, 1), 2.0), torch.full((4000, 1, 1), math.log(0.5)))
    draw = posterior.sample(lambda *shape: torch.randn(4000, *shape, generator=generator))
    assert draw.mean().item() == pytest.approx(2.0, abs=0.04)
    assert draw.std().item() == pytest.approx(0.5, rel=0.05)
    point = Conformation(posterior.mean)
    assert point.sample(torch.randn) is point.mean


def test_scores_start_even_and_come_back() -> None:
    table = ClassScores(5, 3)
    assert table.rows(INDEX).abs().max() == 0
    table.set(INDEX, torch.ones(2, 3))
    assert table.scores.sum() == 6


def test_tables_survive_saving(generator: torch.Generator) -> None:
    table, other = PoseTable(5, 1, 1), PoseTable(5, 1, 1)
    table.set(INDEX, pose(generator, 2, 1, 1))
    other.load_state_dict(table.state_dict())
    assert torch.equal(table.rotation, other.rotation)
