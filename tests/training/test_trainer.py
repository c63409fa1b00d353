"""One training loop against what theory says comes out of it."""

import contextlib
import math
import random

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch.testing import assert_close
from toys import (
    Contrast,
    Likelihood,
    Net,
    Point,
    Scripted,
    generator,
    nan_at,
    same,
    table,
    weights,
)

from skebm.energies import RBM, Frozen, Quadratic, Sum, Tilted
from skebm.energies.perceptrons import MLP
from skebm.exceptions import DivergenceError
from skebm.objectives import NoiseContrastive, RBMLikelihood
from skebm.trainer import Trainer
from skebm.training.learner import Diverged, Learner, _refuse_non_finite


def point(d=2):
    return Point().build(d)


def run(trainer, objective, energy=None, x=None, seed=0, **kwargs):
    energy = point() if energy is None else energy
    x = table() if x is None else x
    history = trainer.run(energy, objective, x, generator=generator(seed), **kwargs)
    return energy, history


def interrupt_at(last):
    """Return an ``on_epoch`` that presses Ctrl-C after an epoch."""

    def on_epoch(epoch, record):
        if epoch == last:
            raise KeyboardInterrupt

    return on_epoch


def test_maximum_likelihood_reaches_the_moments():
    x = table(300) @ torch.tensor([[1.0, 0.4], [0.0, 0.6]]).double()
    energy, history = run(
        Trainer(max_iter=400, batch_size=300, learning_rate=0.05),
        Likelihood(),
        Quadratic().build(2).double(),
        x,
    )
    matched = Quadratic().match(x.mean(0), x.T.cov(correction=0))
    assert_close(energy(x), matched(x), rtol=1e-4, atol=1e-4)
    entropy = 1 + float(torch.logdet(x.T.cov(correction=0))) / 2
    assert history.history["loss"][-1] == pytest.approx(entropy, abs=1e-6)


def test_minibatches_reach_the_mean():
    x = table(2000)
    energy, _ = run(Trainer(max_iter=20, learning_rate=0.05), Scripted(), x=x)
    assert_close(energy.w, x.mean(0), rtol=0, atol=2e-3)


def test_history_has_a_number_per_epoch():
    x, x_valid = table(40), table(10, seed=1)
    trainer = Trainer(max_iter=3, batch_size=16)
    _, result = run(trainer, Contrast(), Net().build(2).double(), x, x_valid=x_valid)
    names = {"loss", "grad_norm", "learning_rate", "constant", "valid_loss"}
    assert set(result.history) == names
    for column in result.history.values():
        assert len(column) == 3
        assert all(type(v) is float and math.isfinite(v) for v in column)
    assert (result.n_iter, result.interrupted) == (3, False)
    assert result.state.c.item() != 0.0


def test_history_holds_means_over_rows():
    """With w = 0 all epoch, the loss is the mean energy of all rows."""
    x = table(101)
    trainer = Trainer(max_iter=1, batch_size=50, learning_rate=1e-300)
    _, result = run(trainer, Scripted(), x=x)
    expected = 0.5 * x.square().sum(1).mean()
    assert result.history["loss"][0] == pytest.approx(float(expected), rel=1e-12)
    assert result.history["n_rows"][0] == pytest.approx(1.0)
    assert result.history["grad_norm"][0] > 0


def test_metric_that_is_a_weight_is_read_before_the_step():
    trainer = Trainer(max_iter=1, batch_size=50, n_warmup_steps=0, schedule="constant")
    _, result = run(trainer, Contrast(), Net().build(2).double(), table(50))
    assert result.history["constant"] == [0.0]
    assert result.state.c.item() != 0.0


def test_learning_rates_of_a_run():
    trainer = Trainer(max_iter=40, learning_rate=0.2, n_warmup_steps=4)
    _, result = run(trainer, Scripted())
    cosine = [0.1 * (1 + math.cos(math.pi * t / 36)) for t in range(36)]
    expected = [0.05, 0.1, 0.15, 0.2, *cosine]
    assert result.history["learning_rate"] == pytest.approx(expected)
    falling = replaced(trainer, schedule="exponential", n_warmup_steps=0)
    _, result = run(falling, Scripted())
    expected = [0.2 * 100 ** (-t / 40) for t in range(40)]
    assert result.history["learning_rate"] == pytest.approx(expected)


