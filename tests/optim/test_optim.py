"""Adam on sparse rows, and schedules that know how far training is."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from nif_cli.optim.adam import Adam
from nif_cli.optim.schedules import Cosine, StepDecay


def table(sparse: bool, rows: int = 6) -> nn.Embedding:
    weight = torch.randn(rows, 4, generator=torch.Generator().manual_seed(0))
    return nn.Embedding(rows, 4, sparse=sparse, _weight=weight.clone())


def step(codes: nn.Embedding, optimizer: torch.optim.Optimizer, rows: list[int], k: int) -> None:
    """One step on a loss whose gradient differs from row to row and from step to step."""
    optimizer.zero_grad()
    target = torch.randn(len(rows), 4, generator=torch.Generator().manual_seed(k))
    (codes(torch.tensor(rows)) - target).square().sum().backward()
    optimizer.step()


def test_rows_always_in_the_batch_move_as_in_torch():
    ours, theirs = table(True), table(False)
    a, b = Adam(ours.parameters(), lr=0.05), torch.optim.Adam(theirs.parameters(), lr=0.05)
    for k in range(20):
        step(ours, a, [0, 1, 2, 3, 4, 5], k)
        step(theirs, b, [0, 1, 2, 3, 4, 5], k)
    assert torch.allclose(ours.weight, theirs.weight, atol=2e-5)  # rounding of float32 bias corrections


def test_a_row_twice_in_the_batch_has_the_sum_of_its_gradients():
    ours, theirs = table(True), table(False)
    a, b = Adam(ours.parameters(), lr=0.05), torch.optim.Adam(theirs.parameters(), lr=0.05)
    for k in range(5):
        step(ours, a, [0, 1, 2, 3, 4, 5, 2, 2], k)
        step(theirs, b, [0, 1, 2, 3, 4, 5, 2, 2], k)
    assert torch.allclose(ours.weight, theirs.weight, atol=2e-5)  # rounding of float32 bias corrections


def test_rows_outside_the_batch_stay_and_keep_their_own_count():
    """An absent row does not move, even with momentum; what it does later depends on its own steps alone."""
    codes = table(True)
    optimizer = Adam(codes.parameters(), lr=0.05)
    for k in range(3):
        step(codes, optimizer, [0, 1], k)
    before = codes.weight.detach().clone()
    for k in range(3, 10):
        step(codes, optimizer, [0, 2], k)
    assert torch.equal(codes.weight[[1, 3, 4, 5]], before[[1, 3, 4, 5]])
    assert optimizer.state[codes.weight]["step"].tolist() == [10, 3, 7, 0, 0, 0]
    step(codes, optimizer, [5], 99)  # its first step, though the optimizer's eleventh: lr * sign(gradient)
    assert torch.allclose((codes.weight[5] - before[5]).abs(), torch.full((4,), 0.05), atol=1e-4)


def test_dense_parameters_move_as_in_torch():
    dense, codes, twin = nn.Linear(4, 4), table(True), None
    twin = copy.deepcopy(dense)
    a = Adam([{"params": dense.parameters(), "lr": 0.1}, {"params": codes.parameters(), "lr": 0.01}], lr=0.1)
    b = torch.optim.Adam(twin.parameters(), lr=0.1)
    for k in range(5):
        rows = torch.tensor([k % 6, (k + 2) % 6])
        for network, optimizer, h in ((dense, a, codes(rows)), (twin, b, codes(rows).detach())):
            optimizer.zero_grad()
            network(h).square().sum().backward()
            if optimizer is b:
                b.step()
        a.step()
    assert torch.allclose(dense.weight, twin.weight, atol=1e-6)


def test_saved_and_loaded_it_goes_on_as_before(tmp_path):
    codes = table(True)
    optimizer = Adam(codes.parameters(), lr=0.05)
    for k in range(4):
        step(codes, optimizer, [0, 1, 2 + k % 3], k)
    torch.save((codes.state_dict(), optimizer.state_dict()), tmp_path / "state")
    other = table(True)
    again = Adam(other.parameters(), lr=0.9)
    weights, state = torch.load(tmp_path / "state", weights_only=True)
    other.load_state_dict(weights)
    again.load_state_dict(state)
    for k in range(4, 9):
        step(codes, optimizer, [0, 4, k % 4], k)
        step(other, again, [0, 4, k % 4], k)
    assert torch.equal(codes.weight, other.weight)


def rates(scheduler, **options) -> list[float]:
    """The rates of a training of 100 steps, for a base rate of 1."""
    done = [0.0]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = scheduler(optimizer, progress=lambda: done[0], **options)
    found = [optimizer.param_groups[0]["lr"]]
    for k in range(1, 101):
        done[0] = k / 100
        optimizer.step()
        schedule.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize("final", [0.0, 0.01, 1.0])
def test_cosine_rises_then_falls_to_its_end(final):
    found = rates(Cosine, final=final, warmup=0.1)
    assert 0 < found[0] < 0.05
    assert found[100] == pytest.approx(final, abs=1e-9)
    assert all(a < b for a, b in pairwise(found[:10]))
    assert all(a >= b for a, b in pairwise(found[10:]))
    assert found[55] == pytest.approx(
        final + (1 - final) * 0.5 * (1 + torch.cos(torch.tensor(0.55 * torch.pi)).item())
    )
    assert max(found) <= 1


def test_halving_halves_after_each_quarter():
    found = rates(StepDecay, every=0.25, factor=0.5)
    assert found[0] == found[24] == 1
    assert found[26] == found[49] == 0.5
    assert found[76] == found[99] == found[100] == 0.125


@pytest.mark.parametrize(
    ("scheduler", "options"),
    [
        (Cosine, {"final": 2.0}),
        (Cosine, {"warmup": 1.0}),
        (StepDecay, {"every": 0.0}),
        (StepDecay, {"factor": 1.5}),
    ],
)
def test_impossible_schedules_are_refused(scheduler, options):
    with pytest.raises(ValueError, match="fractions"):
        rates(scheduler, **options)
