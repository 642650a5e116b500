"""run.json: pins, recorded changes, attempts; and the lock."""

import json
import multiprocessing
import os
import re
import signal
import time

import pytest

from knowrl_core.config import load_config
from knowrl_core.errors import ArtifactError, InputError, RunLockedError
from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.storage.lock import STALE, RunLock, is_locked, machine
from knowrl_core.storage.run_file import RunFile

PINS = {"model.path": "m" * 64, "files.probe": "p" * 64}


@pytest.fixture
def paths(tmp_path):
    (tmp_path / "smoke").mkdir()
    return RunPaths(tmp_path, "smoke")


def test_it_survives_the_disk(paths):
    run_file = RunFile.create(load_config("smoke"), PINS)
    run_file.begin_attempt("000/generate", None)
    run_file.write(paths)
    assert RunFile.read(paths) == run_file


def test_a_missing_and_a_broken_one(paths):
    with pytest.raises(InputError, match="no run 'smoke'"):
        RunFile.read(paths)
    paths.run_file.write_text("{")
    with pytest.raises(ArtifactError, match=r"run\.json"):
        RunFile.read(paths)


@pytest.fixture
def written(paths):
    run_file = RunFile.create(load_config("smoke"), PINS)
    run_file.write(paths)
    return run_file


def test_every_flipped_bit_is_seen_and_the_copy_stands_in(paths, written, caplog):
    sound = paths.run_file.read_bytes()
    for place in range(0, len(sound), 7):
        bent = bytearray(sound)
        bent[place] ^= 1 << place % 8
        paths.run_file.write_bytes(bent)
        if json_or_none(bytes(bent)) == json_or_none(sound):
            continue  # white space for white space
        assert RunFile.damage(paths) is not None, place
        assert RunFile.read(paths) == written
    assert "its copy .run.json.copy is taken" in caplog.text
    RunFile.read(paths).write(paths)
    assert RunFile.damage(paths) is None
    assert paths.run_file.read_bytes() == sound


def json_or_none(content):
    try:
        return json.loads(content)
    except ValueError:
        return None


def test_without_a_sound_copy_the_damage_is_named(paths, written):
    for name in ("run.json", ".run.json.copy"):
        path = paths.folder / name
        path.write_text(path.read_text().replace('"learning_rate": 1', '"learning_rate": 2'))
    with pytest.raises(ArtifactError, match=r"/run\.json: its content was altered"):
        RunFile.read(paths)


def test_a_record_without_a_seal_is_one_of_an_earlier_version(paths, written):
    content = json.loads(paths.run_file.read_text())
    del content["sha256"]
    paths.run_file.write_text(json.dumps(content))
    assert RunFile.damage(paths) is None


@pytest.mark.parametrize(
    ("bend", "message"),
    [
        (lambda c: c["config"]["run"].pop("iterations"), "config.run.iterations: got None"),
        (lambda c: c["config"]["run"].update(iterations=10**12), "config.run.iterations: got 1000000000000"),
        (lambda c: c["config"]["run"].update(iterations=True), "config.run.iterations: got True"),
        (lambda c: c["config"]["run"].update(seed=7), "config.run.seed: got 7"),
        (lambda c: c.update(config={}), "config.run.iterations"),
        (lambda c: c["config"].update(warmup=[]), "config.warmup: got list"),
        (lambda c: c["config"]["warmup"].update(epochs="4"), "config.warmup.epochs: got 4"),
        (lambda c: c["config"].update(rl=3), "config.rl: got int"),
        (lambda c: c.update(extra=1), "extra"),
    ],
)
def test_a_record_that_somebody_bent_is_no_record(paths, written, bend, message):
    content = json.loads(paths.run_file.read_text())
    del content["sha256"]
    bend(content)
    paths.run_file.write_text(json.dumps(content))
    (paths.folder / ".run.json.copy").unlink()
    with pytest.raises(ArtifactError, match=re.escape(message)):
        RunFile.read(paths)


@pytest.mark.parametrize("text", ["[]", "null", "[" * 100_000, '{"name": NaN}', "\x00", ""])
def test_what_is_no_object_is_no_record(paths, text):
    paths.run_file.write_text(text)
    with pytest.raises(ArtifactError, match="not the record of a run"):
        RunFile.read(paths)


@pytest.mark.parametrize("override", ["run.seed=9", "run.name=other"])
def test_another_past_is_refused(override):
    run_file = RunFile.create(load_config("smoke"), PINS)
    with pytest.raises(InputError) as caught:
        run_file.check_pins(load_config("smoke", [override]), PINS)
    assert override.partition("=")[0] in str(caught.value)
    assert "run.name=NEW" in str(caught.value)


def test_changed_seeds_are_refused():
    run_file = RunFile.create(load_config("smoke"), PINS)
    for name in PINS:
        with pytest.raises(InputError, match=re.escape(name)):
            run_file.check_pins(load_config("smoke"), {**PINS, name: "q" * 64})


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0)])
def test_the_warm_up_cannot_be_turned_on_or_off_once_iteration_1_has_begun(before, after):
    run_file = RunFile.create(load_config("smoke", [f"warmup.epochs={before}"]), PINS)
    other = load_config("smoke", [f"warmup.epochs={after}"])
    run_file.check_warmup(other, begun=False)
    with pytest.raises(InputError, match=r"warmup\.epochs") as caught:
        run_file.check_warmup(other, begun=True)
    assert f"--set warmup.epochs={before}" in caught.value.hint
    assert "run.name=NEW" in caught.value.hint