PLAIN = {"schedule": "constant", "n_warmup_steps": 0, "ema": 0.0}


def test_first_beta_is_the_momentum():
    """From w = 0 the mean of E has the gradient w - mean x, decay adds 0.1 w."""
    x, params = table(50), {"betas": (0.7, 0.5), "weight_decay": 0.1}
    w = u = torch.zeros(2).double()
    for n in range(1, 4):
        trainer = Trainer(
            max_iter=n, learning_rate=0.2, optimizer="momentum", **params, **PLAIN
        )
        energy, _ = run(trainer, Scripted(), x=x)
        u = 0.7 * u + 0.3 * (1.1 * w - x.mean(0))
        w = w - 0.2 * u
        assert_close(energy.w.detach(), w)


def test_steps_along_the_mean_reach_the_mean():
    x = table(2000)
    trainer = Trainer(max_iter=20, learning_rate=0.5, optimizer="momentum")
    energy, _ = run(trainer, Scripted(), x=x)
    assert_close(energy.w, x.mean(0), rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("n", "sizes"), [(10, [10]), (100, [100]), (101, [51, 50]), (250, [84, 83, 83])]
)
def test_every_row_is_used_once_per_epoch_in_even_batches(n, sizes):
    x, objective = table(n), Scripted()
    run(Trainer(max_iter=2, batch_size=100), objective, x=x)
    assert [len(batch) for batch in objective.batches] == 2 * sizes
    first, second = (
        torch.cat(half)
        for half in (objective.batches[: len(sizes)], objective.batches[len(sizes) :])
    )
    assert torch.equal(first.sort(0).values, x.sort(0).values)
    assert torch.equal(second.sort(0).values, x.sort(0).values)
    assert not torch.equal(first, second)
    assert not torch.equal(first, x)


def test_model_is_the_average_of_the_weights():
    """One batch per epoch: the run replays as single steps, averaged by hand."""
    x, path = table(50), []
    for n in range(1, 6):
        trainer = Trainer(max_iter=n, schedule="constant", n_warmup_steps=0)
        path.append([run(trainer, Scripted(), x=x)[0].w, None])
        last = Trainer(max_iter=n, schedule="constant", n_warmup_steps=0, ema=0.0)
        path[-1][1] = run(last, Scripted(), x=x)[0].w.detach()
    average = path[0][1]
    for t, (model, weight) in enumerate(path):
        decay = t / (t + 9)
        average = decay * average + (1 - decay) * weight
        assert_close(model.detach(), average)


def test_evaluation_uses_the_averaged_weights_in_eval_mode():
    seen, energy = [], Net(dropout=0.5).build(2).double()

    def on_epoch(epoch, record):
        seen.append((weights(energy), energy.training))

    trainer = Trainer(max_iter=3, batch_size=20)
    run(trainer, Contrast(), energy, on_epoch=on_epoch)
    assert not any(training for _, training in seen)
    assert same(seen[-1][0], weights(energy))
    assert not energy.training
    assert all(w.grad is None and w.requires_grad for w in energy.parameters())


def test_on_epoch_gets_the_numbers_of_the_epoch():
    calls = []
    _, result = run(
        Trainer(max_iter=3), Scripted(), on_epoch=lambda *args: calls.append(args)
    )
    assert [epoch for epoch, _ in calls] == [0, 1, 2]
    assert [record["loss"] for _, record in calls] == result.history["loss"]


def test_on_epoch_that_returns_true_ends_training():
    energy, result = run(
        Trainer(max_iter=9), Scripted(), on_epoch=lambda epoch, record: epoch == 2
    )
    assert (result.n_iter, result.interrupted) == (3, False)
    assert same(
        weights(energy),
        weights(run(Trainer(max_iter=9), Scripted(), on_epoch=interrupt_at(2))[0]),
    )


