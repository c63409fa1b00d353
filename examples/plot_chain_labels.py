r"""
Labels that follow each other
=============================

**Question.** A wrist sensor gives two noisy numbers a second; somebody rests, walks or
runs. How much does it help to know that activities last?

**Exact reference.** The stream is drawn from a hidden Markov chain, so the posterior of
the activity at every second is known. No method can be right more often than the
activity with the largest posterior probability.

**Limit.** The made stream is in the model: its noise is Gaussian with one covariance,
and an activity depends on nothing but the one before. Real activities also remember how
long they have lasted.
"""

# %%
# A stream of activities
# ----------------------
#
# An activity goes on with probability 0.9 or so, and the three overlap in the sensor.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression

from skebm import ChainLabeler

LABELS = np.array(["rest", "run", "walk"])
STAY = np.array([[0.92, 0.01, 0.07], [0.01, 0.89, 0.10], [0.05, 0.05, 0.90]])
PLACES = np.array([[-1.0, 0.0], [1.0, 0.6], [0.2, -0.4]])


def record(n_seconds, rng):
    """Return what the sensor saw and what was done."""
    codes = [rng.integers(3)]
    while len(codes) < n_seconds:
        codes.append(rng.choice(3, p=STAY[codes[-1]]))
    return PLACES[codes] + rng.normal(size=(n_seconds, 2)), LABELS[codes]


rng = np.random.default_rng(0)
X, y = zip(*[record(rng.integers(60, 180), rng) for _ in range(100)], strict=True)
X_test, y_test = zip(*[record(240, rng) for _ in range(50)], strict=True)

# %%
# Three ways to label
# -------------------
#
# Logistic regression sees one second at a time.
# :class:`~skebm.ChainLabeler` has the same energies of a row and a label, and a table
# :math:`A` for a label after a label. The exact posterior needs the law that made the
# stream: its likelihoods, forward and backward.


def posterior(x):
    """Return p(label of each second | all seconds) under the law of the stream."""
    likelihood = np.exp(-0.5 * ((x[:, None] - PLACES) ** 2).sum(2))
    ahead, behind = [likelihood[0]], [np.ones(3)]
    for row in likelihood[1:]:
        a = (ahead[-1] @ STAY) * row
        ahead.append(a / a.sum())
    for row in likelihood[:0:-1]:
        b = STAY @ (row * behind[-1])
        behind.append(b / b.sum())
    p = np.array(ahead) * np.array(behind[::-1])
    return p / p.sum(1, keepdims=True)


alone = LogisticRegression().fit(np.vstack(X), np.concatenate(y))
chain = ChainLabeler().fit(X, y)

probabilities = {
    "one second at a time": [alone.predict_proba(x) for x in X_test],
    "chain": chain.predict_marginals(X_test),
    "exact posterior": [posterior(x) for x in X_test],
}
truth = np.searchsorted(LABELS, np.concatenate(y_test))
print(f"{'':22}{'right':>8}{'log loss':>10}")
for name, p in probabilities.items():
    p = np.vstack(p)
    loss = -np.log(p[np.arange(len(p)), truth]).mean()
    print(f"{name:22}{np.mean(p.argmax(1) == truth):8.1%}{loss:10.3f}")

# %%
# What was learned
# ----------------
#
# The table of transitions, less its largest entry in each row: resting and running
# seldom follow each other. It is the table of log-probabilities that made the stream up
# to constants that the other weights take up.

learned = chain.transitions_
print(learned.sub(learned.max(axis=1), axis=0).round(1))

# %%
# One test stream
# ---------------
#
# Bands are the probabilities of the three activities. One second says little; the chain
# is as sure as the exact posterior is.

figure, axes = plt.subplots(4, 1, figsize=(9, 6), sharex=True, layout="constrained")
colors = ["tab:blue", "tab:red", "tab:green"]
seconds = np.arange(240)
done = (y_test[0] == LABELS[:, None]).astype(float)
for ax, (name, p) in zip(
    axes, {"what was done": [done.T], **probabilities}.items(), strict=True
):
    ax.stackplot(seconds, p[0].T, colors=colors, labels=LABELS, step="mid")
    ax.set(ylim=(0, 1), yticks=[], xlim=(0, 239), title=name)
axes[0].legend(loc="upper right", ncols=3)
axes[-1].set_xlabel("second")
plt.show()
