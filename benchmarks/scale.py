"""Time and memory of fit and score over n and d, beside scikit-learn's detectors.

Each line is a fresh process with a fixed number of threads: the median over the
repeats of fitting n rows and of scoring n other rows, and the peak resident memory of
the process, of which "start" was there before the first fit (imports and both tables).
With --device cuda the CPU is measured in the same run, side by side.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

# The parent stays small on purpose: on Linux a child's ru_maxrss starts at the peak
# of the process that started it. Hence imports of numpy, torch, sklearn in functions.

OURS = "EnergyOutlierDetector"
BASELINES = ("LocalOutlierFactor", "IsolationForest")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
HEADER = (
    f"{'n':>8} {'d':>5}  {'detector':<22} {'device':<7} {'fit s':>8} {'score s':>8} "
    f"{'both s':>8} {'peak MiB':>9} {'start MiB':>9} {'GPU MiB':>8}"
)


def make_rows(n, d, seed):
    """Return n rows from ten correlated Gaussians; 2% of them are spread out."""
    import numpy as np

    shape = np.random.default_rng(0)
    centres = shape.normal(scale=2.0, size=(10, d))
    mixing = shape.normal(size=(d, d)) / d**0.5
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) @ mixing
    X[rng.random(n) < 0.02] *= 4
    return X + centres[rng.integers(10, size=n)]


def make_detector(config):
    """Return an unfitted detector, at its defaults where the task leaves them."""
    from sklearn.ensemble import IsolationForest
    from sklearn.neighbors import LocalOutlierFactor

    if config["detector"] == "LocalOutlierFactor":
        return LocalOutlierFactor(novelty=True)
    if config["detector"] == "IsolationForest":
        return IsolationForest(random_state=0)

    import torch

    from skebm import EnergyOutlierDetector

    torch.set_num_threads(config["threads"])
    return EnergyOutlierDetector(
        novelty=config["novelty"], device=config["device"], random_state=0
    )


def peak_mib():
    """Return the peak resident memory of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def synchronise(device):
    """Wait for the GPU; return the most memory torch held there, in MiB."""
    if not device.startswith("cuda"):
        return 0.0
    import torch

    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) / 2**20


def measure(config):
    """Return seconds of each repeat and memory in MiB, after one small warm-up."""
    from threadpoolctl import threadpool_limits

    X_train = make_rows(config["n"], config["d"], seed=1)
    X_test = make_rows(config["n"], config["d"], seed=2)
    result = {"fit": [], "score": []}
    model = make_detector(config)
    with threadpool_limits(config["threads"]):
        model.fit(X_train[:256]).score_samples(X_test[:256])
        result["start"] = peak_mib()
        for _ in range(config["repeat"]):
            model = make_detector(config)
            start = time.perf_counter()
            model.fit(X_train)
            synchronise(config["device"])
            fitted = time.perf_counter()
            model.score_samples(X_test)
            result["score"].append(time.perf_counter() - fitted)
            result["fit"].append(fitted - start)
        result["gpu"] = synchronise(config["device"])
    result["peak"] = peak_mib()
    return result


def measure_in_process(config, timeout):
    """Run ``measure`` in a fresh process; return its result, or the reason of none."""
    threads = dict.fromkeys(THREAD_VARIABLES, str(config["threads"]))
    try:
        done = subprocess.run(
            [sys.executable, os.path.abspath(__file__), "--worker", json.dumps(config)],
            env=os.environ | threads,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return f"more than {timeout:g} s"
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        return f"failed with code {done.returncode}: {last[0]}"
    return json.loads(done.stdout.splitlines()[-1])


def line(config, result):
    """Return a line of the table."""
    head = (
        f"{config['n']:>8} {config['d']:>5}  {config['detector']:<22} "
        f"{config['device']:<7} "
    )
    if isinstance(result, str):
        return head + result
    fit, score = (statistics.median(result[key]) for key in ("fit", "score"))
    return head + (
        f"{fit:>8.3f} {score:>8.3f} {total(result):>8.3f} {result['peak']:>9.0f} "
        f"{result['start']:>9.0f} {result['gpu']:>8.0f}"
    )


def total(result):
    """Return the median over repeats of fit plus score, in seconds."""
    return statistics.median(
        fit + score for fit, score in zip(result["fit"], result["score"], strict=True)
    )


def ratios(results):
    """Return a sentence for each comparison that the results of one (n, d) allow.

    ``results`` maps (detector, device) to the result of ``measure`` or to a reason.
    """
    seconds = {k: total(r) for k, r in results.items() if not isinstance(r, str)}
    ours = seconds.get((OURS, "cpu"))
    if ours is None:
        return []
    sentences = [
        f"{OURS} takes {ours / seconds[name, 'cpu']:.2f} times the time of {name}"
        for name in BASELINES
        if (name, "cpu") in seconds
    ]
    sentences += [
        f"{device} is {ours / value:.1f} times as fast as cpu"
        for (name, device), value in seconds.items()
        if name == OURS and device != "cpu"
    ]
    return sentences


def configurations(args):
    """Return the (detector, device) pairs to measure."""
    devices = ["cpu"] if args.device == "cpu" else ["cpu", args.device]
    return [(OURS, device) for device in devices] + [(b, "cpu") for b in args.baselines]


def parse(argv=None):
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, nargs="+", default=[1000, 5000, 20_000])
    parser.add_argument("--d", type=int, nargs="+", default=[20, 50])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda to compare both")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--novelty", action="store_true", help="train on clean rows")
    parser.add_argument(
        "--baselines", nargs="*", choices=BASELINES, default=list(BASELINES)
    )
    parser.add_argument("--timeout", type=float, default=600, help="seconds a process")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main():
    args = parse()
    if args.worker:
        print(json.dumps(measure(json.loads(args.worker))))
        return
    print(f"threads: {args.threads}, repeats: {args.repeat}, novelty: {args.novelty}")
    print(HEADER)
    for n in args.n:
        for d in args.d:
            results = {}
            for detector, device in configurations(args):
                config = {"n": n, "d": d, "detector": detector, "device": device}
                config |= {"threads": args.threads, "repeat": args.repeat}
                config |= {"novelty": args.novelty}
                results[detector, device] = measure_in_process(config, args.timeout)
                print(line(config, results[detector, device]), flush=True)
            for sentence in ratios(results):
                print(f"{'':>15} {sentence}")


if __name__ == "__main__":
    main()