VALID = [5.0, 4.0, 4.05, 3.9999, 4.2, 3.0, 3.1, 3.2, 3.3, 3.4, 2.0, 1.0]


@pytest.mark.parametrize(
    ("n_iter_no_change", "tol", "n_iter"),
    [
        (1, 1e-4, 3),
        (2, 1e-3, 4),
        (3, 1e-3, 5),
        (3, 1e-6, 9),
        (4, 1e-3, 10),
        (5, 1e-3, 12),
    ],
)
def test_early_stopping_stops_at_the_epoch_that_theory_says(
    n_iter_no_change, tol, n_iter
):
    trainer = Trainer(
        max_iter=12, early_stopping=True, n_iter_no_change=n_iter_no_change, tol=tol
    )
    _, result = run(trainer, Scripted(valid=VALID), x_valid=table(10))
    assert result.n_iter == n_iter
    assert result.history["valid_loss"] == VALID[:n_iter]


def test_without_early_stopping_every_epoch_runs():
    trainer = Trainer(max_iter=12, n_iter_no_change=1)
    assert run(trainer, Scripted(valid=VALID), x_valid=table(10))[1].n_iter == 12


@pytest.mark.parametrize(
    ("every", "looks"),
    [(1, [0, 1, 2, 3, 4, 5, 6]), (3, [2, 5, 6]), (7, [6]), (9, [6])],
)
def test_held_out_rows_are_looked_at_now_and_then_and_at_the_end(every, looks):
    seen, valid = [], [float(i) for i in range(7)]
    _, result = run(
        Trainer(max_iter=7, valid_every=every),
        Scripted(valid=valid),
        x_valid=table(10),
        on_epoch=lambda epoch, record: seen.append((epoch, "valid_loss" in record)),
    )
    assert [epoch for epoch, looked in seen if looked] == looks
    assert result.history["valid_loss"] == valid[: len(looks)]
    assert len(result.history["loss"]) == len(seen) == 7


def test_patience_is_counted_in_looks():
    trainer = Trainer(
        max_iter=30, early_stopping=True, n_iter_no_change=2, valid_every=3
    )
    _, result = run(trainer, Scripted(valid=[5.0, 4.0, 4.5, 4.2, 1]), x_valid=table(10))
    assert result.n_iter == 12
    assert result.history["valid_loss"] == [5.0, 4.0, 4.5, 4.2]


def test_weights_of_the_best_look_are_kept():
    seen, energy = [], point()
    run(
        Trainer(max_iter=7, valid_every=2),
        Scripted(valid=[3.0, 1.0, 2.0, 1.5]),
        energy,
        x_valid=table(10),
        on_epoch=lambda *args: seen.append(weights(energy)),
    )
    assert same(weights(energy), seen[3])


@pytest.mark.parametrize("valid", [[3.0, 1.0, 2.0, 1.5], [math.nan, 1.0, math.inf, 2]])
def test_weights_with_the_least_held_out_loss_are_kept(valid):
    seen, energy = [], point()
    _, result = run(
        Trainer(max_iter=4),
        Scripted(valid=valid),
        energy,
        x_valid=table(10),
        on_epoch=lambda *args: seen.append(weights(energy)),
    )
    assert same(weights(energy), seen[1])
    assert not same(weights(energy), seen[3])
    assert result.n_iter == 4


def test_best_state_of_the_objective_is_kept_with_the_energy():
    seen = []

    class Rising(Contrast):
        def __call__(self, energy, batch, state, *, generator):
            loss = super().__call__(energy, batch, state, generator=generator)
            if state.training:
                return loss
            seen.append(weights(state))
            return loss._replace(value=loss.value * 0 + len(seen))

    trainer = Trainer(max_iter=4, batch_size=50)
    energy = Net().build(2).double()
    _, result = run(trainer, Rising(), energy, x_valid=table(10))
    assert same(weights(result.state), seen[0])
    assert not same(seen[0], seen[-1])


