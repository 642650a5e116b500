"""A checkpoint of a run as a model folder of its own, with a card that says what was measured."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from knowrl_core.errors import ArtifactError, InputError, StageError
from knowrl_core.report.table import best_iteration
from knowrl_core.storage.files import fsync_tree
from knowrl_core.storage.layout import EVALUATE, EXTRINSIC_TABLE, UPDATE, RunPaths, StageKey
from knowrl_core.storage.manifest import FileRef, Manifest
from knowrl_core.storage.retention import CHECKPOINT, has_checkpoint
from knowrl_core.storage.run_file import RunFile
from knowrl_core.storage.schemas import MetricRecord
from knowrl_core.storage.seen import SeenFiles
from knowrl_core.storage.tables import read_table
from knowrl_core.storage.verify import check_files

CARD: Final = "README.md"
METRICS: Final = "metrics.json"
_OWN: Final = ("optimizer", "trainer_state.json")
"""What only a resumed training needs."""
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_SHOWN: Final = ("balanced_accuracy", "accuracy", "f1", "precision", "recall", "mcc", "auroc", "ece", "called_feasible")

_USE: Final = (
    "from transformers import AutoModelForCausalLM, AutoTokenizer",
    "",
    'model = AutoModelForCausalLM.from_pretrained("FOLDER")',
    'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
    "",
    "# or on a command line: vllm serve FOLDER",
)

History = Mapping[StageKey, Manifest]


def chosen_iteration(paths: RunPaths, history: History, wanted: str) -> int:
    """The iteration that ``best``, ``last`` or a number means, whose checkpoint is there.

    Raises:
        InputError: There is no such iteration, it is that of the untouched model, or its checkpoint was pruned.
    """
    there = [key.iteration for key in history if key.stage == UPDATE and has_checkpoint(paths, key.iteration)]
    have = f"Checkpoints are there of: {', '.join(map(str, sorted(there)))}." if there else "It has no checkpoint yet."
    if wanted == "best":
        best = best_iteration(history)
        if best is None:
            raise InputError(f"run {paths.name}: got no evaluated iteration, expected one for 'best'", hint=have)
        number = best
    elif wanted == "last":
        number = max(there, default=0)
    elif wanted.isascii() and wanted.isdecimal() and len(wanted) <= 6:
        number = int(wanted)
    else:
        raise InputError(f"got iteration {wanted!r}, expected best, last or a number", hint=have)
    if number == 0:
        what = "the best iteration is 0" if wanted == "best" else "iteration 0 was asked for"
        raise InputError(f"run {paths.name}: {what}, which is the model that the run began with", hint=have)
    if number not in there:
        pruned = StageKey(number, UPDATE) in history
        why = "was pruned (`retention`)" if pruned else "is not there: there is no such iteration"
        raise InputError(f"run {paths.name}: the checkpoint of iteration {number} {why}", hint=have)
    return number


def export_checkpoint(paths: RunPaths, history: History, iteration: int, target: Path) -> None:
    """Write a checkpoint as a plain Hugging Face folder that transformers and vLLM load.

    LoRA adapters are merged in it already. The folder appears as a whole, after every file was compared with its hash.

    Args:
        paths: The run.
        history: Its committed stages.
        iteration: Whose checkpoint.
        target: The folder; it must not exist, or be empty.

    Raises:
        InputError: The folder is there already.
        ArtifactError: A file of the checkpoint was altered.
        StageError: It cannot be written.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} exists, expected a new or empty folder", hint="Choose another one with --to.")
    wanted = model_files(paths, history, iteration)
    problems: list[ArtifactError] = check_files(paths, list(wanted.values()), SeenFiles(None))
    if problems:
        raise problems[0]
    facts = model_facts(paths, RunFile.read(paths), history, iteration)
    work = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        for name, ref in wanted.items():
            file = work / name
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(paths.folder / ref.path, file)
        (work / METRICS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        (work / CARD).write_text(model_card(facts), encoding="utf-8")
        fsync_tree(work)
        if target.exists():
            target.rmdir()
        work.rename(target)
    except OSError as error:
        raise StageError(
            f"cannot write {target}: {error.strerror or error}", hint="Make room, or choose --to."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def model_files(paths: RunPaths, history: History, iteration: int) -> dict[str, FileRef]:
    """The files of a checkpoint that a model folder has, by their names in it."""
    key = StageKey(iteration, UPDATE)
    prefix = paths.relative(paths.file(key, CHECKPOINT)) + "/"
    inside = {ref.path.removeprefix(prefix): ref for ref in history[key].outputs if ref.path.startswith(prefix)}
    return {name: ref for name, ref in inside.items() if name.split("/")[0] not in _OWN}


def model_facts(paths: RunPaths, record: RunFile, history: History, iteration: int) -> dict[str, Any]:
    """What a card says of a checkpoint; content of ``metrics.json``."""

    def metrics(number: int) -> dict[str, float] | None:
        manifest = history.get(StageKey(number, EVALUATE))
        return manifest.metrics if manifest else None

    config = record.config_at(StageKey(iteration, UPDATE))
    return {
        "run": record.name,
        "run_id": record.run_id,
        "iteration": iteration,
        "base_model": config["model"]["path"],
        "finished": history[StageKey(iteration, UPDATE)].finished,
        "code_version": history[StageKey(iteration, UPDATE)].code_version,
        "metrics": metrics(iteration),
        "intervals": _intervals(paths, history, iteration),
        "base_metrics": metrics(0),
        "config": {name: config[name] for name in ("model", "verdict", "consensus", "rl", "warmup") if name in config},
        "files": {name: ref.sha256 for name, ref in model_files(paths, history, iteration).items()},
    }


def _intervals(paths: RunPaths, history: History, iteration: int) -> dict[str, list[float]]:
    """Bootstrap intervals of the model's metrics on labelled sets; none if it was not evaluated."""
    key = StageKey(iteration, EVALUATE)
    file = paths.file(key, EXTRINSIC_TABLE)
    if key not in history or not file.exists():
        return {}
    return {
        f"{row.dataset}/{row.metric}": [row.lower, row.upper]
        for row in read_table(file, MetricRecord)
        if row.predictor == "model" and row.lower is not None and row.upper is not None
    }


def model_card(facts: Mapping[str, Any]) -> str:
    """The card as Markdown with YAML front matter.

    Args:
        facts: As in ``metrics.json``.
    """
    base = str(facts["base_model"])
    front: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["knowrl", "self-knowledge", "reinforcement-learning"],
    }
    if _HUB_ID.fullmatch(base):
        front["base_model"] = base
    return "\n".join(["---", yaml.safe_dump(front, sort_keys=True).strip(), "---", "", card_text(facts, _USE)])


def card_text(facts: Mapping[str, Any], use: Sequence[str], *, config: bool = True) -> str:
    """The card without front matter.

    Args:
        facts: As in ``metrics.json``.
        use: How the model is loaded, as lines of Python.
        config: Show what it was trained with.
    """
    base = _code(str(facts["base_model"]))
    lines = [
        f"# {facts['run']}, iteration {facts['iteration']}",
        "",
        f"A language model taught to know which tasks it can and cannot do, from {base}, with",
        "[KnowRL](https://arxiv.org/abs/2510.11407). Asked whether a task is feasible for it, it answers `feasible` or",
        "`infeasible`; `knowrl judge` asks with the prompts that it was trained with.",
        "",
        *_table(facts),
        "",
        "## Limits",
        "",
        "Labelled sets were never trained on, but the best iteration is chosen by the probe, so its number there is a",
        "little too good. Agreement of the model with itself is not shown here: it can rise while truth falls.",
        "A verdict is a claim about the model itself, and no check of whether a task is safe.",
        "",
        "## Use",
        "",
        "```python",
        *use,
        "```",
        "",
        "## Training",
        "",
        f"Run `{facts['run']}` (`{facts['run_id']}`), update finished {facts['finished']}, code "
        f"{facts['code_version']}.",
        "",
    ]
    if config:
        lines += [*(f"    {line}" for line in yaml.safe_dump(facts["config"], sort_keys=False).splitlines()), ""]
    return "\n".join([*lines, "The licence is that of the base model.", ""])


def _table(facts: Mapping[str, Any]) -> list[str]:
    now, before = facts["metrics"], facts["base_metrics"] or {}
    if now is None:
        return ["This iteration was not evaluated."]
    sets = sorted(
        {name.split("/")[0] for name in now if name.endswith("/balanced_accuracy")},
        key=lambda name: (name != "probe", name),
    )
    between = facts.get("intervals") or {}
    rows = ["| set | metric | base model | this one | 95 % interval |", "|---|---|---|---|---|"]
    for name in sets:
        for metric in _SHOWN:
            key = f"{name}/{metric}"
            if key in now:
                interval = " to ".join(map(_number, between.get(key, ()))) or "-"
                rows.append(f"| {name} | {metric} | {_number(before.get(key))} | {_number(now[key])} | {interval} |")
    return [*rows, "", "F1, precision and recall are of *infeasible*; `called_feasible` is the share called feasible."]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _code(text: str) -> str:
    """Text from anywhere as code in Markdown."""
    plain = "".join(char if char.isprintable() else "?" for char in text)
    fence = "`" * (max((len(run) for run in plain.replace("`", " `").split() if set(run) == {"`"}), default=0) + 2)
    return f"{fence} {plain} {fence}" if "`" in plain else f"`{plain}`"
