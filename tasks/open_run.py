"""Open a run for writing: take the lock, check what is there, note the attempt, start the model worker."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from knowrl_core.config import Config
from knowrl_core.errors import OtherVersionError, StageError
from knowrl_core.report.note import ProgressNote
from knowrl_core.storage.layout import MAX_ITERATIONS, UPDATE, RunPaths, StageKey, stage_keys
from knowrl_core.storage.roots import run_paths, writer_of
from knowrl_core.storage.run_file import RunFile, now
from knowrl_core.storage.seen import SeenFiles
from knowrl_core.storage.verify import History, verify_run
from knowrl_core.worker import WorkerPool
from knowrl_core.worker.process import signals_held
from tasks.context import RunContext
from tasks.interruption import is_interruption
from tasks.prepare import check_folder, prepare
from tasks.reporter import MeteredReporter, OpenedRun, Reporter
from tasks.retention import apply_retention
from tasks.starting import check_start, keys_of, missing_policies
from tasks.tracking import Tracker


@contextmanager
def open_run(
    config: Config,
    reporter: Reporter,
    *,
    repair: bool = False,
    start: StageKey | None = None,
    flow_run: str | None = None,
) -> Iterator[RunContext]:
    """Open a new run, or one that is there already, where it stopped.

    Args:
        config: The resolved config; ``run.root`` and ``run.name`` say where.
        reporter: Told how it goes.
        repair: Remove damaged stages and what follows from them, so that they are done again.
        start: A stage to go back to: it and what follows are removed and done again. A flow run does so once, and goes
            on when it is tried again.
        flow_run: Id of the Prefect flow run, for the record.

    Raises:
        InputError: The inputs are wrong, the config contradicts what the run was made from, or ``start`` is a stage
            that the run cannot start at.
        RunLockedError: Another process has it open.
        ArtifactError: An artifact is damaged and ``repair`` is off.
    """
    reporter = MeteredReporter(reporter)
    inputs = prepare(config)
    paths = run_paths(config.run.root, config.run.name)
    check_folder(paths)
    worker = WorkerPool.of(config, paths.logs / "worker.log")
    with writer_of(paths):
        run_file = RunFile.create(config, inputs.pins) if not paths.run_file.exists() else RunFile.read(paths)
        run_file.check_past(config, inputs.pins, lambda key: paths.stage(key).exists())
        if not paths.run_file.exists():
            run_file.write(paths)
        keys = keys_of(config)
        history = _history(paths, keys, run_file, reporter, repair=repair)
        if start is not None and not run_file.went_back(flow_run):
            check_start(paths, keys, start)
            if start in history.committed:
                reporter.message(f"going back: {start} and what follows are done again")
                run_file.note_redone(str(start), "asked for", flow_run)
                history = _remove(paths, keys, history, start, run_file)
        _finish_commits(paths, history, reporter)
        first = str(history.next_key or _beyond(paths, warmup=config.warmup.epochs > 0))
        if history.next_key is not None:
            run_file.go_on_at(history.next_key)
            worker.start()  # it loads its libraries while Prefect and MLflow get ready
        for change in run_file.record_changes(config, first):
            reporter.message(f"config: {change.field} is now {change.new!r} (was {change.old!r}), from {first} on")
        attempt = run_file.begin_attempt(str(history.next_key) if history.next_key else None, flow_run)
        run_file.write(paths)
        tracker = Tracker(config, paths, run_file, reporter)
        ctx = RunContext(
            config=config,
            inputs=inputs,
            paths=paths,
            run_file=run_file,
            history=dict(history.committed),
            worker=worker,
            tracker=tracker,
            reporter=reporter,
        )
        outcome = "failed"
        try:
            tracker.open(ctx.history)
            apply_retention(ctx)
            reporter.opened(OpenedRun(paths, keys, ctx.history))
            with ProgressNote(paths, reporter.meter.read):
                yield ctx
            outcome = "stopped" if ctx.stopped else "completed"
        except BaseException as error:
            if is_interruption(error) or not isinstance(error, Exception):
                outcome = "interrupted"
            else:
                attempt.error = f"{type(error).__name__}: {error}"[:2_000]
            raise
        finally:
            attempt.ended, attempt.outcome = now(), outcome
            with signals_held():  # a second Control-C would leave the worker behind, or the outcome unknown
                worker.close()
                _write_outcome(run_file, paths, reporter)
            tracker.close(outcome)


def _finish_commits(paths: RunPaths, history: History, reporter: Reporter) -> None:
    """Do what comes after a commit: a process may have died between the two."""
    if paths.remote is not None:
        late = paths.remote.push_missing(paths.relative(paths.stage(key)) for key in history.committed)
        if late:
            reporter.message(f"uploaded what was committed before: {', '.join(late)}")
    for key in history.committed:
        shutil.rmtree(paths.kept(key), ignore_errors=True)
        shutil.rmtree(paths.partial(key), ignore_errors=True)


def _write_outcome(run_file: RunFile, paths: RunPaths, reporter: Reporter) -> None:
    """Write ``run.json`` at the end; what ended the run must not be hidden by a disk that is full."""
    try:
        run_file.write(paths)
    except (OSError, StageError) as error:
        reporter.warning(
            f"{paths.run_file}: how this attempt ended cannot be noted: {getattr(error, 'strerror', None) or error}"
        )


def _beyond(paths: RunPaths, *, warmup: bool) -> StageKey:
    """The first stage that would be done if the run were longer; a change made now applies from there on."""
    return next(key for key in stage_keys(MAX_ITERATIONS, warmup=warmup) if not paths.stage(key).exists())


def _history(
    paths: RunPaths, keys: tuple[StageKey, ...], run_file: RunFile, reporter: Reporter, *, repair: bool
) -> History:
    """What stands.

    Raises:
        ArtifactError: Something is damaged and is not to be repaired.
    """
    seen = SeenFiles(paths.seen_file)
    history = verify_run(paths, keys, seen)
    if history.problem is not None and paths.remote is not None and history.next_key is not None:
        paths.remote.fetch_again(paths.relative(paths.stage(history.next_key)))  # the copy may be to blame
        history = verify_run(paths, keys, seen)
    seen.keep()
    if history.problem is None:
        return history
    if not repair or isinstance(history.problem, OtherVersionError):
        raise history.problem
    return _repair(paths, keys, history, run_file, reporter)


def _repair(
    paths: RunPaths, keys: tuple[StageKey, ...], history: History, run_file: RunFile, reporter: Reporter
) -> History:
    """Remove the damaged stage and all that follow, so that they are done again.

    The stage needs a policy. Where that checkpoint was pruned, the update that made it, and before it those that made
    its own policy, are done again as well.
    """
    damaged = keys[len(history.committed)]
    missing = missing_policies(paths, damaged)
    start = StageKey(missing[0], UPDATE) if missing else damaged
    reason = history.problem.message if history.problem else "asked for"
    why = "" if start == damaged else f" (the checkpoints before {damaged} were pruned)"
    reporter.warning(f"repair: {reason}; {start} and what follows are done again{why}")
    run_file.note_redone(str(start), reason)
    return _remove(paths, keys, history, start, run_file)


def _remove(
    paths: RunPaths, keys: tuple[StageKey, ...], history: History, start: StageKey, run_file: RunFile
) -> History:
    """Remove a stage and all that follow. A process that dies meanwhile leaves a run that only ends earlier.

    Args:
        paths: The run.
        keys: Its stages.
        history: What stands; all before ``start`` does.
        start: The first stage that is removed.
        run_file: Its record, which is written.

    Returns:
        What stands then.
    """
    for key in reversed(keys[keys.index(start) :]):
        folder = paths.stage(key)
        shutil.rmtree(paths.kept(key), ignore_errors=True)
        paths.withdraw(folder)
        if folder.exists():
            gone = paths.partial(key)
            shutil.rmtree(gone, ignore_errors=True)
            folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
    run_file.write(paths)  # not before: a flow run that is tried again would think that it had gone back
    return History({key: history.committed[key] for key in keys[: keys.index(start)]}, start, None)