def test_held_out_rows_meet_the_same_noise_every_time():
    objective = Scripted(valid=[1.0] * 3)
    run(Trainer(max_iter=3, batch_size=10), objective, x_valid=table(25))
    assert len(objective.draws) == 3
    assert len(set(objective.draws)) == 1
    other = Scripted(valid=[1.0])
    run(Trainer(max_iter=1), other, x_valid=table(25), seed=1)
    assert other.draws[0] != objective.draws[0]


def test_held_out_rows_do_not_change_what_is_learned():
    trainer = Trainer(max_iter=3, batch_size=20)
    histories = []
    for x_valid in (None, table(10)):
        energy = Net(dropout=0.3).build(2).double()
        _, result = run(trainer, Contrast(), energy, x_valid=x_valid)
        assert result.state.n_calls == 15
        result.history.pop("valid_loss", None)
        histories.append(result.history)
    assert histories[0] == histories[1]


def test_what_is_noted_in_an_empty_history_stays_in_it():
    for _ in range(2):
        _, result = run(Trainer(max_iter=9, batch_size=25), Scripted(ctrl_c(0)))
        assert result.history == {}
        result.history["valid_loss"] = []


def test_objective_that_is_no_criterion_is_not_evaluated():
    objective = Scripted(judges=False)
    _, result = run(Trainer(max_iter=2), objective, x_valid=table(10))
    assert "valid_loss" not in result.history
    assert objective.draws == []


@pytest.mark.parametrize(
    ("objective", "x_valid", "message"),
    [
        (Scripted(), None, "no held-out rows"),
        (Scripted(judges=False), table(10), "10 held-out rows"),
    ],
)
def test_early_stopping_needs_something_to_stop_by(objective, x_valid, message):
    with pytest.raises(ValueError, match=message):
        run(Trainer(early_stopping=True), objective, x_valid=x_valid)


def test_divergence_rolls_back_once_at_half_the_rate():
    """Epoch 2 (calls 8 to 11) fails at its third batch and runs again."""
    objective, starts, energy = Scripted(nan_at(10)), [], point()
    inner = objective.train

    def train(call, loss):
        starts.append(weights(energy))
        return inner(call, loss)

    objective.train = train
    trainer = Trainer(
        max_iter=4, batch_size=25, schedule="constant", n_warmup_steps=0, ema=0.0
    )
    _, result = run(trainer, objective, energy)
    assert len(objective.batches) == 4 * 4 + 3
    assert same(starts[8], starts[11])
    assert not same(starts[8], starts[10])
    assert result.n_iter == 4
    rate = trainer.learning_rate
    assert result.history["learning_rate"] == [rate, rate, rate / 2, rate / 2]
    assert all(math.isfinite(v) for column in result.history.values() for v in column)
    untroubled = run(replaced(trainer, max_iter=2), Scripted())[0]
    assert same(starts[8], weights(untroubled))


def replaced(trainer, **params):
    return clone(trainer).set_params(**params)


def test_rollback_includes_moments_average_and_objective():
    """Both attempts at epoch 2 fail after a step and start from the same numbers."""
    calls = []

    class Failing(Contrast):
        def __call__(self, energy, batch, state, *, generator):
            loss = super().__call__(energy, batch, state, generator=generator)
            calls.append((weights(energy), weights(state)))
            bad = math.nan if len(calls) in (6, 8) else 1.0
            return loss._replace(value=loss.value * bad)

    trainer, x = Trainer(max_iter=4, batch_size=50), table(100)
    energy = Net().build(2, generator=generator()).double()
    with pytest.raises(DivergenceError):
        run(trainer, Failing(), energy, x)
    assert len(calls) == 8
    (first, first_state), (second, second_state) = calls[4], calls[6]
    assert same(first, second)
    assert same(first_state, second_state)
    assert not same(first, calls[5][0])
    whole = Net().build(2, generator=generator()).double()
    run(trainer, Contrast(), whole, x, on_epoch=interrupt_at(1))
    assert same(weights(energy), weights(whole))


