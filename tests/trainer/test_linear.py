"""oneDNN's float32 products against products in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trainer.modeling import linear
from trainer.modeling.linear import WideLinear, product, wide_products, widen

WIDE = pytest.mark.skipif(not wide_products(), reason="oneDNN is taken on x86 with AVX-512 alone")


@pytest.fixture
def every_product(monkeypatch):
    """oneDNN for small products too, as large as a test can afford."""
    monkeypatch.setattr(linear, "LEAST_MULTIPLICATIONS", 0)


@WIDE
@pytest.mark.parametrize("shape", [(7, 24), (3, 5, 24), (1, 1, 24)])
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_those_of_double_precision(every_product, shape, bias):
    torch.manual_seed(0)
    x, w = torch.randn(shape, requires_grad=True), torch.randn(40, 24, requires_grad=True)
    b = torch.randn(40, requires_grad=True) if bias else None
    leaves = [leaf for leaf in (x, w, b) if leaf is not None]
    doubled = [None if leaf is None else leaf.detach().double().requires_grad_() for leaf in (x, w, b)]
    found, wanted = linear.linear(x, w, b), F.linear(*doubled)
    direction = torch.randn(found.shape)
    assert type(found.grad_fn).__name__ == "_LinearBackward"
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    own = torch.autograd.grad(found, leaves, direction)
    true = torch.autograd.grad(wanted, [leaf for leaf in doubled if leaf is not None], direction.double())
    for mine, exact in zip(own, true, strict=True):
        torch.testing.assert_close(mine.double(), exact, rtol=1e-5, atol=1e-5)


@WIDE
@pytest.mark.parametrize("rows", [(17, 17), (40, 17), (17, 40)])
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
def test_products_take_matrices_as_they_lie(every_product, turned, rows):
    torch.manual_seed(0)
    left, right = (torch.randn(30, n).T if turn else torch.randn(n, 30) for turn, n in zip(turned, rows))
    torch.testing.assert_close(product(left, right), (left.double() @ right.double().T).float(), rtol=1e-5, atol=1e-5)


def test_a_frozen_weight_gets_no_gradient(every_product):
    x, w = torch.randn(4, 8, requires_grad=True), torch.randn(6, 8)
    linear.linear(x, w).sum().backward()
    assert w.grad is None
    torch.testing.assert_close(x.grad, w.sum(0).expand(4, 8))


def test_autocast_and_other_dtypes_are_pytorchs_own(every_product):
    x, w = torch.randn(4, 8), torch.randn(6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear.linear(x, w).dtype == torch.bfloat16
    assert linear.linear(x.double(), w.double()).dtype == torch.float64


def test_widening_takes_plain_linear_layers_and_leaves_weights_and_names():
    class Own(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(3, 4), Own(4, 2))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    widen(model)
    assert [type(layer) for layer in model] == [WideLinear if wide_products() else nn.Linear, Own]
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_product_has_the_same_bits_wherever_its_numbers_lie():
    torch.manual_seed(0)
    left, right = torch.randn(300, 192), torch.randn(200, 192)
    found = product(left, right)
    for shift in (1, 3, 8):
        moved = torch.empty(left.numel() + shift)[shift:].view_as(left).copy_(left)
        assert torch.equal(product(moved, right), found)
