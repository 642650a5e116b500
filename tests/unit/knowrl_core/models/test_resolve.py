import json
import shutil

import pytest

from knowrl_core.config.system import ModelConfig
from knowrl_core.errors import InputError
from knowrl_core.models import hash_folder, hub, resolve_model


def resolve(path, **settings):
    return resolve_model(ModelConfig(path=str(path), **settings))


def test_an_alias_needs_no_network(tiny_path, monkeypatch):
    monkeypatch.setattr(hub, "fetch", None)
    model = resolve("tiny-random")
    assert (model.name, model.path, model.sha256) == ("tiny-random", tiny_path, hash_folder(tiny_path))


def test_an_alias_has_no_revision():
    with pytest.raises(InputError, match=r"model\.revision is 'main'"):
        resolve("tiny-random", revision="main")


def test_a_folder_is_named_by_its_name(tiny_path, tmp_path, monkeypatch):
    shutil.copytree(tiny_path, tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    for spelling in ("mine", "./mine", str(tmp_path / "mine")):
        model = resolve(spelling)
        assert (model.name, model.path, model.revision) == ("mine", tmp_path / "mine", None)
    assert model.sha256 == hash_folder(tiny_path)


def test_the_hash_sees_names_and_contents_of_model_files_only(tiny_path, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_path, folder)
    before = hash_folder(folder)
    (folder / "README.md").write_text("new")
    (folder / "manifest.json").write_text("{}")
    assert hash_folder(folder) == before
    template = folder / "chat_template.jinja"
    text = template.read_text()
    template.write_text(text + " ")
    assert hash_folder(folder) != before
    template.write_text(text)
    assert hash_folder(folder) == before
    template.rename(folder / "other.jinja")
    assert hash_folder(folder) != before


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds nothing"),
        ({"pytorch_model.bin": "", "config.json": "{}"}, "only pickled weights"),
        ({"notes.txt": ""}, r"no \*\.safetensors .* notes\.txt"),
        ({"model.safetensors": ""}, r"no config\.json"),
        ({"model.safetensors": "", "config.json": "{"}, "cannot be read"),
        ({"model.safetensors": "", "config.json": "{}"}, "names no model_type"),
    ],
)
def test_an_unfit_folder_is_refused(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        resolve(tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize(
    "path", ["./nowhere", "../nowhere", "~/nowhere-at-all", "/nowhere", "bad id!", "a/b/c", "smollm2"]
)
def test_what_looks_like_a_path_is_never_sent_to_the_hub(path, monkeypatch):
    monkeypatch.setattr(hub, "fetch", lambda *_: pytest.fail("asked the Hub"))
    with pytest.raises(InputError, match=r"expected a folder|not a Hub id|no such folder"):
        resolve(path)


def test_offline_a_hub_id_that_is_not_cached_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError) as caught:
        resolve("some-owner/no-such-model-here")
    assert "HF_HUB_OFFLINE is set" in caught.value.message
    assert len(str(caught.value).splitlines()) <= 5


def test_a_cached_hub_model_is_found_offline(tiny_path, tmp_path, monkeypatch):
    repo = tmp_path / "models--owner--tiny"
    shutil.copytree(tiny_path, repo / "snapshots" / ("a" * 40))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = resolve("owner/tiny")
    assert (model.name, model.revision, model.sha256) == ("owner/tiny", "a" * 40, hash_folder(tiny_path))


def test_only_safe_files_are_asked_for(tiny_path, monkeypatch):
    asked = {}

    def download(name, **settings):
        asked.update(settings, name=name)
        return str(tiny_path)

    monkeypatch.setattr(hub, "snapshot_download", download)
    resolve("owner/tiny", revision="v1")
    assert (asked["name"], asked["revision"]) == ("owner/tiny", "v1")
    assert not any(pattern.endswith((".bin", ".py", ".pt", "*")) for pattern in asked["allow_patterns"])


def test_a_config_that_wants_code_of_its_own_is_refused(tiny_path, tmp_path):
    import torch

    from knowrl_core.models.load import load_policy

    folder = tmp_path / "model"
    shutil.copytree(tiny_path, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "surprise",
        "auto_map": {"AutoModelForCausalLM": "code.Model", "AutoConfig": "code.Config"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('code of the model was run')")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_policy(folder, device="cpu", dtype=torch.float32)
