"""Checkpointing: the same numbers from less memory."""

import weakref

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from skebm.energies import Quadratic
from skebm.energies.checkpointed import Checkpointed
from skebm.energies.perceptrons import MLP
from skebm.objectives import DenoisingScoreMatching, NoiseContrastive, ScoreMatching


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def table(n=101):
    return torch.randn(n, 5, generator=generator(), dtype=torch.float64)


def mlp():
    return MLP(hidden=(32,) * 4).build(5, generator=generator(1)).double()


def gradients(objective, energy, x):
    state = objective.init(energy, x, generator=generator())
    value = objective(energy, x, state, generator=generator(2)).value
    weights = list(energy.parameters())
    return value, torch.autograd.grad(value, weights, materialize_grads=True)


@pytest.mark.parametrize("n_blocks", [1, 4, 1000])
@pytest.mark.parametrize(
    "objective",
    [NoiseContrastive(), DenoisingScoreMatching(), ScoreMatching()],
    ids=repr,
)
def test_value_and_gradients_are_the_same(objective, n_blocks):
    part, x = mlp(), table()
    plain = gradients(objective, part, x)
    again = gradients(objective, Checkpointed(part, n_blocks), x)
    assert_close(again, plain, rtol=0, atol=1e-6)


def test_energies_and_their_gradients_are_the_same():
    part, x = mlp(), table()
    energy = Checkpointed(part)
    assert_close(energy(x), part(x))
    with torch.no_grad():
        assert torch.equal(energy(x), part(x))
    for got, wanted in zip(
        energy.value_and_grad(x), part.value_and_grad(x), strict=True
    ):
        assert_close(got, wanted)
        assert not got.requires_grad


def test_what_is_known_of_the_part_is_known():
    energy = Checkpointed(Quadratic()).build(3, generator=generator())
    assert energy.log_partition(2.0) == energy.part.log_partition(2.0)
    assert torch.equal(energy.as_quadratic().precision, torch.eye(3).double())


def test_number_of_blocks_is_checked():
    with pytest.raises(ValueError, match="n_blocks=0"):
        Checkpointed(mlp(), n_blocks=0)(table())


class Memory(TorchDispatchMode):
    """Counts the bytes of tensors that operations made and that still live."""

    def __init__(self):
        super().__init__()
        self.live, self.peak, self.known = 0, 0, set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        for item in made if isinstance(made, tuple | list) else [made]:
            if isinstance(item, torch.Tensor):
                self.count(item.untyped_storage())
        return made

    def count(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self.forget, key, size)

    def forget(self, key, size):
        self.known.discard(key)
        self.live -= size


def peak_memory(energy, x):
    with Memory() as memory:
        energy(x).mean().backward()
    return memory.peak


def saved_bytes(energy, x):
    total = 0

    def pack(tensor):
        nonlocal total
        total += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        energy(x)
    return total


def test_peak_memory_of_forward_and_backward_falls():
    part, x = mlp(), table(4096)
    plain = peak_memory(part, x)
    assert peak_memory(Checkpointed(part, 2), x) < 0.6 * plain
    assert peak_memory(Checkpointed(part), x) < 0.35 * plain
    assert saved_bytes(Checkpointed(part), x) < 0.1 * saved_bytes(part, x)


def test_one_block_is_no_saving():
    """Recomputing the whole batch at once needs all of it at once."""
    part, x = mlp(), table(4096)
    assert peak_memory(Checkpointed(part, 1), x) > 0.9 * peak_memory(part, x)


def test_randomness_and_modules_are_left_alone():
    before = torch.get_rng_state()
    energy = Checkpointed(mlp())
    energy(table()).sum().backward()
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(energy.part, nn.Module)
