"""The default sampler on ill-conditioned Gaussians, beside torchebm and ebmkit.

Targets have variances from 1 to the condition number, on the axes or rotated. Each
line is the fastest of a few runs on one thread: the largest relative error of a
principal variance, the largest split R-hat, the mean acceptance, the smallest bulk
effective sample size and its rate; last the rate of the squares, in which draws that
swing from side to side count for less. All start at N(0, I), leave 120 steps of
warm-up out and are charged for them. The peers, which have no metric to tune, are told
the true variances, and each shows the fastest of its listed settings whose error is at
most .1. A second table pairs one step with the same step in plain torch, and on a GPU
a third one a CUDA graph of a step with the eager step.
"""

import argparse
import math
import statistics
import time
from typing import NamedTuple

import torch

from skebm.energies import MLP, Quadratic
from skebm.objectives import DenoisingScoreMatching
from skebm.samplers import HMC, ULA, bulk_ess, run_chains, split_rhat
from skebm.samplers.steps import Steps, steps_of
from skebm.trainer import Trainer

TARGETS = [(10, 100, False), (10, 100, True), (50, 1000, False), (50, 1000, True)]
N_WARMUP = HMC().n_warmup
HEADER = (
    f"{'d':>3} {'condition':>9} {'axes':<8} {'sampler':<34} {'error':>7} {'R-hat':>7} "
    f"{'accept':>6} {'ESS':>8} {'s':>7} {'ESS/s':>9} {'squares':>9}"
)


class Target(NamedTuple):
    """A Gaussian with known principal axes and variances."""

    energy: Quadratic
    axes: torch.Tensor
    variances: torch.Tensor

    @property
    def covariance(self):
        return self.axes @ self.variances.diag() @ self.axes.T


class Result(NamedTuple):
    """What one run gave."""

    error: float
    rhat: float
    acceptance: float
    ess: float
    ess_squares: float
    seconds: float

    @property
    def rate(self):
        return self.ess / self.seconds


def make_target(d, condition, rotated):
    """Return a Gaussian with variances 1 to ``condition``, in float32."""
    variances = torch.logspace(0, math.log10(condition), d, dtype=torch.float64)
    axes = torch.eye(d, dtype=torch.float64)
    if rotated:
        z = torch.empty(d, d, dtype=torch.float64)
        axes = torch.linalg.qr(z.normal_(generator=torch.Generator().manual_seed(9)))[0]
    covariance = axes @ variances.diag() @ axes.T
    energy = Quadratic().match(torch.zeros(d, dtype=torch.float64), covariance)
    return Target(energy.float(), axes, variances)


def judge(target, draws, acceptance, seconds):
    """Return the result of draws of shape (n_draws, n_chains, d)."""
    principal = draws.double() @ target.axes
    variance = principal.flatten(0, 1).var(0)
    error = (variance / target.variances - 1).abs().max().item()
    rhat, ess = split_rhat(draws).max().item(), bulk_ess(draws).min().item()
    squares = bulk_ess(principal.square()).min().item()
    return Result(error, rhat, acceptance, ess, squares, seconds)


