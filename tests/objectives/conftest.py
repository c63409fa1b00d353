"""What tests of objectives share: a Gaussian in five columns and plain descent."""

import pytest
import torch

from skebm.energies import Quadratic


def _law():
    g = torch.Generator().manual_seed(0)
    root = torch.randn(5, 5, generator=g, dtype=torch.float64)
    covariance = root @ root.T / 5 + 0.3 * torch.eye(5, dtype=torch.float64)
    return Quadratic().match(torch.arange(5).double() / 5, covariance)


@pytest.fixture
def law():
    """Return a Gaussian with mean 0, .2 ... .8 and a full covariance, in float64."""
    return _law()


@pytest.fixture(scope="session")
def rows():
    """Return 50,000 rows of ``law`` in float32."""
    return _law().sample(50_000, generator=torch.Generator().manual_seed(1)).float()


@pytest.fixture
def precision():
    """Return a function: quadratic energy -> its precision matrix, float64."""
    return lambda energy: energy.as_quadratic().precision


@pytest.fixture
def relative_error():
    """Return a function: (estimate, truth) -> |estimate - truth| / |truth|."""
    return lambda got, truth: float((got - truth).norm() / truth.norm())


@pytest.fixture
def descend():
    """Return a function that trains an energy by Adam and returns the state."""
    return _descend


def _descend(
    objective, energy, x, *, n_steps=600, batch_size=1000, rate=0.02, state=None
):
    g = torch.Generator().manual_seed(0)
    state = state or objective.init(energy, x, generator=g)
    weights = [*energy.parameters(), *state.parameters()]
    optimizer = torch.optim.Adam(weights, rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    for _ in range(n_steps):
        batch = x[torch.randint(len(x), (batch_size,), generator=g)]
        optimizer.zero_grad()
        objective(energy, batch, state, generator=g).value.backward()
        optimizer.step()
        schedule.step()
    return state.eval()
