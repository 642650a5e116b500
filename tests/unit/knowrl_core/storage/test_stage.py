"""Commit, verify, damage: a stage directory is complete or absent, and nothing is trusted silently."""

import json
import os
import shutil

import pytest

from knowrl_core.config import RetentionConfig
from knowrl_core.errors import ArtifactError, InputError, StageError
from knowrl_core.storage.commit import StageWriter
from knowrl_core.storage.files import sha256_file
from knowrl_core.storage.layout import RunPaths, StageKey, stage_keys
from knowrl_core.storage.manifest import MANIFEST, FileRef, read_manifest
from knowrl_core.storage.retention import checkpoints_to_keep, prune
from knowrl_core.storage.schemas import MetricRecord
from knowrl_core.storage.verify import committed_manifests, verify_run

ROWS = [MetricRecord("probe", "f1", 0.5, 10), MetricRecord("probe", "auroc", None, 10)]
FIRST, SECOND = StageKey(0, "generate"), StageKey(0, "evaluate")


@pytest.fixture
def paths(tmp_path):
    return RunPaths(tmp_path, "run")


def commit(paths, key, inputs=(), rows=ROWS, checkpoint=False):
    writer = StageWriter(paths, key, seed=1, config={"a": 1}, inputs=inputs)
    writer.write("table.parquet", MetricRecord, rows)
    if checkpoint:
        writer.path("checkpoint").mkdir()
        writer.path("checkpoint/model.safetensors").write_bytes(b"weights")
    writer.metrics["n"] = 2.0
    return writer.commit()


def chain(paths):
    first = commit(paths, FIRST)
    second = commit(paths, SECOND, inputs=[FileRef(path=first.outputs[0].path, sha256=first.outputs[0].sha256)])
    return first, second


def verify(paths):
    return verify_run(paths, stage_keys(0, warmup=False))


def test_stage_order():
    keys = [str(key) for key in stage_keys(1, warmup=False)]
    assert keys == [
        "000/generate",
        "000/evaluate",
        "001/generate",
        "001/classify",
        "001/consensus",
        "001/update",
        "001/evaluate",
    ]
    assert [str(key) for key in stage_keys(2, warmup=True)] == [
        "000/generate",
        "000/evaluate",
        "001/update",
        "001/evaluate",
        "002/generate",
        "002/classify",
        "002/consensus",
        "002/update",
        "002/evaluate",
    ]
    assert list(stage_keys(0, warmup=True)) == list(stage_keys(0, warmup=False))
    assert StageKey.parse("7/update") == StageKey(7, "update")
    with pytest.raises(InputError, match="expected ITERATION/STAGE"):
        StageKey.parse("7/../x")


def test_a_committed_stage_is_complete(paths):
    manifest = commit(paths, FIRST)
    folder = paths.stage(FIRST)
    assert read_manifest(folder) == manifest
    assert manifest.outputs[0].path == "iterations/000/generate/table.parquet"
    assert manifest.outputs[0].rows == 2
    assert manifest.outputs[0].sha256 == sha256_file(folder / "table.parquet")
    assert [item.name for item in folder.parent.iterdir()] == ["generate"]


def test_files_are_as_open_as_the_umask_says(paths):
    writer = StageWriter(paths, FIRST, seed=1, config={}, inputs=[])
    writer.path("private.bin").touch(mode=0o600)
    before = os.umask(0o027)
    try:
        writer.commit()
    finally:
        os.umask(before)
    assert paths.file(FIRST, "private.bin").stat().st_mode & 0o777 == 0o640


def test_before_the_commit_nothing_is_there(paths):
    writer = StageWriter(paths, FIRST, seed=1, config={}, inputs=[])
    writer.write("table.parquet", MetricRecord, ROWS)
    assert not paths.stage(FIRST).exists()
    assert verify(paths).next_key == FIRST


def test_what_a_killed_attempt_left_is_cleared(paths):
    writer = StageWriter(paths, FIRST, seed=1, config={}, inputs=[])
    writer.path("leftover.bin").write_bytes(b"half")
    manifest = commit(paths, FIRST)
    assert [ref.path for ref in manifest.outputs] == ["iterations/000/generate/table.parquet"]


