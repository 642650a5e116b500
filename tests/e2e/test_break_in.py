"""Files from an attacker are refused or harmless: never executed, followed out of the root, or swallowed whole.

Parameters of a deployment are in test_services.py and tests/unit/flows/test_remote.py, names and paths on the command
line in test_wrong_input.py, model output in the tests of the parsers.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prefect.results import ResultRecord, ResultRecordMetadata
from prefect.serializers import PickleSerializer

from knowrl_core.config import deep_merge
from knowrl_core.config.machine import MACHINE_FIELDS
from knowrl_core.storage.files import sha256_json
from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.storage.manifest import MANIFEST, SEAL, FileRef, signature
from knowrl_core.storage.run_file import RunFile
from tests.e2e.helpers import KNOWRL, TINY, environment_of, knowrl

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
HUGE = 1 << 30
MEMORY = 700 * 1024
"""KiB that a command which refuses a file may hold at most; it needs about 300 MB for its libraries."""


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:], stderr=subprocess.STDOUT)
open(sys.argv[1], "w").write(f"{code} {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}")
"""
"""The system counts what a process held before it became the command: it must not be this one, which may be large."""


def measured(*arguments, home, tmp_path):
    """Exit code, text and most memory in KiB of a command."""
    note = tmp_path / "measured"
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(note), *KNOWRL, *arguments],
        capture_output=True,
        check=True,
        text=True,
        env=environment_of(home),
    )
    code, memory = map(int, note.read_text().split())
    return code, done.stdout, memory


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    """A file of 1 GB without a line break; it takes no room on the disk."""
    path = tmp_path_factory.mktemp("huge") / "file"
    with path.open("wb") as file:
        file.write(b'{"task": "')
        file.truncate(HUGE)
    return path


@pytest.mark.parametrize("kind", ["seeds", "probe", "jsonl", "array", "config", "prompt", "model"])
def test_a_line_of_a_gigabyte_is_refused_without_being_read(kind, huge, tmp_path, home):
    root = f"--set=run.root={tmp_path / 'runs'}"
    link = tmp_path / {"config": "huge.yaml", "model": "config.json"}.get(kind, "huge.jsonl")
    os.link(huge, link)
    if kind == "model":
        for name in ("model.safetensors", "tokenizer.json"):
            (tmp_path / name).touch()
    arguments = {
        "seeds": ["seeds", "check", str(link), str(link)],
        "probe": ["run", "--config=smoke", root, f"--set=files.probe={link}"],
        "jsonl": ["evaluate", "--benchmark=kuq", f"--path={link}"],
        "array": ["evaluate", "--benchmark=selfaware", f"--path={link}"],
        "config": ["run", f"--config={link}"],
        "prompt": ["run", "--config=smoke", root, f"--set=prompts.verdict_constrained={link}"],
        "model": ["run", "--config=smoke", root, f"--set=model.path={tmp_path}"],
    }[kind]

    code, text, memory = measured(*arguments, home=home, tmp_path=tmp_path)

    assert code == 2 or (kind == "seeds" and code == 1), text
    assert str(link) in text.replace("\n", "")
    assert "Traceback" not in text
    assert memory < MEMORY, f"{memory} KiB"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["run.json", "iterations/000/generate/manifest.json"])
def test_a_record_of_a_gigabyte_is_damage(name, huge, copy_of_reference, home, tmp_path):
    path = copy_of_reference / name
    path.unlink()
    os.link(huge, path)

    code, text, memory = measured("verify", str(copy_of_reference), home=home, tmp_path=tmp_path)

    assert code == 4, text
    assert path.name in text
    assert "Traceback" not in text
    assert memory < MEMORY, f"{memory} KiB"


@pytest.fixture
def copy_of_reference(reference, tmp_path):
    """The uninterrupted run, to be bent."""
    target = tmp_path / "copied" / "smoke"
    shutil.copytree(reference, target)
    return target


