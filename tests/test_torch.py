"""The door between numpy and torch."""

import multiprocessing
import os

import numpy as np
import pytest
import torch

from skebm import _torch
from skebm._torch import (
    CHUNK_VALUES,
    LARGE,
    bernoulli,
    chunk_rows,
    in_chunks,
    make_generator,
    on_cpu,
    probabilities,
    refuse_forked_process,
    resolve_device,
    to_numpy,
)
from skebm.energies import Quadratic
from skebm.exceptions import ForkedProcessError
from skebm.samplers import HMC, Cycle, Independence


def randn(n, d, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, d, generator=g, dtype=dtype)


@pytest.mark.parametrize("n", [1, 31, 32, 33, 100])
def test_chunks_have_the_same_size_and_come_back_in_order(n):
    seen = []

    def double(x, index):
        seen.append((x, index))
        return 2 * x, index

    x, index = randn(n, 3), torch.arange(n)
    twice, same = in_chunks(double, 32, x, index)
    assert torch.equal(twice, 2 * x)
    assert torch.equal(same, index)
    assert len(seen) == -(-n // 32)
    assert all(len(a) == len(b) == 32 for a, b in seen)


def test_numbers_are_padded_with_zero_and_indices_with_minus_one():
    parts = []
    in_chunks(lambda *chunk: parts.append(chunk) or chunk, 4, torch.ones(6, 2).double(),
              torch.ones(6, dtype=torch.long))  # fmt: skip
    numbers, indices = parts[1]
    assert numbers.tolist() == [[1, 1], [1, 1], [0, 0], [0, 0]]
    assert numbers.dtype == torch.float64
    assert indices.tolist() == [1, 1, -1, -1]
    assert indices.dtype == torch.long


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_has_the_same_bits_alone_in_any_order_and_in_any_batch(dtype):
    weights = randn(64, 50, dtype).T.contiguous()

    def score(x):
        return ((x @ weights).logsumexp(1),)

    x = randn(133, 50, dtype)
    (expected,) = in_chunks(score, 32, x)
    order = torch.randperm(133, generator=torch.Generator().manual_seed(1))
    assert torch.equal(in_chunks(score, 32, x[order])[0], expected[order])
    assert torch.equal(in_chunks(score, 32, x[5:])[0], expected[5:])
    alone = torch.cat([in_chunks(score, 32, row[None])[0] for row in x])
    assert torch.equal(alone, expected)


@pytest.mark.parametrize("n_stored", [1, 255, 5000, 20_000, 50_000, 10**6])
@pytest.mark.parametrize("n_features", [1, 30, 784, 10_000])
def test_chunk_rows_fill_whole_vectors(n_stored, n_features):
    size = chunk_rows(n_stored, n_features)
    assert 32 <= size <= 256
    assert size % 16 == 0
    assert size == 32 or size * n_stored <= CHUNK_VALUES


def test_chunks_shrink_with_the_memory():
    sizes = [chunk_rows(m, 5) for m in (100, 10_000, 20_000, 40_000)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]
    assert sizes[-1] == 32


def test_auto_takes_the_accelerator_that_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")


def test_missing_accelerators_are_refused_with_a_way_out(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"Got device='cuda:0'.*device=\"cpu\""):
        resolve_device("cuda:0")


@pytest.mark.parametrize("device", ["gpu", "", "cpu:x"])
def test_unknown_devices_are_refused(device):
    with pytest.raises(ValueError, match="device"):
        resolve_device(device)


def test_generators_repeat_and_leave_the_global_one_alone():
    before = torch.get_rng_state()
    first = torch.rand(3, generator=make_generator(7))
    assert torch.equal(first, torch.rand(3, generator=make_generator(7)))
    assert not torch.equal(first, torch.rand(3, generator=make_generator(8)))
    assert torch.equal(torch.get_rng_state(), before)


SIZES = pytest.mark.parametrize("n", [LARGE // 8 - 1, LARGE // 8, 4 * LARGE])
P = torch.tensor([0.0, 1e-3, 0.2, 0.5, 0.7, 0.999, 1 - 2**-24, 1.0])


def test_probabilities_are_sigmoids_and_never_denormal():
    fields = torch.tensor([-1e4, -104.0, -90.0, -80.0, -3.0, 0.0, 5.0, 1e4])
    p = probabilities(fields.clone())
    assert p.min() >= torch.finfo(torch.float32).tiny
    torch.testing.assert_close(p[3:], fields[3:].sigmoid())


@SIZES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bits_have_their_means_and_do_not_meet_each_other(n, dtype):
    """Eight columns of one probability each; z-scores of means and covariances."""
    g, p = make_generator(0), P.to(dtype)
    calls = [bernoulli(p.expand(n, 8).clone(), g) for _ in range(-(-60_000 // n))]
    draws = torch.cat(calls).double()
    assert calls[0].dtype == dtype
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    sd = (p * (1 - p)).sqrt().double()
    z = (draws.mean(0) - p)[1:6] / sd[1:6] * len(draws) ** 0.5
    assert z.abs().max() < 4
    assert draws[:, 0].sum() == 0
    assert draws[:, 7].sum() == len(draws)
    assert draws[:, 6].sum() >= len(draws) - 2
    shifted = [(draws[:-1, i], draws[1:, j]) for i in (2, 3, 4) for j in (2, 3, 4)]
    beside = [(draws[:, 2], draws[:, 3]), (draws[:, 3], draws[:, 4])]
    for a, b in shifted + beside:
        correlation = torch.corrcoef(torch.stack([a, b]))[0, 1]
        assert correlation.abs() < 4 / len(draws) ** 0.5


@SIZES
def test_bits_come_from_the_generator_alone(n):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    g = make_generator(0)
    first, second = (bernoulli(torch.full((n, 8), 0.5), g) for _ in range(2))
    same = bernoulli(torch.full((n, 8), 0.5), make_generator(0))
    other = bernoulli(torch.full((n, 8), 0.5), make_generator(1))
    assert torch.equal(first, same)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


@SIZES
def test_bits_that_are_sure_stay_in_their_places(n):
    """A view with the rows as columns; no bit is minus zero."""
    sure = (torch.arange(8 * n).view(8, n) % 3 == 0).float().T
    drawn = bernoulli(
        sure.clone(memory_format=torch.preserve_format), make_generator(0)
    )
    assert torch.equal(drawn, sure)
    assert not drawn.signbit().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_to_numpy_returns_a_float64_copy(dtype):
    values = torch.tensor([1.5, -2.0], dtype=dtype, requires_grad=True)
    array = to_numpy(values)
    assert array.dtype == np.float64
    assert array.tolist() == [1.5, -2.0]
    array[0] = 9.0
    assert values.tolist() == [1.5, -2.0]


def test_forked_processes_are_refused_while_torch_has_threads(monkeypatch):
    refuse_forked_process()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    refuse_forked_process()
    monkeypatch.setattr(_torch, "_FORKED_FROM", [1])
    with pytest.raises(ForkedProcessError, match="loky"):
        refuse_forked_process()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    refuse_forked_process()


def _refused(connection):
    torch.get_num_threads = lambda: 2
    try:
        refuse_forked_process()
    except ForkedProcessError:
        connection.send("refused")
    else:
        connection.send("accepted")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is a POSIX call")
@pytest.mark.parametrize(
    ("method", "answer"), [("fork", "refused"), ("spawn", "accepted")]
)
def test_a_process_knows_whether_it_was_forked(method, answer):
    context = multiprocessing.get_context(method)
    here, there = context.Pipe()
    process = context.Process(target=_refused, args=(there,))
    process.start()
    try:
        assert here.poll(60)
        assert here.recv() == answer
    finally:
        process.join(10)


def test_on_cpu_keeps_kind_and_values():
    module = torch.nn.Linear(2, 3)
    moved = on_cpu(module)
    assert moved is not module
    assert torch.equal(moved.weight, module.weight)
    metric = torch.ones(2)
    sampler = on_cpu(Cycle(HMC(0.1, metric=metric), Independence(Quadratic().build(2))))
    assert torch.equal(sampler.first.metric, metric)
    assert sampler.first.step_size == 0.1
    assert on_cpu("text") == "text"


@pytest.mark.gpu
def test_on_cpu_moves_from_the_gpu():
    metric = torch.ones(2, device="cuda")
    base = Quadratic().build(2).to("cuda")
    sampler = on_cpu(Cycle(HMC(0.1, metric=metric), Independence(base)))
    assert sampler.first.metric.device.type == "cpu"
    assert sampler.second.proposal.mean.device.type == "cpu"


@pytest.mark.parametrize("width", [1, 3, 5, 16, 17, 33])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_chunk_rounds_a_row_alike_wherever_it_lies(width, dtype):
    """A product of matrices of odd width reads every second row unaligned."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(70, width, generator=g, dtype=dtype)
    for n_out in (2, 8, 64):
        layer = torch.nn.Linear(width, n_out).to(dtype).requires_grad_(False)
        layer.weight.normal_(generator=g)
        expected = in_chunks(lambda c, f=layer: (f(c),), 32, x)[0]
        for shift in (1, 2, 37):
            found = in_chunks(lambda c, f=layer: (f(c),), 32, x.roll(shift, 0))[0]
            assert torch.equal(found, expected.roll(shift, 0))