def run_ours(target, n_chains, n_draws, seed):
    """Run the default sampler from N(0, I), warm-up included in the time."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.empty(n_chains, len(target.variances)).normal_(generator=generator)
    start = time.perf_counter()
    chains = run_chains(HMC(), target.energy, x, n_draws=n_draws, generator=generator)
    seconds = time.perf_counter() - start
    return judge(target, chains.draws, chains.acceptance, seconds)


def torchebm_settings(target):
    """Return functions by name: starts, number of draws -> draws, acceptance."""
    from torchebm.core import GaussianModel
    from torchebm.samplers import HamiltonianMonteCarlo

    covariance = target.covariance.float()
    model = GaussianModel(torch.zeros(len(covariance)), covariance)

    def runner(step_size, n_steps, mass):
        def run(x, n_draws):
            sampler = HamiltonianMonteCarlo(
                model, step_size=step_size, n_leapfrog_steps=n_steps, mass=mass
            )
            draws, diagnostics = sampler.sample(
                x=x, n_steps=n_draws, return_trajectory=True, return_diagnostics=True
            )
            accepted = diagnostics["acceptance_rate"].mean().item()
            return draws.transpose(0, 1), accepted

        return run

    precision = 1 / covariance.diagonal()
    settings = {}
    for step_size, n_steps in [(0.5, 3), (0.8, 2), (0.8, 3), (1.0, 2)]:
        name = f"torchebm HMC({step_size}, {n_steps}, mass)"
        settings[name] = runner(step_size, n_steps, precision)
    width = math.sqrt(target.variances[-1])
    for step_size in (0.6, 0.9):
        n_steps = round(math.pi / 2 * width / step_size)
        settings[f"torchebm HMC({step_size}, {n_steps})"] = runner(
            step_size, n_steps, None
        )
    return settings


def ebmkit_settings(target):
    """Return functions by name: starts, number of draws -> draws, acceptance."""
    import ebm

    def runner(sampler):
        def run(x, n_draws):
            draws = sampler.sample(
                target.energy, x, steps=n_draws, return_trajectory=True
            )
            return draws[1:], float(sampler.last_accept_rate)

        return run

    settings = {}
    width = math.sqrt(target.variances[-1])
    for step_size in (0.6, 0.9):
        n_steps = round(math.pi / 2 * width / step_size)
        settings[f"ebmkit HMC({step_size}, {n_steps})"] = runner(
            ebm.HMC(step_size, n_steps)
        )
    settings["ebmkit AdaptiveMALA(precondition)"] = runner(
        ebm.AdaptiveMALA(0.5, warmup=200, precondition=True)
    )
    return settings


PEERS = {"torchebm": torchebm_settings, "ebmkit": ebmkit_settings}


def run_peer(run, target, n_chains, n_draws, seed):
    """Run one setting of a peer from N(0, I), warm-up included in the time."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.empty(n_chains, len(target.variances)).normal_(generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        start = time.perf_counter()
        draws, acceptance = run(x, N_WARMUP + n_draws)
        seconds = time.perf_counter() - start
    return judge(target, draws[N_WARMUP:].detach(), acceptance, seconds)


def best(results):
    """Return the fastest pair (name, result) whose error is at most .1, if any is."""
    usable = {name: r for name, r in results.items() if r.error <= 0.1} or results
    return max(usable.items(), key=lambda item: item[1].rate)


def line(d, condition, rotated, name, result):
    """Return a line of the table."""
    axes = "rotated" if rotated else "aligned"
    return (
        f"{d:>3} {condition:>9} {axes:<8} {name:<34} {result.error:>7.3f} "
        f"{result.rhat:>7.4f} {result.acceptance:>6.2f} {result.ess:>8.0f} "
        f"{result.seconds:>7.2f} {result.rate:>9.0f} "
        f"{result.ess_squares / result.seconds:>9.0f}"
    )


def compare_samplers(args):
    """Print a line per target for the default sampler and each peer's best setting."""
    print(HEADER)
    for d, condition, rotated in TARGETS[: args.n_targets]:
        target = make_target(d, condition, rotated)
        runs = [
            run_ours(target, args.n_chains, args.n_draws, seed)
            for seed in range(args.repeat)
        ]
        ours = min(runs, key=lambda result: result.seconds)
        print(line(d, condition, rotated, "skebm HMC()", ours), flush=True)
        for peer in args.peers:
            try:
                settings = PEERS[peer](target)
            except ImportError:
                print(f"{'':>22} {peer} is not installed")
                continue
            results = {
                name: run_peer(run, target, args.n_chains, args.n_draws, 0)
                for name, run in settings.items()
            }
            print(line(d, condition, rotated, *best(results)), flush=True)


def langevin_pair(network, x, step_size):
    """Return our Langevin step and the same step in plain torch, n steps each."""
    energy = MLP(hidden=(128, 128)).build(x.shape[1])
    kernel = ULA(step_size)

    def ours(n_steps):
        generator = torch.Generator().manual_seed(0)
        state = kernel.init(energy, x)
        for _ in range(n_steps):
            state, _ = kernel.step(energy, state, generator=generator)

    def plain(n_steps):
        generator = torch.Generator().manual_seed(0)
        scale, place = math.sqrt(2 * step_size), x
        for _ in range(n_steps):
            place = place.detach().requires_grad_(True)
            (grad,) = torch.autograd.grad(network(place).sum(), place)
            noise = torch.empty_like(x).normal_(generator=generator)
            place = place.detach() - step_size * grad + scale * noise

    return ours, plain