def test_a_commit_does_not_replace_another(paths):
    commit(paths, FIRST)
    with pytest.raises(StageError, match="expected it absent"):
        commit(paths, FIRST)


def test_the_signature_depends_on_what_the_result_depends_on(paths, tmp_path):
    base = commit(paths, FIRST).signature
    assert commit(RunPaths(tmp_path, "same"), FIRST).signature == base
    other = StageWriter(RunPaths(tmp_path, "seed"), FIRST, seed=2, config={"a": 1}, inputs=[]).commit().signature
    config = StageWriter(RunPaths(tmp_path, "config"), FIRST, seed=1, config={"a": 2}, inputs=[]).commit().signature
    inputs = [FileRef(path="external/model", sha256="0")]
    model = StageWriter(RunPaths(tmp_path, "model"), FIRST, seed=1, config={"a": 1}, inputs=inputs).commit().signature
    assert len({base, other, config, model}) == 4


def test_a_sound_history_stands(paths):
    first, second = chain(paths)
    history = verify(paths)
    assert history.problem is None
    assert history.next_key is None
    assert history.committed == {FIRST: first, SECOND: second}
    assert committed_manifests(paths, stage_keys(0, warmup=False)) == history.committed


def truncate(file):
    file.write_bytes(file.read_bytes()[:-1])


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [truncate, flip, lambda file: file.unlink(), lambda file: file.write_bytes(b"")])
@pytest.mark.parametrize("name", ["table.parquet", MANIFEST])
@pytest.mark.parametrize("key", [FIRST, SECOND])
def test_damage_is_found_and_named(paths, damage, name, key):
    chain(paths)
    damage(paths.file(key, name))
    history = verify(paths)
    assert history.next_key == key
    assert isinstance(history.problem, ArtifactError)
    assert str(paths.file(key, name)) in str(history.problem)
    assert "--repair" in str(history.problem)


def test_a_changed_slice_in_a_manifest_is_found(paths):
    commit(paths, FIRST)
    file = paths.file(FIRST, MANIFEST)
    data = json.loads(file.read_text())
    data["config"]["a"] = 2
    file.write_text(json.dumps(data))
    assert "altered" in str(verify(paths).problem)


def test_a_stage_made_from_another_input_does_not_stand(paths, tmp_path):
    chain(paths)
    shutil.rmtree(paths.stage(FIRST))
    commit(paths, FIRST, rows=ROWS[:1])
    history = verify(paths)
    assert history.next_key == SECOND
    assert "another" in str(history.problem)


def test_a_hole_in_the_history_is_a_problem(paths):
    commit(paths, SECOND)
    history = verify(paths)
    assert history.next_key == FIRST
    assert "is missing although" in str(history.problem)


def test_which_checkpoints_stay():
    keep_last = RetentionConfig(keep_last=2, keep_best=False)
    scores = {1: 0.5, 2: 0.9, 3: 0.9, 4: 0.6, 5: 0.4, 6: None}
    assert checkpoints_to_keep(keep_last, scores) == {5, 6}
    assert checkpoints_to_keep(RetentionConfig(keep_last=1), scores) == {2, 6}
    assert checkpoints_to_keep(RetentionConfig(keep_last=1, keep_best=False, keep_every=2), scores) == {2, 4, 6}
    assert checkpoints_to_keep(keep_last, {}) == set()
    # What the run may go on from is kept whatever the rules say; iteration 0 has no checkpoint.
    assert checkpoints_to_keep(keep_last, scores, needed={0, 3}) == {3, 5, 6}


def test_a_pruned_checkpoint_is_not_damage(paths):
    key = StageKey(1, "update")
    manifest = commit(paths, key, checkpoint=True)
    assert verify_run(paths, [key]).problem is None
    assert prune(paths, {1: manifest}, keep={1}) == []
    assert prune(paths, {1: manifest}, keep=set()) == [1]
    assert prune(paths, {1: manifest}, keep=set()) == []
    assert not paths.file(key, "checkpoint").exists()
    assert verify_run(paths, [key]).problem is None
    paths.file(key, "pruned.json").unlink()
    assert "model.safetensors" in str(verify_run(paths, [key]).problem)
