"""``knowrl doctor``: what this machine can run."""

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import psutil
import typer
from rich.table import Table

from flows.cli.console import out, printable
from flows.cli.options import ConfigOption, JsonOption, SetOption
from knowrl_core.config import DEFAULT_PROFILE, load_config
from knowrl_core.errors import KnowrlError
from knowrl_core.storage.roots import local_root

Finding = tuple[bool, str]


def doctor(profile: ConfigOption = DEFAULT_PROFILE, set_: SetOption = None, json_: JsonOption = False) -> None:
    """Say what this machine can run. Exit code 1 if the profile cannot run here."""
    config = load_config(profile, set_ or [])
    root = local_root(config.run.root)
    checks: list[tuple[str, bool, Callable[[], Finding]]] = [
        ("python", True, _python),
        ("processor", False, _processor),
        ("memory", False, _memory),
        ("disk", True, lambda: _disk(config.run.root)),
        ("torch", True, _torch),
        ("gpu", config.model.device == "cuda", _gpu),
        ("model", True, lambda: _model(config.model.path)),
        ("prefect", True, lambda: _package("prefect", os.environ.get("PREFECT_API_URL") or "ephemeral server")),
        ("mlflow", True, lambda: _package("mlflow", os.environ.get("MLFLOW_TRACKING_URI") or f"SQLite in {root}")),
        ("deepspeed", False, lambda: _package("deepspeed", "optional")),
        ("vllm", False, _vllm),
    ]
    findings = []
    for name, needed, check in checks:
        try:
            ok, text = check()
        except KnowrlError as error:
            ok, text = False, str(error)
        except Exception as error:
            ok, text = False, f"{type(error).__name__}: {error}"
        findings.append({"check": name, "ok": ok, "needed": needed, "finding": text})
    able = all(item["ok"] for item in findings if item["needed"])
    if json_:
        typer.echo(json.dumps({"able": able, "checks": findings}, indent=2))
    else:
        table = Table(show_header=False, box=None)
        for item in findings:
            mark = "[green]ok[/]" if item["ok"] else "[red]missing[/]" if item["needed"] else "[yellow]no[/]"
            table.add_row(mark, str(item["check"]), printable(str(item["finding"])))
        out.print(table)
        out.print(printable(f"profile {profile} {'can' if able else 'cannot'} run here"))
    if not able:
        raise typer.Exit(1)


def _python() -> Finding:
    return sys.version_info >= (3, 11), f"{platform.python_version()} ({sys.executable})"


def _processor() -> Finding:
    import torch

    from knowrl_core.models.load import pick_dtype

    fast = (
        "bf16 is native"
        if pick_dtype("auto", torch.device("cpu")) is torch.bfloat16
        else "no native bf16: fp32 is used"
    )
    return True, f"{psutil.cpu_count(logical=False)} cores, {psutil.cpu_count()} threads; {fast}"


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    text = f"{memory.available / 2**30:.1f} GiB free of {memory.total / 2**30:.1f} (profile cpu takes about 4)"
    return memory.available > 4 * 2**30, text


def _disk(place: str) -> Finding:
    from tasks.prepare import check_root

    check_root(place)
    root = local_root(place)
    existing = next(path for path in (root, *root.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    return free > 6 * 2**30, f"{free / 2**30:.1f} GiB free at {root} (profile cpu takes about 6)"


def _torch() -> Finding:
    return _package("torch", "")


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return False, "none; profiles llama31-8b and qwen25-7b need one"
    names = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return True, ", ".join(f"{item.name} ({item.total_memory / 2**30:.0f} GiB)" for item in names)


def _model(alias: str) -> Finding:
    from knowrl_core.config import ModelConfig
    from knowrl_core.models import resolve_model

    model = resolve_model(ModelConfig(path=alias))
    return True, f"{model.name} in {model.path}"


def _package(name: str, note: str) -> Finding:
    try:
        return True, " ".join(filter(None, [version(name), f"({note})" if note else ""]))
    except PackageNotFoundError:
        return False, f"not installed{f' ({note})' if note else ''}"


def _vllm() -> Finding:
    if find_spec("vllm"):
        return True, "installed beside KnowRL"
    found = shutil.which("vllm")
    return bool(found), found or "not found (optional; engine.kind is transformers)"
