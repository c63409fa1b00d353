"""The likelihood gradient of RBMs against sums over all of their states."""

import math

import pytest
import torch
from torch.testing import assert_close

import skebm.objectives.rbm as room
from skebm.energies import RBM, Quadratic
from skebm.objectives import RBMLikelihood, Regularized
from skebm.objectives.rbm_phases import filled
from skebm.partition import LayerSum
from skebm.samplers import AnnealedLayers
from skebm.samplers.ladder import exchanges
from skebm.trainer import Trainer
from tests.energies.machines import (
    WIDTHS,
    bits,
    frequencies,
    generator,
    law,
    listed,
    machine,
    randomized,
    table_of,
    units,
    variation,
)

KINDS = sorted(WIDTHS)
NAN = float("nan")


def likelihood(**params):
    """Return the plain likelihood: no penalty, and nothing rounded."""
    return RBMLikelihood(**{"weight_decay": 0.0, "centered": False} | params)


def set_gradients(objective, rbm, x, state, seed=0):
    """Return the gradients that a call sets, and the loss."""
    for weight in rbm.parameters():
        weight.grad = None
    loss = objective(rbm, x, state, generator=generator(seed))
    return {name: w.grad.clone() for name, w in rbm.named_parameters()}, loss


def flat(gradients):
    return torch.cat([g.flatten() for g in gradients.values()])


def given_chains(objective, rbm, x, rows):
    """Return a state whose chains are at the rows, in eval mode."""
    state = objective.init(rbm, x, generator=generator())
    state.chains = rows
    return state.eval()


def under_law(rbm, x, v, p, **params):
    """Return the gradients where model draws have the law p over the states v.

    They are linear in the law, so those of single states are averaged.
    """
    objective = likelihood(n_steps=0, n_chains=1, **params)
    total = 0.0
    for row, weight in zip(v, p, strict=True):
        if weight > 1e-14:
            state = given_chains(objective, rbm, x, row[None])
            total = total + weight * flat(set_gradients(objective, rbm, x, state)[0])
    return total


def exact_gradient(rbm, x, kind="bits"):
    """Return autograd's gradient of the enumerated mean negative log-likelihood."""
    v, cell = listed(kind) if rbm.layer.n_features == WIDTHS[kind] else (None, 0.0)
    v = bits(rbm.layer.n_features) if v is None else v
    value = rbm(x).mean() + (-rbm(v)).logsumexp(0) + cell
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(value, list(rbm.parameters()))]
    )