def training_pair(network, x, batch_size):
    """Return our denoising training and the same in plain torch, n epochs each."""
    sigma, decay = 0.3, 0.999

    def ours(n_epochs):
        trainer = Trainer(max_iter=n_epochs, batch_size=batch_size, ema=decay)
        generator = torch.Generator().manual_seed(0)
        energy = MLP(hidden=(128, 128)).build(x.shape[1])
        trainer.run(energy, DenoisingScoreMatching(sigma), x, generator=generator)

    def plain(n_epochs):
        generator = torch.Generator().manual_seed(0)
        weights = list(network.parameters())
        average = [weight.detach().clone() for weight in weights]
        optimizer = torch.optim.AdamW(weights, lr=4e-3, betas=(0.9, 0.99))
        n_steps = n_epochs * math.ceil(len(x) / batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
        for _ in range(n_epochs):
            order = torch.randperm(len(x), generator=generator)
            for rows in order.split(batch_size):
                z = torch.empty(len(rows), x.shape[1]).normal_(generator=generator)
                noisy = (x[rows] + sigma * z).requires_grad_(True)
                e = network(noisy).sum()
                (grad,) = torch.autograd.grad(e, noisy, create_graph=True)
                loss = 0.5 * (sigma * grad - z).square().sum(1).mean()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(weights, 5.0)
                optimizer.step()
                schedule.step()
                torch._foreach_lerp_(average, weights, 1 - decay)

    return ours, plain


def paired_ratio(ours, plain, n, repeat):
    """Return the median over pairs of runs of our time over the plain time."""
    ours(max(1, n // 10))
    plain(max(1, n // 10))
    ratios, seconds = [], []
    for _ in range(repeat):
        start = time.perf_counter()
        ours(n)
        middle = time.perf_counter()
        plain(n)
        end = time.perf_counter()
        ratios.append((middle - start) / (end - middle))
        seconds.append((middle - start) / n)
    return statistics.median(ratios), statistics.median(seconds)


def compare_steps(args):
    """Print what a step costs beside plain torch."""
    d = 8
    linear, activation = torch.nn.Linear, torch.nn.SiLU
    with torch.random.fork_rng():
        network = torch.nn.Sequential(
            linear(d, 128), activation(), linear(128, 128), activation(), linear(128, 1)
        )
    rows = torch.empty(2048, d).normal_(generator=torch.Generator().manual_seed(0))
    print(f"\n{'step of a 128-128 network':<42} {'us':>9} {'ours / plain torch':>19}")
    for n_chains in (64, 256):
        pair = langevin_pair(network, rows[:n_chains], 1e-3)
        ratio, seconds = paired_ratio(*pair, args.n_steps, args.pairs)
        name = f"Langevin, {n_chains} chains"
        print(f"{name:<42} {1e6 * seconds:>9.0f} {ratio:>19.3f}", flush=True)
    ratio, seconds = paired_ratio(
        *training_pair(network, rows, 256), max(1, args.n_steps // 8), args.pairs
    )
    name = "denoising training, batches of 256"
    print(f"{name:<42} {1e6 * seconds / 8:>9.0f} {ratio:>19.3f}")


def compare_graphs(args):
    """Print what a step on a GPU costs in a CUDA graph, beside the same step eager."""
    energy, source = MLP(hidden=(128, 128)), torch.Generator("cuda").manual_seed(0)
    energy.build(8, generator=source)
    x = torch.empty(args.n_chains, 8, device="cuda").normal_(generator=source)
    print(f"\n{'step on a GPU':<42} {'us':>9} {'eager / graph':>19}")
    for name, sampler in (
        ("Langevin", ULA(1e-3)),
        ("HMC, 8 leapfrog steps", HMC(0.1, n_steps=8)),
    ):
        with torch.no_grad():
            state = sampler.init(energy, x)
            eager = Steps(sampler, energy, state, source)
            graph = steps_of(sampler, energy, state, args.n_steps, source)
            ratio, seconds = paired_ratio(
                waiting(graph), waiting(eager), args.n_steps, args.pairs
            )
        name = f"{name}, {args.n_chains} chains"
        print(f"{name:<42} {1e6 * seconds:>9.0f} {1 / ratio:>19.2f}", flush=True)


def waiting(step):
    """Return a function of n that takes n steps and waits for the GPU."""

    def run(n_steps):
        for _ in range(n_steps):
            step()
        torch.cuda.synchronize()

    return run


def parse(argv=None):
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n-chains", type=int, default=64)
    parser.add_argument("--n-draws", type=int, default=2000)
    parser.add_argument("--n-targets", type=int, default=len(TARGETS))
    parser.add_argument("--repeat", type=int, default=3, help="runs of the default")
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--n-steps", type=int, default=400, help="steps of a pair")
    parser.add_argument("--pairs", type=int, default=7, help="pairs per ratio")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse(argv)
    torch.set_num_threads(1)
    compare_samplers(args)
    compare_steps(args)
    if torch.cuda.is_available():
        compare_graphs(args)


if __name__ == "__main__":
    main()
