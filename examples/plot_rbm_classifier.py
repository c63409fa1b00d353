r"""
A classifier that also draws
============================

**Question.** A classification RBM models a row and its label together. What does it
cost to train for the label alone, or for both?

**Exact reference.** Given a row, the probabilities of the labels are exact sums; the
share of digits recognised is measured on rows that training did not see, beside
logistic regression.

**Limit.** 8x8 digits are small and clean, and a third of the rows is a small test:
differences below half a percent are noise.
"""

# %%
# Three ways to train one machine
# -------------------------------
#
# Discriminative training ascends :math:`\log p(y \mid x)`, generative training
# :math:`\log p(x, y)`, hybrid training the first plus a small share of the second.

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from skebm import RBMClassifier

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X / 16, y, test_size=1 / 3, random_state=0)

# Fewer hidden bits and epochs than the defaults, to keep this page quick, and a larger
# generative share, for the draws.
models = {"logistic regression": LogisticRegression(max_iter=1000)}
for training in ("discriminative", "hybrid", "generative"):
    models[training] = RBMClassifier(
        200,
        training=training,
        generative_weight=0.02,
        max_iter=150,
        random_state=0,
    )

print(f"{'':20} recognised  log loss")
for name, model in models.items():
    model.fit(X, y)
    loss = log_loss(y_test, model.predict_proba(X_test))
    print(f"{name:20} {model.score(X_test, y_test):10.1%}  {loss:8.3f}")

# %%
# Draws of one label
# ------------------
#
# ``sample(n, y=label)`` draws rows of a class. A machine that was trained for the label
# alone has no reason to know what digits look like.

figure, axes = plt.subplots(3, 10, figsize=(9, 3.2), layout="constrained")
for row, training in zip(axes, list(models)[1:], strict=True):
    for label, ax in enumerate(row):
        drawn = models[training].sample(16, y=label, random_state=label)
        ax.imshow(drawn.mean(0).reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(training)
figure.suptitle("Means of 16 draws of each digit")
plt.show()
