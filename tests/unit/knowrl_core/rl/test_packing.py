import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from knowrl_core.errors import StageError
from knowrl_core.rl.attention import use_packed_attention
from knowrl_core.rl.forward import PackedModel
from knowrl_core.rl.packing import PromptUnit, pack
from knowrl_core.rl.tree import Blocks, PackedPass


def units_of(*specs: tuple[list[int], list[list[int]]]) -> list[PromptUnit]:
    units, cell = [], 0
    for prompt, responses in specs:
        cells = []
        for response in responses:
            cells.append(cell)
            cell += len(response)
        units.append(PromptUnit(tuple(prompt), tuple(map(tuple, responses)), tuple(cells)))
    return units


def visible(packed: PackedPass) -> torch.Tensor:
    """[T, T] bool, query by key: True where attention is allowed."""
    size = len(packed.input_ids)
    seen = torch.zeros(size, size, dtype=torch.bool)
    query, key = 0, 0
    blocks = packed.blocks
    for mask in blocks.masks:
        n, _, width, depth = mask.shape
        queries = blocks.queries[query : query + n * width].view(n, width)
        keys = blocks.keys[key : key + n * depth].view(n, depth)
        for block in range(n):
            for place in range(width):
                if blocks.places[queries[block, place]] == query + block * width + place:  # not padding
                    seen[queries[block, place], keys[block][mask[block, 0, place]]] = True
        query, key = query + n * width, key + n * depth
    return seen


def computed(passes: list[PackedPass]) -> int:
    """Tokens that the passes compute."""
    return sum(len(packed.input_ids) for packed in passes)


def causal(length: int) -> Blocks:
    """The blocks of one ordinary sequence."""
    places, none = torch.arange(length), torch.empty(0, dtype=torch.long)
    mask = torch.ones(1, 1, length, length, dtype=torch.bool).tril_()
    return Blocks(places, places, (mask,), places, none, places, none)


def test_layout():
    # prompt 10 11 with responses 20 21 22 (twice), 20 23 24 and 30; prompt 12 with response 40 41
    units = units_of(([10, 11], [[20, 21, 22], [30], [20, 21, 22], [20, 23, 24]]), ([12], [[40, 41]]))
    (packed,) = pack(units, 64)
    # 20 stands once: two responses begin with it
    assert packed.input_ids.tolist() == [10, 11, 20, 21, 23, 12, 40]
    assert packed.position_ids.tolist() == [0, 1, 2, 3, 3, 0, 1]
    assert packed.keep.tolist() == [1, 2, 3, 4, 5, 6]
    # 20 after 11; 21 after 20; 22 after 21; 30 after 11; the same again; 20 after 11; 23 after 20; 24 after 23; ...
    assert packed.row.tolist() == [0, 1, 2, 0, 0, 1, 2, 0, 1, 3, 4, 5]
    assert packed.target.tolist() == [20, 21, 22, 30, 20, 21, 22, 20, 23, 24, 40, 41]
    assert packed.cell.tolist() == list(range(12))
    assert visible(packed).int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1, 1],
    ]


def test_a_common_beginning_stands_once():
    root = list(range(20, 30))
    units = units_of(([*root, 1, 2], [[5, 6]]), ([*root, 3], [[7, 8]]), ([9] * 4, [[5, 6]]))
    (packed,) = pack(units, 64)
    assert packed.input_ids.tolist() == [9, 9, 9, 9, 5, *root, 1, 2, 5, 3, 7]
    assert packed.position_ids.tolist() == [0, 1, 2, 3, 4, *range(10), 10, 11, 12, 10, 11]
    last = visible(packed)[-1].int().tolist()
    assert last == [0] * 5 + [1] * 10 + [0, 0, 0] + [1, 1]


def test_budget():
    units = units_of(*[([1] * n, [[2]]) for n in (5, 9, 3, 20, 2)])
    passes = pack(units, 10)
    assert all(len(p.input_ids) <= 10 or len(p.input_ids) == 20 for p in passes)
    assert computed(passes) == sum(u.packed_length for u in units)


def test_the_common_beginning_counts_in_each_pass():
    root = list(range(20, 36))
    units = units_of(*[([*root, i, i, i, i], [[5]]) for i in range(6)])
    # 16 + 2 * 4 = 24 a pass of two: with a budget of 27 three passes
    assert [len(p.input_ids) for p in pack(units, 27)] == [24, 24, 24]
    assert [len(p.input_ids) for p in pack(units, 100)] == [16 + 6 * 4]


tokens = st.integers(3, 60)
prompts = st.lists(tokens, min_size=1, max_size=12)
roots = st.sampled_from([[], list(range(3, 15)), [*list(range(3, 13)), 50]])
responses = st.lists(st.lists(st.integers(3, 5), min_size=1, max_size=5), min_size=1, max_size=5)
batches = st.lists(st.tuples(roots, prompts, responses, st.integers(1, 3)), min_size=1, max_size=5)


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def model(request, make_model):
    return make_model(request.param)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(specs=batches, budget=st.integers(1, 120), seed=st.integers(0, 9))