def test_second_attempt_is_a_run_at_half_the_rate():
    """The moments too go back: a failed first epoch equals a fresh start."""
    trainer = Trainer(max_iter=5, batch_size=100, learning_rate=0.1)
    half = replaced(trainer, learning_rate=0.05)
    # NaN in the only batch of an epoch comes after no step; in the second of two
    # batches, after one.
    for batch_size, call in ((100, 0), (50, 1)):
        rows = torch.ones(100, 2, dtype=torch.float64)
        failed = run(
            replaced(trainer, batch_size=batch_size), Scripted(nan_at(call)), x=rows
        )[0]
        fresh = run(replaced(half, batch_size=batch_size), Scripted(), x=rows)[0]
        assert same(weights(failed), weights(fresh))


def test_second_divergence_raises():
    energy = point()
    trainer = Trainer(max_iter=6, batch_size=25, learning_rate=0.25)
    objective = Scripted(nan_at(9, 17))
    with pytest.raises(
        DivergenceError,
        match=r"diverged twice: last losses .*nan, .* epoch 3 at learning_rate=0.125",
    ):
        run(trainer, objective, energy)
    assert len(objective.batches) == 18
    once = run(trainer, Scripted(nan_at(9)), on_epoch=interrupt_at(2))[0]
    assert same(weights(energy), weights(once))
    assert not energy.training


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_any_non_finite_loss_is_a_divergence(bad):
    with pytest.raises(DivergenceError):
        run(Trainer(), Scripted(lambda call, loss: loss + bad))


def test_non_finite_gradient_is_a_divergence():
    energy = point()
    with pytest.raises(DivergenceError, match="gradient norm nan"):
        run(Trainer(), Scripted(lambda call, loss: (energy.w * 0).sum().sqrt()), energy)
    assert same(weights(energy), weights(point()))


def test_a_loss_that_grows_from_epoch_to_epoch_is_a_divergence():
    """With one batch per epoch no epoch sees it grow."""
    energy = point()
    trainer = Trainer(max_iter=9, batch_size=1000, clip_norm=1e-30)
    with pytest.raises(DivergenceError, match="the loss grew from"):
        run(trainer, Scripted(lambda call, loss: 100.0**call * loss), energy)
    steady = Scripted(lambda call, loss: 100.0 ** min(call, 2) * loss)
    assert run(trainer, steady)[1].n_iter == 9


def test_rare_looks_see_every_step():
    """Off the CPU many steps are looked at together."""

    def steps(*losses):
        return [
            {"loss": torch.tensor(loss), "grad_norm": torch.tensor(1.0)}
            for loss in losses
        ]

    _refuse_non_finite(steps(math.nan, 1.0, 2.0), 2)
    for losses in ((1.0, math.nan, 2.0), (math.inf, -math.inf, 1.0)):
        with pytest.raises(Diverged, match=r"last losses .*(nan|inf)"):
            _refuse_non_finite(steps(*losses), 3)


def test_weights_that_overflow_in_the_last_step_are_a_divergence():
    energy = point().float()
    trainer = Trainer(
        max_iter=1, learning_rate=1e39, schedule="constant", n_warmup_steps=0
    )
    with pytest.raises(DivergenceError, match="weights are not finite"):
        run(trainer, Scripted(), energy, table().float())
    assert same(weights(energy), weights(point().float()))


def test_exploding_energies_are_a_divergence():
    energy = point().float()
    trainer = Trainer(
        max_iter=1, learning_rate=1e12, schedule="constant", n_warmup_steps=0
    )
    with pytest.raises(DivergenceError, match=r"energies reach .*e\+23"):
        run(trainer, Scripted(), energy, table().float())
    assert same(weights(energy), weights(point().float()))


