r"""
Few labels, many rows
=====================

**Question.** Half of 1,797 pictures of digits are at hand, but few of each digit
have a label. Are features that were learned from all the rows, without labels, worth
more to a linear classifier than the pixels?

**Exact reference.** The other half of the pictures has labels that nobody saw; and the
weights by which the encoder finds a row's view are softmax attention, compared below to
the last digit.

**Limit.** Pictures are tables whose columns depend on each other strongly. On tables of
a few measured columns the gain is smaller, or there is none.
"""

# %%
# An encoder without labels
# -------------------------
#
# It learns to find the view of a row in which 60% of the pixels were replaced by those
# of other pictures.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from skebm import EnergyContrastiveEncoder

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X, y, test_size=0.5, random_state=0)
# Fewer units than the defaults, to keep this page quick.
encoder = EnergyContrastiveEncoder(128, hidden_layer_sizes=(128, 128), random_state=0)
encoder.fit(X)
print(f"bound on the information in a view: {encoder.score(X_test):.2f} nats")

# %%
# A linear classifier on each
# ---------------------------
#
# Ten draws of the labelled rows for each number of labels. Pixels are standardised one
# by one, or all by one scale as the encoder does, which alone is worth something;
# ``transform`` returns the features with these beside them.

ways = {
    "pixels": StandardScaler().fit(X).transform,
    "pixels, one scale": lambda rows: encoder.transform(rows)[:, 128:],
    "features and pixels": encoder.transform,
}
tables = {name: (way(X), way(X_test)) for name, way in ways.items()}
counts, rng = [1, 2, 5, 10, 20], np.random.default_rng(0)
right = {name: np.zeros((len(counts), 10)) for name in ways}
for i, n_labels in enumerate(counts):
    for draw in range(10):
        groups = [rng.permutation(np.flatnonzero(y == digit)) for digit in range(10)]
        few = np.concatenate([group[:n_labels] for group in groups])
        for name, (rows, new) in tables.items():
            linear = LogisticRegression(max_iter=2000).fit(rows[few], y[few])
            right[name][i, draw] = linear.score(new, y_test)

print(" " * 20 + "".join(f"{n_labels:>4} labels" for n_labels in counts))
for name, found in right.items():
    print(f"{name:20}" + "".join(f"{share:11.1%}" for share in found.mean(1)))

# %%
# Whose view is it?
# -----------------
#
# The conditional energy model :math:`p(j \mid x_i)` of eight rows and their views is a
# softmax over energies at temperature T: the attention of rows to views.

z = torch.from_numpy((X_test[:8] - encoder.location_) / encoder.scale_)
g = torch.Generator().manual_seed(1)
other = torch.from_numpy((X_test[8:] - encoder.location_) / encoder.scale_)
replaced = torch.rand(z.shape, generator=g) < 0.6
views = torch.where(replaced, other[torch.randint(len(other), (8,), generator=g)], z)
with torch.no_grad():
    gibbs = (-encoder.energy_.table(z, views)).softmax(1)
    attention = torch.nn.functional.scaled_dot_product_attention(
        encoder.energy_.embed(z),
        encoder.energy_.embed(views),
        torch.eye(8).double(),
        scale=1 / encoder.temperature,
    )
print(f"largest difference to attention: {float((gibbs - attention).abs().max()):.0e}")

figure, (left, middle) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for name, color in zip(ways, ["lightgray", "gray", "tab:blue"], strict=True):
    mean, spread = right[name].mean(1), right[name].std(1)
    left.errorbar(counts, mean, spread, label=name, color=color, capsize=3)
left.set(xscale="log", xlabel="labels of each digit", ylabel="digits recognised")
left.set_xticks(counts, [str(count) for count in counts])
left.minorticks_off()
left.legend()
shown = middle.imshow(gibbs, vmin=0, vmax=1, cmap="Blues")
middle.set(xlabel="view j", ylabel="row i", title="p(j | row i)")
figure.colorbar(shown, ax=middle)
plt.show()
