"""Whether a documented command exists: program, subcommand, options, config keys and values, files, parameters."""

import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer
import yaml

from flows.cli.main import app
from flows.evaluate import evaluate
from flows.relay import relay
from flows.study import study
from flows.train import train
from knowrl_core.config import Config, build_config, load_config
from knowrl_core.config.document import parse_yaml
from knowrl_core.config.load import profiles
from knowrl_core.config.problems import field_type, section_at
from knowrl_core.evaluation import find_benchmark
from knowrl_core.prompts import check_views
from knowrl_core.storage.layout import StageKey
from tests.docs.pages import REPOSITORY
from tests.docs.shell import Call

_COMMAND = typer.main.get_command(app)
_PLAIN = {"cat", "cd", "cp", "diff", "echo", "git", "head", "ls", "mkdir", "printf", "source"}
_FLOWS = {"train": train, "evaluate": evaluate, "study": study, "relay": relay}
_POOLS = {"knowrl", "knowrl-gpu", "knowrl-control"}


class WrongCommandError(Exception):
    """A documented command does not exist as it stands there."""


def check(call: Call, files: Mapping[str, str]) -> None:
    """Check a call.

    Args:
        call: The call.
        files: Files that the document shows, by name.

    Raises:
        WrongCommandError: Something in it does not exist.
    """
    if call.program in _PLAIN:
        return
    rule = _RULES.get(call.program)
    if rule is None:
        raise WrongCommandError(f"unknown program {call.program!r}; tests/docs/programs.py says what can be checked")
    rule(call.words[1:], files)


def check_yaml(text: str, place: str) -> None:
    """Check a config, or a part of one."""
    data, lines = parse_yaml(text, place)
    try:
        build_config(data, source=place, places={path: f"{place}:{line}" for path, line in lines.items()})
    except Exception as error:
        raise WrongCommandError(str(error)) from None


def check_inline(code: str) -> None:
    """Check a command or a config field in running text; other code passes."""
    if re.match(r"knowrl [a-z]", code):
        words = [word for word in Call(code.split(" ")).words[1:] if word != "..."]
        _knowrl(words, {}, whole=False)
        return
    match = re.fullmatch(r"([a-z_]+(?:\.[a-z_0-9]+)+)(?:(?::\s+|=)(\S.*))?", code)
    if (
        not match
        or match[1].split(".")[0] not in Config.model_fields
        or match[1].endswith((".json", ".parquet", ".py", ".yaml"))
    ):
        return
    _override(match[1], match[2])


def _override(key: str, value: str | None) -> None:
    path = tuple(key.split("."))
    if section_at(Config, path) is None and field_type(Config, path) is None:
        raise WrongCommandError(f"no config field {key!r}")
    if value is not None and value != "..." and section_at(Config, path) is None:
        _valid("smoke", [f"{key}={value}"], {}, related=True)


def _valid(config: str, overrides: list[str], files: Mapping[str, str], *, related: bool = False) -> None:
    """Whether a config exists and takes the overrides; ``related``: rules between fields are left aside."""
    try:
        if config in files:
            data, _ = parse_yaml(files[config], config)
            build_config(data, overrides, source=config)
        elif config in profiles():
            load_config(config, overrides)
        else:
            load_config(str(REPOSITORY / config), overrides)
    except Exception as error:
        if related and "(top level)" in str(error):
            return
        raise WrongCommandError(str(error)) from None


def _knowrl(words: list[str], files: Mapping[str, str], *, whole: bool = True) -> None:
    """Check a call of ``knowrl``; ``whole``: required arguments must be there, which running text may leave out."""
    command: Any = _COMMAND
    name, rest = "knowrl", list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        word = rest.pop(0)
        if word not in command.commands:
            raise WrongCommandError(f"{name}: no command {word!r}; there are {', '.join(command.commands)}")
        command, name = command.commands[word], f"{name} {word}"
    if rest in (["--help"], ["--version"], ["-h"]) or not (rest or whole):
        return
    if hasattr(command, "commands"):
        if whole:
            raise WrongCommandError(f"{name}: got no command")
        return
    try:
        given = command.make_context(name, rest).params
    except typer.Exit:
        return
    except Exception as error:
        text = error.format_message() if hasattr(error, "format_message") else str(error)
        if whole or not text.startswith("Missing "):
            raise WrongCommandError(f"{name}: {text}") from None
        return
    _values(given, files if whole else _Any())


class _Any(dict[str, str]):
    """Running text may name any file."""

    def __contains__(self, name: object) -> bool:
        return str(name).endswith(".yaml")

    def __missing__(self, _: str) -> str:
        return "{}"


def _values(given: dict[str, Any], files: Mapping[str, str]) -> None:
    """Check what only KnowRL knows: configs, stages, names."""
    overrides = [item for item in given.get("set_") or () if not item.endswith("=...")]
    for item in set(given.get("set_") or ()) - set(overrides):
        _override(item.removesuffix("=..."), None)
    for config in given.get("files") or () if "set_" in given else ():  # knowrl study
        _valid(str(config), overrides, files)
    named = given.get("config") or "smoke"
    _valid(named, overrides, files)
    for item in overrides:
        if item.startswith("verdict.views="):
            check_views(load_config("smoke", [item]).verdict.views)
    for key in ("start", "at"):
        if isinstance(given.get(key), str):
            StageKey.parse(given[key])
    for benchmark in given.get("benchmark") or ():
        find_benchmark(benchmark)
    if given.get("views"):
        check_views(given["views"].split(","), field="--views")