@pytest.mark.parametrize("energy", [MLP((16,)), Quadratic()], ids=["mlp", "quadratic"])
def test_absurd_rate_raises_or_ends_finite(energy):
    x = table(200).float()
    energy = clone(energy).build(2, generator=generator())
    trainer = Trainer(max_iter=3, batch_size=50, learning_rate=1e8)
    with contextlib.suppress(DivergenceError):
        run(trainer, NoiseContrastive(), energy, x)
    assert all(w.isfinite().all() for w in energy.parameters())
    assert energy(x).isfinite().all()


def test_ctrl_c_between_epochs_keeps_the_whole_ones():
    seen, energy = [], point()

    def on_epoch(epoch, record):
        seen.append(weights(energy))
        interrupt_at(3)(epoch, record)

    trainer = Trainer(max_iter=9, batch_size=25)
    _, result = run(trainer, Scripted(), energy, on_epoch=on_epoch)
    assert (result.n_iter, result.interrupted) == (4, True)
    assert len(result.history["loss"]) == 4
    assert same(weights(energy), seen[3])


def ctrl_c(at):
    """Return a script that presses Ctrl-C in a call."""

    def train(call, loss):
        if call == at:
            raise KeyboardInterrupt
        return loss

    return train


@pytest.mark.parametrize(("call", "n_whole"), [(13, 3), (12, 3), (3, 0), (0, 0)])
def test_ctrl_c_in_a_batch_keeps_the_whole_epochs(call, n_whole):
    trainer = Trainer(max_iter=9, batch_size=25)
    energy, result = run(trainer, Scripted(ctrl_c(call)))
    assert (result.n_iter, result.interrupted) == (n_whole, True)
    if n_whole:
        whole = run(trainer, Scripted(), on_epoch=interrupt_at(n_whole - 1))[0]
        assert same(weights(energy), weights(whole))
    else:
        assert same(weights(energy), weights(point()))
        assert result.history == {}
    assert not energy.training
    assert energy.w.grad is None


@pytest.mark.parametrize("name", ["restore", "snapshot", "use_average", "evaluate"])
def test_ctrl_c_anywhere_leaves_a_whole_epoch(name, monkeypatch):
    """Ctrl-C at the start of one of the loop's own steps, in the third epoch."""
    original, calls = getattr(Learner, name), []

    def pressed(self, *args):
        calls.append(name)
        if len(calls) == (4 if name == "snapshot" else 3):
            raise KeyboardInterrupt
        return original(self, *args)

    monkeypatch.setattr(Learner, name, pressed)
    seen, energy = [], point()
    trainer = Trainer(max_iter=9, batch_size=25)
    _, result = run(
        trainer,
        Scripted(valid=[3.0, 2.0, 1.0]),
        energy,
        x_valid=table(5),
        on_epoch=lambda *args: seen.append(weights(energy)),
    )
    assert (result.n_iter, result.interrupted) == (2, True)
    assert same(weights(energy), seen[1])


def test_other_errors_leave_a_whole_epoch_too():
    def on_epoch(epoch, record):
        if epoch == 1:
            raise OSError("disk full")

    energy, trainer = point(), Trainer(max_iter=9, batch_size=25)
    with pytest.raises(OSError, match="disk full"):
        run(trainer, Scripted(), energy, on_epoch=on_epoch)
    whole = run(trainer, Scripted(), on_epoch=interrupt_at(1))[0]
    assert same(weights(energy), weights(whole))
    assert not energy.training


