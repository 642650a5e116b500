"""Open a run for writing: take the lock, check what is there, note the attempt, start the model worker."""

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from knowrl_core.config import Config
from knowrl_core.errors import OtherVersionError, StageError
from knowrl_core.report.note import ProgressNote
from knowrl_core.storage.layout import MAX_ITERATIONS, STAGES, RunPaths, StageKey, stage_keys
from knowrl_core.storage.roots import run_paths, writer_of
from knowrl_core.storage.run_file import RunFile, now
from knowrl_core.storage.seen import SeenFiles
from knowrl_core.storage.verify import History, verify_run
from knowrl_core.worker import WorkerPool
from knowrl_core.worker.process import signals_held
from tasks.context import RunContext
from tasks.going_back import rewind
from tasks.interruption import is_interruption
from tasks.prepare import check_folder, prepare
from tasks.reporter import MeteredReporter, OpenedRun, Reporter
from tasks.retention import apply_retention
from tasks.starting import keys_of
from tasks.tracking import Tracker


@contextmanager
def open_run(
    config: Config,
    reporter: Reporter,
    *,
    repair: bool = False,
    start: StageKey | None = None,
    flow_run: str | None = None,
    only: Collection[str] = STAGES,
) -> Iterator[RunContext]:
    """Open a new run, or one that is there already, where it stopped.

    Args:
        config: The resolved config; ``run.root`` and ``run.name`` say where.
        reporter: Told how it goes.
        repair: Remove damaged stages and what follows from them, so that they are done again.
        start: A stage to go back to: it and what follows are removed and done again. A flow run does so once, and goes
            on when it is tried again.
        flow_run: Id of the Prefect flow run, for the record.
        only: Stages that are done here.

    Raises:
        InputError: The inputs are wrong, the config contradicts what the run was made from, or ``start`` is a stage
            that the run cannot start at.
        RunLockedError: Another process has it open.
        ArtifactError: An artifact is damaged and ``repair`` is off.
        NotReproducedError: A checkpoint that ``start`` needs was pruned and does not come back; nothing was removed.
    """
    reporter = MeteredReporter(reporter)
    inputs = prepare(config)
    paths = run_paths(config.run.root, config.run.name)
    check_folder(paths)
    worker = WorkerPool.of(config, paths.logs / "worker.log")
    with writer_of(paths), _ended(worker):
        run_file = RunFile.create(config, inputs.pins) if not paths.run_file.exists() else RunFile.read(paths)
        run_file.check_past(config, inputs.pins, lambda key: paths.stage(key).exists())
        if not paths.run_file.exists():
            run_file.write(paths)
        keys = keys_of(config)
        history = _history(paths, keys)
        if history.problem is not None and (not repair or isinstance(history.problem, OtherVersionError)):
            raise history.problem
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
        next_key = rewind(ctx, keys, history, start, flow_run=flow_run, only=only)
        _finish_commits(ctx)
        first = str(next_key or _beyond(paths, warmup=config.warmup.epochs > 0))
        if next_key is not None:
            run_file.go_on_at(next_key)
            worker.start()  # it loads its libraries while Prefect and MLflow get ready
        for change in run_file.record_changes(config, first):
            reporter.message(f"config: {change.field} is now {change.new!r} (was {change.old!r}), from {first} on")
        attempt = run_file.begin_attempt(str(next_key) if next_key else None, flow_run)
        run_file.write(paths)
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
            with signals_held():  # a second Control-C would leave the outcome unknown
                _write_outcome(run_file, paths, reporter)
            tracker.close(outcome)


@contextmanager
def _ended(worker: WorkerPool) -> Iterator[None]:
    """End the worker whatever happens: it may have made a checkpoint before the first stage."""
    try:
        yield
    finally:
        with signals_held():  # a second Control-C would leave it behind
            worker.close()


def _finish_commits(ctx: RunContext) -> None:
    """Do what comes after a commit: a process may have died between the two."""
    paths = ctx.paths
    if paths.remote is not None:
        late = paths.remote.push_missing(paths.relative(paths.stage(key)) for key in ctx.history)
        if late:
            ctx.reporter.message(f"uploaded what was committed before: {', '.join(late)}")
    for key in ctx.history:
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


def _history(paths: RunPaths, keys: tuple[StageKey, ...]) -> History:
    """What stands."""
    seen = SeenFiles(paths.seen_file)
    history = verify_run(paths, keys, seen)
    if history.problem is not None and paths.remote is not None and history.next_key is not None:
        paths.remote.fetch_again(paths.relative(paths.stage(history.next_key)))  # the copy may be to blame
        history = verify_run(paths, keys, seen)
    seen.keep()
    return history
