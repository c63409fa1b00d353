"""Runs that stop and go on: bit for bit what an unbroken run gives, or an error."""

import hashlib
import io
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from toys import Contrast, Net, Scripted, generator, nan_at, same, table, weights

from skebm.trainer import Trainer
from skebm.training.checkpoints import MAGIC, Checkpoint, description, digest

TRAINER = Trainer(max_iter=6, batch_size=20, learning_rate=0.02, weight_decay=0.1)


class Stop(Exception):
    """Stands for a crash: nothing in the loop handles it."""


def crash_at(last):
    def on_epoch(epoch, record):
        if epoch == last:
            raise Stop

    return on_epoch


def net(dropout=0.5):
    return Net(dropout=dropout).build(2, generator=generator(7)).double()


def run(path, objective=None, on_epoch=None, energy=None, x=None, **params):
    energy = net() if energy is None else energy
    trainer = clone(TRAINER).set_params(checkpoint=path, **params)
    history = trainer.run(
        energy,
        Contrast() if objective is None else objective,
        table() if x is None else x,
        x_valid=table(30, seed=1),
        generator=generator(),
        on_epoch=on_epoch,
    )
    return energy, history


def assert_equal_runs(first, second):
    assert same(weights(first[0]), weights(second[0]))
    assert same(weights(first[1].state), weights(second[1].state))
    assert first[1].history == second[1].history
    assert first[1].n_iter == second[1].n_iter


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.ckpt"


@pytest.fixture
def checkpoint(path):
    return Checkpoint(path, {"rows": "a"})


def test_checkpoints_do_not_change_the_result(path):
    assert_equal_runs(run(path), run(None))


