"""AdamW, with state that can be taken out and put back by parameter name."""

from collections.abc import Mapping

import torch
from torch import Tensor

from knowrl_core.config.rl import RLConfig
from knowrl_core.errors import ArtifactError
from knowrl_core.rl.checkpoint import Moments

KINDS = ("exp_avg", "exp_avg_sq")
"""AdamW's two moments."""

Parameters = Mapping[str, torch.nn.Parameter]


def whole_shape(parameter: torch.nn.Parameter) -> torch.Size:
    """The shape of a parameter, which is empty here where DeepSpeed holds it in parts."""
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape


def parameter_groups(parameters: Parameters, rl: RLConfig) -> list[dict[str, object]]:
    """Groups with their weight decay.

    Biases and norm weights are not decayed: they have no scale to shrink that another weight would not restore.
    """
    groups: list[dict[str, object]] = [
        {"params": [p for p in parameters.values() if len(whole_shape(p)) > 1], "weight_decay": rl.weight_decay},
        {"params": [p for p in parameters.values() if len(whole_shape(p)) <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def adamw(parameters: Parameters, rl: RLConfig, *, fused: bool = True) -> torch.optim.AdamW:
    """AdamW on the parameters (Loshchilov and Hutter 2019, arXiv 1711.05101)."""
    return torch.optim.AdamW(
        parameter_groups(parameters, rl), lr=rl.learning_rate, betas=rl.betas, eps=1e-8, fused=fused
    )


def read_moments(optimizer: torch.optim.Optimizer, parameters: Parameters) -> Moments:
    """AdamW's state by parameter name; empty before the first step of the run."""
    states = {name: optimizer.state.get(p) or {} for name, p in parameters.items()}
    steps = {name: int(state["step"]) if state else 0 for name, state in states.items()}
    return moments_of(steps, {f"{kind}/{n}": s[kind] for n, s in states.items() if s for kind in KINDS})


def moments_of(steps: Mapping[str, int], tensors: Mapping[str, Tensor]) -> Moments:
    """The form in which a checkpoint holds the state.

    Args:
        steps: Steps that each parameter has seen.
        tensors: ``exp_avg/<parameter>`` and ``exp_avg_sq/<parameter>`` of those that have seen one.
    """
    most = max(steps.values(), default=0)
    if not most:
        return {}
    moments: Moments = {"step": torch.tensor(most)}
    moments |= {f"step/{name}": torch.tensor(step) for name, step in steps.items() if step < most}
    return moments | dict(tensors)


def write_moments(optimizer: torch.optim.Optimizer, parameters: Parameters, moments: Moments) -> None:
    """Put AdamW's state back.

    Raises:
        ArtifactError: It is that of another model.
    """
    steps = checked_steps(moments, {name: p.shape for name, p in parameters.items()})
    for name, p in parameters.items():
        if steps[name]:
            optimizer.state[p] = {
                "step": torch.tensor(float(steps[name]), device=p.device),
                **{kind: moments[f"{kind}/{name}"].to(p) for kind in KINDS},
            }


def checked_steps(moments: Moments, shapes: Mapping[str, torch.Size]) -> dict[str, int]:
    """Steps that each parameter has seen, if the state fits the parameters.

    Raises:
        ArtifactError: It does not.
    """
    steps = {name: int(moments.get(f"step/{name}", moments.get("step", 0))) for name in shapes}
    # What is not there is fresh only if the state says so: another model may have the same names, and fewer.
    expected = {f"{kind}/{name}": shape for name, shape in shapes.items() if steps[name] for kind in KINDS}
    known = {"step", *(f"step/{name}" for name in shapes), *expected}
    wrong = sorted((set(moments) - known) | ({"step", *expected} - set(moments)))
    wrong += [name for name, shape in expected.items() if name in moments and moments[name].shape != shape]
    if wrong:
        raise ArtifactError(
            f"the optimizer state does not fit the model: {len(wrong)} entries differ in name or shape, for "
            f"example {wrong[0]!r}; expected two moments for each parameter, or step/<parameter> = 0",
            hint="Was it written for another model? Continue from a checkpoint of this one.",
        )
    return steps