def test_same_seed_same_bits():
    results = []
    for seed in (0, 0, 1):
        energy = Net(dropout=0.5).build(2, generator=generator()).double()
        _, result = run(
            Trainer(max_iter=3, batch_size=30), Contrast(), energy, seed=seed
        )
        results.append((weights(energy), result.history))
    assert same(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert not same(results[0][0], results[2][0])


def test_global_random_state_and_settings_are_untouched():
    def state():
        numpy_state = np.random.get_state()  # noqa: NPY002
        return (
            torch.get_rng_state().tolist(),
            [np.asarray(part).tolist() for part in numpy_state],
            random.getstate(),
            torch.get_num_threads(),
            torch.get_float32_matmul_precision(),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
        )

    energy = Net(dropout=0.5).build(2).double()
    before = state()
    run(Trainer(max_iter=2), Contrast(), energy, x_valid=table(10))
    assert state() == before


def test_dropout_draws_anew_in_every_step():
    seen = []

    class Watched(Contrast):
        def __call__(self, energy, batch, state, *, generator):
            seen.append(energy.layers[2](torch.ones(64, dtype=batch.dtype)))
            return super().__call__(energy, batch, state, generator=generator)

    energy = Net(dropout=0.5).build(2).double()
    run(Trainer(max_iter=2, batch_size=50), Watched(), energy)
    assert len({tuple(mask.tolist()) for mask in seen}) == 4


def test_frozen_parts_neither_learn_nor_leave_eval_mode():
    modes = []
    frozen = Frozen(Net(dropout=0.5).build(2).double())
    energy = Sum(frozen, Net(dropout=0.5).build(2).double())
    before = weights(frozen)

    class Watched(Contrast):
        def __call__(self, energy, batch, state, *, generator):
            layers = energy.left.part.layers[2], energy.right.layers[2]
            modes.append([layer.training for layer in layers])
            return super().__call__(energy, batch, state, generator=generator)

    run(Trainer(max_iter=1), Watched(), energy)
    assert modes == [[False, True]]
    assert same(weights(frozen), before)


def test_weight_decay_spares_what_the_objective_learns():
    """With a loss that ignores them, decay alone moves the weights."""

    class Ignored(Contrast):
        def init(self, energy, x, *, generator):
            state = super().init(energy, x, generator=generator)
            torch.nn.init.constant_(state.c, 2.0)
            return state

        def __call__(self, energy, batch, state, *, generator):
            loss = super().__call__(energy, batch, state, generator=generator)
            return loss._replace(value=loss.value * 0)

    energy = point()
    torch.nn.init.constant_(energy.w, 2.0)
    trainer = Trainer(
        max_iter=1, learning_rate=0.1, weight_decay=0.5, schedule="constant"
    )
    _, result = run(trainer, Ignored(), energy)
    assert_close(energy.w.detach(), torch.full((2,), 1.9).double())
    assert result.state.c.item() == 2.0


def test_parameter_shared_with_the_state_is_trained_once():
    class Sharing(Scripted):
        def init(self, energy, x, *, generator):
            state = torch.nn.Module()
            state.shared = energy.w
            return state

    shared, _ = run(Trainer(max_iter=2), Sharing())
    assert same(weights(shared), weights(run(Trainer(max_iter=2), Scripted())[0]))


def test_energy_without_weights_is_refused():
    for energy in (Quadratic(), Frozen(Quadratic().build(2))):
        with pytest.raises(ValueError, match="without parameters that learn"):
            run(Trainer(), Scripted(), energy)


@pytest.mark.parametrize(("n", "m"), [(0, 5), (5, 0)])
def test_no_rows_are_refused(n, m):
    with pytest.raises(ValueError, match="Got no rows"):
        run(Trainer(), Scripted(), x=table(n), x_valid=table(m))


BAD = {
    "max_iter": 0,
    "batch_size": 0,
    "learning_rate": 0.0,
    "optimizer": "sgd",
    "betas": (0.9, 1.0),
    "weight_decay": -0.1,
    "n_warmup_steps": -1,
    "schedule": "linear",
    "clip_norm": 0.0,
    "ema": 1.0,
    "n_iter_no_change": 0,
    "valid_every": 0,
    "tol": -1.0,
    "checkpoint_every": 0,
}


@pytest.mark.parametrize("name", BAD)
def test_parameters_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=f"Got {name}=.*, but expected"):
        run(Trainer(**{name: BAD[name]}), Scripted())


class Stop(Exception):
    """Stands for a crash: nothing in the loop handles it."""


def stop_after(last):
    """Return an ``on_epoch`` that crashes after an epoch."""

    def on_epoch(epoch, record):
        if epoch == last:
            raise Stop

    return on_epoch


