import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowrl_core.rl.forward import token_outputs
from knowrl_core.rl.packing import PromptUnit, pack


def units_of(*specs: tuple[list[int], list[list[int]]]) -> list[PromptUnit]:
    units, cell = [], 0
    for prompt, responses in specs:
        cells = []
        for response in responses:
            cells.append(cell)
            cell += len(response)
        units.append(PromptUnit(tuple(prompt), tuple(map(tuple, responses)), tuple(cells)))
    return units


def test_layout():
    # prompt 10 11 with responses 20 21 22 (twice) and 30; prompt 12 with response 40 41
    (packed,) = pack(units_of(([10, 11], [[20, 21, 22], [30], [20, 21, 22]]), ([12], [[40, 41]])), 64)
    assert packed.input_ids.tolist() == [10, 11, 20, 21, 12, 40]
    assert packed.position_ids.tolist() == [0, 1, 2, 3, 0, 1]
    assert packed.keep.tolist() == [1, 2, 3, 4, 5]
    assert packed.row.tolist() == [0, 1, 2, 0, 0, 1, 2, 3, 4]
    assert packed.target.tolist() == [20, 21, 22, 30, 20, 21, 22, 40, 41]
    assert packed.cell.tolist() == list(range(9))
    assert packed.mask()[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1, 1],
    ]


def test_responses_do_not_see_each_other():
    (packed,) = pack(units_of(([10, 11], [[20, 21], [30, 31]])), 64)
    assert packed.mask()[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]


def test_budget():
    units = units_of(*[([1] * n, [[2]]) for n in (5, 9, 3, 20, 2)])
    lengths = [len(packed.input_ids) for packed in pack(units, 10)]
    assert lengths == [10, 9, 20]  # first fit: 5 + 3 + 2; 9; the one above the budget alone


tokens = st.integers(3, 60)
prompts = st.lists(tokens, min_size=1, max_size=12)
responses = st.lists(st.lists(tokens, min_size=1, max_size=5), min_size=1, max_size=5)
batches = st.lists(st.tuples(prompts, responses, st.integers(1, 3)), min_size=1, max_size=4)


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def model(request, make_model):
    return make_model(request.param)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(specs=batches, budget=st.integers(1, 80), seed=st.integers(0, 9))
def test_packed_equals_one_sequence_a_response(model, specs, budget, seed):
    """Log-probabilities, entropies and gradients, whatever lengths, number of responses, duplicates and budget."""
    units = units_of(*[(prompt, many * copies) for prompt, many, copies in specs])
    weights = torch.randn(
        sum(len(r) for u in units for r in u.responses), generator=torch.Generator().manual_seed(seed)
    )
    passes = pack(units, budget)
    assert sum(len(p.input_ids) for p in passes) == sum(u.packed_length for u in units)

    model.zero_grad()
    got = torch.full_like(weights, torch.nan)
    entropy = torch.full_like(weights, torch.nan)
    for packed in passes:
        out = token_outputs(model, packed, precision="fp32")
        (out.logprobs * weights[packed.cell]).sum().backward()
        got[packed.cell], entropy[packed.cell] = out.logprobs.detach(), out.entropy
    packed_gradient = torch.cat([p.grad.flatten() for p in model.parameters()])

    model.zero_grad()
    for unit in units:
        for response, cell in zip(unit.responses, unit.cells, strict=True):
            span = slice(cell, cell + len(response))
            ids = torch.tensor([unit.prompt + response])
            logs = model(ids, use_cache=False).logits[0, len(unit.prompt) - 1 : -1].log_softmax(-1)
            logprobs = logs[torch.arange(len(response)), torch.tensor(response)]
            torch.testing.assert_close(got[span], logprobs.detach(), rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(entropy[span], -(logs.exp() * logs).sum(-1).detach(), rtol=1e-5, atol=1e-5)
            (logprobs * weights[span]).sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert (packed_gradient - gradient).norm() <= 1e-5 * gradient.norm()


def test_bf16_keeps_the_head_in_float32(model):
    (packed,) = pack(units_of(([5, 6, 7], [[8, 9], [10]])), 64)
    exact = token_outputs(model, packed, precision="fp32")
    rough = token_outputs(model, packed, precision="bf16")
    assert rough.logprobs.dtype == torch.float32
    assert not torch.equal(rough.logprobs, exact.logprobs)
    torch.testing.assert_close(rough.logprobs, exact.logprobs, atol=0.1, rtol=0)
    assert "forward" not in vars(model.get_output_embeddings())  # left as it was