def _make(words: list[str], _: Mapping[str, str]) -> None:
    targets = set(re.findall(r"^([\w.-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for word in words:
        if "=" not in word and word not in targets:
            raise WrongCommandError(f"make: no target {word!r}; there are {', '.join(sorted(targets))}")


def _prefect(words: list[str], _: Mapping[str, str]) -> None:
    from prefect.cli._app import _app

    try:
        _app.parse_args(words, exit_on_error=False, print_error=False)
    except Exception as error:
        raise WrongCommandError(f"prefect: {error}") from None
    if words[:2] == ["deployment", "run"]:
        _deployment(words[2:])
    for option, value in pairwise(words):
        if option == "--pool" and value not in _POOLS:
            raise WrongCommandError(f"no work pool {value!r}; `knowrl deploy` makes {', '.join(sorted(_POOLS))}")


def _deployment(words: list[str]) -> None:
    """Name and parameters of ``prefect deployment run``."""
    found = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    flow, _, name = words[0].partition("/")
    deployment = next((item for item in found if item["name"] == name), None)
    if flow != "knowrl" or deployment is None:
        raise WrongCommandError(f"no deployment {words[0]!r}; there are {', '.join(item['name'] for item in found)}")
    function = _FLOWS[deployment["entrypoint"].rpartition(":")[2]]
    parameters = inspect.signature(function.fn).parameters
    for option, value in pairwise(words):
        if option not in ("-p", "--param"):
            continue
        key, _, text = value.partition("=")
        if key not in parameters:
            raise WrongCommandError(f"{words[0]} has no parameter {key!r}; it has {', '.join(parameters)}")
        if key == "config":
            try:
                build_config(json.loads(text))
            except Exception as error:
                raise WrongCommandError(f"{words[0]}: config: {error}") from None
        if key == "profile" and text not in profiles():
            raise WrongCommandError(f"no profile {text!r}")


def _mlflow(words: list[str], _: Mapping[str, str]) -> None:
    import click
    from mlflow.cli import cli

    try:
        context = cli.make_context("mlflow", list(words))
        command = cli.get_command(context, words[0])
        if command is None:
            raise WrongCommandError(f"mlflow: no command {words[0]!r}")
        command.make_context(words[0], words[1:])
    except click.UsageError as error:
        raise WrongCommandError(f"mlflow: {error.format_message()}") from None


def _python(words: list[str], _: Mapping[str, str]) -> None:
    if words[0] == "-m":
        if find_spec(words[1]) is None:
            raise WrongCommandError(f"no module {words[1]!r}")
        return
    script = REPOSITORY / words[0]
    if not script.is_file():
        raise WrongCommandError(f"no script {words[0]!r}")
    text = _help(script)
    for word in words[1:]:
        option = word.partition("=")[0]
        if option.startswith("-") and not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text):
            raise WrongCommandError(f"{words[0]}: no option {option!r}")


def _pytest(words: list[str], _: Mapping[str, str]) -> None:
    for word in words:
        path, _, name = word.partition("::")
        if not word.startswith("-") and not (REPOSITORY / path).exists():
            raise WrongCommandError(f"no tests in {path!r}")
        if name and f"def {name}(" not in (REPOSITORY / path).read_text():
            raise WrongCommandError(f"no test {name!r} in {path}")


def _deepspeed(words: list[str], _: Mapping[str, str]) -> None:
    module = words[words.index("--module") + 1]
    if find_spec(module) is None:
        raise WrongCommandError(f"no module {module!r}")
    text = (Path(str(find_spec("deepspeed").origin)).parent / "launcher" / "runner.py").read_text()
    for option in (word for word in words if word.startswith("--")):
        if f'"{option}"' not in text:
            raise WrongCommandError(f"deepspeed: no option {option!r}")


def _pip(words: list[str], _: Mapping[str, str]) -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name in re.findall(r"knowrl\[([\w,]+)\]", " ".join(words)):
        for extra in name.split(","):
            if extra not in extras:
                raise WrongCommandError(f"no extra {extra!r}; there are {', '.join(extras)}")


def _docker(words: list[str], files: Mapping[str, str]) -> None:
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    known = {profile for service in compose["services"].values() for profile in service.get("profiles", [])}
    for option, value in pairwise(words):
        if option == "--profile" and value not in known:
            raise WrongCommandError(f"docker-compose.yml has no profile {value!r}")
    if words[:2] == ["compose", "exec"]:
        service, *command = [word for word in words[2:] if word != "-T"]
        if service not in compose["services"]:
            raise WrongCommandError(f"docker-compose.yml has no service {service!r}")
        check(Call(command), files)


@cache
def _help(script: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(script), "--help"],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=300,
    )
    if done.returncode:
        raise WrongCommandError(f"{script.name} --help ends with {done.returncode}: {done.stderr[-500:]}")
    return done.stdout


_RULES: dict[str, Callable[[list[str], Mapping[str, str]], None]] = {
    "knowrl": _knowrl,
    "make": _make,
    "prefect": _prefect,
    "mlflow": _mlflow,
    "python": _python,
    "pytest": _pytest,
    "deepspeed": _deepspeed,
    "pip": _pip,
    "docker": _docker,
}