@pytest.mark.parametrize("precision", ["auto", "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_with_exact_draws_is_that_of_the_log_likelihood(kind, precision):
    rbm, (v, _) = machine(kind, n_hidden=3), listed(kind)
    x = table_of(rbm, 40)
    expected = exact_gradient(rbm, x, kind)
    got = under_law(rbm, x, v, law(rbm, v), precision=precision)
    assert expected.norm() > 0.1
    tolerance = 1e-9 if precision == "auto" else 1e-6
    assert_close(got, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_centred_gradient_is_the_formula(kind):
    """dW - m dphi' - dh u', dphi - dW'm, dh - dW u: on random rows and offsets."""
    rbm, g = machine(kind, n_hidden=3), generator(7)
    x, ends = table_of(rbm, 40), table_of(rbm, 25, seed=8)
    plain, centred = likelihood(n_steps=0), likelihood(n_steps=0, centered=True)
    old, _ = set_gradients(plain, rbm, x, given_chains(plain, rbm, x, ends))
    state = given_chains(centred, rbm, x, ends)
    u = state.visible_offset.normal_(generator=g)
    m = state.hidden_offset.normal_(generator=g)
    new, _ = set_gradients(centred, rbm, x, state)
    dphi, dh = old["visible_bias"], old["hidden_bias"]
    weight = old["weight"] - torch.outer(m, dphi) - torch.outer(dh, u)
    assert_close(new["weight"], weight, rtol=0, atol=1e-9)
    assert_close(new["visible_bias"], dphi - weight.T @ m, rtol=0, atol=1e-9)
    assert_close(new["hidden_bias"], dh - weight @ u, rtol=0, atol=1e-9)
    for name in set(old) - {"weight", "visible_bias", "hidden_bias"}:
        assert_close(new[name], old[name], rtol=0, atol=1e-9)


def flipped(rbm, which):
    """Return the machine of the rows with the bits of some columns exchanged."""
    other, sign = RBM(rbm.n_hidden).build(len(which)).double(), 1 - 2 * which
    with torch.no_grad():
        other.weight.copy_(rbm.weight * sign)
        other.visible_bias.copy_(rbm.visible_bias * sign)
        other.hidden_bias.copy_(rbm.hidden_bias + rbm.weight @ which)
    return other


@pytest.mark.parametrize("centered", [True, False])
def test_flipped_bits_of_the_data_mirror_the_training(centered):
    """30 steps of gradient descent, and negatives that are mirrored too."""
    which = torch.tensor([1.0, 0.0, 1.0, 1.0]).double()
    objective, g = likelihood(n_steps=0, n_chains=30, centered=centered), generator()
    rbm = randomized(RBM(3).build(4), 0.3)
    mirror = flipped(rbm, which)
    x = torch.bernoulli(torch.full((30, 90, 4), 0.2).double(), generator=g)
    ends = torch.bernoulli(torch.full((30, 30, 4), 0.3).double(), generator=g)
    for model, mask in ((rbm, torch.zeros(4).double()), (mirror, which)):
        state = objective.init(model, (x[0] - mask).abs(), generator=generator())
        for batch, rows in zip(x, ends, strict=True):
            state.chains = (rows - mask).abs()
            set_gradients(objective, model, (batch - mask).abs(), state)
            with torch.no_grad():
                for weight in model.parameters():
                    weight -= 0.5 * weight.grad
    expected = flipped(rbm, which)
    pairs = zip(mirror.parameters(), expected.parameters(), strict=True)
    miss = max((a - b).abs().max().item() for a, b in pairs)
    assert miss < 1e-9 if centered else miss > 0.1


def test_offsets_start_at_base_rates_and_follow_the_batches():
    """A hundredth of a batch at a time, in train mode only."""
    rbm = machine("bits", 4, 3)
    x = table_of(rbm, 200)
    objective = likelihood(centered=True)
    state = objective.init(rbm, x, generator=generator())
    rates = (x.sum(0) + 0.5) / 201
    assert_close(state.visible_offset, rates)
    assert_close(state.hidden_offset, torch.full((3,), 0.5).double())
    batch = x[:20]
    with torch.no_grad():
        h = rbm.hidden_mean(batch).mean(0)
    for _ in range(2):
        set_gradients(objective, rbm, batch, state)
    assert_close(state.visible_offset, 0.99**2 * rates + (1 - 0.99**2) * batch.mean(0))
    assert_close(state.hidden_offset, 0.99**2 * 0.5 + (1 - 0.99**2) * h)
    kept = state.visible_offset.clone()
    set_gradients(objective, rbm, batch, state.eval())
    assert torch.equal(state.visible_offset, kept)


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_no_steps_from_the_data_have_exactly_zero_gradient(kind, centered):
    rbm = machine(kind).float()
    x = table_of(rbm, 33).float()
    objective = likelihood(chains="data", n_steps=0, centered=centered)
    state = objective.init(rbm, x, generator=generator())
    gradients, loss = set_gradients(objective, rbm, x, state)
    assert flat(gradients).abs().max().item() == 0.0
    assert loss.value.item() == 0.0


def transition(rbm, v):
    """Return the law of v' given v of one Gibbs step, from the joint energy."""
    h = bits(rbm.n_hidden)
    with torch.no_grad():
        e = rbm.joint(v.repeat_interleave(len(h), 0), h.repeat(len(v), 1))
    log_p = -e.view(len(v), len(h))
    return log_p.softmax(1) @ log_p.T.softmax(1)


def data_machine():
    """Return a machine that mixes slowly, four patterns, and their law."""
    rbm, v = machine("bits", 6, 4, scale=1.5, seed=1), bits(6)
    places = torch.tensor([3, 12, 48, 63])
    start = torch.zeros(64).double().index_fill_(0, places, 0.25)
    return rbm, v, v[places], start


def test_bias_of_k_steps_falls_and_vanishes():
    rbm, v, x, start = data_machine()
    step, truth = transition(rbm, v), exact_gradient(rbm, x)
    bias = []
    for k in (0, 1, 3, 10, 1000):
        p = start @ torch.linalg.matrix_power(step, k)
        miss = under_law(rbm, x, v, p) - truth
        bias.append(float(miss.norm() / truth.norm()))
    assert bias[0] == pytest.approx(1.0)
    assert bias[0] > bias[1] > 1.5 * bias[2] > 3 * bias[3] > 6 * bias[4]
    assert bias[4] < 1e-6


@pytest.mark.parametrize("k", [1, 3, 1000])
def test_k_steps_from_the_data_are_k_transitions(k):
    """The trap: k steps that all start at the same bits are one step."""
    rbm, v, patterns, start = data_machine()
    n = 4000 if k < 10 else 1000
    x, objective = patterns.repeat(n, 1), likelihood(chains="data", n_steps=k)
    p = start @ torch.linalg.matrix_power(transition(rbm, v), k)
    state = objective.init(rbm, x, generator=generator())
    got = flat(set_gradients(objective, rbm, x, state)[0])
    expected = under_law(rbm, patterns, v, p)
    assert (got - expected).abs().max() < 3 / (4 * n) ** 0.5
    if k == 1000:
        truth = exact_gradient(rbm, patterns)
        assert (got - truth).norm() < 0.1 * truth.norm()


@pytest.mark.parametrize("chains", ["persistent", "tempered"])
def test_chains_go_on_from_where_they_ended(chains):
    rbm = machine("bits", 6, 4)
    x, ends = table_of(rbm, 50), []
    for k, n_calls in ((1, 4), (2, 2), (4, 1)):
        objective = likelihood(chains=chains, n_steps=k, n_chains=9, n_levels=3)
        state, g = objective.init(rbm, x, generator=generator()), generator(1)
        for _ in range(n_calls):
            objective(rbm, x[:20], state, generator=g)
        ends.append(state.chains.clone())
        objective(rbm, x, state.eval(), generator=g)
        assert torch.equal(state.chains, ends[-1])
    assert ends[0].shape == (9 if chains == "persistent" else 27, 6)
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


def test_chains_start_at_the_base_rates():
    rbm = machine("mixed")
    x = table_of(rbm, 300)
    rbm.match(x)
    objective = likelihood(chains="tempered", n_chains=4000, n_levels=5)
    state = objective.init(rbm, x, generator=generator())
    assert state.chains.shape == (20_000, 3)
    with torch.no_grad():
        miss = (rbm.layer.statistics(state.chains) - rbm.layer.statistics(x).mean(0)).T
    assert (miss.mean(1).abs() / miss.std(1)).max() < 0.04


def level_laws(rbm, start, n_levels, v):
    """Return the laws of v under E_t, from the coldest level t = 1 to t = 0."""
    laws = []
    for t in torch.linspace(1, 0, n_levels).tolist():
        fields = t * (v @ rbm.weight.T + rbm.hidden_bias)
        slope = (1 - t) * start + t * rbm.visible_bias
        log_p = v @ slope + torch.nn.functional.softplus(fields).sum(1)
        laws.append(log_p.detach().softmax(0))
    return laws


def test_every_level_of_the_ladder_keeps_its_law():
    rbm, v, n = machine("bits", 4, 3, scale=1.5), bits(4), 40_000
    objective = likelihood(chains="tempered", n_chains=n, n_levels=4)
    x = table_of(rbm, 30)
    state = objective.init(rbm, x, generator=generator())
    laws = level_laws(rbm, state.start, 4, v)
    exact = [v[torch.multinomial(p, n, True, generator=generator())] for p in laws]
    state.chains = torch.cat(exact)
    g = generator(3)
    for _ in range(5):
        objective(rbm, x, state, generator=g)
    for p, rows in zip(laws, state.chains.split(n), strict=True):
        assert variation(frequencies(rows, v), p) < 0.012


def two_modes():
    """Return a machine with modes about no bits and about all bits."""
    rbm = RBM(1).build(8).double()
    with torch.no_grad():
        rbm.weight.fill_(8.0)
        rbm.visible_bias.fill_(-4.0)
        rbm.hidden_bias.fill_(-32.5)
    return rbm


@pytest.mark.parametrize("chains", ["persistent", "tempered"])
def test_tempered_chains_find_the_far_mode(chains):
    """Plain Gibbs leaves a mode once in some 100,000 steps."""
    rbm, v = two_modes(), bits(8)
    objective = likelihood(chains=chains, n_chains=200, n_levels=20)
    x = v[[0, 255]]
    state = objective.init(rbm, x, generator=generator())
    state.chains.zero_()
    state.bits.zero_()
    g, drawn = generator(1), []
    for i in range(600):
        objective(rbm, x, state, generator=g)
        if i >= 100:
            drawn.append(state.chains[:200].clone())
    miss = variation(frequencies(torch.cat(drawn), v), law(rbm, v))
    assert miss < 0.03 if chains == "tempered" else miss > 0.2


@pytest.mark.parametrize("n_levels", [2, 3, 6, 7])
def test_exchanges_permute_the_levels_of_every_column(n_levels):
    g = generator()
    slope = 3 * torch.randn(n_levels, 500, generator=g)
    t = torch.linspace(1, 0, n_levels)[:, None].expand(-1, 500)
    order = exchanges(slope, t, g)
    assert order.shape == (n_levels, 500)
    places = torch.arange(n_levels)[:, None].expand(-1, 500)
    assert torch.equal(order.sort(0).values, places)
    assert ((order - places).abs() <= 2).all()
    for i in range(n_levels):
        assert (order[i] != i).any()


@pytest.mark.parametrize("gap", [-2.0, -0.5, 0.0, 0.5, 2.0])
def test_exchange_rates_are_in_detailed_balance(gap):
    """min(1, exp((t_i - t_j)(D_i - D_j))) for t = 0.7 and 0.2."""
    n = 100_000
    slope = torch.tensor([[1.0 + gap], [1.0]]).expand(2, n)
    t = torch.tensor([[0.7], [0.2]]).expand(2, n)
    rate = (exchanges(slope, t, generator())[0] == 1).double().mean().item()
    assert rate == pytest.approx(min(1.0, math.exp(0.5 * gap)), abs=0.005)


def test_exchanges_keep_the_joint_law_of_all_levels():
    """Four levels over three states of slopes 0, 1 and 3, from exact draws."""
    slopes, n = torch.tensor([0.0, 1.0, 3.0]).double(), 300_000
    t = torch.tensor([1.5, 1.0, 0.4, 0.0]).double()
    states = torch.stack(
        [
            torch.multinomial((-a * slopes).softmax(0), n, True, generator=generator(i))
            for i, a in enumerate(t, 1)
        ]
    )
    order = exchanges(slopes[states], t[:, None].expand(-1, n), generator())
    codes = 3 ** torch.arange(4)

    def joint(rows):
        return torch.bincount(codes @ rows, minlength=81) / n

    moved = states.gather(0, order)
    assert not torch.equal(moved, states)
    assert variation(joint(moved), joint(states)) < 0.008


def test_penalty_is_on_the_weights_alone():
    rbm = machine("bits", 6, 4)
    x = table_of(rbm, 70)
    spread = float(rbm.weight.detach().square().mean())
    for decay, factor in ((0.3, 0.3), ("auto", 1 / (70 * (spread + 0.1)))):
        for centered in (True, False):
            plain, penalised = (
                likelihood(n_steps=0, weight_decay=d, centered=centered)
                for d in (0.0, decay)
            )
            first, second = (
                set_gradients(
                    o, rbm, x[:9], o.init(rbm, x, generator=generator()).eval()
                )[0]
                for o in (plain, penalised)
            )
            change = {name: second[name] - first[name] for name in first}
            assert_close(change["weight"], factor * rbm.weight.detach())
            assert not change["visible_bias"].any()
            assert not change["hidden_bias"].any()


@pytest.mark.parametrize("kind", ["bits", "mixed"])
def test_sparsity_pushes_the_fields_of_the_hidden_bits(kind):
    """The descent of -cost sum_j (target - mean_j) mean field_j, by autograd."""
    rbm = machine(kind, n_hidden=3)
    x = table_of(rbm, 40)
    plain = likelihood(n_steps=0)
    sparse = likelihood(n_steps=0, sparsity_target=0.2, sparsity_cost=0.7)
    first, second = (
        flat(set_gradients(o, rbm, x, given_chains(o, rbm, x, x[:7]))[0])
        for o in (plain, sparse)
    )
    fields = rbm.hidden_fields(rbm.layer.statistics(x)).mean(0)
    lack = 0.2 - rbm.hidden_mean(x).detach().mean(0)
    weights = list(rbm.parameters())
    expected = torch.autograd.grad(
        -0.7 * (lack * fields).sum(), weights, allow_unused=True, materialize_grads=True
    )
    expected = torch.cat([g.flatten() for g in expected])
    assert_close(second - first, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("target", [0.1, 0.8])
@pytest.mark.parametrize("centered", [True, False])
def test_sparsity_moves_the_hidden_bits_to_the_target(centered, target):
    means = []
    for wanted in (None, target):
        rbm = RBM(6).build(8, generator=generator())
        x = table_of(machine("bits", 8, 4), 500).float()
        objective = RBMLikelihood(
            centered=centered, sparsity_target=wanted, sparsity_cost=3.0
        )
        trainer = Trainer(
            max_iter=60, batch_size=100, learning_rate=0.1, optimizer="momentum"
        )
        trainer.run(rbm, objective, x, generator=generator())
        with torch.no_grad():
            means.append(rbm.hidden_mean(x).mean(0))
    assert (means[0] - target).abs().max() > 0.2
    assert (means[1] - target).abs().max() < 0.05


HOLES = {"bits": [1.0, NAN, 0.0, NAN], "codes": [NAN, 3.0, NAN]}


@pytest.mark.parametrize("kind", HOLES)
def test_missing_entries_follow_their_law_given_the_others(kind):
    rbm, (v, _), n = machine(kind, scale=0.7), listed(kind), 100_000
    row = torch.tensor(HOLES[kind]).double()
    observed = ~row.isnan()
    rows = filled(AnnealedLayers(rbm), row.expand(n, -1), generator())
    agrees = (v[:, observed] == row[observed]).all(1)
    conditional = law(rbm, v) * agrees
    assert variation(frequencies(rows, v), conditional / conditional.sum()) < 0.01
    assert torch.equal(rows[:, observed], row[observed].expand(n, -1))


def test_missing_entries_of_all_units_are_drawn_and_the_others_stay():
    rbm, n = machine("mixed", scale=0.5), 50_000
    (v, _), row = listed("mixed"), torch.tensor([1.0, NAN, NAN]).double()
    rows = filled(AnnealedLayers(rbm), row.expand(n, -1), generator()).detach()
    p = law(rbm, v) * (v[:, 0] == 1)
    with torch.no_grad():
        phi, drawn = rbm.layer.statistics(v), rbm.layer.statistics(rows)
    mean = (p / p.sum()) @ phi
    assert (drawn.mean(0) - mean).abs().max() < 0.03
    assert rows[:, 0].eq(1).all()


def test_every_row_has_its_own_holes():
    rbm = machine("bits", 6, 4)
    x = table_of(rbm, 500)
    holes = torch.rand(x.shape, generator=generator()) < 0.3
    with_holes = x.masked_fill(holes, NAN)
    kept = with_holes.clone()
    rows = filled(AnnealedLayers(rbm), with_holes, generator())
    assert torch.equal(rows[~holes], x[~holes])
    assert set(rows.unique().tolist()) == {0.0, 1.0}
    assert_close(with_holes, kept, equal_nan=True, rtol=0, atol=0)
    g = generator()
    before = g.get_state()
    assert filled(AnnealedLayers(rbm), x, g) is x
    assert torch.equal(g.get_state(), before)


def test_gradient_of_rows_with_holes_is_that_of_their_marginal():
    """-log sum of p over what is missing; the draws leave noise of 1 / sqrt(n)."""
    rbm, v, n = machine("bits", scale=0.7), bits(4), 40_000
    row = torch.tensor(HOLES["bits"]).double()
    agrees = (v[:, [0, 2]] == row[[0, 2]]).all(1)
    value = (-rbm(v)).logsumexp(0) - (-rbm(v[agrees])).logsumexp(0)
    expected = torch.autograd.grad(value, list(rbm.parameters()))
    objective = likelihood(n_steps=0, n_chains=n)
    exact = v[torch.multinomial(law(rbm, v), n, True, generator=generator())]
    x = row.expand(n, -1)
    state = given_chains(objective, rbm, x, exact)
    got = flat(set_gradients(objective, rbm, x, state)[0])
    expected = torch.cat([g.flatten() for g in expected])
    assert (got - expected).abs().max() < 0.015
    assert expected.abs().max() > 0.3


def test_holes_may_come_after_the_first_rows():
    """As in a stream, whose first batch was complete."""
    rbm = machine("bits", 6, 4)
    x, objective = table_of(rbm, 20), likelihood()
    state = objective.init(rbm, x, generator=generator())
    gradients, loss = set_gradients(
        objective, rbm, x.masked_fill(x.cumsum(0) == 3, NAN), state
    )
    assert flat(gradients).isfinite().all()
    assert loss.value.isfinite()


@pytest.mark.parametrize("kind", KINDS)
def test_machines_train_on_rows_with_holes(kind):
    teacher = machine(kind)
    x = table_of(teacher, 300).float()
    x[torch.rand(x.shape, generator=generator()) < 0.3] = NAN
    rbm = RBM(3, units(kind, WIDTHS[kind])).build(WIDTHS[kind]).match(x)
    trainer = Trainer(max_iter=3, batch_size=50, optimizer="momentum")
    result = trainer.run(
        rbm, RBMLikelihood(), x[:200], x_valid=x[200:], generator=generator()
    )
    assert all(w.isfinite().all() for w in rbm.parameters())
    assert all(math.isfinite(value) for value in result.history["valid_loss"])


def test_half_precision_gradients_are_near():
    """Far from the data, and where the chains are rows of the data but for 5%."""
    rbm = machine("bits", 80, 50, scale=0.2).float()
    x = table_of(rbm, 400).float()
    flips = (torch.rand(x.shape, generator=generator()) < 0.05).float()
    far = table_of(rbm, 300, seed=9).float()
    for ends, tolerance in ((far, 0.02), ((x - flips).abs(), 0.02)):
        results = []
        for precision in ("float32", "bfloat16"):
            objective = likelihood(
                n_steps=0, n_chains=400, centered=True, precision=precision
            )
            state = given_chains(objective, rbm, x, ends)
            results.append(set_gradients(objective, rbm, x, state)[0])
        for name, exact in results[0].items():
            miss = (results[1][name] - exact).norm() / exact.norm()
            assert 0 < miss < tolerance, name
            assert results[1][name].dtype == torch.float32


@pytest.mark.parametrize("in_hardware", [True, False])
@pytest.mark.parametrize("product", [1, 1e12])
def test_half_precision_is_for_large_products_in_hardware(
    in_hardware, product, monkeypatch
):
    monkeypatch.setattr(room, "has_bfloat16", lambda rbm: in_hardware)
    monkeypatch.setattr(room, "LARGE_PRODUCT", product)
    for dtype in (torch.float32, torch.float64):
        rbm = machine("bits", 20, 10).to(dtype)
        x = table_of(rbm, 50).to(dtype)
        got = {}
        for precision in ("auto", "bfloat16"):
            objective = likelihood(n_steps=0, precision=precision)
            state = objective.init(rbm, x, generator=generator())
            got[precision] = flat(set_gradients(objective, rbm, x, state)[0])
        half = in_hardware and product == 1 and dtype == torch.float32
        assert torch.equal(got["auto"], got["bfloat16"]) == half


def test_hardware_is_asked_for_half_precision():
    assert room.has_bfloat16(machine()) in (True, False)


@pytest.mark.parametrize("kind", KINDS)
def test_criterion_is_the_exact_mean_negative_log_likelihood(kind):
    rbm, (v, cell) = machine(kind), listed(kind)
    x = table_of(rbm, 30)
    objective = RBMLikelihood()
    state = objective.init(rbm, x, generator=generator()).eval()
    kept = {name: value.clone() for name, value in state.state_dict().items()}
    with torch.no_grad():
        expected = float(rbm(x).mean() + (-rbm(v)).logsumexp(0)) + cell
    got = objective.criterion(rbm, x, state, generator=generator())
    assert got == pytest.approx(expected, abs=1e-9)
    assert_close(dict(state.state_dict()), kept, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["bits", "mixed"])
def test_criterion_of_large_layers_is_annealed(kind):
    rbm = machine(kind, 12, 12, scale=0.5)
    x = table_of(rbm, 50)
    objective = RBMLikelihood()
    state = objective.init(rbm, x, generator=generator())
    with torch.no_grad():
        expected = float(rbm(x).mean()) + LayerSum()(rbm).value
    first, same, other = (
        objective.criterion(rbm, x, state, generator=generator(seed))
        for seed in (0, 0, 1)
    )
    assert first == same != other
    assert first == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(("n", "n_ends"), [(40, 30), (3, 30), (40, 3), (1, 1)])
def test_loss_is_the_energy_gap_of_a_few_rows(n, n_ends):
    rbm = machine("bits", 6, 4)
    x, ends = table_of(rbm, n), table_of(rbm, n_ends, seed=8)
    objective = likelihood(n_steps=0, n_chains=n_ends)
    _, loss = set_gradients(objective, rbm, x, given_chains(objective, rbm, x, ends))
    with torch.no_grad():
        gap = rbm(x[:8]).mean() - rbm(ends[:8]).mean()
        back = rbm.layer.mean(rbm.visible_fields(rbm.hidden_mean(x[:8])))
    assert_close(loss.value, gap)
    assert_close(loss.metrics["reconstruction_error"], (x[:8] - back).square().mean())
    assert not loss.value.requires_grad


def mean_surprise(rbm, x):
    """Return the exact mean negative log-likelihood, by a sum over hidden bits."""
    h = bits(rbm.n_hidden).to(x)
    psi = rbm.layer.log_normalizers(rbm.visible_fields(h)).sum(1)
    return rbm(x).mean() + (h @ rbm.hidden_bias + psi).logsumexp(0)


def noisy_bars(n):
    """Return rows of 3 x 4 pixels, each column on or off, 5% of them wrong."""
    g = generator(5)
    x = bits(4)[torch.randint(16, (n,), generator=g)].repeat(1, 3).float()
    return (x - (torch.rand(x.shape, generator=g) < 0.05).float()).abs()


def learned(x, *, max_iter, **params):
    rbm = RBM(8).build(12, generator=generator(1)).match(x)
    trainer = Trainer(
        max_iter=max_iter,
        batch_size=100,
        learning_rate=1.0,
        optimizer="momentum",
        schedule="exponential",
        n_warmup_steps=0,
        clip_norm=math.inf,
        ema=0.99,
    )
    objective = likelihood(centered=True, n_chains=200, **params)
    trainer.run(rbm, objective, x, generator=generator(1))
    with torch.no_grad():
        return float(mean_surprise(rbm, x))


def test_persistent_chains_reach_the_maximum_likelihood_on_noisy_bars():
    x = noisy_bars(2000)
    best = RBM(8).build(12, generator=generator(1)).match(x)
    optimizer = torch.optim.Adam(best.parameters(), 0.05)
    for _ in range(400):
        optimizer.zero_grad()
        mean_surprise(best, x).backward()
        optimizer.step()
    least = mean_surprise(best, x).item()
    assert learned(x, max_iter=50) < least + 0.1


@pytest.mark.slow
def test_persistent_chains_reach_the_maximum_likelihood_on_bars_and_stripes():
    """22 patterns in 3 x 4 pixels: no machine exceeds the entropy log 22."""
    rows = [p.repeat_interleave(4) for p in bits(3)]
    x = torch.stack(rows + [p.repeat(3) for p in bits(4)]).unique(dim=0).float()
    assert len(x) == 22
    assert learned(x.repeat(50, 1), max_iter=600, n_steps=10) < math.log(22) + 0.1


def test_penalties_beside_the_likelihood_do_not_replace_it():
    x, trained = table_of(machine("bits", 6, 4), 200).float(), []
    trainer = Trainer(max_iter=5, batch_size=50, optimizer="momentum", ema=0.0)
    for objective in (RBMLikelihood(), Regularized(RBMLikelihood(), weight=1e-9)):
        rbm = RBM(4).build(6, generator=generator())
        trainer.run(rbm, objective, x, generator=generator())
        trained.append(flat(dict(rbm.named_parameters())).detach())
    assert_close(trained[0], trained[1], rtol=1e-4, atol=1e-6)


BAD = [
    {"chains": "none"},
    {"n_steps": -1},
    {"n_steps": 0.5},
    {"n_chains": 0},
    {"n_chains": 1.5},
    {"n_levels": 1},
    {"weight_decay": -0.1},
    {"weight_decay": "none"},
    {"weight_decay": NAN},
    {"sparsity_target": 0.0},
    {"sparsity_target": 1.0},
    {"sparsity_cost": -1.0},
    {"precision": "float16"},
]


@pytest.mark.parametrize("wrong", BAD, ids=str)
def test_parameters_out_of_range_are_refused(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"Got {name}={value!r}, but expected"):
        RBMLikelihood(**wrong).init(machine(), bits(4), generator=generator())


def test_other_energies_are_refused():
    energy, objective = Quadratic().build(4).double(), RBMLikelihood()
    state = objective.init(machine(), bits(4), generator=generator())
    with pytest.raises(TypeError, match=r"needs an RBM, but got Quadratic.*Contras"):
        objective.init(energy, bits(4), generator=generator())
    with pytest.raises(TypeError, match="needs an RBM"):
        objective(energy, bits(4), state, generator=generator())


def test_offsets_of_constant_columns_end_at_zero():
    """A moving mean that falls for ever is denormal one day: products turn slow."""
    rbm, x = RBM(4).build(3, generator=generator()), torch.tensor([[0.0, 0.0, 1.0]] * 8)
    objective = RBMLikelihood(n_chains=8)
    state = objective.init(rbm, x, generator=generator())
    state.visible_offset.fill_(1.5e-30)
    for _ in range(60):
        objective(rbm, x, state, generator=generator())
    assert state.visible_offset[:2].tolist() == [0.0, 0.0]


def test_bias_factor_speeds_the_centred_visible_biases_up():
    """db = k (<phi>_model - <phi>_data) - dW'm; dW and dc stay."""
    rbm = machine("bits", 6, 4)
    x, ends = table_of(rbm, 30), table_of(rbm, 20, seed=8)
    found = []
    for factor in (None, 3.0):
        objective = RBMLikelihood(n_steps=0, n_chains=20, bias_factor=factor)
        state = given_chains(objective, rbm, x, ends)
        found.append(set_gradients(objective, rbm, x, state)[0])
    plain, fast = found
    assert_close(fast["weight"], plain["weight"])
    assert_close(fast["hidden_bias"], plain["hidden_bias"])
    gap = ends.mean(0) - x.mean(0)
    assert_close(fast["visible_bias"] - plain["visible_bias"], 2 * gap)
