"""Working copies of runs in an object store, against moto's S3 on loopback."""

import json
import shutil
import threading

import pytest

from flows.cli.remove import remove
from knowrl_core.config import load_config
from knowrl_core.errors import ArtifactError, InputError, RunLockedError, StageError
from knowrl_core.storage import remote_lock
from knowrl_core.storage.commit import StageWriter
from knowrl_core.storage.layout import StageKey, stage_keys
from knowrl_core.storage.mirror import Mirror
from knowrl_core.storage.objects import ConflictError, ObjectStore
from knowrl_core.storage.retention import prune
from knowrl_core.storage.roots import COPIES, is_running, look, run_paths, runs_in, writer_of
from knowrl_core.storage.run_file import RunFile
from knowrl_core.storage.verify import inspect_run, verify_run
from tasks.prepare import check_folder
from tests.e2e.servers import Server

FIRST, SECOND, UPDATE = StageKey(0, "generate"), StageKey(0, "evaluate"), StageKey(1, "update")
KEYS = tuple(stage_keys(1, warmup=True))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server("s3", tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def root(server, monkeypatch, tmp_path, request):
    values = {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        COPIES: str(tmp_path / "one"),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    from s3fs import S3FileSystem

    bucket = f"b{abs(hash(request.node.name)) % 10**9}"
    S3FileSystem().mkdir(bucket)
    return f"s3://{bucket}/some/runs"


@pytest.fixture
def other_machine(monkeypatch, tmp_path):
    """Switches to another machine's working copies, or back."""

    def switch(name="two"):
        monkeypatch.setenv(COPIES, str(tmp_path / name))

    return switch


def commit(paths, key, text="text", checkpoint=None):
    writer = StageWriter(paths, key, seed=1, config={}, inputs=[])
    writer.path("decision.json").write_text(text)
    if checkpoint:
        writer.path("checkpoint").mkdir()
        (writer.path("checkpoint") / "model.safetensors").write_text(checkpoint)
    return writer.commit()


def begin(paths):
    paths.run_file.write_text("{}")
    paths.publish(paths.run_file)


def content(paths):
    return {
        path.relative_to(paths.folder).as_posix(): path.read_bytes()
        for path in (paths.folder / "iterations").rglob("*")
        if path.is_file()
    }


def test_conditional_puts(root):
    store = ObjectStore(root)
    etag = store.put("a", b"1", absent=True)
    with pytest.raises(ConflictError):
        store.put("a", b"2", absent=True)
    second = store.put("a", b"2", etag=etag)
    with pytest.raises(ConflictError):
        store.put("a", b"3", etag=etag)
    body, found, age = store.read("a")
    assert (body, found) == (b"2", second)
    assert 0 <= age < 60
    assert store.read("b") is None
    assert store.find() == {"a": store.find("a")["a"]}


def test_wrong_roots(root):
    for wrong in ("gs://bucket/x", "s3://", "s3://A_B/x", "s3://bucket/../x"):
        with pytest.raises(InputError, match=r"run\.root: got"):
            ObjectStore(wrong)
    with pytest.raises(InputError, match="cannot be written to"):
        ObjectStore("s3://no-such-bucket/x").check()
    ObjectStore(root).check()
    assert ObjectStore(root).find() == {}


def test_a_run_moves_to_another_machine(root, other_machine):
    paths = run_paths(root, "r")
    with writer_of(paths):
        begin(paths)
        for key in (FIRST, SECOND):
            commit(paths, key)
        commit(paths, UPDATE, checkpoint="weights")
    assert [item.name for item in runs_in(root)] == ["r"]
    other_machine()
    moved = run_paths(root, "r")
    assert not moved.folder.exists()
    assert look(moved).file(UPDATE, "checkpoint").exists()
    assert not (moved.file(UPDATE, "checkpoint") / "model.safetensors").exists()
    with writer_of(moved):
        assert content(moved) == content(paths)
        assert verify_run(moved, KEYS).problem is None
        prune(moved, {1: verify_run(moved, KEYS).committed[UPDATE]}, keep=set())
    other_machine("one")
    with writer_of(paths):
        assert content(paths) == content(moved)
        assert not paths.file(UPDATE, "checkpoint").exists()


def test_the_manifest_comes_last(root, monkeypatch, other_machine):
    paths = run_paths(root, "r")
    puts = []
    upload, put = ObjectStore.upload, ObjectStore.put
    monkeypatch.setattr(ObjectStore, "upload", lambda self, path, name: (puts.append(name), upload(self, path, name)))
    monkeypatch.setattr(
        ObjectStore, "put", lambda self, name, body, **k: (puts.append(name), put(self, name, body, **k))[1]
    )
    with writer_of(paths):
        begin(paths)
        commit(paths, FIRST)
    stage = [name for name in puts if name.startswith("iterations/")]
    assert stage == ["iterations/000/generate/decision.json", "iterations/000/generate/manifest.json"]
    paths.remote.store.delete(["iterations/000/generate/manifest.json"])  # as if it had died before
    other_machine()
    with writer_of(moved := run_paths(root, "r")):
        assert content(moved) == {}
        commit(moved, FIRST, "anew")
    assert paths.remote.store.read("iterations/000/generate/decision.json")[0] == b"anew"


def test_a_commit_that_was_not_uploaded_is_uploaded_later(root, monkeypatch):
    paths = run_paths(root, "r")
    with writer_of(paths):
        begin(paths)
        with monkeypatch.context() as broken:
            broken.setattr(ObjectStore, "upload", lambda *_: (_ for _ in ()).throw(StageError("down")))
            with pytest.raises(StageError, match="down"):
                commit(paths, FIRST)
    assert "iterations/000/generate/manifest.json" not in paths.remote.store.find()
    with writer_of(paths):
        late = paths.remote.push_missing(paths.relative(paths.stage(key)) for key in verify_run(paths, KEYS).committed)
    assert late == ["iterations/000/generate"]
    assert "iterations/000/generate/manifest.json" in paths.remote.store.find()


def test_what_another_machine_removed_is_gone_here(root, other_machine):
    paths = run_paths(root, "r")
    with writer_of(paths):
        begin(paths)
        commit(paths, FIRST)
        commit(paths, SECOND)
    other_machine()
    with writer_of(moved := run_paths(root, "r")):
        moved.withdraw(moved.stage(SECOND))
        begin(moved)
    other_machine("one")
    with writer_of(paths):
        assert not paths.stage(SECOND).exists()
        assert paths.stage(FIRST).exists()


def test_a_damaged_copy_is_fetched_again_and_a_damaged_object_is_named(root):
    paths = run_paths(root, "r")
    with writer_of(paths):
        begin(paths)
        commit(paths, FIRST)
        file = paths.file(FIRST, "decision.json")
        file.write_text("bent")
        assert verify_run(paths, KEYS).next_key == FIRST
        paths.remote.fetch_again(paths.relative(paths.stage(FIRST)))
        assert file.read_text() == "text"
        assert inspect_run(paths, KEYS).problems == []
        paths.remote.store.put("iterations/000/generate/decision.json", b"tent")
        (problem,) = inspect_run(paths, KEYS).problems
    assert isinstance(problem, ArtifactError)
    assert f"{root}/r/iterations/000/generate/decision.json: its content was altered" in problem.message
    with writer_of(paths):
        assert verify_run(paths, KEYS).problem is not None  # fetched, since the object has changed


def test_names_that_are_no_artifacts_are_never_written(root, tmp_path):
    paths = run_paths(root, "r")
    with writer_of(paths):
        begin(paths)
        commit(paths, FIRST)
    from s3fs import S3FileSystem

    base = f"{root}/r/iterations/000/generate"
    for name in ("../../../../../evil", ".hidden", "a/../../b"):
        S3FileSystem().pipe_file(f"{base}/{name}", b"evil")
    shutil.rmtree(paths.folder)
    with writer_of(paths):
        assert content(paths).keys() == {
            "iterations/000/generate/decision.json",
            "iterations/000/generate/manifest.json",
        }
    assert not [path for path in tmp_path.rglob("*") if path.name in {"evil", ".hidden", "b"}]


def test_one_writer(root, other_machine):
    paths = run_paths(root, "r")
    with writer_of(paths):
        assert is_running(paths)
        other_machine()
        with (
            pytest.raises(RunLockedError, match=r"is being written by process \d+ on .+, started"),
            writer_of(run_paths(root, "r")),
        ):
            pass
        other_machine("one")
        with pytest.raises(RunLockedError), writer_of(run_paths(root, "r")):
            pass
    assert not is_running(paths)
    other_machine()
    with writer_of(run_paths(root, "r")):
        pass


def test_a_dead_holder_is_replaced(root, other_machine, monkeypatch):
    paths = run_paths(root, "r")
    with writer_of(paths):
        record = json.loads(paths.remote.store.read(remote_lock.LOCK)[0])
    store = paths.remote.store
    store.put(remote_lock.LOCK, json.dumps(record).encode())  # as kill -9 leaves it
    with writer_of(paths):  # with the copy that it had: at once
        pass
    store.put(remote_lock.LOCK, json.dumps(record).encode())
    other_machine()
    with pytest.raises(RunLockedError, match="60 s"), writer_of(run_paths(root, "r")):
        pass
    monkeypatch.setattr(remote_lock, "STALE", 0.0)
    with writer_of(run_paths(root, "r")):
        pass


def test_who_was_replaced_commits_nothing_more(root, other_machine, monkeypatch):
    paths, moved = run_paths(root, "r"), None
    with writer_of(paths):
        begin(paths)
        other_machine()
        with monkeypatch.context() as patient:
            patient.setattr(remote_lock, "STALE", -1.0)  # it stood still for long
            with writer_of(moved := run_paths(root, "r")):
                commit(moved, FIRST, "new")
                monkeypatch.setattr(remote_lock, "BEAT", 0.0)  # the old one looks before it writes
                with pytest.raises(StageError, match="is written by another process now"):
                    commit(paths, FIRST, "old")
    assert moved.remote.store.read("iterations/000/generate/decision.json")[0] == b"new"


def test_beats_keep_the_lock(root, monkeypatch):
    monkeypatch.setattr(remote_lock, "BEAT", 0.05)
    paths = run_paths(root, "r")
    with writer_of(paths):
        seen = set()
        for _ in range(40):
            seen.add(paths.remote.store.read(remote_lock.LOCK)[1])
            threading.Event().wait(0.02)
        paths.remote.lock.check()
    assert len(seen) > 2


def test_a_copy_in_the_store(root):
    paths, new = run_paths(root, "r"), run_paths(root, "fork")
    with writer_of(paths):
        begin(paths)
        commit(paths, FIRST)
        commit(paths, SECOND)
    new.remote.store.put("iterations/000/generate/left", b"by a fork that died")
    paths.remote.copy_to(new.remote, ["iterations/000/generate"], "{}")
    with pytest.raises(StageError, match="exists now"):
        _twice(paths, new)
    with writer_of(new):
        assert content(new).keys() == {"iterations/000/generate/decision.json", "iterations/000/generate/manifest.json"}


def _twice(paths, new):
    """Another process makes the same run between the two steps."""
    find = ObjectStore.find
    try:
        ObjectStore.find = lambda self, below="": {} if self.prefix == new.remote.store.prefix else find(self, below)
        paths.remote.copy_to(new.remote, [], "{}")
    finally:
        ObjectStore.find = find


@pytest.mark.parametrize("last", ["run.json", "iterations/", ""])
def test_a_removal_that_was_cut_short_is_finished(root, monkeypatch, last):
    paths = run_paths(root, "r")
    with writer_of(paths):
        RunFile.create(load_config("smoke"), {}).write(paths)
        paths.publish(paths.run_file)
        commit(paths, FIRST)
    drop = Mirror.drop

    def dying(self, below):
        if below == last:
            raise KeyboardInterrupt
        drop(self, below)

    monkeypatch.setattr(Mirror, "drop", dying)
    with pytest.raises(KeyboardInterrupt):
        remove(f"{root}/r", yes=True)
    monkeypatch.setattr(Mirror, "drop", drop)
    if last != "run.json":
        assert paths.remote.has_remains()
        with pytest.raises(InputError, match=r"no run\.json") as refused:
            check_folder(paths)
        assert refused.value.hint == f"`knowrl remove {root}/r` finishes a removal that was cut short."
    remove(f"{root}/r", yes=True)
    assert ObjectStore(root).find() == {}
    assert not paths.folder.exists()
    with pytest.raises(InputError):
        remove(f"{root}/r", yes=True)


def test_a_fork_under_way_is_not_taken_for_remains(root):
    ObjectStore(root).below("r").put("iterations/000/generate/manifest.json", b"{}")
    with pytest.raises(InputError):
        remove(f"{root}/r", yes=True)
    assert list(ObjectStore(root).find()) == ["r/iterations/000/generate/manifest.json"]