def test_a_longer_warm_up_is_a_change_like_any_other():
    run_file = RunFile.create(load_config("smoke", ["warmup.epochs=2"]), PINS)
    run_file.check_warmup(load_config("smoke", ["warmup.epochs=3"]), begun=True)
    del run_file.config["warmup"]  # a run that knows of none has none
    run_file.check_warmup(load_config("smoke"), begun=True)


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [([], ["rl.lora.rank=4"], "rank"), (["rl.lora.rank=4"], [], "rank"),
     (["rl.lora.rank=4"], ["rl.lora.rank=4", "rl.lora.targets=[q_proj]"], "targets")],
)  # fmt: skip
def test_adapters_cannot_change_once_an_update_is_committed(before, after, field):
    run_file = RunFile.create(load_config("smoke", before), PINS)
    other = load_config("smoke", after)
    run_file.check_adapters(other, begun=False)
    run_file.check_adapters(load_config("smoke", before), begun=True)
    with pytest.raises(InputError, match=rf"rl\.lora\.{field}") as caught:
        run_file.check_adapters(other, begun=True)
    assert f"--set 'rl.lora.{field}=" in caught.value.hint


def test_another_way_to_name_the_same_model_is_no_change_of_the_past():
    run_file = RunFile.create(load_config("smoke"), PINS)
    run_file.check_pins(load_config("smoke", ["model.path=./moved"]), PINS)


def test_a_changed_config_is_recorded():
    run_file = RunFile.create(load_config("smoke"), PINS)
    config = load_config("smoke", ["rl.kl_coef=0.5", "run.root=elsewhere"])
    changes = run_file.record_changes(config, "002/update")
    assert [(change.field, change.old, change.new) for change in changes] == [("rl.kl_coef", 1e-4, 0.5)]
    assert run_file.changes[0].first_stage == "002/update"
    assert run_file.record_changes(config, "002/update") == []


def test_an_attempt_without_an_end_was_killed():
    run_file = RunFile.create(load_config("smoke"), PINS)
    run_file.begin_attempt("000/generate", None)
    run_file.begin_attempt("001/update", None)
    assert [attempt.outcome for attempt in run_file.attempts] == ["killed", None]


def hold(path, ready):
    with RunLock(path):
        ready.set()
        signal.pause()


def test_the_lock_names_its_holder_and_dies_with_it(tmp_path):
    path = tmp_path / ".lock"
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(path, ready))
    process.start()
    assert ready.wait(30)
    assert is_locked(path)
    with pytest.raises(RunLockedError) as caught, RunLock(path):
        pass
    assert f"process {process.pid}" in str(caught.value)
    assert os.uname().nodename in str(caught.value)
    process.kill()
    process.join()
    assert not is_locked(path)
    with RunLock(path):
        assert is_locked(path)


def elsewhere(path, *, age, machine="another kernel"):
    """The record of a holder on a machine whose locks are not seen here."""
    record = path.with_name(".lock.json")
    record.write_text(json.dumps({"host": "far", "machine": machine, "pid": 7, "started": "2026-01-01T00:00:00"}))
    moment = time.time() - age
    os.utime(record, (moment, moment))


def test_a_holder_on_another_machine_counts_while_it_gives_signs_of_life(tmp_path):
    path = tmp_path / ".lock"
    path.touch()
    elsewhere(path, age=STALE - 20)
    assert is_locked(path)
    with pytest.raises(RunLockedError, match="process 7 on far, started 2026") as caught, RunLock(path):
        pass
    assert "60 s" in caught.value.hint
    elsewhere(path, age=STALE + 5)
    assert not is_locked(path)
    with RunLock(path) as lock:
        assert str(os.getpid()) in lock.holder()
    assert [item.name for item in tmp_path.iterdir()] in ([".lock"], [])


def test_a_record_of_this_machine_is_no_lock(tmp_path):
    """Its process is dead, or it would hold the system's lock."""
    path = tmp_path / ".lock"
    elsewhere(path, age=0, machine=machine())
    with RunLock(path):
        pass
    (tmp_path / ".lock.json").write_text("[]")
    with RunLock(path):
        pass


def test_a_holder_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr("knowrl_core.storage.lock.BEAT", 0.05)
    with RunLock(tmp_path / ".lock"):
        os.utime(tmp_path / ".lock.json", (0, 0))
        deadline = time.monotonic() + 10
        while (tmp_path / ".lock.json").stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_the_config_of_a_stage_after_going_back_behind_a_change():
    def kl(run_file):
        return [run_file.config_at(StageKey(i, "update"))["rl"]["kl_coef"] for i in range(1, 7)]

    run_file = RunFile.create(load_config("smoke", ["rl.kl_coef=0.1"]), PINS)
    run_file.record_changes(load_config("smoke", ["rl.kl_coef=0.5"]), "005/update")
    assert kl(run_file) == [0.1] * 4 + [0.5] * 2
    # Stages from 3/update on are removed, and done again with what holds now.
    run_file.go_on_at(StageKey(3, "update"))
    assert kl(run_file) == [0.1] * 2 + [0.5] * 4
    run_file.go_on_at(StageKey(2, "update"))
    run_file.record_changes(load_config("smoke", ["rl.kl_coef=0.9"]), "002/update")
    assert kl(run_file) == [0.1] + [0.9] * 5
    run_file.go_on_at(StageKey(4, "classify"))
    run_file.record_changes(load_config("smoke", ["rl.kl_coef=0.2"]), "004/classify")
    assert kl(run_file) == [0.1, 0.9, 0.9, 0.2, 0.2, 0.2]
