r"""
Credential stuffing in sequences of user actions
================================================

**Question.** A log holds what visitors did, action after action. A model of normal
sessions says how likely each action is after those before it. Does the energy of
unlikely actions find the sessions of an attacker who tries stolen passwords, and which
action gives them away?

**Exact reference.** The sessions are made here, so the probability of every action is
known: on average no model of normal sessions has a higher log-likelihood than the
process itself.
"""

# %%
# Normal sessions
# ---------------
#
# The next action depends on the last one; after a failed login it depends on the one
# before, too: who fails twice asks for a new password.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import roc_auc_score

from skebm import ConditionalRBM

ACTIONS = ["login ok", "login failed", "reset", "browse", "cart", "buy", "logout"]
OK, FAILED, RESET, BROWSE, CART, BUY, LOGOUT = range(7)
AFTER = {
    OK: {BROWSE: 0.9, CART: 0.07, LOGOUT: 0.03},
    FAILED: {OK: 0.7, FAILED: 0.28, RESET: 0.02},
    (FAILED, FAILED): {OK: 0.25, FAILED: 0.05, RESET: 0.7},
    RESET: {OK: 0.97, FAILED: 0.03},
    BROWSE: {BROWSE: 0.7, CART: 0.15, LOGOUT: 0.15},
    CART: {BROWSE: 0.4, BUY: 0.5, LOGOUT: 0.1},
    BUY: {BROWSE: 0.3, LOGOUT: 0.7},
    None: {OK: 0.9, FAILED: 0.1},
}


def following(session):
    """Return the probabilities of the next action of a normal session."""
    known = AFTER.get(tuple(session[-2:]))
    known = known or AFTER[session[-1] if session else None]
    return np.array([known.get(action, 0.0) for action in range(7)])


def normal_session(rng):
    session = []
    while not session or session[-1] != LOGOUT:
        session.append(rng.choice(7, p=following(session)))
    return session


# %%
# An attack tries one stolen password after the other, most of them wrong. It hardly
# ever asks for a reset; where it gets in, it fills the cart and buys at once.


def attack(rng):
    n_wrong = rng.integers(2, 9)
    session = [OK if rng.random() < 0.02 else FAILED for _ in range(n_wrong)]
    if rng.random() < 0.5:
        session += [OK, CART, BUY]
    return [*session, LOGOUT]


def as_rows(sessions):
    """Return the actions one below the other, and the lengths of the sessions."""
    return np.concatenate(sessions)[:, None], [len(session) for session in sessions]


rng = np.random.default_rng(0)
X, lengths = as_rows([normal_session(rng) for _ in range(5000)])
test = [normal_session(rng) for _ in range(1000)] + [attack(rng) for _ in range(50)]
is_attack = np.arange(1050) >= 1000
X_test, lengths_test = as_rows(test)
print(f"{len(X)} actions in {len(lengths)} sessions")

# %%
# The model
# ---------
#
# ``n_lags=2`` puts the two actions before into the context; ``lengths`` says where a
# session ends and the next one starts, as in hmmlearn. All probabilities are exact:
# the normaliser of a context is a sum over seven actions. Both models are compared with
# the true process on new normal sessions.

models = {
    f"{n_lags} back": ConditionalRBM(n_lags=n_lags, random_state=0).fit(
        X, lengths=lengths
    )
    for n_lags in (1, 2)
}
X_normal, lengths_normal = as_rows(test[:1000])
true = [np.log(following(s[:t])[s[t]]) for s in test[:1000] for t in range(len(s))]
print(f"true process: {np.mean(true):.3f} nats an action")
for name, model in models.items():
    score = model.score(X_normal, lengths=lengths_normal)
    print(f"{name}: {score:.3f} nats an action")

# %%
# From actions to sessions
# ------------------------
#
# An energy is :math:`-\log p` of one action given those before. The largest one of a
# session asks for its strangest step, the mean for strangeness throughout.

starts = np.cumsum(lengths_test) - lengths_test
energies = {}
for name, model in models.items():
    energy = energies[name] = model.energy(X_test, lengths=lengths_test)
    largest = np.maximum.reduceat(energy, starts)
    mean = np.add.reduceat(energy, starts) / lengths_test
    print(
        f"{name}: AUROC of the largest energy {roc_auc_score(is_attack, largest):.3f}, "
        f"of the mean {roc_auc_score(is_attack, mean):.3f}"
    )

# %%
# One session of each kind, action by action, and all of them. The dashed line is the
# threshold of ``predict``, which flags about one normal action in twenty.

model, energy = models["2 back"], energies["2 back"]
mean = np.add.reduceat(energy, starts) / lengths_test
typical = [(5 <= len(s) <= 9) and s[0] == OK and BUY in s for s in test]
chosen = {
    "a normal session": int(np.flatnonzero(typical)[0]),
    "an attack": 1000
    + int(np.argmax([s.count(FAILED) in (4, 5) and BUY in s for s in test[1000:]])),
}
fig = plt.figure(figsize=(9, 6), layout="constrained")
grid = fig.add_gridspec(2, 2)
first = None
for column, (name, i) in enumerate(chosen.items()):
    ax = first = fig.add_subplot(grid[0, column], sharey=first)
    steps = energy[starts[i] : starts[i] + lengths_test[i]]
    color = "tab:red" if is_attack[i] else "tab:blue"
    ax.bar(range(len(steps)), steps, color=color)
    ax.axhline(-model.offset_, color="0.4", linestyle="--", linewidth=1)
    ax.set_xticks(range(len(steps)), [ACTIONS[a] for a in test[i]], rotation=35)
    ax.set_title(name)
    ax.set_ylabel("energy of the action" if column == 0 else None)
ax = fig.add_subplot(grid[1, :])
bins = np.linspace(0, mean.max() * 1.02, 50)
for kind, name in [(False, "normal sessions"), (True, "attacks")]:
    color = "tab:red" if kind else "tab:blue"
    rows = mean[is_attack == kind]
    share = np.full(len(rows), 1 / len(rows))
    ax.hist(rows, bins, weights=share, alpha=0.6, color=color, label=name)
ax.set(xlabel="mean energy of a session, two actions back", ylabel="share of sessions")
ax.legend()
plt.show()

# %%
# What comes next?
# ----------------
#
# After one failed login, and after two.

for before in ([FAILED], [FAILED, FAILED]):
    p = model.next_probabilities(np.array(before)[:, None])[0]
    likely = ", ".join(f"{ACTIONS[k]} {p[k]:.2f}" for k in np.argsort(-p)[:3])
    exact = following(before)[np.argsort(-p)[:3]].round(2)
    print(f"after {len(before)} failed: {likely}; exact {exact}")

# %%
# Limit
# -----
#
# The model knows the order of actions of one session and nothing else. An attacker who
# spreads the attempts over many addresses, one each, makes sessions that are normal one
# by one: then the counts of failures per minute belong into ``context``. The p-values
# of actions are calibrated for actions; sessions of different lengths need a threshold
# of their own, from the scores of normal sessions.
