import pytest
import torch

from trainer.modeling.log_probs import from_logits, token_log_probs


def draw(tokens=23, hidden=8, vocabulary=41, bias=True):
    generator = torch.Generator().manual_seed(tokens)
    made = [
        torch.randn(shape, generator=generator) for shape in ((tokens, hidden), (vocabulary, hidden), (vocabulary,))
    ]
    for tensor in made:
        tensor.requires_grad_()
    targets = torch.randint(vocabulary, (tokens,), generator=generator)
    return made[0], made[1], made[2] if bias else None, targets


@pytest.mark.parametrize("chunk_elements", [1 << 20, 100, 1], ids=["kept", "chunked", "token by token"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("bias", [True, False])
def test_log_probs_entropy_and_gradients_are_those_of_materialised_logits(chunk_elements, temperature, bias):
    hidden, weight, offset, targets = draw(bias=bias)
    inputs = [tensor for tensor in (hidden, weight, offset) if tensor is not None]
    log_prob, entropy = token_log_probs(
        hidden, weight, targets, bias=offset, temperature=temperature, chunk_elements=chunk_elements
    )
    wanted, wanted_entropy = from_logits(torch.nn.functional.linear(hidden, weight, offset) / temperature, targets)
    torch.testing.assert_close(log_prob, wanted)
    torch.testing.assert_close(entropy, wanted_entropy)
    a, b = torch.randn(2, len(targets), generator=torch.Generator().manual_seed(1))
    for loss, reference in (
        ((log_prob * a + entropy * b).sum(), (wanted * a + wanted_entropy * b).sum()),
        ((log_prob * a).sum(), (wanted * a).sum()),
        ((entropy * b).sum(), (wanted_entropy * b).sum()),
    ):
        found = torch.autograd.grad(loss, inputs, retain_graph=True)
        for gradient, reference_gradient in zip(found, torch.autograd.grad(reference, inputs, retain_graph=True)):
            torch.testing.assert_close(gradient, reference_gradient, rtol=2e-5, atol=2e-6)


def test_entropy_is_the_expected_surprise():
    hidden, weight, _, targets = draw(bias=False)
    _, entropy = token_log_probs(hidden, weight, targets)
    distribution = torch.distributions.Categorical(logits=hidden @ weight.T)
    torch.testing.assert_close(entropy, distribution.entropy())


def test_a_frozen_head_gets_no_gradient():
    hidden, weight, _, targets = draw(bias=False)
    weight.requires_grad_(False)
    log_prob, _ = token_log_probs(hidden, weight, targets, chunk_elements=100)
    log_prob.sum().backward()
    assert weight.grad is None
    assert hidden.grad.abs().sum() > 0


def test_no_tokens_give_nothing_and_still_hang_on_the_graph():
    hidden, weight, _, targets = draw(bias=False)
    log_prob, entropy = token_log_probs(hidden[:0], weight, targets[:0])
    (log_prob.sum() + entropy.sum()).backward()
    assert log_prob.shape == entropy.shape == (0,)
    assert weight.grad.abs().sum() == 0
