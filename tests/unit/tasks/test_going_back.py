"""Going back and repair: what is removed, what is made again before, and what stays where that fails."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from knowrl_core.config import RetentionConfig, load_config
from knowrl_core.errors import InputError, WorkerDiedError
from knowrl_core.guards import parent_of
from knowrl_core.storage.layout import EVALUATE, GENERATE, UPDATE, StageKey
from knowrl_core.storage.run_file import RunFile
from knowrl_core.storage.verify import verify_run
from tasks.going_back import rewind
from tasks.reporter import Reporter
from tasks.restore import NotReproducedError
from tasks.retention import apply_retention
from tasks.stage import Stage
from tests.unit.knowrl_core.guards.runs import Run

LAST_ONLY = RetentionConfig(keep_last=1, keep_best=False)


class Updates:
    """Stands for the update: the same weights as ever, or others as on a GPU."""

    def __init__(self):
        self.made, self.other = [], set()

    def body(self, ctx, key, writer):
        parent = parent_of(ctx.paths, key.iteration)
        if parent:
            assert ctx.paths.file(StageKey(parent, UPDATE), "checkpoint/model.safetensors").exists()
        self.made.append(key.iteration)
        noise = " by another order of sums" if key.iteration in self.other else ""
        weights = writer.path("checkpoint/model.safetensors")
        weights.parent.mkdir(exist_ok=True)
        weights.write_text(f"weights {key.iteration} from {parent}{noise}")


def stands_for_the_update(monkeypatch, body):
    stage = Stage(name=UPDATE, config=lambda config: {}, inputs=lambda ctx, key: [], body=body)
    monkeypatch.setattr("tasks.restore.UPDATE_STAGE", stage)


@pytest.fixture
def updates(monkeypatch):
    fake = Updates()
    stands_for_the_update(monkeypatch, fake.body)
    return fake


@pytest.fixture
def run(tmp_path):
    """Iterations 0 to 5: 3 collapsed, so 4 began with 1; only the checkpoint of 5 is left."""
    run = Run(tmp_path)
    run.roll_back(0.9, 0.9)
    run.configure()
    apply_retention(run.context(LAST_ONLY))
    assert run.kept() == [5]
    return run


def context(run, history):
    ctx = run.context(LAST_ONLY)
    ctx.history = dict(history.committed)
    ctx.run_file = RunFile.create(load_config("smoke"), {})
    ctx.worker, ctx.seed = SimpleNamespace(begin_stage=lambda: None), 1
    ctx.config.run = SimpleNamespace(name="run")
    ctx.is_warmup = lambda iteration: False
    ctx.checkpoint_refs = lambda iteration: [
        ref for ref in ctx.history[StageKey(iteration, UPDATE)].outputs if "/checkpoint/" in ref.path
    ]
    ctx.reporter = Reporter()
    return ctx


def back_to(run, start, **options):
    keys = tuple(run.history)
    history = verify_run(run.paths, keys)
    ctx = context(run, history)
    return rewind(ctx, keys, history, start, **options), ctx


def repaired(run, damaged, start=None):
    run.paths.file(damaged, "manifest.json").unlink()
    return back_to(run, start)


def stages(run):
    return [key for key in run.history if run.paths.file(key, "manifest.json").exists()]


def files(run):
    return {path: path.read_bytes() for path in run.paths.folder.rglob("*") if path.is_file()}


def test_nothing_to_do(run, updates):
    before = files(run)
    assert back_to(run, None)[0] is None
    assert files(run) == before


def test_back_to_a_stage_whose_checkpoint_is_there(run, updates):
    start = StageKey(5, EVALUATE)
    next_key, ctx = back_to(run, start)
    assert (next_key, updates.made) == (start, [])
    assert stages(run) == list(ctx.history) == [key for key in run.history if key != start]
    assert [(item.first_stage, item.why) for item in ctx.run_file.redone] == [("005/evaluate", "asked for")]


def test_pruned_checkpoints_are_made_again_before_anything_is_removed(run, updates):
    # 5 begins with 4, and 4 with 1.
    next_key, ctx = back_to(run, StageKey(5, GENERATE))
    assert (next_key, updates.made) == (StageKey(5, GENERATE), [1, 4])
    assert run.kept() == [4]
    apply_retention(ctx)
    assert run.kept() == [4], "it would have to be made once more"


def test_a_checkpoint_that_cannot_be_made_again_leaves_all_as_it_was(run, updates):
    before = files(run)
    updates.other = {1}
    with pytest.raises(NotReproducedError, match="iteration 1 cannot be made again"):
        back_to(run, StageKey(5, GENERATE))
    assert files(run) == before


def test_where_the_second_of_two_cannot_be_made_again_all_stages_stay(run, updates):
    updates.other = {4}
    before = stages(run)
    with pytest.raises(NotReproducedError, match="iteration 4 cannot be made again"):
        back_to(run, StageKey(5, GENERATE))
    assert stages(run) == before


def test_a_policy_is_made_where_its_stage_is_done(run, updates):
    next_key, _ = back_to(run, StageKey(5, UPDATE), only=[GENERATE])
    assert (next_key, updates.made) == (StageKey(5, UPDATE), [])


def test_going_back_is_on_record_once_it_is_done(run, updates):
    back_to(run, StageKey(5, EVALUATE), flow_run="flow run")
    assert RunFile.read(run.paths).went_back("flow run")


def test_a_flow_run_goes_back_once(run, updates):
    keys = tuple(run.history)
    history = verify_run(run.paths, keys)
    ctx = context(run, history)
    ctx.run_file.note_redone("005/evaluate", "asked for", "flow run")
    assert rewind(ctx, keys, history, StageKey(5, EVALUATE), flow_run="flow run") is None
    assert stages(run) == list(keys)


def test_a_stage_that_the_run_has_not_come_to(run, updates):
    run.paths.stage(StageKey(5, EVALUATE)).rename(run.paths.folder / "gone")
    run.paths.stage(StageKey(5, UPDATE)).rename(run.paths.folder / "gone too")
    with pytest.raises(InputError, match="cannot start there: 005/update is not committed yet"):
        back_to(run, StageKey(5, EVALUATE))


def test_going_back_never_leaves_a_hole(run, updates, monkeypatch):
    """A process that dies while it removes stages leaves a run that can go on without a repair."""
    renames = []
    rename = Path.rename

    def dying(self, target):
        renames.append(self)
        if len(renames) == 4:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", dying)
    keys = tuple(run.history)
    with pytest.raises(KeyboardInterrupt):
        back_to(run, StageKey(1, UPDATE))
    left = verify_run(run.paths, keys)
    assert left.problem is None
    assert left.next_key == keys[len(keys) - 3]


def test_repair_needs_the_checkpoint_of_the_parent_only(tmp_path, updates):
    run = Run(tmp_path)
    run.roll_back(0.7)
    apply_retention(run.context(RetentionConfig(keep_last=1)))
    assert run.kept() == [1, 4]
    # Iteration 4 began with the checkpoint of 1, which is there; that of 3 is not needed.
    assert repaired(run, StageKey(4, GENERATE))[0] == StageKey(4, GENERATE)
    assert updates.made == []


def test_repair_makes_pruned_checkpoints_again(run, updates):
    next_key, ctx = repaired(run, StageKey(5, GENERATE))
    assert (next_key, updates.made) == (StageKey(5, GENERATE), [1, 4])
    assert run.kept() == [4]
    assert [item.first_stage for item in ctx.run_file.redone] == ["005/generate"]


@pytest.mark.parametrize(("other", "next_key"), [(1, StageKey(1, UPDATE)), (4, StageKey(4, UPDATE))])
def test_repair_does_again_what_does_not_come_back(run, updates, other, next_key):
    updates.other = {other}
    done, ctx = repaired(run, StageKey(5, GENERATE))
    assert done == next_key
    keys = list(run.history)
    assert stages(run) == list(ctx.history) == keys[: keys.index(next_key)]
    assert next_key.stage == UPDATE
    assert parent_of(run.paths, next_key.iteration) in (0, *run.kept())


def test_repair_removes_nothing_because_the_worker_died(run, updates, monkeypatch):
    def dies(ctx, key, writer):
        raise WorkerDiedError("killed")

    stands_for_the_update(monkeypatch, dies)
    said = []
    monkeypatch.setattr(Reporter, "warning", lambda self, text: said.append(text))
    before = stages(run)
    with pytest.raises(WorkerDiedError):
        repaired(run, StageKey(5, GENERATE))
    assert stages(run) == [key for key in before if key != StageKey(5, GENERATE)]
    assert "--repair --from 001/update does that update anew" in said[0]


def test_repair_and_back_to_an_earlier_stage_is_going_back(run, updates):
    """The way out where a checkpoint cannot be made again: it is not even tried."""
    updates.other = {1}
    next_key, ctx = repaired(run, StageKey(5, GENERATE), StageKey(1, UPDATE))
    assert (next_key, updates.made) == (StageKey(1, UPDATE), [])
    assert [item.why for item in ctx.run_file.redone] == ["asked for"]
    keys = list(run.history)
    assert stages(run) == keys[: keys.index(next_key)]


def test_back_to_the_damaged_stage_itself(run, updates):
    next_key, _ = repaired(run, StageKey(5, EVALUATE), StageKey(5, EVALUATE))
    assert next_key == StageKey(5, EVALUATE)
    assert not run.paths.stage(next_key).exists()


def test_repair_and_back_to_a_later_stage_is_refused(run, updates):
    run.paths.file(StageKey(4, EVALUATE), "decision.json").write_text("{}")
    before = files(run)
    with pytest.raises(InputError, match="005/update: run 'run' cannot start there: 004/evaluate is damaged"):
        back_to(run, StageKey(5, UPDATE))
    assert files(run) == before
