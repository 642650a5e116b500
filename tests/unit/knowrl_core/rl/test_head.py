"""The head's own gradients, against automatic differentiation in float64."""

import pytest
import torch
from torch import nn

from knowrl_core.rl.head import has_plain_head, head_outputs, logit_outputs

ROW, TARGET = torch.tensor([0, 0, 2, 2, 1]), torch.tensor([4, 4, 0, 6, 3])


def case(*, bias: bool, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, nn.Linear]:
    draws = torch.Generator().manual_seed(0)
    head = nn.Linear(5, 7, bias=bias).to(dtype)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draws, dtype=torch.float64))
    return torch.randn(3, 5, generator=draws, dtype=torch.float64).to(dtype).requires_grad_(), head


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("used", ["logprobs", "entropy", "both"])
def test_values_and_gradients(bias, used):
    hidden, head = case(bias=bias)
    weights = torch.arange(1.0, 6.0, dtype=torch.float64)

    def scalar(out):
        parts = {"logprobs": [out.logprobs], "entropy": [out.entropy], "both": [out.logprobs, out.entropy.sin()]}[used]
        return sum((part * weights).sum() for part in parts)

    ours, reference = head_outputs(hidden, head, ROW, TARGET), logit_outputs(head(hidden), ROW, TARGET)
    torch.testing.assert_close(ours.logprobs, reference.logprobs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.entropy, reference.entropy, rtol=1e-12, atol=1e-12)
    inputs = (hidden, *head.parameters())
    got = torch.autograd.grad(scalar(ours), inputs)
    for a, b in zip(got, torch.autograd.grad(scalar(reference), inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_by_hand():
    # logits 0, ln 2, ln 4: p = 1/7, 2/7, 4/7; log p(1) = ln(2/7) = -1.2527630
    # entropy = 1/7 ln 7 + 2/7 ln 3.5 + 4/7 ln 1.75 = 0.2779872 + 0.3579323 + 0.3197804 = 0.9556999
    head = nn.Linear(1, 3, bias=False).double()
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[0.0], [0.6931471805599453], [1.3862943611198906]]))
    out = head_outputs(torch.ones(1, 1).double(), head, torch.tensor([0]), torch.tensor([1]))
    assert out.logprobs.item() == pytest.approx(-1.2527630, abs=1e-6)
    assert out.entropy.item() == pytest.approx(0.9556999, abs=1e-6)


def test_a_bf16_backward_is_near_the_exact_one():
    hidden, head = case(bias=False, dtype=torch.float32)
    exact = torch.autograd.grad(head_outputs(hidden, head, ROW, TARGET).logprobs.sum(), (hidden, head.weight))
    rough = torch.autograd.grad(
        head_outputs(hidden, head, ROW, TARGET, backward_dtype=torch.bfloat16).logprobs.sum(), (hidden, head.weight)
    )
    for a, b in zip(exact, rough, strict=True):
        assert 0 < (a - b).norm() < 0.02 * a.norm()


def test_a_model_that_scales_its_logits_is_found_out(make_model):
    assert has_plain_head(make_model("llama"))
    model = make_model("llama")
    plain = model.forward

    def scaled(*args, **kwargs):
        out = plain(*args, **kwargs)
        out.logits = out.logits * 0.5
        return out

    model.forward = scaled
    assert not has_plain_head(model)
