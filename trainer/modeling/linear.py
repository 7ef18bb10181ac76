"""Linear layers whose float32 products on a CPU run at the width of its registers.

PyTorch's CPU build gives float32 products to MKL, which takes its AVX2 kernels on processors that are not Intel's:
half the arithmetic of a core with AVX-512 (measured on an AMD EPYC of family 26: 100 against 210 GFLOP/s a
thread). oneDNN, which is in the same build, looks at what the processor can do. The products are float32
with float32 sums on both; only the order of summation differs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

#: Multiplications of a product from which on oneDNN is faster: a call costs it some 10 µs more than MKL.
LEAST_MULTIPLICATIONS = 1 << 21


def wide_products() -> bool:
    """Whether oneDNN has wider kernels for float32 than MKL may have: an x86 processor with AVX-512."""
    return torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"


class WideLinear(nn.Linear):
    """An `nn.Linear` in everything but who computes its products."""

    def forward(self, input: Tensor) -> Tensor:
        """x·Wᵀ + b: (…, in_features) → (…, out_features)."""
        return linear(input, self.weight, self.bias)


def widen(model: nn.Module) -> None:
    """Make every plain `nn.Linear` of a model a `WideLinear`, where that is of use; weights stay as they are."""
    if not wide_products():
        return
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = WideLinear


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Like `torch.nn.functional.linear`, by oneDNN where that is faster: large float32 products on a CPU."""
    if _is_wide(input, weight):
        if not torch.is_grad_enabled():
            return _onednn(input, weight, bias)
        found: Tensor = _Linear.apply(input, weight, bias)  # type: ignore[no-untyped-call]
        return found
    return F.linear(input, weight, bias)


def product(left: Tensor, right: Tensor) -> Tensor:
    """left · rightᵀ of two matrices, without gradient: (M, K), (N, K) → (M, N). Any strides."""
    if _is_wide(left, right):
        # oneDNN's caller lays a strided left out anew, but not a strided right.
        if not left.is_contiguous() and left.numel() > right.numel():
            return _onednn(right, left, None).T
        return _onednn(left, right, None)
    return left @ right.T


def _is_wide(left: Tensor, right: Tensor) -> bool:
    return (
        left.dtype == right.dtype == torch.float32
        and left.device.type == right.device.type == "cpu"
        and left.numel() * right.shape[0] >= LEAST_MULTIPLICATIONS
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # inductor has products of its own
        and wide_products()
    )


def _onednn(left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")  # what torch.compile emits
    return found


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(input, weight)
        return _onednn(input, weight, bias)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        wants_input, wants_weight, wants_bias = ctx.needs_input_grad
        flat = grad.reshape(-1, grad.shape[-1])
        return (
            product(flat, weight.T).view(input.shape) if wants_input else None,
            product(flat.T, input.reshape(-1, input.shape[-1]).T) if wants_weight else None,
            flat.sum(0) if wants_bias else None,
        )
