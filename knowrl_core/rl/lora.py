"""Low-rank adapters through peft: put into a model, merged into its weights, and taken out again.

A checkpoint holds the merged weights, which every engine can load, and beside them the adapters in
``adapter/``. To go on, the adapters' product is subtracted from the merged weights; what rounding leaves of that is
about 1e-7 of a weight an update.
"""

from pathlib import Path
from typing import Any, Final, cast

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from knowrl_core.config.rl import LoraConfig
from knowrl_core.errors import ArtifactError, StageError
from knowrl_core.rng import derive_seed

ADAPTER: Final = "adapter"
WEIGHTS_FILE: Final = "adapter_model.safetensors"
_NAME: Final = "default"


def attach(model: PreTrainedModel, config: LoraConfig, folder: Path | None, *, seed: int) -> None:
    """Put adapters into a model and freeze all else.

    Args:
        model: The policy with merged weights.
        config: Rank, scale and layers.
        folder: Checkpoint whose adapters are gone on with; new ones, which change nothing yet, if it has none.
        seed: Stream of the new adapters' random half.

    Raises:
        StageError: No layer of the model has one of the names.
        ArtifactError: The adapters in the folder are those of another model or rank.
    """
    targets: Any = list(config.targets) or "all-linear"
    peft_config = PeftLoraConfig(
        r=config.rank,
        lora_alpha=cast("int", config.alpha),
        lora_dropout=0.0,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "lora"))
        try:
            inject_adapter_in_model(peft_config, model)
        except ValueError as error:
            raise StageError(
                f"no adapter fits the model: {error}"[:500],
                hint="Name linear layers of this model in rl.lora.targets, or leave it empty.",
            ) from error
    if isinstance(model.get_output_embeddings(), LoraLayer):  # type: ignore[no-untyped-call]
        raise StageError(
            "rl.lora.targets names the LM head, expected layers below it: it may share its weight with the embeddings",
            hint="Leave it out of rl.lora.targets.",
        )
    saved = None if folder is None else folder / ADAPTER / WEIGHTS_FILE
    if saved is not None and saved.exists():
        _restore(model, saved)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


def detach(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Merge the adapters into the weights and take them out; returns their tensors by peft's names."""
    tensors: dict[str, torch.Tensor] = get_peft_model_state_dict(model, adapter_name=_NAME)
    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge(safe_merge=False)
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.get_base_layer())
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    if hasattr(model, "peft_config"):
        del model.peft_config
    return tensors


def save(tensors: dict[str, torch.Tensor], config: LoraConfig, folder: Path) -> None:
    """Write adapters in peft's form, with the config that a loader of adapters needs."""
    target = folder / ADAPTER
    target.mkdir()
    contents = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    save_file(contents, target / WEIGHTS_FILE, metadata={"format": "pt"})
    modules = sorted({name.split(".lora_")[0].rpartition(".")[2] for name in tensors})
    peft_config = PeftLoraConfig(
        r=config.rank, lora_alpha=cast("int", config.alpha), target_modules=modules, task_type="CAUSAL_LM"
    )
    peft_config.inference_mode = True
    # A set has no order: write the names sorted, so that equal adapters give equal bytes.
    peft_config.target_modules = modules
    peft_config.save_pretrained(str(target))


@torch.no_grad()
def _restore(model: PreTrainedModel, saved: Path) -> None:
    tensors = load_file(saved)
    expected = get_peft_model_state_dict(model, adapter_name=_NAME)
    wrong = sorted(set(tensors) ^ set(expected))
    wrong += [name for name, value in expected.items() if name in tensors and tensors[name].shape != value.shape]
    if wrong:
        raise ArtifactError(
            f"{saved}: the adapters do not fit: {len(wrong)} differ in name or shape, for example {wrong[0]!r}; "
            "expected those of rl.lora.rank and rl.lora.targets",
            hint="Keep rl.lora as it was, or start a new run from this checkpoint as model.path.",
        )
    set_peft_model_state_dict(model, tensors, adapter_name=_NAME)
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            weight = cast("torch.nn.Linear", layer.get_base_layer()).weight
            weight.sub_(layer.get_delta_weight(_NAME).to(weight))