def test_packed_equals_one_sequence_a_response(model, specs, budget, seed):
    """Log-probabilities, entropies and their gradients, whatever lengths, k, roots, shared beginnings and budget."""
    units = units_of(*[(root + prompt, many * copies) for root, prompt, many, copies in specs])
    draws = torch.Generator().manual_seed(seed)
    count = sum(len(r) for u in units for r in u.responses)
    weights, pulls = torch.randn(count, generator=draws), torch.randn(count, generator=draws)
    passes = pack(units, budget)
    assert computed(passes) <= sum(u.packed_length for u in units)
    longest = max(u.packed_length for u in units)
    assert all(len(p.input_ids) <= max(budget, longest) for p in passes)
    assert sorted(c for p in passes for c in p.cell.tolist()) == list(range(count))

    model.zero_grad()
    run = PackedModel(model, "fp32")
    got, entropy = torch.full_like(weights, torch.nan), torch.full_like(weights, torch.nan)
    for packed in passes:
        out = run(packed)
        (out.logprobs * weights[packed.cell] + out.entropy * pulls[packed.cell]).sum().backward()
        got[packed.cell], entropy[packed.cell] = out.logprobs.detach(), out.entropy.detach()
    packed_gradient = torch.cat([p.grad.flatten() for p in model.parameters()])

    model.zero_grad()
    for unit in units:
        for response, cell in zip(unit.responses, unit.cells, strict=True):
            span = slice(cell, cell + len(response))
            ids = torch.tensor([unit.prompt + response])
            logs = model(ids, use_cache=False).logits[0, len(unit.prompt) - 1 : -1].log_softmax(-1)
            logprobs = logs[torch.arange(len(response)), torch.tensor(response)]
            entropies = -(logs.exp() * logs).sum(-1)
            torch.testing.assert_close(got[span], logprobs.detach(), rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(entropy[span], entropies.detach(), rtol=1e-5, atol=1e-5)
            (logprobs * weights[span] + entropies * pulls[span]).sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert (packed_gradient - gradient).norm() <= 1e-5 * gradient.norm()


def test_bf16_keeps_the_head_in_float32(model):
    (packed,) = pack(units_of(([5, 6, 7], [[8, 9], [10]])), 64)
    exact = PackedModel(model, "fp32")(packed)
    rough = PackedModel(model, "bf16")(packed)
    assert rough.logprobs.dtype == torch.float32
    assert not torch.equal(rough.logprobs, exact.logprobs)
    torch.testing.assert_close(rough.logprobs, exact.logprobs, atol=0.1, rtol=0)
    assert "forward" not in vars(model.get_output_embeddings())  # left as it was


def test_a_plain_sequence_has_causal_blocks(model):
    ids = torch.tensor([[5, 6, 7, 8]])
    model.set_attn_implementation("sdpa")
    expected = model(ids, use_cache=False).logits
    use_packed_attention(model)
    for blocks in (causal(4), None):
        got = model(ids, use_cache=False, packed_blocks=blocks).logits
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_padding_is_bounded_whatever_the_mix_of_lengths():
    """One long prompt among short ones, or a long root before short rests, must not pad every block to its length."""
    for specs in (
        [([7] * 1000, [[2, 3]]), *[([i] * 40, [[2, 3]]) for i in range(3, 26)]],
        [([5] * 900 + [i] * 30, [[2, 3]]) for i in range(3, 36)],
    ):
        (packed,) = pack(units_of(*specs), 4096)
        needed = sum((len(prompt) + 1) ** 2 if len(prompt) != 930 else 31 * 931 for prompt, _ in specs) + (
            900**2 if len(specs[0][0]) == 930 else 0
        )
        assert sum(mask.numel() for mask in packed.blocks.masks) <= 1.1 * needed


class TestSelfCheck:
    """A model whose attention cannot be replaced would compute something else, without an error."""

    def test_a_layer_that_keeps_the_blocks_to_itself(self, make_model):
        model = make_model("llama")
        for layer in model.model.layers:
            attend = layer.self_attn.forward
            layer.self_attn.forward = lambda *args, attend=attend, packed_blocks=None, **kwargs: attend(*args, **kwargs)
        with pytest.raises(StageError, match="model llama computes packed passes wrongly"):
            PackedModel(model, "fp32")

    @pytest.mark.parametrize("name", ["falcon", "stablelm"])
    def test_models_that_cannot_be_packed_are_refused(self, name):
        shape = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
        if name == "stablelm":
            shape |= {"intermediate_size": 48, "num_key_value_heads": 2}
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **shape)).float().eval()
        with pytest.raises(StageError, match=f"model {name} (computes|cannot compute) packed passes"):
            PackedModel(model, "fp32")

    def test_it_is_done_once_a_model(self, make_model, monkeypatch):
        model = make_model("qwen2")
        PackedModel(model, "fp32")
        monkeypatch.setattr("knowrl_core.rl.forward.require_packed", None)
        PackedModel(model, "bf16")
