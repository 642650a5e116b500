"""The average of the policy's weights."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from knowrl_core.errors import ArtifactError, StageError
from knowrl_core.rl import average
from knowrl_core.rl.average import write_average
from knowrl_core.rl.checkpoint import OPTIMIZER_FILE
from knowrl_core.rl.weight_files import FLOATS

SIZES = {
    "vocab_size": 61, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64,
}  # fmt: skip


def save(folder, seed, *, tied=True, dtype=torch.float32, shard="5GB"):
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied)).to(dtype)
    model.save_pretrained(folder, max_shard_size=shard)
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture
def previous(tmp_path):
    return save(tmp_path / "previous", 0)


@pytest.fixture
def policy(tmp_path):
    folder = save(tmp_path / "policy", 1)
    # What lies beside the weights in a checkpoint and must not come along.
    (folder / "optimizer").mkdir()
    save_file({"exp_avg/x": torch.ones(2)}, folder / OPTIMIZER_FILE)
    (folder / "trainer_state.json").write_text("{}")
    return folder


def weights(folder):
    return {name: t for file in sorted(folder.glob("model*.safetensors")) for name, t in load_file(file).items()}


def test_by_hand(tmp_path):
    for name, values in {"a": [1.0, -2.0, 0.0], "w": [3.0, 2.0, 8.0]}.items():
        (tmp_path / name).mkdir()
        save_file({"x": torch.tensor(values), "n": torch.tensor([len(name), 7])}, tmp_path / name / "model.safetensors")
    write_average(tmp_path / "a", tmp_path / "w", 0.75, tmp_path / "out")
    # 3/4 of the old and 1/4 of the new: 0.75 + 0.75, -1.5 + 0.5, 2. Whole numbers are the policy's.
    assert weights(tmp_path / "out")["x"].tolist() == [1.5, -1.0, 2.0]
    assert weights(tmp_path / "out")["n"].tolist() == [1, 7]


def test_it_loads_and_is_the_mean_of_both(tmp_path, previous, policy):
    out = policy / "average"
    write_average(previous, policy, 0.9, out)
    old, new, found = weights(previous), weights(policy), weights(out)
    assert found.keys() == new.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, 0.9 * old[name] + 0.1 * new[name])
    assert {path.name for path in out.iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
    }  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    torch.testing.assert_close(model.model.norm.weight.data, found["model.norm.weight"])


def test_equal_inputs_give_equal_bytes_and_equal_weights_stay(tmp_path, previous, policy, monkeypatch):
    write_average(previous, policy, 0.9, tmp_path / "one")
    monkeypatch.setattr(average, "_CHUNK", 64)  # bytes: nothing depends on the pieces
    write_average(previous, policy, 0.9, tmp_path / "two")
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    write_average(policy, policy, 0.9, tmp_path / "same")
    write_average(previous, policy, 0.0, tmp_path / "none")
    for name in ("same", "none"):
        assert (tmp_path / name / "model.safetensors").read_bytes() == (policy / "model.safetensors").read_bytes()


@pytest.mark.parametrize("sharded", ["previous", "policy", "both"])
def test_other_shards(tmp_path, sharded):
    shard = {name: "8KB" if sharded in (name, "both") else "5GB" for name in ("previous", "policy")}
    previous, policy = (save(tmp_path / name, seed, shard=shard[name]) for seed, name in enumerate(shard))
    write_average(previous, policy, 0.5, tmp_path / "out")
    files = sorted(path.name for path in policy.glob("model*"))
    assert sorted(path.name for path in (tmp_path / "out").glob("model*")) == files
    assert (len(files) > 2) == (sharded != "previous")
    old, new = weights(previous), weights(policy)
    state = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    for name, tensor in new.items():
        torch.testing.assert_close(state[name], (old[name] + tensor) / 2)


@pytest.mark.parametrize(("old", "new"), [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)])
def test_types_may_differ_and_the_policys_is_written(tmp_path, old, new):
    previous, policy = save(tmp_path / "previous", 0, dtype=old), save(tmp_path / "policy", 1, dtype=new)
    write_average(previous, policy, 0.9, tmp_path / "out")
    a, w = weights(previous), weights(policy)
    for name, tensor in weights(tmp_path / "out").items():
        assert tensor.dtype == new
        expected = w[name].float() + 0.9 * (a[name].float() - w[name].float())
        torch.testing.assert_close(tensor, expected.to(new), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_numbers_are_stored_as_torch_stores_them(dtype):
    bits = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype=np.uint32)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 3.3895e38, 1e-45, 1.00390625, 1.01171875]  # ties to even, both ways
    values = np.concatenate([bits.view(np.float32), np.array(special, np.float32)])
    stored = torch.from_numpy(values.copy()).to(dtype)
    kind = FLOATS[{torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32", torch.float64: "F64"}[dtype]]
    with np.errstate(over="ignore", invalid="ignore"):
        raw = np.frombuffer(kind.write(values), np.uint8)
    assert len(raw) == kind.size * len(values)
    ours = torch.frombuffer(bytearray(raw.tobytes()), dtype=dtype)
    torch.testing.assert_close(ours, stored, rtol=0, atol=0, equal_nan=True)
    np.testing.assert_array_equal(kind.read(raw), stored.float().numpy())


def test_tied_weights_under_one_name_or_both(tmp_path, previous, policy):
    # A policy that stores both names of the tied matrix, beside a previous average that stores one.
    both = weights(policy)
    both["lm_head.weight"] = both["model.embed_tokens.weight"].clone()
    save_file(both, policy / "model.safetensors", metadata={"format": "pt"})
    write_average(previous, policy, 0.5, tmp_path / "out")
    found = weights(tmp_path / "out")
    assert torch.equal(found["lm_head.weight"], found["model.embed_tokens.weight"])
    assert not torch.equal(found["lm_head.weight"], both["lm_head.weight"])
    # The other way round the average's second name is not needed.
    write_average(tmp_path / "out", save(tmp_path / "one", 2), 0.5, tmp_path / "next")
    assert "lm_head.weight" not in weights(tmp_path / "next")


def test_an_untied_head_that_is_missing(tmp_path, previous):
    policy = save(tmp_path / "untied", 1, tied=False)
    with pytest.raises(StageError, match=r"previous has no tensor 'lm_head\.weight', got 20 others, expected all 21"):
        write_average(previous, policy, 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_shape_and_another_kind(tmp_path, previous, policy):
    broken = weights(previous)
    broken["model.norm.weight"] = torch.ones(3)
    save_file(broken, previous / "model.safetensors")
    with pytest.raises(StageError, match=r"'model\.norm\.weight' has shape \[3\], expected \[16\]") as error:
        write_average(previous, policy, 0.5, tmp_path / "out")
    assert "redo the update" in error.value.hint
    broken["model.norm.weight"] = torch.ones(16, dtype=torch.int64)
    save_file(broken, previous / "model.safetensors")
    with pytest.raises(StageError, match=r"'model\.norm\.weight' has type I64, expected one of F64, F32, F16, BF16"):
        write_average(previous, policy, 0.5, tmp_path / "out")


def test_files_that_cannot_be_read(tmp_path, previous, policy):
    with pytest.raises(ArtifactError, match=r"expected model\.safetensors or the shards"):
        write_average(tmp_path / "nowhere", policy, 0.5, tmp_path / "out")
    data = (previous / "model.safetensors").read_bytes()
    (previous / "model.safetensors").write_bytes(data[:-10])
    with pytest.raises(ArtifactError, match=r"cannot read the weights in .*previous"):
        write_average(previous, policy, 0.5, tmp_path / "out")
    (previous / "model.safetensors").write_bytes(data)
    (policy / "model.safetensors").unlink()
    (policy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "model-1.safetensors"}}))
    with pytest.raises(ArtifactError, match=r"cannot read the weights in .*policy"):
        write_average(previous, policy, 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_room(tmp_path, previous, policy, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(StageError, match=r"cannot write the average to .*No space left") as error:
        write_average(previous, policy, 0.5, tmp_path / "out")
    assert "run.root" in error.value.hint
    assert not (tmp_path / "out").exists()
