"""MLflow that fails at any call: what was missed is logged by the next attempt, and nothing is there twice."""

import pytest

import tasks.mlflow_log as module
from knowrl_core.storage.layout import CLASSIFY, CONSENSUS, UPDATE, StageKey
from tasks.mlflow_store import open_store, search_runs
from tests.unit.knowrl_core.report.made import MadeRun

EXPERIMENT = "faults"
SETTINGS = ["tracking.registry=none", f"tracking.experiment={EXPERIMENT}"]


class LostError(Exception):
    """The call that failed."""


class Unreliable:
    """A client whose n-th call fails, before or after it was done."""

    def __init__(self, client, n, *, done):
        self._client, self._left, self._done = client, n, done

    def __getattr__(self, name):
        method = getattr(self._client, name)

        def call(*arguments, **options):
            self._left -= 1
            if self._left == 0 and not self._done:
                raise LostError(name)
            result = method(*arguments, **options)
            if self._left == 0:
                raise LostError(name)
            return result

        return call


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    return uri, *open_store(uri, EXPERIMENT)


def made(root, name):
    return (
        MadeRun(root, name, planned=1, settings=SETTINGS, resamples=0).iteration(0, (0.5, 0.5)).iteration(1, (0.6, 0.7))
    )


def log(uri, run, history=None, *, status="FINISHED"):
    history = history or run.history
    opened = module.MlflowLog(uri, run.config, run.paths, run.file)
    opened.log(history)
    opened.end(status, history)


def statuses(store, run):
    _, client, experiment = store
    found = search_runs(client, experiment, f"tags.`knowrl.run` = '{run.file.name}'")
    return {item.info.run_name.removeprefix(run.file.name): item.info.status for item in found}


def content(store, run):
    """All that MLflow has of a run, without what tells one run from another."""
    _, client, experiment = store
    found = {}
    for item in search_runs(client, experiment, f"tags.`knowrl.run` = '{run.file.name}'"):
        name = item.info.run_name.removeprefix(run.file.name)
        assert name not in found, f"{item.info.run_name} is there twice"
        found[name] = {
            "status": item.info.status,
            "params": item.data.params,
            "metrics": {
                key: [(point.step, point.value) for point in client.get_metric_history(item.info.run_id, key)]
                for key in item.data.metrics
                if not key.endswith("seconds")
            },
            "artifacts": sorted(file.path for file in client.list_artifacts(item.info.run_id)),
            "inputs": sorted(entry.dataset.name for entry in item.inputs.dataset_inputs),
            "tags": sorted(key for key in item.data.tags if not key.startswith("mlflow.")),
        }
    return found


@pytest.mark.parametrize("case", [(False, False, 2), (True, True, 3)], ids=["first", "redone"])
def test_whichever_call_fails_all_is_there_once_in_the_end(case, store, tmp_path, monkeypatch):
    done, again, stride = case
    expected = made(tmp_path, f"whole-{done}-{again}")
    log(store[0], expected)
    for n in range(1, 200, stride):
        run = made(tmp_path, f"r{n}-{done}-{again}")
        if again:  # a stage was done again after all was logged: it replaces what is there
            old = run.history[StageKey(1, "update")]
            log(store[0], run, {**run.history, StageKey(1, "update"): old.model_copy(update={"code_version": "old"})})
        with monkeypatch.context() as patch:
            patch.setattr(module, "open_store", lambda *_, n=n: (Unreliable(store[1], n, done=done), store[2]))
            try:
                log(store[0], run)
            except LostError:
                failed = True
            else:
                failed = False
        if not failed:
            break
        log(store[0], run)
        assert content(store, run) == content(store, expected), f"call {n} failed"
    assert n > 20


def until(run, iteration, stage):
    """The history of a run up to a stage."""
    keys = list(run.history)
    return {key: run.history[key] for key in keys[: keys.index(StageKey(iteration, stage)) + 1]}


def test_what_goes_on_elsewhere_stays_running(store, tmp_path):
    run = MadeRun(tmp_path, "relay", planned=2, settings=SETTINGS, resamples=0)
    for number in range(3):
        run.iteration(number, (0.5, 0.5))
    log(store[0], run, until(run, 1, CLASSIFY))
    assert statuses(store, run) == {"": "RUNNING", "/it000": "FINISHED", "/it001": "RUNNING"}
    log(store[0], run, until(run, 1, CONSENSUS))
    assert statuses(store, run) == {"": "RUNNING", "/it000": "FINISHED", "/it001": "RUNNING"}
    log(store[0], run, until(run, 2, UPDATE))
    assert statuses(store, run) == {"": "RUNNING", "/it000": "FINISHED", "/it001": "FINISHED", "/it002": "RUNNING"}
    log(store[0], run)
    assert set(statuses(store, run).values()) == {"FINISHED"}
    whole = MadeRun(tmp_path, "whole", planned=2, settings=SETTINGS, resamples=0)
    for number in range(3):
        whole.iteration(number, (0.5, 0.5))
    log(store[0], whole)
    assert content(store, run) == content(store, whole), "done in parts, it is the same in the end"


def test_a_part_that_fails_has_failed_until_the_next_attempt(store, tmp_path):
    run = MadeRun(tmp_path, "failed", planned=1, settings=SETTINGS, resamples=0).iteration(0, (0.5, 0.5))
    run.iteration(1, (0.6, 0.7), until=CLASSIFY)
    log(store[0], run, status="FAILED")
    assert statuses(store, run) == {"": "FAILED", "/it000": "FINISHED", "/it001": "FAILED"}
    log(store[0], run)
    assert statuses(store, run) == {"": "RUNNING", "/it000": "FINISHED", "/it001": "RUNNING"}


def test_a_run_that_a_guard_ended_is_finished(store, tmp_path):
    settings = [*SETTINGS, "guards.label_balance.action=stop"]
    run = MadeRun(tmp_path, "guarded", planned=9, settings=settings, resamples=0).iteration(0, (0.5, 0.5))
    for number in (1, 2, 3):
        run.iteration(number, (1.0, 0.0))
    log(store[0], run)
    assert set(statuses(store, run).values()) == {"FINISHED"}