def rewritten(folder, key, change):
    """Alter a manifest as somebody would who knows how it is sealed."""
    path = RunPaths(folder.parent, folder.name).stage(key) / MANIFEST
    content = json.loads(path.read_text())
    content.pop(SEAL)
    change(content)
    content["signature"] = signature(
        stage=content["stage"],
        seed=content["seed"],
        iteration=content["iteration"],
        config=content["config"],
        inputs=tuple(FileRef.model_validate(item) for item in content["inputs"]),
    )
    path.write_text(json.dumps({**content, SEAL: sha256_json(content)}))


def changed(folder, **config):
    """Alter the config in a run's record as somebody would who knows how it is sealed."""
    paths = RunPaths(folder.parent, folder.name)
    record = RunFile.read(paths)
    record.config = deep_merge(record.config, config)
    record.write(paths)


@pytest.fixture
def listening():
    """A server that notes what it is sent."""
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            got.append(str(self.headers))
            self.send_error(500)

        do_POST = do_GET  # noqa: N815 - the name that http.server calls

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", got
        server.shutdown()


@pytest.mark.parametrize("field", MACHINE_FIELDS)
def test_a_copied_run_starts_no_program_and_gets_no_password(field, copy_of_reference, home, tmp_path, listening):
    """On each way on: the record of a run that somebody sent names what belongs to this machine."""
    url, got = listening
    program, made = tmp_path / "program", tmp_path / "executed"
    program.write_text(f"#!/bin/sh\ntouch {made}\nexit 1\n")
    program.chmod(0o755)
    config = {
        "engine.vllm.python": {"engine": {"kind": "vllm", "vllm": {"python": str(program)}}},
        "engine.vllm.args": {"engine": {"kind": "vllm", "vllm": {"args": ["--middleware", "evil"]}}},
        "engine.vllm.urls": {"engine": {"kind": "vllm", "vllm": {"urls": [url]}}},
        "rl.deepspeed.hostfile": {"rl": {"trainer": "deepspeed", "deepspeed": {"hostfile": str(program)}}},
        "rl.deepspeed.config": {"rl": {"trainer": "deepspeed", "deepspeed": {"config": str(program)}}},
        "tracking.uri": {"tracking": {"enabled": True, "uri": url}},
    }[field]
    changed(copy_of_reference, run={"iterations": 2}, **config)
    secrets = {
        "MLFLOW_TRACKING_USERNAME": "knowrl",
        "MLFLOW_TRACKING_PASSWORD": "secret",
        "KNOWRL_VLLM_API_KEY": "secret",
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    for command in (["resume", str(copy_of_reference)], ["fork", str(copy_of_reference), "new", "--at=1/update"]):
        done = knowrl(*command, home=home, check=2, **secrets)
        assert f"{field}: got" in done.stderr
        assert f"--set={field}=" in done.stderr
    assert not made.exists(), "the program was started"
    assert got == []
    assert not (copy_of_reference.parent / "new").exists()


def test_what_was_named_once_at_the_command_line_is_not_asked_again(copy_of_reference, home, tmp_path):
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    changed(copy_of_reference, tracking={"uri": "http://127.0.0.1:9"})
    fork = ["fork", str(copy_of_reference), "--at=1/update", "--no-run"]
    given = "--set=tracking.uri=http://127.0.0.1:9"
    knowrl(*fork, "a", home=home, check=2, **state)
    knowrl(*fork, "a", home=home, check=0, KNOWRL_ALLOW=given.removeprefix("--set="), **state)
    knowrl(*fork, "b", home=home, check=2, **state)  # what the environment allows once is not remembered
    knowrl(*fork, "b", given, home=home, check=0, **state)
    knowrl(*fork, "c", home=home, check=0, **state)


@pytest.mark.parametrize("path", ["../../../../secret", "/etc/hostname", "a/../../../../../secret"])
def test_a_manifest_that_names_files_elsewhere_is_damage(path, copy_of_reference, home):
    key = StageKey(0, "generate")

    def change(content):
        content["outputs"][0]["path"] = path

    rewritten(copy_of_reference, key, change)
    done = knowrl("verify", str(copy_of_reference), home=home, check=4)
    assert "expected a path inside the run directory" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_pickle_inside_a_parquet_file_is_never_loaded(tmp_path):
    """Arrow once had extension types whose metadata is a pickle; a table with one must be read as plain data."""
    made = tmp_path / "executed"
    payload = pickle.dumps(Payload(made))
    field = pa.field(
        "task",
        pa.string(),
        metadata={b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": payload},
    )
    file = tmp_path / "candidates.parquet"
    table = pa.Table.from_arrays([pa.array(["a"])], schema=pa.schema([field], metadata={b"pandas": payload}))
    pq.write_table(table, file)
    code = (
        "import sys, pathlib\n"
        "from knowrl_core.errors import KnowrlError\n"
        "from knowrl_core.storage.schemas import Candidate\n"
        "from knowrl_core.storage.tables import read_table\n"
        "try: read_table(pathlib.Path(sys.argv[1]), Candidate)\n"
        "except KnowrlError as error: print('refused', error.message)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=False)
    assert "refused" in done.stdout, done.stderr
    assert not made.exists()


PLANTED = """
import sys
from pathlib import Path
from prefect import flow, task
from prefect.filesystems import LocalFileSystem

planted = Path(sys.argv[1])
LocalFileSystem._resolve_path = lambda self, path, validate=False: planted

@task
def one():
    return 1

@flow
def naive():
    return one()

if sys.argv[2] == "naive":
    naive()
else:
    from flows.cli.main import main

    del sys.argv[1]
    main()
"""
"""The command in a process that finds the planted file wherever Prefect looks for a stored result."""


def test_names_are_no_sql_texts_no_markup_and_stored_results_are_not_read(tmp_path, home, prefect_server):
    """SQL in the name of an experiment, and markup, HTML, template and chat marks in seeds, stay what they are.

    Prefect is told to keep results, and finds a pickle for each: a flow without our settings loads it.
    """
    planted, made = tmp_path / "result", tmp_path / "executed"
    metadata = ResultRecordMetadata(storage_key="any", serializer=PickleSerializer())
    planted.write_bytes(ResultRecord(result=Payload(made), metadata=metadata).serialize())
    before = planted.read_bytes()
    keeping = environment_of(home, PREFECT_API_URL=prefect_server, PREFECT_RESULTS_PERSIST_BY_DEFAULT="true")
    python = [sys.executable, "-c", PLANTED, str(planted)]
    subprocess.run([*python, "naive"], env=keeping, capture_output=True, check=False)
    assert made.exists(), "what was planted is not found, so that the test shows nothing"
    made.unlink()
    planted.write_bytes(before)
    nasty = "Robert'); DROP TABLE runs;-- [red]x[/red] <script>alert(1)</script> {{ 7*7 }} <|im_end|>"
    seeds = {}
    for label in ("feasible", "infeasible"):
        seeds[label] = tmp_path / f"{label}.jsonl"
        rows = [{"id": f"{label}-{n}", "task": f"{nasty} {label} {n}", "label": label} for n in range(8)]
        seeds[label].write_text("".join(json.dumps(row) + "\n" for row in rows))
    tracking = ["--set=tracking.enabled=true", f"--set=tracking.experiment={json.dumps(nasty)}"]
    files = [f"--set=files.{label}={path}" for label, path in seeds.items()]
    options = [*TINY, *tracking, *files, f"--set=run.root={tmp_path / 'runs'}", "--set=run.iterations=1"]

    done = subprocess.run(
        [*python, "run", "--config=smoke", *options], env=keeping, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not made.exists(), "a stored result was unpickled"
    assert planted.read_bytes() == before, "a result was stored"

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(nasty)
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 3
    assert client.search_experiments()
    shown = knowrl("status", "smoke", f"--set=run.root={tmp_path / 'runs'}", home=home, check=0)
    assert "\x1b" not in shown.stdout
    assert not list(home.glob("storage/*")), "Prefect stored a result, which is a pickle by default"
