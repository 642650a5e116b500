"""The folder of links that vLLM serves."""

from knowrl_core.engines.vllm.view import CheckpointView


def test_a_view_has_the_model_and_no_optimizer_state(tmp_path):
    checkpoint = tmp_path / "checkpoint"
    (checkpoint / "adapter").mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "optimizer.safetensors", "trainer_state.json"):
        (checkpoint / name).write_text(name, encoding="utf-8")
    view = CheckpointView()
    first = view.of(checkpoint)
    assert sorted(path.name for path in first.iterdir()) == ["config.json", "model.safetensors"]
    assert (first / "model.safetensors").read_text(encoding="utf-8") == "model.safetensors"
    second = view.of(checkpoint)
    assert not first.exists()
    view.close()
    assert not second.exists()
    assert (checkpoint / "model.safetensors").exists()
