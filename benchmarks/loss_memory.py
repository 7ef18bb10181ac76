"""Memory of token log-probs and entropy at a large vocabulary: chunked against materialised logits.

    python benchmarks/loss_memory.py [--tokens 1024] [--vocabulary 152064] [--hidden 896]

Each way runs forward and backward in a process of its own; what counts is the peak above what stood in memory
before (inputs, weight), gradients included. Values and gradients of the two are compared.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from torch import Tensor

from trainer.modeling.log_probs import from_logits, token_log_probs

WAYS = ("materialised", "chunked")


def resident() -> int:
    """Bytes of this process that stand in memory."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096


class Peak:
    """The highest resident size while a block runs, looked at every millisecond."""

    def __enter__(self) -> Peak:
        self.highest, self._done = resident(), threading.Event()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()
        return self

    def _look(self) -> None:
        while not self._done.wait(0.001):
            self.highest = max(self.highest, resident())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watch.join()


def log_probs(way: str, hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies, the one way or the other."""
    if way == "chunked":
        return token_log_probs(hidden, weight, targets)
    return from_logits(hidden @ weight.T, targets)


def measure(way: str, tokens: int, vocabulary: int, hidden_size: int) -> dict[str, float]:
    """Peak and time of one forward and backward pass, and numbers that tell whether the two ways agree."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    hidden = torch.randn(tokens, hidden_size, requires_grad=True)
    weight = (torch.randn(vocabulary, hidden_size) / hidden_size**0.5).requires_grad_()
    targets = torch.randint(vocabulary, (tokens,))
    log_probs(way, hidden[:8], weight[:64], targets[:8] % 64)[0].sum().backward()  # the libraries' own buffers
    hidden.grad = weight.grad = None
    before = resident()
    with Peak() as peak:
        started = time.perf_counter()
        log_prob, entropy = log_probs(way, hidden, weight, targets)
        (log_prob.mean() + 0.1 * entropy.mean()).backward()
        seconds = time.perf_counter() - started
    assert hidden.grad is not None
    assert weight.grad is not None
    gradients = weight.grad.numel() * 4 + hidden.grad.numel() * 4
    return {
        "peak": peak.highest - before,
        "beside_gradients": peak.highest - before - gradients,
        "seconds": seconds,
        "log_prob": log_prob.mean().item(),
        "entropy": entropy.mean().item(),
        "hidden_gradient": hidden.grad.norm().item(),
        "weight_gradient": weight.grad.norm().item(),
    }


def main() -> int:
    """Print both ways and their ratio; 1 where chunked needs more than a quarter of the whole or the values differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=152_064)
    parser.add_argument("--hidden", type=int, default=896)
    parser.add_argument("--way", choices=WAYS, help="measure this one alone and print it as JSON")
    options = parser.parse_args()
    sizes = (options.tokens, options.vocabulary, options.hidden)
    if options.way:
        print(json.dumps(measure(options.way, *sizes)))
        return 0
    found = {}
    for way in WAYS:
        command = [
            sys.executable,
            __file__,
            "--way",
            way,
            *(f"--{n}={v}" for n, v in zip(("tokens", "vocabulary", "hidden"), sizes)),
        ]
        found[way] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"{options.tokens} tokens, vocabulary {options.vocabulary}, hidden {options.hidden}; forward and backward")
    for way in WAYS:
        peak, beside, seconds = (found[way][name] for name in ("peak", "beside_gradients", "seconds"))
        print(f"{way:<13} peak {peak / 2**20:.0f} MiB, {beside / 2**20:.0f} MiB of it no gradient; {seconds:.1f} s")
    ratio = found["chunked"]["peak"] / found["materialised"]["peak"]
    beside = found["chunked"]["beside_gradients"] / found["materialised"]["beside_gradients"]
    print(f"chunked ÷ materialised: {ratio:.3f} whole, {beside:.3f} beside the gradients (goal ≤ 0.25)")
    names = ("log_prob", "entropy", "hidden_gradient", "weight_gradient")
    worst = max(abs(found["chunked"][n] / found["materialised"][n] - 1) for n in names)
    print(f"largest relative difference of means and gradient norms: {worst:.1e}")
    return int(ratio > 0.25 or worst > 1e-5)


if __name__ == "__main__":
    sys.exit(main())
