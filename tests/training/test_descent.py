"""Steps, rates and averages against what is known of them."""

import math

import pytest
import torch
from torch.testing import assert_close

from skebm.training.descent import AdamW, Momentum, copied, learning_rate


def weight(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def descent(*weights, undecayed=(), weight_decay=0.0, clip_norm=math.inf, ema=0.0):
    return AdamW(
        list(weights),
        list(undecayed),
        betas=(0.9, 0.99),
        weight_decay=weight_decay,
        clip_norm=clip_norm,
        ema=ema,
    )


def along_the_mean(*weights, undecayed=(), weight_decay=0.0, momentum=0.75, **params):
    averaging = {"clip_norm": math.inf, "ema": 0.0} | params
    return Momentum(
        list(weights),
        list(undecayed),
        momentum=momentum,
        weight_decay=weight_decay,
        **averaging,
    )


KINDS = pytest.mark.parametrize("kind", [descent, along_the_mean])


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_steps_are_those_of_torch(weight_decay):
    """Clipping at 1 changes some of the gradients here and spares others."""
    start = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double()
    ours, plain = start.clone().requires_grad_(), start.clone().requires_grad_()
    steps = descent(ours, weight_decay=weight_decay, clip_norm=1.0)
    optimizer = torch.optim.AdamW(
        [plain], lr=0.1, betas=(0.9, 0.99), weight_decay=weight_decay
    )
    norms = []
    for t in range(30):
        norms.append(float(steps.step((ours - 1).square().sum(), t, 0.1)))
        optimizer.zero_grad()
        (plain - 1).square().sum().backward()
        expected = torch.nn.utils.clip_grad_norm_([plain], 1.0)
        assert norms[-1] == pytest.approx(float(expected), rel=1e-6)
        optimizer.step()
    assert min(norms) < 1.0 < max(norms)
    assert_close(ours, plain, rtol=1e-5, atol=0)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_along_the_mean_are_those_of_torch(momentum, weight_decay):
    """torch's momentum adds gradients up: its rate is (1 - m) times ours."""
    start = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double()
    ours, plain = start.clone().requires_grad_(), start.clone().requires_grad_()
    steps = along_the_mean(
        ours, momentum=momentum, weight_decay=weight_decay, clip_norm=1.0
    )
    optimizer = torch.optim.SGD(
        [plain], 0.1 * (1 - momentum), momentum, weight_decay=weight_decay
    )
    for t in range(30):
        steps.step((ours - 1).square().sum(), t, 0.1)
        optimizer.zero_grad()
        (plain - 1).square().sum().backward()
        torch.nn.utils.clip_grad_norm_([plain], 1.0)
        optimizer.step()
    assert_close(ours, plain, rtol=1e-5, atol=1e-6)


def test_two_steps_along_the_mean_by_hand():
    """u = 0.25 g, then 0.75 u + 0.25 g', g with 0.5 w added; w - 0.1 u."""
    a = weight(2.0)
    steps = along_the_mean(a, weight_decay=0.5)
    steps.step(3 * a.sum(), 0, 0.1)
    assert a.item() == pytest.approx(2 - 0.1 * 0.25 * (3 + 0.5 * 2))
    first = a.item()
    steps.step(-a.sum(), 1, 0.1)
    mean = 0.75 * 0.25 * 4 + 0.25 * (-1 + 0.5 * first)
    assert a.item() == pytest.approx(first - 0.1 * mean)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_rate_is_that_of_plain_descent_whatever_the_momentum(momentum):
    a = weight(0.0)
    steps = along_the_mean(a, momentum=momentum)
    for t in range(400):
        steps.step(3 * a.sum(), t, 0.1)
    lag = momentum / (1 - momentum)
    assert a.item() == pytest.approx(-0.3 * (400 - lag))


@KINDS
def test_gradients_that_are_set_are_followed(kind):
    """A loss without a graph leaves them; one with a graph replaces them."""
    a, b = weight(1.0, -2.0), weight(1.0, -2.0)
    by_hand, by_graph = kind(a), kind(b)
    for t in range(3):
        a.grad = 2 * a.detach()
        norm = by_hand.step(torch.tensor(7.0), t, 0.1)
        assert norm == pytest.approx(by_graph.step(b.square().sum(), t, 0.1))
    assert torch.equal(a, b)
    a.grad = torch.full_like(a, math.nan)
    by_hand.step(a.square().sum(), 3, 0.1)
    assert a.isfinite().all()


@KINDS
def test_clipping_shortens_the_gradient_of_all_weights_together(kind):
    a, b = weight(0.0), weight(0.0, 0.0)
    steps = kind(a, b, clip_norm=5.0)
    norm = steps.step(30 * a.sum() + 40 * b[0], 0, 0.1)
    assert float(norm) == pytest.approx(50.0)
    assert_close(a.grad, torch.tensor([3.0]).double())
    assert_close(b.grad, torch.tensor([4.0, 0.0]).double())


@pytest.mark.parametrize("size", [0.0, 2.0])
def test_short_gradients_stay_as_they_are(size):
    a = weight(0.0)
    descent(a, clip_norm=5.0).step(size * a.sum(), 0, 0.1)
    assert a.grad.item() == size


def test_average_is_the_closed_form_sum():
    """A constant gradient moves AdamW by the rate: w_i = -i / 10 after i steps."""
    for n, ema in [(1, 0.999), (7, 0.999), (40, 0.999), (40, 0.5), (40, 0.0)]:
        a = weight(5.0)
        steps = descent(a, ema=ema)
        for t in range(n):
            steps.step(a.sum(), t, 0.1)
        decays = [min(ema, t / (t + 9)) for t in range(n)]
        shares = [(1 - decays[i]) * math.prod(decays[i + 1 :]) for i in range(n)]
        expected = sum(share * (5 - 0.1 * (i + 1)) for i, share in enumerate(shares))
        assert sum(shares) == pytest.approx(1.0)
        assert steps.average[0].item() == pytest.approx(expected, abs=1e-6)


def test_average_of_a_short_run_weighs_steps_by_a_polynomial():
    n, a = 30, weight(5.0)
    steps = descent(a, ema=0.999)
    for t in range(n):
        steps.step(a.sum(), t, 0.1)
    shares = [math.perm(i + 7, 8) for i in range(1, n + 1)]
    mean = sum(share * i for i, share in enumerate(shares, 1)) / sum(shares)
    assert steps.average[0].item() == pytest.approx(5 - 0.1 * mean, abs=1e-6)


def test_average_of_a_long_run_forgets_at_the_rate_of_ema():
    a = weight(0.0)
    steps = descent(a, ema=0.9)
    for t in range(400):
        steps.step(a.sum(), t, 0.1)
    lag = 0.9 / (1 - 0.9)
    assert steps.average[0].item() == pytest.approx(-0.1 * (400 - lag), abs=1e-5)


def test_use_average_replaces_the_weights():
    a = weight(1.0)
    steps = descent(a, ema=0.9)
    for t in range(3):
        steps.step(a.sum(), t, 0.1)
    assert not torch.equal(a, steps.average[0])
    steps.use_average()
    assert torch.equal(a, steps.average[0])
    assert a.requires_grad


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
@pytest.mark.parametrize(("kind", "share"), [(descent, 1.0), (along_the_mean, 0.25)])
def test_undecayed_weights_move_by_their_gradient_alone(kind, share, weight_decay):
    a, b = weight(2.0), weight(2.0)
    steps = kind(a, undecayed=[b], weight_decay=weight_decay)
    steps.step(a.sum() + b.sum(), 0, 0.1)
    assert a.item() == pytest.approx(2.0 - 0.1 * share * (1 + 2.0 * weight_decay))
    assert b.item() == pytest.approx(2.0 - 0.1 * share)


@KINDS
def test_weights_without_a_gradient_stay(kind):
    a, b, c = weight(2.0), weight(3.0), weight(4.0)
    steps = kind(a, b, undecayed=[c], weight_decay=0.5)
    steps.step(a.sum(), 0, 0.1)
    assert (b.item(), c.item()) == (3.0, 4.0)
    assert b.grad is None


def test_is_finite():
    a, b = weight(1.0), weight(2.0)
    steps = descent(a, b)
    assert steps.is_finite()
    steps.average[1].fill_(math.nan)
    assert not steps.is_finite()
    steps.average[1].fill_(0.0)
    with torch.no_grad():
        a.fill_(math.inf)
    assert not steps.is_finite()


@KINDS
def test_state_restores_the_steps_that_follow(kind):
    def after(steps, a, n):
        for t in range(n, n + 5):
            steps.step(a.square().sum(), t, 0.1)
        return a.detach().clone(), steps.average[0].clone()

    a = weight(3.0, -1.0)
    steps = kind(a, ema=0.9)
    after(steps, a, 0)
    kept, start = copied(steps.state_dict()), a.detach().clone()
    first = after(steps, a, 5)
    with torch.no_grad():
        a.copy_(start)
    steps.load_state_dict(kept)
    assert a.grad is None
    again = after(steps, a, 5)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(kept["average"][0], again[1])


def test_copied_shares_nothing():
    tree = {"a": [torch.ones(2)], "b": {"c": 1, "d": None}}
    again = copied(tree)
    tree["a"][0].fill_(7.0)
    tree["b"]["c"] = 2
    assert torch.equal(again["a"][0], torch.ones(2))
    assert again["b"] == {"c": 1, "d": None}


RATES = {
    ("cosine", 0): 0.01,
    ("cosine", 9): 0.1,
    ("cosine", 10): 0.1,
    ("cosine", 40): 0.075,  # a third of the way: (1 + cos 60°) / 2
    ("cosine", 55): 0.05,
    ("cosine", 70): 0.025,
    ("cosine", 99): 0.1 * (1 + math.cos(math.pi * 89 / 90)) / 2,
    ("constant", 0): 0.01,
    ("constant", 4): 0.05,
    ("constant", 10): 0.1,
    ("constant", 99): 0.1,
    ("exponential", 0): 0.01,
    ("exponential", 10): 0.1,
    ("exponential", 40): 0.1 / 100 ** (1 / 3),
    ("exponential", 55): 0.01,
    ("exponential", 99): 0.1 / 100 ** (89 / 90),
}


@pytest.mark.parametrize(("schedule", "t"), RATES)
def test_rate_is_the_formula(schedule, t):
    rate = learning_rate(t, 100, peak=0.1, n_warmup_steps=10, schedule=schedule)
    assert rate == pytest.approx(RATES[schedule, t], rel=1e-12)


@pytest.mark.parametrize(
    ("n_steps", "n_warmup_steps", "first"),
    [(1000, 100, 0.01), (200, 100, 0.05), (9, 100, 1.0), (50, 0, 1.0)],
)
def test_warm_up_takes_a_tenth_of_the_steps_at_most(n_steps, n_warmup_steps, first):
    rate = learning_rate(
        0, n_steps, peak=1.0, n_warmup_steps=n_warmup_steps, schedule="cosine"
    )
    assert rate == pytest.approx(first)
