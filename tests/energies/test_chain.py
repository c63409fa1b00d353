"""The chain of labels against all 3^6 labelings, and what padding must not change."""

import pickle

import pytest
import torch
from sklearn.base import clone
from torch.testing import assert_close

from skebm.energies import Chain
from tests.energies.machines import generator, randomized, states

T, K, D = 6, 3, 2
exact = {"atol": 1e-9, "rtol": 0}


@pytest.fixture(params=[(), (5,)], ids=["linear", "network"])
def chain(request):
    return randomized(Chain(K, request.param).build(D + 1, generator=generator()), 1.0)


@pytest.fixture
def rows():
    return torch.randn(T, D, generator=generator(1), dtype=torch.float64)


@pytest.fixture
def labelings():
    """All 729 labelings, shape (729, T)."""
    return states(*[K] * T)


@pytest.fixture
def listed(chain, rows, labelings):
    """E(x, y) of all labelings y of the rows, written out, shape (729,)."""
    return torch.stack([by_hand(chain, rows, y.long()) for y in labelings])


def by_hand(chain, rows, y):
    """Return E(x, y) of one sequence, a term at a time."""
    u = chain.network(rows)
    e = -chain.start[y[0]] - chain.end[y[-1]]
    for t in range(len(y)):
        e = e - u[t, y[t]]
        if t:
            e = e - chain.transitions[y[t - 1], y[t]]
    return e


def labelled(rows, y):
    """Return sequences with the codes of their labels last."""
    return torch.cat([rows.expand(len(y), *rows.shape), y[..., None]], 2)


def ready(chain, *tables):
    """Return what the recursions take, for tables padded to the longest."""
    longest = max(map(len, tables))
    x = torch.zeros(len(tables), longest, D + 1, dtype=torch.float64)
    x[..., -1] = -1
    for place, rows in enumerate(tables):
        x[place, : len(rows), :-1] = rows
        x[place, : len(rows), -1] = 0
    u, _, length = chain.split(x)
    return u, length


def test_energy_is_the_sum_of_its_terms(chain, rows, labelings, listed):
    assert_close(chain(labelled(rows, labelings)), listed, **exact)


def test_log_normalizer_sums_over_all_labelings(chain, rows, listed):
    assert_close(
        chain.log_normalizer(*ready(chain, rows))[0], (-listed).logsumexp(0), **exact
    )


@pytest.mark.parametrize("lengths", [(1,), (2, 6), (5, 1, 3)])
def test_both_ways_to_log_normalizer_agree(chain, rows, lengths):
    u, length = ready(chain, *(rows[:n] for n in lengths))
    found = []
    for log_z in (chain.log_normalizer, chain.log_normalizer_by_halves):
        total = log_z(u, length)
        weights = list(chain.parameters())
        slopes = torch.autograd.grad(
            total.sum(), weights, allow_unused=True, materialize_grads=True
        )
        found.append([total, *slopes])
        u, length = ready(chain, *(rows[:n] for n in lengths))
    assert_close(found[0], found[1], **exact)


def test_marginals_sum_over_all_labelings(chain, rows, labelings, listed):
    p = (-listed).softmax(0)
    expected = torch.stack([p @ (labelings == k).double() for k in range(K)], 1)
    assert_close(chain.marginals(*ready(chain, rows))[..., 0], expected, **exact)


def test_marginals_are_the_gradient_of_log_normalizer(chain, rows):
    u, length = ready(chain, rows, rows[:4])
    u = u.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(chain.log_normalizer(u, length).sum(), u)
    p = chain.marginals(u, length)
    assert_close(gradient[..., 0], p[..., 0], **exact)
    assert_close(gradient[:4, :, 1], p[:4, :, 1], **exact)
    assert torch.all(gradient[4:, :, 1] == 0)


def test_decoding_finds_the_least_energy(chain, rows, labelings, listed):
    path = chain.decode(*ready(chain, rows))[:, 0]
    assert torch.equal(path, labelings[listed.argmin()].long())


def test_draws_follow_the_law(chain, rows, labelings, listed):
    n = 20_000
    u, length = ready(chain, rows)
    drawn = chain.draw(u.expand(-1, -1, n), length.expand(n), generator=generator(2)).T
    places = (drawn * K ** torch.arange(T - 1, -1, -1)).sum(1)
    found = torch.bincount(places, minlength=K**T) / n
    p = (-listed).softmax(0)
    # The expected distance of n independent draws is near this sum.
    noise = (p * (1 - p) / n).sqrt().sum() / (2 * torch.pi) ** 0.5
    assert (found - p).abs().sum() / 2 < 1.5 * noise


def test_gradient_equals_finite_differences(chain, rows, labelings):
    x = labelled(rows, labelings[[5, 300]])

    def loss():
        u, y, length = chain.split(x)
        return (chain.joint(u, y, length) + chain.log_normalizer(u, length)).sum()

    chain.zero_grad()
    loss().backward()
    for weight in chain.parameters():
        flat, found = weight.data.view(-1), weight.grad.view(-1)
        for place in range(len(flat)):
            kept, values = flat[place].clone(), []
            for step in (1e-5, -1e-5):
                flat[place] = kept + step
                values.append(loss().detach())
            flat[place] = kept
            slope = (values[0] - values[1]) / 2e-5
            assert_close(found[place], slope, atol=1e-6, rtol=1e-6)


def test_padding_changes_no_bit(chain, rows):
    """Two sequences of two rows, alone or followed by other rows after the end."""
    u, lengths = ready(chain, rows, rows[2:])
    lengths = torch.full_like(lengths, 2)
    y = torch.tensor([[0, 1], [2, 0], [1, 1], [2, 2], [0, 1], [1, 0]])
    for read in (
        lambda u, y: chain.joint(u, y, lengths),
        lambda u, y: chain.log_normalizer(u, lengths),
        lambda u, y: chain.marginals(u, lengths)[:2],
        lambda u, y: chain.decode(u, lengths)[:2],
    ):
        long = torch.cat([u[:2], 1e3 * u[2:].sin()])
        assert torch.equal(read(u[:2], y[:2]), read(long, y))
    path = chain.decode(u, lengths)
    assert torch.equal(path[2:], path[1:2].expand(4, -1))


def test_one_row_is_a_softmax(chain, rows):
    u, length = ready(chain, rows[:1])
    fields = u[0, :, 0] + chain.start + chain.end
    assert_close(chain.marginals(u, length)[0, :, 0], fields.softmax(0), **exact)
    assert_close(chain.log_normalizer(u, length)[0], fields.logsumexp(0), **exact)


def test_values_clone_print_and_pickle(chain, rows, labelings):
    x = labelled(rows, labelings[:4])
    again = pickle.loads(pickle.dumps(chain))
    assert torch.equal(again(x), chain(x))
    assert (
        repr(clone(chain)) == repr(chain) == f"Chain(n_labels=3, hidden={chain.hidden})"
    )
    assert not clone(chain).state_dict()
