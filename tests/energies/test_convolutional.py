"""The energy of images: shapes, the order of the flat values, and learning."""

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch.nn import functional
from torch.testing import assert_close

from skebm.energies import Convolutional


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(n, d, seed=1):
    return torch.randn(n, d, generator=generator(seed))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    "shape", [(8, 8), (28, 28), (3, 16, 16), (1, 5, 9), (2, 1, 1), (7, 3)]
)
def test_every_image_shape_gives_one_energy_per_row(shape, residual):
    d = torch.Size(shape).numel()
    energy = Convolutional(shape, residual=residual).build(d, generator=generator())
    e, gradient = energy.value_and_grad(rows(5, d))
    assert e.shape == (5,)
    assert gradient.isfinite().all()
    assert (gradient != 0).any(0).all()
    assert e.std() < 0.1


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("shape", [(3, 6, 5), (6, 5)])
def test_energy_equals_the_formula(shape, residual):
    d = torch.Size(shape).numel()
    energy = Convolutional(shape, (4, 7), "tanh", residual).build(d).double()
    x = rows(9, d).double()
    weights = iter(energy.parameters())

    def conv(h, stride):
        return functional.conv2d(h, next(weights), next(weights), stride, padding=1)

    h = x.reshape(9, -1, 6, 5)
    for size in ((4, 3, 3), (7, 2, 2)):
        h = conv(h, 2).tanh()
        if residual:
            h = h + conv(conv(h, 1).tanh(), 1)
        assert h.shape[1:] == size
    expected = h.reshape(9, -1) @ next(weights)[0] + next(weights)
    assert not list(weights)
    assert_close(energy(x), expected)


def test_distant_pixels_do_not_interact_in_the_first_layer():
    """Kernels of 3 x 3: pixels that no kernel sees together add up."""
    energy = Convolutional((8, 8), (6,)).build(64).double()
    image = rows(1, 64)[0].double()
    hessian = torch.autograd.functional.hessian(lambda x: energy(x[None])[0], image)
    assert abs(hessian[0, 63]) == 0
    assert abs(hessian[0, 7]) == 0
    assert abs(hessian[9, 10]) > 0


def test_the_energy_knows_where_things_are():
    energy = Convolutional((8, 8)).build(64).double()
    dot = torch.eye(64, dtype=torch.float64)
    assert (energy(dot[18:19]) - energy(dot[45:46])).abs() > 1e-6


def test_weights_depend_on_the_generator_alone():
    before = torch.get_rng_state()
    first, same, other = (
        Convolutional((8, 8)).build(64, generator=generator(seed))(rows(5, 64))
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_wrong_image_shape_says_what_the_rows_hold():
    with pytest.raises(ValueError, match=r"rows of 63 columns.*\(8, 8\) has 64 values"):
        Convolutional((8, 8)).build(63)


@pytest.mark.parametrize("shape", [(64,), (1, 1, 8, 8), (0, 8), (-8, -8)])
def test_image_shape_has_two_or_three_sizes(shape):
    with pytest.raises(ValueError, match=r"expected \(height, width\)"):
        Convolutional(shape).build(64)


def test_layers_need_channels():
    with pytest.raises(ValueError, match="layer of 0 channels"):
        Convolutional((8, 8), channels=(0,)).build(64)


def test_no_layers_leave_a_linear_energy():
    energy = Convolutional((8, 8), channels=()).build(64)
    gradient = energy.grad(rows(5, 64))
    assert_close(gradient, gradient[:1].expand_as(gradient))


@pytest.mark.slow
def test_it_learns_to_tell_digits_from_noise_of_the_same_pixels():
    """Against columns shuffled independently, which keep every pixel's law."""
    x = torch.from_numpy(load_digits().data).float() / 8 - 1
    x = x[torch.randperm(len(x), generator=generator())]
    train, test = x[:1400], x[1400:]
    g = generator()

    def shuffled(rows):
        order = torch.rand(rows.shape, generator=g).argsort(0)
        return rows.gather(0, order)

    energy = Convolutional((8, 8)).build(64, generator=g)
    optimizer = torch.optim.AdamW(energy.parameters(), 2e-3)
    for _ in range(300):
        batch = train[torch.randint(len(train), (128,), generator=g)]
        optimizer.zero_grad()
        loss = functional.softplus(energy(batch)) + functional.softplus(
            -energy(shuffled(batch))
        )
        loss.mean().backward()
        optimizer.step()
    with torch.no_grad():
        e = energy(torch.cat([test, shuffled(test)]))
    labels = [0] * len(test) + [1] * len(test)
    assert roc_auc_score(labels, e) > 0.99
