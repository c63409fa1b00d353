"""Noise-conditional energies: their form, their levels, the Gaussian, and digits."""

import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch.nn import functional
from torch.testing import assert_close

from skebm.energies import MLP, AtLevel, Denoiser, NoisyMLP
from skebm.energies.denoiser import NoiseConditional

COVARIANCE = torch.tensor([[1.5, 0.6], [0.6, 0.8]], dtype=torch.float64)
CONDITIONAL = [Denoiser, NoisyMLP]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(n=50, d=3, seed=1):
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


def built(energy, d=3):
    energy.build(d, generator=generator()).double()
    with torch.no_grad():
        for weight in energy.parameters():
            weight += 0.2 * torch.randn(weight.shape, generator=generator())
    return energy


def root(matrix):
    w, v = torch.linalg.eigh(matrix)
    return v @ w.sqrt().diag() @ v.T


def denoising_loss(energy, x, sigma, generator):
    """Mean |sigma dE/dx - z|^2 at x + sigma z."""
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    seen = (x + sigma * z).requires_grad_(True)
    (gradient,) = torch.autograd.grad(energy(seen).sum(), seen, create_graph=True)
    return (sigma * gradient - z).square().mean()


def trained(energy, x, sigma, n_steps, batch=128, learning_rate=2e-3):
    optimizer = torch.optim.AdamW(energy.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    g = generator()
    for _ in range(n_steps):
        picked = x[torch.randint(len(x), (batch,), generator=g)]
        optimizer.zero_grad()
        denoising_loss(energy, picked, sigma, g).backward()
        torch.nn.utils.clip_grad_norm_(energy.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    return energy


@pytest.mark.parametrize("sigma", [0.1, 0.7])
def test_energy_is_half_the_squared_distance_to_the_denoised_row(sigma):
    energy, x = built(Denoiser((16,), sigma)), rows()
    removed = x - energy.denoise(x)
    assert_close(energy(x), 0.5 * removed.square().sum(1) / sigma**2)
    assert (energy(x) >= 0).all()
    assert (removed - x).norm(dim=1).min() > 0.01


def test_denoised_rows_come_from_the_network_of_row_and_log_level():
    energy, x = built(Denoiser((16,), 0.5)), rows()
    level = torch.full((50, 1), 0.5, dtype=torch.float64)
    seen = torch.cat([x / 1.25**0.5, level.log()], 1)
    assert_close(energy.denoise(x), energy.network(seen))


@pytest.mark.parametrize("make", CONDITIONAL)
def test_energy_is_read_at_sigma(make):
    energy, x = built(make((16,), 0.3)), rows()
    e = energy(x)
    assert torch.equal(energy.at(0.3)(x), e)
    assert torch.equal(energy(x, torch.tensor(0.3, dtype=torch.float64)), e)
    assert (energy.at(0.6)(x) - e).abs().min() > 1e-4
    energy.set_params(sigma=0.6)
    assert torch.equal(energy(x), energy.at(0.6)(x))


@pytest.mark.parametrize("make", CONDITIONAL)
def test_each_row_has_its_own_level(make):
    energy, x = built(make((16,), 0.3)), rows(4)
    levels = torch.tensor([0.1, 0.3, 1.0, 5.0], dtype=torch.float64)
    alone = [energy.at(float(s))(row[None]) for row, s in zip(x, levels, strict=True)]
    assert_close(energy(x, levels), torch.cat(alone))
    assert_close(energy(x, levels.float()), torch.cat(alone), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", CONDITIONAL)
def test_a_view_at_another_level_shares_the_weights(make):
    energy, x = built(make((16,))), rows()
    view = energy.at(0.5)
    assert isinstance(view, AtLevel)
    assert view.part is energy
    before = view(x)
    with torch.no_grad():
        next(energy.parameters()).mul_(2.0)
    assert not torch.equal(view(x), before)
    again = clone(view)
    assert again.sigma == 0.5
    assert not list(again.parameters())
    assert again.build(3)(x.float()).shape == (50,)


@pytest.mark.parametrize("sigma", [0.05, 1.0, 20.0])
def test_noisy_mlp_starts_at_the_standard_normal_plus_noise(sigma):
    energy, x = NoisyMLP().build(3, generator=generator()).double(), rows() * 3
    gaussian = 0.5 * x.square().sum(1) / (1 + sigma**2)
    gap = energy.at(sigma)(x) - gaussian
    assert (gap - gap.mean()).abs().max() < 0.2


@pytest.mark.parametrize("sigma", [0.05, 1.0])
def test_denoiser_starts_at_the_gaussian_of_its_noise(sigma):
    energy, x = Denoiser(sigma=sigma).build(3, generator=generator()).double(), rows()
    removed = (2 * sigma**2 * energy(x)).sqrt()
    assert (removed - x.norm(dim=1)).abs().max() < 0.1


@pytest.mark.parametrize("sigma", [0.1, 0.5, 2.0])
def test_a_linear_denoiser_holds_the_exact_energy_of_a_gaussian(sigma):
    """f(x) = (I - s (S + s^2 I)^(-1/2)) x gives the energy of N(0, S + s^2 I)."""
    blurred = COVARIANCE + sigma**2 * torch.eye(2)
    energy = Denoiser((), sigma).build(2).double()
    (layer,) = energy.network
    with torch.no_grad():
        kept = torch.eye(2) - sigma * root(blurred).inverse()
        layer.weight[:, :2] = kept * (1 + sigma**2) ** 0.5
        layer.weight[:, 2], layer.bias[:] = 0.0, 0.0
    x = rows(50, 2)
    expected = 0.5 * (x @ blurred.inverse() * x).sum(1)
    assert_close(energy(x), expected, rtol=1e-10, atol=1e-10)


def test_denoising_a_gaussian_learns_the_precision_of_the_blurred_one():
    sigma, x = 0.5, rows(20_000, 2) @ root(COVARIANCE)
    energy = Denoiser((), sigma).build(2, generator=generator()).double()
    trained(energy, x, sigma, 600, batch=2000, learning_rate=2e-2)
    hessian = torch.autograd.functional.hessian(
        lambda row: energy(row[None]).sum(), torch.zeros(2, dtype=torch.float64)
    )
    precision = (x.T.cov() + sigma**2 * torch.eye(2)).inverse()
    assert (hessian - precision).norm() / precision.norm() < 0.03
    assert (hessian - COVARIANCE.inverse()).norm() / precision.norm() > 0.2


def unseen_digit(energy, digit, sigma):
    """AUROC of a digit that training left out, against held-out known digits."""
    x, y = load_digits(return_X_y=True)
    x = torch.from_numpy(x).float()
    known = x[torch.from_numpy(y != digit)]
    known = known[torch.randperm(len(known), generator=generator())]
    n, new = int(0.8 * len(known)), x[torch.from_numpy(y == digit)]
    center, scale = known[:n].mean(0), known[:n].std()
    energy.build(64, generator=generator())
    trained(energy, (known[:n] - center) / scale, sigma, 800)
    with torch.no_grad():
        e = energy((torch.cat([known[n:], new]) - center) / scale)
    labels = [0] * (len(known) - n) + [1] * len(new)
    return roc_auc_score(labels, e)


@pytest.mark.slow
@pytest.mark.parametrize("digit", [3, 8, 9])
def test_denoiser_form_tells_unseen_digits_better_than_a_scalar_network(digit):
    denoiser = unseen_digit(Denoiser(sigma=0.5), digit, 0.5)
    assert denoiser > 0.93
    assert denoiser > unseen_digit(MLP(), digit, 0.5) + 0.03


@pytest.mark.parametrize("channels", [(), (4,), (4, 7)])
@pytest.mark.parametrize(
    "shape", [(8, 8), (3, 6, 5), (1, 5, 9), (2, 1, 1), (7, 3), (14, 14)]
)
def test_an_image_comes_back_in_its_own_shape_and_starts_near_zero(shape, channels):
    d = torch.Size(shape).numel()
    energy = Denoiser((16,), 1.0, image_shape=shape, channels=channels)
    x = rows(5, d).float()
    denoised = energy.build(d, generator=generator()).denoise(x)
    assert denoised.shape == x.shape
    assert (denoised.norm(dim=1) < 0.05 * x.norm(dim=1) + 0.1).all()
    assert (energy.grad(x) != 0).any(0).all()


@pytest.mark.parametrize("shape", [(3, 6, 5), (6, 5)])
def test_convolutions_of_an_image_equal_the_formula(shape):
    d = torch.Size(shape).numel()
    energy = built(Denoiser((9,), 0.5, "tanh", image_shape=shape, channels=(4, 7)), d)
    weights, x = iter(energy.parameters()), rows(9, d)
    h = x.reshape(9, -1, 6, 5) / 1.25**0.5
    for _ in range(2):
        h = functional.conv2d(h, next(weights), next(weights), 2, 1).tanh()
    assert h.shape[1:] == (7, 2, 2)
    level = torch.full((9, 1), 0.5, dtype=torch.float64).log()
    h = torch.cat([h.flatten(1), level], 1)
    h = functional.linear(h, next(weights), next(weights)).tanh()
    h = functional.linear(h, next(weights), next(weights)).reshape(9, 7, 2, 2)
    up = [next(weights) for _ in range(4)]
    for rest, kernel, bias in [((0, 0), *up[:2]), ((1, 0), *up[2:])]:
        h = functional.conv_transpose2d(h.tanh(), kernel, bias, 2, 1, rest)
    assert not list(weights)
    assert h[0].numel() == d
    assert_close(energy.denoise(x), h.flatten(1))


@pytest.mark.parametrize("sigma", [0.1, 2.0])
def test_a_linear_denoiser_of_images_holds_the_exact_energy_of_a_gaussian(sigma):
    """f(x) = (I - s (S + s^2 I)^(-1/2)) x gives the energy of N(0, S + s^2 I)."""
    blurred = COVARIANCE + sigma**2 * torch.eye(2)
    energy = Denoiser((), sigma, image_shape=(1, 2), channels=()).build(2).double()
    (layer,) = energy.network.middle
    with torch.no_grad():
        kept = torch.eye(2) - sigma * root(blurred).inverse()
        layer.weight[:, :2] = kept * (1 + sigma**2) ** 0.5
        layer.weight[:, 2], layer.bias[:] = 0.0, 0.0
    x = rows(50, 2)
    expected = 0.5 * (x @ blurred.inverse() * x).sum(1)
    assert_close(energy(x), expected, rtol=1e-10, atol=1e-10)


def test_denoising_one_blinking_image_learns_its_precisions():
    """x = a u with a of variance 4: (4 + s^2)^-1 along u, s^-2 across."""
    sigma, u = 1.0, functional.normalize(rows(1, 16)[0], dim=0)
    x = 2.0 * rows(4000, 1, seed=2) * u
    energy = Denoiser((16,), sigma, "tanh", image_shape=(4, 4), channels=(8,))
    energy.build(16, generator=generator()).double()
    trained(energy, x, sigma, 400, batch=128, learning_rate=1e-2)
    y = x + sigma * rows(4000, 16, seed=3)
    along = y @ u
    across = y.square().sum(1) - along.square()
    squares = torch.stack([along.square(), across, torch.ones(4000)], 1)
    with torch.no_grad():
        found = 2 * torch.linalg.lstsq(squares, energy(y)[:, None]).solution[:2, 0]
    assert_close(found, torch.tensor([0.2, 1.0]).double(), rtol=0, atol=0.05)


def test_image_shape_must_fit_the_rows():
    with pytest.raises(ValueError, match=r"rows of 63 columns.*\(8, 8\) has 64 values"):
        Denoiser(image_shape=(8, 8)).build(63)
    with pytest.raises(ValueError, match="layer of 0 channels"):
        Denoiser(image_shape=(8, 8), channels=(0,)).build(64)
    with pytest.raises(ValueError, match="expected a noise level > 0"):
        Denoiser(sigma=0.0, image_shape=(8, 8)).build(64)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan")])
def test_levels_must_be_positive(sigma):
    for energy in (Denoiser(sigma=sigma), NoisyMLP(sigma=sigma), Denoiser().at(sigma)):
        with pytest.raises(ValueError, match="expected a noise level > 0"):
            energy.build(2)


def test_the_family_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        NoiseConditional()
