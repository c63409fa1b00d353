"""
One idea, many kinds of columns
===============================

**Question.** Boltzmann machines differ in what their columns hold and in how their
hidden bits are joined. How do they read the same small world, in which one hidden cause
decides what a row looks like?

**Exact reference.** The rows are a mixture of two laws with independent columns, so the
best possible mean log-likelihood is known.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from skebm import (
    BoltzmannMachine,
    CategoricalRBM,
    DeepBeliefNetwork,
    DeepBoltzmannMachine,
    GaussianRBM,
    MixedRBM,
)

rng = np.random.default_rng(0)
cause = rng.random(500) < 0.5
bits = (rng.random((500, 6)) < np.where(cause, 0.9, 0.1)[:, None]).astype(float)
table = pd.DataFrame({"wings": bits[:, 0] > 0})
table["kind"] = np.where(bits[:, 1] > 0, "bird", "fish")
table["weight"] = rng.normal(np.where(cause, 1.0, 3.0), 0.5)

# %%
# Tables of one kind, and of all kinds
# ------------------------------------

for model, X in [
    (GaussianRBM(1, n_iter=200, random_state=0), table[["weight"]]),
    (CategoricalRBM(1, n_iter=200, random_state=0), table[["kind"]]),
    (MixedRBM(1, n_iter=200, random_state=0), table),
]:
    print(type(model).__name__, round(model.fit(X).score(X), 2))

# %%
# Bits: couplings, and layers
# ---------------------------

one = np.log(0.9**bits * 0.1 ** (1 - bits)).sum(1)
other = np.log(0.1**bits * 0.9 ** (1 - bits)).sum(1)
print("best", round(np.mean(np.logaddexp(one, other) - np.log(2)), 2))
machine = BoltzmannMachine(random_state=0)
for model in [
    machine,
    DeepBeliefNetwork((4, 2), n_iter=200, random_state=0),
    DeepBoltzmannMachine((4, 2), n_iter=200, random_state=0),
]:
    print(type(model).__name__, round(model.fit(bits).score(bits), 2))

fig, axis = plt.subplots()
fig.colorbar(axis.imshow(machine.couplings_, cmap="RdBu_r", vmin=-3, vmax=3))
axis.set_title("Couplings of six bits with one hidden cause")
plt.show()

# %%
# **Limit.** Scores of the rows that were fitted flatter a model with more parameters;
# the score of a deep belief network is a lower bound.
