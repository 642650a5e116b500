"""Several runs one after another, deployed as ``knowrl/study``: what they have in common is done once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prefect import flow

from flows.artifacts import publish_table
from flows.parameters import fields_of, overlaid
from flows.remote import check_profile
from flows.train import train
from knowrl_core.config import Config, load_config
from knowrl_core.errors import InputError, KnowrlError, StageError
from knowrl_core.report import best_iteration
from knowrl_core.storage.layout import StageKey
from knowrl_core.storage.manifest import Manifest
from knowrl_core.storage.roots import look, run_paths
from knowrl_core.storage.verify import committed_manifests
from tasks.fork import fork_run
from tasks.interruption import is_interruption
from tasks.prepare import prepare
from tasks.progress import current_reporter
from tasks.sharing import shared_until
from tasks.starting import keys_of
from tasks.summary import titled_rows


@dataclass(frozen=True, slots=True)
class Member:
    """One run of a study.

    Attributes:
        run: Its name.
        rows: Its iterations, as text by column.
        best: The iteration with the best balanced accuracy on the probe, if it has one.
        error: Why it did not end, if it did not.
    """

    run: str
    rows: list[dict[str, str]]
    best: int | None
    error: str | None


def members(files: Sequence[str], overrides: Sequence[str] = (), config: Config | None = None) -> list[Config]:
    """The configs of a study, all checked before any of them is run.

    Args:
        files: Profiles or YAML files, one for each run.
        overrides: Fields that hold for all of them, as on the command line.
        config: Fields that hold for all of them, as a flow's parameter.

    Raises:
        InputError: There is none, one is wrong, or two have the same run name.
    """
    if not files:
        raise InputError("got no file, expected the config of at least one run")
    found: dict[str, Config] = {}
    for file in files:
        data = load_config(file, overrides, may_read=check_profile).model_dump(mode="json")
        member = overlaid(data, fields_of(config), f"{file} with the study's parameters")
        if member.run.name in found:
            raise InputError(
                f"{file}: got run.name {member.run.name!r}, which another file of the study has",
                hint="Give each run of a study a name of its own.",
            )
        found[member.run.name] = member
    for member in found.values():
        prepare(member)
    return list(found.values())


@flow(name="knowrl", flow_run_name="study", persist_result=False)
def study(files: list[str], config: Config | None = None) -> list[dict[str, Any]]:
    """Do several runs one after another; each shares the iterations that it has in common with one before it.

    A run that fails does not keep the others from being done; the study fails at the end, then. Started again it goes
    on: finished runs are left as they are.

    Args:
        files: Profiles or YAML files, one for each run.
        config: Fields that hold for all of them, such as {"run": {"root": "/data/study"}}.
    """
    done = conduct(members(files, config=config), lambda member: train(config=member))
    rows = [{**row, "error": member.error or ""} for row, member in zip(summary(done), done, strict=True)]
    publish_table(rows, "knowrl-study", "The best iteration of each run of the study", current_reporter())
    failed = [member for member in done if member.error]
    if failed:
        names = "; ".join(f"{member.run}: {member.error}" for member in failed)
        raise StageError(
            f"{len(failed)} of {len(done)} runs did not end: {names}"[:4_000], hint="Start the study again to go on."
        )
    return [{"run": member.run, "best": member.best} for member in done]


def conduct(configs: Sequence[Config], run: Callable[[Config], Any]) -> list[Member]:
    """Do the runs.

    Args:
        configs: Their configs.
        run: Does one to its end.
    """
    reporter = current_reporter()
    found = []
    for number, config in enumerate(configs, start=1):
        reporter.message(f"study: run {number} of {len(configs)}, {config.run.name}")
        error = None
        try:
            _share_past(config, configs[: number - 1])
            run(config)
        except Exception as problem:
            if is_interruption(problem):
                raise
            error = f"{type(problem).__name__}: {problem}"[:500]
            reporter.warning(f"run {config.run.name} did not end: {error}")
        history: dict[StageKey, Manifest] = {}
        try:
            history.update(committed_manifests(look(run_paths(config.run.root, config.run.name)), keys_of(config)))
        except KnowrlError as damage:
            error = error or f"{type(damage).__name__}: {damage}"[:500]
        found.append(Member(config.run.name, titled_rows(history), best_iteration(history), error))
    return found


def _share_past(config: Config, before: Sequence[Config]) -> None:
    """Fork a new run from whichever earlier one has most in common with it."""
    paths = look(run_paths(config.run.root, config.run.name))
    if paths.run_file.exists():
        return
    inputs, keys = prepare(config), keys_of(config)
    best = None
    for other in before:
        old = look(run_paths(other.run.root, other.run.name))
        if not old.run_file.exists() or old.location != paths.location:
            continue
        try:
            at = shared_until(old, config, inputs)
        except KnowrlError:  # damaged; it was said when its turn came
            continue
        if at is not None and (best is None or keys.index(at) > keys.index(best[1])):
            best = (old, at)
    if best is not None:
        how = fork_run(*best, config, inputs.pins)
        current_reporter().message(f"run {config.run.name} was forked from {best[0].name} at {best[1]}; it {how}")


def summary(done: Sequence[Member]) -> list[dict[str, str]]:
    """One row for each run: its best iteration, or the last one where none was measured."""
    table = []
    for member in done:
        best = [row for row in member.rows if row["iter"].split()[0] == str(member.best)]
        table.append({"run": member.run, **(best or member.rows[-1:] or [{}])[0]})
    return table
