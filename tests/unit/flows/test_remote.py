"""What a flow run that a worker does may name on its machine; the same on the command line is nobody's business."""

import pytest
import yaml

from flows.evaluate import evaluate
from flows.parameters import profile_of
from flows.remote import STARTED_BY_A_WORKER, check_out, check_places
from flows.study import members
from flows.train import resolve
from knowrl_core.config import Config, build_config
from knowrl_core.errors import InputError
from knowrl_core.storage.layout import RunPaths
from knowrl_core.storage.run_file import RunFile

MACHINE = [
    ("engine.vllm.python", "/srv/evil/python"),
    ("engine.vllm.args", ["--middleware", "evil"]),
    ("engine.vllm.urls", ["http://evil.example"]),
    ("rl.deepspeed.hostfile", "/srv/evil/hosts"),
    ("rl.deepspeed.config", "/srv/evil/config.json"),
    ("tracking.uri", "http://evil.example"),
]
PLACES = [
    ("run.root", "/srv/evil"),
    ("run.root", "s3://evil/runs"),
    ("model.path", "/etc"),
    ("files.feasible", "/etc/passwd"),
    ("files.infeasible", "/etc/passwd"),
    ("files.probe", "/proc/self/environ"),
    ("prompts.introspect_feasible", "/proc/self/environ"),
    ("prompts.introspect_infeasible", "/proc/self/environ"),
    ("prompts.verdict_constrained", ".env"),
    ("prompts.verdict_free", "runs/../.env"),
    ("evaluation.benchmarks", [{"name": "kuq", "path": "/etc"}]),
]


def nested(field, value):
    for part in reversed(field.split(".")):
        value = {part: value}
    return value


def parameter(field, value):
    """The ``config`` parameter as Prefect makes it."""
    return Config.model_validate(nested(field, value))


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """A process of a worker, whose clone is this folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(STARTED_BY_A_WORKER, "c0ffee")
    monkeypatch.delenv("KNOWRL_ALLOW", raising=False)
    return tmp_path


@pytest.mark.parametrize(("field", "value"), [*MACHINE, *PLACES])
def test_a_parameter_is_refused_unless_the_worker_allows_it(field, value, worker, monkeypatch):
    config = parameter(field, value)
    with pytest.raises(InputError) as refused:
        resolve("smoke", "first", config)
    assert field in refused.value.message
    assert "KNOWRL_ALLOW" in refused.value.hint
    if (field, value) in MACHINE:  # what the hint says does help
        monkeypatch.setenv("KNOWRL_ALLOW", refused.value.hint.rpartition("KNOWRL_ALLOW=")[2].strip("'"))
        resolve("smoke", "first", config)
    monkeypatch.setenv("KNOWRL_ALLOW", "*")
    resolve("smoke", "first", config)


@pytest.mark.parametrize(("field", "value"), MACHINE)
def test_the_record_of_a_run_does_not_bring_it_along(field, value, worker, monkeypatch):
    """Nor does that of a run which is forked."""
    made = build_config(nested(field, value) | {"run": {"name": "copied", "root": str(worker / "runs")}})
    paths = RunPaths(worker / "runs", "copied")
    paths.folder.mkdir(parents=True)
    RunFile.create(made, {}).write(paths)
    with pytest.raises(InputError, match=field):
        resolve(None, "copied", None)
    with pytest.raises(InputError, match=field):
        resolve(None, "new", None, "copied@1/update")
    monkeypatch.delenv(STARTED_BY_A_WORKER)
    assert resolve(None, "copied", None).model_dump()[field.split(".")[0]] == made.model_dump()[field.split(".")[0]]


def test_profiles_are_files_of_the_machine(worker, monkeypatch):
    profile_of("smoke")
    profile_of(None)
    for place in (worker / "x.yaml", "x.yml", "/proc/self/environ"):
        with pytest.raises(InputError, match="profile: got"):
            profile_of(str(place))
        with pytest.raises(InputError, match="profile: got"):
            members([str(place)])
    own = worker / "runs" / "own.yaml"
    own.parent.mkdir()
    own.write_text(yaml.safe_dump(nested(*MACHINE[0])))
    with pytest.raises(InputError, match=r"engine\.vllm\.python"):
        resolve(str(own), "first", None)
    monkeypatch.setenv("KNOWRL_ALLOW", f"path={worker}")
    (worker / "x.yaml").write_text("{}")
    profile_of(str(worker / "x.yaml"))


@pytest.mark.parametrize("deep", [False, True])
def test_what_a_profile_builds_on_is_a_file_of_the_machine_too(deep, worker, monkeypatch):
    secret = worker / "secret.yaml"
    secret.write_text("password: hunter2\n")
    own = worker / "runs" / "own.yaml"
    own.parent.mkdir()
    own.write_text(f"base: {'between.yaml' if deep else secret}\n")
    (worker / "runs" / "between.yaml").write_text("base: ../secret.yaml\n")
    for refused in (lambda: profile_of(str(own)), lambda: members([str(own)])):
        with pytest.raises(InputError, match=r"profile: got '.*secret\.yaml'") as caught:
            refused()
        assert "hunter2" not in str(caught.value)
        assert "password" not in str(caught.value)
    secret.write_text("run: {name: below}\n")
    monkeypatch.setenv("KNOWRL_ALLOW", f"path={secret}")
    assert profile_of(str(own))["run"]["name"] == "below"
    own.write_text("base: smoke\n")  # what ships may always be built on
    profile_of(str(own))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("model.path", {"model": "/etc"}),
        ("baseline", {"baseline": "/etc/passwd"}),
        (r"paths\[0\]", {"benchmarks": ["kuq"], "paths": ["/etc/passwd"]}),
        ("profile", {"profile": "/etc/passwd"}),
        ("out", {"out": "/srv/out.parquet"}),
        ("tracking.uri", {"config": parameter("tracking.uri", "http://evil.example")}),
    ],
)
def test_evaluate_reads_and_writes_in_the_artifact_root_only(name, parameters, worker):
    with pytest.raises(InputError, match=name) as refused:
        evaluate.fn(**{"model": "tiny-random", **parameters})
    assert "KNOWRL_ALLOW" in refused.value.hint


def test_out_writes_tables_and_never_into_a_run(worker):
    run = worker / "runs" / "first"
    (run / "iterations").mkdir(parents=True)
    (run / "run.json").touch()
    (worker / "runs" / "link").symlink_to("/srv")
    check_out(None)
    check_out("runs/out.parquet")
    for out in (
        "out.parquet", "../out.parquet", "/srv/out.parquet", "runs/../out.parquet", "runs/link/out.parquet",
        "runs/out", "runs/mlflow.db", str(run / "run.json"), str(run / "iterations" / "x.parquet"),
    ):  # fmt: skip
        with pytest.raises(InputError, match="out: got"):
            check_out(out)


def test_at_the_command_line_nothing_is_asked(worker, monkeypatch):
    monkeypatch.delenv(STARTED_BY_A_WORKER)
    for field, value in (*MACHINE, *PLACES):
        resolve("smoke", "first", parameter(field, value))
    check_places({"x": "/etc"})
    check_out("/srv/x")