@pytest.mark.parametrize(("epoch", "every"), [(0, 1), (3, 1), (5, 1), (3, 2), (2, 9)])
def test_resumed_run_equals_the_unbroken_one(path, epoch, every):
    with pytest.raises(Stop):
        run(path, on_epoch=crash_at(epoch), checkpoint_every=every)
    seen = []
    resumed = run(
        str(path), on_epoch=lambda e, _: seen.append(e), checkpoint_every=every
    )
    assert_equal_runs(resumed, run(None))
    assert seen == list(range((epoch + 1) // every * every, 6))


def test_run_that_crashes_after_every_epoch_equals_the_unbroken_one(path):
    for epoch in range(6):
        with pytest.raises(Stop):
            run(path, on_epoch=crash_at(epoch))
    assert_equal_runs(run(path), run(None))


def test_resume_needs_neither_the_weights_nor_the_seed_of_the_first_run(path):
    with pytest.raises(Stop):
        run(path, on_epoch=crash_at(2))
    energy = Net(dropout=0.5).build(2, generator=generator(99)).double()
    trainer = clone(TRAINER).set_params(checkpoint=path)
    result = trainer.run(
        energy,
        Contrast(),
        table(),
        x_valid=table(30, seed=1),
        generator=generator(123),
    )
    assert_equal_runs((energy, result), run(None))


KILLED = """
import os, signal, sys
sys.path[:0] = sys.argv[2:]
from test_checkpoints import run

def on_epoch(epoch, record):
    if epoch == 3:
        os.kill(os.getpid(), signal.SIGKILL)

run(sys.argv[1], on_epoch=on_epoch)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_run_resumes_to_the_unbroken_one(path):
    here = Path(__file__).resolve().parent
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), str(here), str(here.parents[1])],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    seen = []
    resumed = run(path, on_epoch=lambda epoch, _: seen.append(epoch))
    assert seen == [4, 5]
    assert_equal_runs(resumed, run(None))


def test_ctrl_c_then_resume(path):
    def on_epoch(epoch, record):
        if epoch == 1:
            raise KeyboardInterrupt

    energy, result = run(path, on_epoch=on_epoch)
    assert (result.n_iter, result.interrupted) == (2, True)
    assert_equal_runs(run(path, energy=energy), run(None))


def test_halved_rate_survives(path):
    """NaN in epoch 1 (batches 5 to 9); the crash comes after its second attempt."""
    objectives = Scripted(nan_at(7), valid=[1.0] * 9), Scripted(valid=[1.0] * 9)
    with pytest.raises(Stop):
        run(path, objectives[0], crash_at(2))
    resumed = run(path, objectives[1])
    unbroken = run(None, Scripted(nan_at(7), valid=[1.0] * 9))
    assert_equal_runs(resumed, unbroken)
    rates, full = resumed[1].history["learning_rate"], run(None)[1].history
    assert rates[0] == full["learning_rate"][0]
    assert rates[1:] == [rate / 2 for rate in full["learning_rate"][1:]]


def test_patience_survives(path):
    valid = [3.0, 2.0, 2.5, 2.4, 2.3, 1.0]
    stop = {"early_stopping": True, "n_iter_no_change": 3}
    with pytest.raises(Stop):
        run(path, Scripted(valid=valid), crash_at(3), **stop)
    resumed = run(path, Scripted(valid=valid[4:]), **stop)
    assert resumed[1].n_iter == 5
    assert_equal_runs(resumed, run(None, Scripted(valid=valid), **stop))


class Untouchable(Contrast):
    """Equal to Contrast in print, but it must not be called."""

    def __repr__(self):
        return "Contrast()"

    def __call__(self, energy, batch, state, *, generator):
        raise AssertionError("trained")


@pytest.mark.parametrize("on_epoch", [None, lambda epoch, _: epoch == 2])
@pytest.mark.parametrize("every", [1, 4])
def test_finished_run_returns_at_once(path, on_epoch, every):
    first = run(path, on_epoch=on_epoch, checkpoint_every=every)
    assert first[1].n_iter == (6 if on_epoch is None else 3)
    again = run(path, Untouchable(), crash_at(0), checkpoint_every=every)
    assert_equal_runs(first, again)
    assert not again[0].training


def test_early_stopped_run_returns_at_once(path):
    stop = {"early_stopping": True, "n_iter_no_change": 1, "checkpoint_every": 5}
    valid = [3.0, 2.0, 2.5, 2.4]
    first = run(path, Scripted(valid=valid), **stop)
    assert first[1].n_iter == 3
    again = run(path, Scripted(valid=[]), crash_at(0), **stop)
    assert_equal_runs(first, again)


OTHER = {
    "rows": {"x": table(seed=5)},
    "trainer": {"learning_rate": 0.01},
    "energy": {"energy": Net(hidden=9, dropout=0.5).build(2).double()},
    "objective": {"objective": Scripted(valid=[1.0] * 9)},
}


@pytest.mark.parametrize("name", OTHER)
def test_checkpoint_of_another_run_is_refused(path, name):
    with pytest.raises(Stop):
        run(path, on_epoch=crash_at(1))
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match=rf"another run \({name}: got .*, wanted .*"
    ) as e:
        run(path, **OTHER[name])
    assert "Delete the file" in str(e.value)
    assert path.read_bytes() == before


def test_checkpoint_of_other_held_out_rows_is_refused(path):
    trainer = clone(TRAINER).set_params(checkpoint=path)
    trainer.run(net(), Contrast(), table(), generator=generator())
    with pytest.raises(ValueError, match=r"held-out rows: got none, wanted [0-9a-f]+"):
        run(path)


def test_how_often_it_is_written_is_no_part_of_the_run(path):
    with pytest.raises(Stop):
        run(path, on_epoch=crash_at(3), checkpoint_every=2)
    moved = path.rename(path.with_name("moved.ckpt"))
    assert_equal_runs(run(moved, checkpoint_every=1), run(None))


def test_numpy_settings_survive(path):
    """Searches over parameters pass numpy's numbers."""
    settings = {
        "max_iter": np.int64(4),
        "learning_rate": np.float64(0.02),
        "early_stopping": np.bool_(True),
        "n_iter_no_change": np.int64(9),
        "tol": np.float64(0.0),
        "ema": np.float64(0.9),
    }
    with pytest.raises(Stop):
        run(path, on_epoch=crash_at(1), **settings)
    plain = {name: value.item() for name, value in settings.items()}
    assert_equal_runs(run(path, **settings), run(None, **plain))


def test_missing_folder_is_refused_before_training(path):
    with pytest.raises(ValueError, match=r"folder .* does not exist"):
        run(path.parent / "none" / "run.ckpt", Untouchable())


def damaged(content, how):
    flip = {"head": 3, "checksum": len(MAGIC) + 5, "start": len(MAGIC) + 33}
    if how in flip or how in ("middle", "end"):
        at = flip.get(how, len(content) // 2 if how == "middle" else len(content) - 1)
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    lengths = {"empty": 0, "head only": 10, "half": len(content) // 2, "cut": -1}
    return content[: lengths[how]]


@pytest.mark.parametrize(
    "how",
    [
        *("head", "checksum", "start", "middle", "end"),
        *("empty", "head only", "half", "cut"),
    ],
)
def test_damaged_checkpoint_is_an_error_and_never_weights(path, how):
    run(path)
    path.write_bytes(damaged(path.read_bytes(), how))
    energy = net()
    before = weights(energy)
    with pytest.raises(ValueError, match=r"is damaged or no checkpoint .*Delete the"):
        run(path, Untouchable(), energy=energy)
    assert same(weights(energy), before)


def test_every_flipped_bit_is_found(checkpoint, path):
    checkpoint.save({"a": 1})
    content = path.read_bytes()
    for at in range(0, len(content), 7):
        changed = bytearray(content)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        with pytest.raises(ValueError, match="damaged"):
            checkpoint.load()


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


def test_code_in_a_checkpoint_does_not_run(checkpoint, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    torch.save({"content": Evil(), "fingerprint": {}}, buffer)
    for payload in (buffer.getvalue(), pickle.dumps(Evil(), protocol=2)):
        path.write_bytes(MAGIC + hashlib.sha256(payload).digest() + payload)
        with pytest.raises(ValueError, match="more than tensors"):
            checkpoint.load()
    assert not (tmp_path / "evil").exists()


def test_content_comes_back(checkpoint):
    assert checkpoint.load() is None
    content = {"t": torch.randn(3), "n": None, "l": [1.5, {"s": "x"}], "i": 2}
    checkpoint.save(content)
    found = checkpoint.load()
    assert torch.equal(found.pop("t"), content.pop("t"))
    assert found == content


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failed_write_leaves_the_old_file_alone(
    checkpoint, path, tmp_path, monkeypatch, step, error
):
    checkpoint.save({"a": 1})

    def fail(*args):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), fail)
        with pytest.raises(type(error)):
            checkpoint.save({"a": 2})
    assert checkpoint.load() == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_file_and_folder_are_synced_in_order(checkpoint, path, monkeypatch):
    done, fsync, replace = [], os.fsync, Path.replace

    def synced(descriptor):
        done.append("folder" if os.path.isdir(f"/dev/fd/{descriptor}") else "file")
        fsync(descriptor)

    def replaced(source, target):
        done.append("replace")
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    checkpoint.save({})
    assert done == ["file", "replace", "folder"]
    assert path.exists()


def test_folder_that_cannot_be_synced_is_no_error(checkpoint, monkeypatch):
    def refuse(*args):
        raise PermissionError

    monkeypatch.setattr(os, "open", refuse)
    checkpoint.save({"a": 1})
    monkeypatch.undo()
    assert checkpoint.load() == {"a": 1}


def test_digest_knows_values_shape_and_type():
    x = torch.arange(6.0).reshape(2, 3)
    different = [x + 1, x.reshape(3, 2), x.double(), x.flip(0), x.int(), None]
    assert len({digest(x), *map(digest, different)}) == 7
    assert digest(x) == digest(x.clone()) == digest(x.T.contiguous().T)
    assert digest(x[0, 0]) == digest(torch.tensor(0.0))
    assert digest(torch.zeros(2)) != digest(torch.zeros(2, dtype=torch.int32))


def test_description_is_the_same_in_every_process():
    assert description(len) == "<built-in function len>"
    first, second = nan_at(1), nan_at(2)
    assert repr(first) != repr(second)
    assert description(first) == description(second)
    small, large = Net(2).build(2), Net(3).build(2)
    assert description("e", small) != description("e", large)
    assert description("e", small) != description("e", small.double())
