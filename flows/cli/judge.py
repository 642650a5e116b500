"""``knowrl judge``: ask a model of tasks whether it can do them."""

import dataclasses
import json
import queue
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final, Literal

import typer

from flows.cli.console import err, out, printable
from flows.cli.environment import prepare_environment
from flows.cli.options import ConfigOption, JsonOption, SetOption
from knowrl_core.config import DEFAULT_PROFILE, load_config
from knowrl_core.errors import InputError
from knowrl_core.storage.files import numbered_lines

if TYPE_CHECKING:
    from tasks.judge import ModelJudge

MAX_LINE: Final = 64 * 1024
"""Most bytes of a line of standard input."""
_PATIENCE: Final = 0.05
"""Seconds that a chunk may wait in all to be fuller: whoever writes a line now and then is not kept waiting."""


def judge(
    tasks: Annotated[
        list[str] | None, typer.Argument(help="Tasks; without any, JSON lines from standard input.", metavar="TASK")
    ] = None,
    *,
    model: Annotated[str, typer.Option("--model", "-m", help="Folder, Hub id or alias of a causal language model.")],
    mode: Annotated[
        Literal["constrained", "free"] | None, typer.Option(help="Exact label probabilities, or free text.")
    ] = None,
    reason: Annotated[bool, typer.Option("--reason", help="Give the model's own words, too (mode free).")] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate/--raw", help="Fit a temperature on the probe first (once, it is kept).")
    ] = True,
    text: Annotated[bool, typer.Option("--text", help="Lines of standard input are tasks as they stand.")] = False,
    config: ConfigOption = DEFAULT_PROFILE,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Say of tasks whether a model can do them: verdict, confidence, votes.

    A line of standard input is a JSON text, or an object with "task" and whatever else, which is given back.
    """
    if reason and mode == "constrained":
        raise InputError("got --reason with --mode constrained, expected --mode free: there the model writes reasons")
    chosen = "free" if reason else mode
    options = {"model.path": model, "verdict.mode": chosen}
    resolved = load_config(
        config, [*(set_ or []), *(f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None)]
    )
    if not tasks and sys.stdin.isatty():
        raise InputError(
            "got no task, expected some, or JSON lines on standard input", hint='knowrl judge -m M "Do X."'
        )
    prepare_environment()
    from tasks.judge import ModelJudge

    with ModelJudge(resolved, calibrate=calibrate) as asked:
        if asked.calibration is not None:
            fit = asked.calibration
            err.print(
                f"temperature {fit.temperature:.3g}, fitted on {fit.tasks} labelled tasks: negative log-likelihood "
                f"{fit.nll_before:.3f} before, {fit.nll_after:.3f} with it"
            )
        if tasks:
            _show(asked, tasks, reason=reason, as_json=json_)
            return
        wrong = _stream(asked, sys.stdin.buffer, text=text, reason=reason)
    if wrong:
        raise InputError(f"{wrong} lines could not be read; each was answered with an error")


def _show(asked: "ModelJudge", tasks: list[str], *, reason: bool, as_json: bool) -> None:
    for answer in asked(tasks):
        fields = _fields(dataclasses.asdict(answer), reason=reason)
        if as_json:
            typer.echo(json.dumps(fields, ensure_ascii=False))
            continue
        sure = "-" if answer.confidence is None else f"{answer.confidence:.2f}"
        out.print(f"{answer.verdict:<11} {sure}  {printable(answer.task)}", soft_wrap=True)
        if answer.reason and reason:
            out.print(printable(answer.reason), style="dim", soft_wrap=True)


def _stream(asked: "ModelJudge", source: BinaryIO, *, text: bool, reason: bool) -> int:
    """Answer each line with one, in order, as they come; returns how many could not be read."""
    wrong = 0
    for chunk in _chunks(source):
        rows = [_parse(line, number, text=text) for number, line in chunk]
        answers = iter(asked.chunk([row["task"] for row in rows if "error" not in row]))
        for row in rows:
            wrong += "error" in row
            found = {} if "error" in row else _fields(dataclasses.asdict(next(answers)), reason=reason)
            sys.stdout.write(json.dumps({**row, **found}, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    return wrong


def _fields(answer: dict[str, Any], *, reason: bool) -> dict[str, Any]:
    return answer if reason else {name: value for name, value in answer.items() if name != "reason"}


def _parse(line: bytes, number: int, *, text: bool) -> dict[str, Any]:
    """A line's fields, ``task`` among them; or ``line`` and ``error``."""
    from knowrl_core.evaluation.benchmarks.row import MAX_TASK_CHARS

    if len(line) > MAX_LINE:
        return {"line": number, "error": f"got more than {MAX_LINE:,} bytes, expected less"}
    try:
        value = line.decode("utf-8").rstrip("\r\n")
        value = value if text else json.loads(value)
    except ValueError as error:
        return {"line": number, "error": f"not JSON: {error}"}
    except RecursionError:
        return {"line": number, "error": "not JSON: too deep"}
    row = {"task": value} if isinstance(value, str) else value
    if not isinstance(row, dict) or not isinstance(row.get("task"), str) or not row["task"].strip():
        return {"line": number, "error": 'expected a text, or an object with a text "task"'}
    if len(row["task"]) > MAX_TASK_CHARS:
        return {"line": number, "error": f"got {len(row['task']):,} characters, expected at most {MAX_TASK_CHARS:,}"}
    row["task"] = row["task"].encode("utf-8", "replace").decode()  # lone surrogates are no text
    return {name: item for name, item in row.items() if name not in ("line", "error")}


def _chunks(source: BinaryIO) -> Iterator[list[tuple[int, bytes]]]:
    """Numbered lines in chunks: all that are there, while the lines before them are answered the next ones gather."""
    from tasks.judge import CHUNK

    lines: queue.Queue[tuple[int, bytes] | None] = queue.Queue(4 * CHUNK)

    def read() -> None:
        for number, raw in numbered_lines(source, MAX_LINE):
            if raw.strip():
                lines.put((number, raw))
        lines.put(None)

    threading.Thread(target=read, name="standard input", daemon=True).start()
    while (first := lines.get()) is not None:
        chunk: list[tuple[int, bytes]] = [first]
        until = time.monotonic() + _PATIENCE
        while len(chunk) < CHUNK:
            try:
                more = lines.get(timeout=max(0.0, until - time.monotonic()))  # at once where one is there
            except queue.Empty:
                break
            if more is None:
                yield chunk
                return
            chunk.append(more)
        yield chunk