@pytest.mark.parametrize("chains", ["persistent", "data", "tempered"])
@pytest.mark.parametrize("epoch", [0, 3])
def test_resumed_chains_go_on_where_they_were(chains, epoch, tmp_path):
    """Weights, running means, chains and generator: every bit of an unbroken run."""
    g = generator(1)
    x, x_valid = (
        torch.bernoulli(torch.full((n, 6), 0.3), generator=g) for n in (90, 9)
    )
    x[::7, 2] = math.nan
    trainer = Trainer(
        max_iter=6,
        batch_size=20,
        learning_rate=0.1,
        optimizer="momentum",
        schedule="exponential",
        valid_every=2,
    )
    objective = RBMLikelihood(chains, n_chains=10, n_levels=3)

    def trained(path, on_epoch=None, seed=0):
        rbm, g = RBM(4).build(6, generator=generator(seed)), generator(seed)
        result = replaced(trainer, checkpoint=path).run(
            rbm, objective, x, x_valid=x_valid, generator=g, on_epoch=on_epoch
        )
        return rbm, result, g

    unbroken, path = trained(None), tmp_path / "run.ckpt"
    with pytest.raises(Stop):
        trained(path, stop_after(epoch))
    resumed = trained(path, seed=9)
    assert same(weights(resumed[0]), weights(unbroken[0]))
    assert same(weights(resumed[1].state), weights(unbroken[1].state))
    assert resumed[1].history == unbroken[1].history
    assert len(unbroken[1].history["valid_loss"]) == 3
    assert torch.equal(resumed[2].get_state(), unbroken[2].get_state())
    assert not same(weights(unbroken[1].state), weights(trained(None, seed=9)[1].state))


def test_trainer_is_a_value():
    trainer = Trainer(max_iter=3, checkpoint="run.ckpt")
    assert clone(trainer) == trainer
    assert eval(repr(trainer)) == trainer
    assert trainer.get_params()["checkpoint"] == "run.ckpt"
    assert trainer.set_params(ema=0.5).ema == 0.5


def test_device_agrees_with_cpu(device):
    x, x_valid = table(100), table(20, seed=1)
    energy = Quadratic().build(2).double().to(device)
    trainer = Trainer(max_iter=30, batch_size=100, learning_rate=0.05)
    result = trainer.run(
        energy,
        Likelihood(),
        x.to(device),
        x_valid=x_valid.to(device),
        generator=generator(device=device),
    )
    expected, reference = run(
        trainer, Likelihood(), Quadratic().build(2).double(), x, x_valid=x_valid
    )
    assert_close(energy(x.to(device)).cpu(), expected(x), rtol=1e-8, atol=1e-8)
    assert result.history["loss"] == pytest.approx(reference.history["loss"])


def test_noise_contrastive_network_learns_the_density():
    """Two modes that the Gaussian base misses; KL from the truth by quadrature."""
    centres = torch.tensor([[-2.0], [2.0]])
    which = torch.randint(2, (4000,), generator=generator())
    x = centres[which] + 0.5 * torch.randn(4000, 1, generator=generator(1))
    base = Quadratic().match(x.mean(0), x.T.cov().reshape(1, 1))
    energy = Tilted(base, MLP((32, 32))).build(1, generator=generator())
    _, result = run(
        Trainer(max_iter=30, learning_rate=1e-2),
        NoiseContrastive(),
        energy,
        x[:3600],
        x_valid=x[3600:],
    )
    line = torch.linspace(-8, 8, 2001)[:, None]
    with torch.no_grad():
        log_p = -energy(line)
    log_p = log_p - log_p.logsumexp(0) - math.log(16 / 2000)
    truth = (-2 * (line - centres.T).square()).logsumexp(1) - math.log(
        2 * 0.5 * math.sqrt(2 * math.pi)
    )
    kl = (truth.exp() * (truth - log_p)).sum() * 16 / 2000
    assert 0 <= kl < 0.02
    assert result.history["valid_loss"][-1] < result.history["valid_loss"][0] - 0.1
