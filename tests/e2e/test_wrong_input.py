"""Wrong input: one screen that says what is wrong, exit code 2, and nothing created. Prefect is not even imported.

Most cases run in this process, through the same entry point as the command.
"""

import json
import os
import subprocess
import sys
import time

import pytest

from flows.cli import main as entry
from knowrl_core.resources import shipped
from tests.e2e.helpers import KNOWRL

pytestmark = pytest.mark.e2e
SCREEN = 24


@pytest.fixture
def here(tmp_path, monkeypatch, tiny_path):
    """An empty folder to stand in, with the artifact root in it; the tiny model is in the cache already."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def refused(here, capfd, monkeypatch):
    """Run a command that must be refused; gives its message."""

    def run(*arguments):
        before = listing(here)
        # The usual handlers: the command installs its own only once a run begins.
        monkeypatch.setattr(sys, "argv", ["knowrl", *arguments])
        with pytest.raises(SystemExit) as ended:
            entry.main()
        printed = capfd.readouterr()
        assert ended.value.code == 2, printed.err
        assert listing(here) == before, "something was created"
        return check_message(printed.err)

    return run


def check_message(text):
    assert text.startswith(("error: ", "Usage: "))
    assert "Traceback" not in text
    assert len(text.splitlines()) <= SCREEN, text
    assert "\x1b" not in text
    return text


def smoke(*overrides):
    return ["run", "--config", "smoke", "--set=run.root=runs", *(f"--set={item}" for item in overrides)]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("rl.kl_coeff=1", ["--set rl.kl_coeff=1", "unknown key 'kl_coeff'", "did you mean 'kl_coef'", "allowed here"]),
        ("run.iterations=-1", ["run.iterations", "got -1", "expected greater than or equal to 0"]),
        ("verdict.k=eight", ["verdict.k", "got 'eight'", "expected integer"]),
        ("rl.clip=[1, 2]", ["rl.clip", "got [1, 2]", "expected number"]),
        ("rl.clip={a", ["--set rl.clip:1", "not valid YAML"]),
        ("run=x", ["'run' is a section", "run.name=..."]),
        ("run.root=gs://bucket/y", ["'gs://bucket/y'", "expected a folder", "local or mounted"]),
        ("run.root=s3://x/y", ["'s3://x/y'", "s3://BUCKET/PREFIX"]),
        ("run.root=/proc/nope", ["'/proc/nope'", "cannot be written", "--set run.root=FOLDER"]),
        ("run.root=", ["run.root", "got ''"]),
        ("run.root=a\0b", ["run.root", "without control characters"]),
        ("run.root=a\x1b[31mb", ["run.root", "without control characters"]),
        ("run.root=a\udcffb", ["overrides: got", "expected text in UTF-8"]),
        ("model.path=./nothing", ["/nothing'", "found nothing", "expected a folder with config.json"]),
        ("model.path=/etc/passwd", ["'/etc/passwd'", "found a file", "expected a folder"]),
        ("model.path=smollm2-135m", ["no such folder or alias", "Did you mean smollm2-135m-instruct?"]),
        ("model.path=owner/nothing", ["owner/nothing", "HF_HUB_OFFLINE", "hf download owner/nothing"]),
        ("verdict.views=[sideways]", ["'sideways'", "expected the name of a view", "Known views: feasible_first"]),
        ("verdict.views=[]", ["verdict.views"]),
        ("prompts.verdict_free=nothing.jinja", ["prompts.verdict_free", "no such file", "'builtin'"]),
        ("files.probe=nothing.jsonl", ["nothing.jsonl", "got nothing", "expected a file"]),
        ("introspection.shots=60", ["got 50 feasible seeds", "at least introspection.shots (60)"]),
    ],
)
def test_an_override(refused, override, expected):
    text = refused(*smoke(override))
    for part in expected:
        assert part in text


@pytest.mark.parametrize("name", ["../x", "/abs", ".hidden", "a/b", "", "..", "a\nb", "[red]x", "x" * 65, "ünï"])
def test_a_run_name_that_is_no_folder_name(refused, name):
    text = refused(*smoke(f"run.name={name}"))
    assert "run.name: got " in text
    assert "expected 1 to 64 letters, digits" in text
    assert "it becomes a folder name" in text


@pytest.mark.parametrize("name", ["../x", "/abs", ".hidden", "nosuchrun", "nosuch/run", "a[/]b"])
@pytest.mark.parametrize("command", ["resume", "status"])
def test_a_run_that_is_not_there(refused, command, name):
    text = refused(command, name)
    assert name in text
    if "/" in name:  # a path
        assert "got no run.json, expected the folder of a run" in text
        assert "`knowrl run` starts one" in text
    elif name == "nosuchrun":
        assert "no run 'nosuchrun' in" in text
        assert "`knowrl run` starts one" in text
    else:
        assert "expected 1 to 64 letters" in text


def test_a_root_below_a_file(refused, here):
    (here / "file").write_text("x")
    text = refused(*smoke("run.root=file/runs"))
    assert "cannot be written" in text
    assert "Not a directory" in text
    assert "cannot be written" in refused(*smoke("run.root=file"))


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not hold root back")
def test_a_root_without_permission(refused, here):
    folder = here / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    assert "Permission denied" in refused(*smoke(f"run.root={folder}/runs"))


def test_a_folder_that_holds_something_else(refused, here):
    (here / "runs" / "smoke").mkdir(parents=True)
    (here / "runs" / "smoke" / "thesis.tex").write_text("x")
    text = refused(*smoke())
    assert "'thesis.tex' and no run.json" in text
    assert "Choose another --set run.name=NAME" in text


def test_a_file_where_the_run_would_be(refused, here):
    (here / "runs").mkdir()
    (here / "runs" / "smoke").write_text("x")
    assert "is a file, expected a run or nothing" in refused(*smoke())


def test_values_are_shown_as_they_are(refused, here):
    """Neither Rich's markup nor a terminal's control characters in a value do anything."""
    text = refused(*smoke("files.feasible=/nowhere/[bold red]x[/]/[link=x]seeds.jsonl"))
    assert "/nowhere/[bold red]x[/]/[link=x]seeds.jsonl: got nothing" in text
    text = refused(*smoke("files.feasible=\x1b]0;title\x07\x1b[2Jx\rnothing"))
    assert r"\x1b]0;title\x07\x1b[2Jx\x0dnothing" in text
    assert "'\\x1b[2J'" in refused("run", "--config=\x1b[2J")
    assert "[/red]" in refused("run", "--config=[/red]")


# ---- files


def config_file(here, content):
    path = here / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("run:\n  name: x\nrl:\n  clipp: 1\n", ["mine.yaml:4: rl.clipp: unknown key", "did you mean 'clip'"]),
        ("verdict:\n  k: 8.5\n", ["mine.yaml:2: verdict.k: got 8.5, expected integer"]),
        ('verdict:\n  k: "8"\n', ["mine.yaml:2: verdict.k: got '8'"]),
        ("rl:\n  clip: 7\n", ["mine.yaml:2: rl.clip: got 7, expected less than 1"]),
        ("rl: [1\n", ["mine.yaml:2", "not valid YAML"]),
        ("rl:\n  clip: 0.1\n  clip: 0.2\n", ["mine.yaml:3: key 'clip' is given twice"]),
        ("just words\n", ["mine.yaml:1: got str, expected sections"]),
        (b"rl:\n  clip: \xff\n", ["mine.yaml: cannot be read", "utf-8"]),
        (b"\x00\x01\x02", ["mine.yaml", "not valid YAML"]),
        ("a: " + "[" * 20_000, ["mine.yaml:1: got more than 50 levels"]),
        ("\n".join(f"key{number}: 1" for number in range(200)), ["mine.yaml:1: key0: unknown key", "and 180 more"]),
    ],
)
def test_a_config_file(refused, here, content, expected):
    text = refused("run", "--config", str(config_file(here, content)), "--set=run.root=runs")
    for part in expected:
        assert part in text


def test_a_config_that_is_not_there(refused, here):
    assert "unknown profile 'smok'" in refused("run", "--config", "smok")
    text = refused("run", "--config", "nothing.yaml")
    assert "no such file" in text
    assert "smoke" in text
    (here / "folder.yaml").mkdir()
    assert "is a folder" in refused("run", "--config", "folder.yaml")
    assert "No such option: --confg" in refused("run", "--confg=smoke")


def seed_file(here, *lines):
    """The shipped feasible seeds with other lines at the end; gives the path and the number of the first of them."""
    text = shipped("seeds", "feasible.jsonl").read_text(encoding="utf-8")
    path = here / "mine.jsonl"
    path.write_text(text + "".join(line + "\n" for line in lines), encoding="utf-8")
    return path, len(text.splitlines()) + 1


def row(**fields):
    return json.dumps({"id": "mine-1", "task": "Name three primary colours.", "label": "feasible", **fields})


def first_task(name="feasible.jsonl"):
    return json.loads(shipped("seeds", name).read_text(encoding="utf-8").splitlines()[0])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"id": "mine-1", "task": ', "JSON"),
        ("[1, 2]", "expected"),
        (row(label=None), "field 'label': got None, expected 'feasible'"),
        ('{"id": "mine-1", "task": "Name three colours."}', "field 'label'"),
        (row(label="maybe"), "field 'label': got 'maybe'"),
        (row(label="infeasible"), "field 'label': got 'infeasible'"),
        (row(task=""), "field 'task'"),
        (row(task="\x1b[2Jboo"), "field 'task'"),
        (row(id=first_task()["id"]), "field 'id'"),
        (row(task=first_task()["task"]), "field 'task'"),
    ],
)
def test_a_seed_file_with_a_wrong_line(refused, here, line, expected):
    path, number = seed_file(here, line)
    text = refused(*smoke(f"files.feasible={path}"))
    assert f"{path}:{number}: " in text
    assert expected in text
    assert "One JSON object a line" in text


def test_a_seed_file_in_which_all_is_wrong(refused, here):
    path, number = seed_file(here, *(["{"] * 300))
    text = refused(*smoke(f"files.feasible={path}"))
    assert f"{path}:{number}: " in text
    assert "and 280 more problems" in text


def test_a_seed_in_both_files(refused, here):
    other = shipped("seeds", "infeasible.jsonl").read_text(encoding="utf-8")
    path = here / "both.jsonl"
    path.write_text(other + row(label="infeasible", task=first_task()["task"]) + "\n", encoding="utf-8")
    assert "field 'task'" in refused(*smoke(f"files.infeasible={path}"))


def test_a_probe_that_holds_a_seed(refused, here):
    probe = shipped("seeds", "probe.jsonl").read_text(encoding="utf-8")
    path = here / "probe.jsonl"
    path.write_text(probe + row(task=first_task()["task"].upper()) + "\n", encoding="utf-8")
    text = refused(*smoke(f"files.probe={path}"))
    assert str(path) in text
    assert "1 of its tasks are seeds, too" in text


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("[[user]]\n{{ task }}\n{% for %}\n", ["mine.jinja:3: ", "expected valid Jinja"]),
        ("[[user]]\n{{ task }}\n{{ label }}\n", ["mine.jinja:3: unknown variable 'label'", "expected one of"]),
        ("[[user]]\nCan you?\n", ["mine.jinja: the variable 'task' is not used"]),
        ("[[robot]]\n{{ task }}\n", ["mine.jinja:1: got the marker [[robot]]"]),
        ("", ["mine.jinja: got no user turn"]),
        (b"[[user]]\n{{ task }}\xff\n", ["mine.jinja:2: got byte 0xff, expected UTF-8"]),
    ],
)
def test_a_prompt_template(refused, here, template, expected):
    (here / "mine.jinja").write_bytes(template if isinstance(template, bytes) else template.encode())
    text = refused(*smoke("prompts.verdict_constrained=mine.jinja"))
    for part in expected:
        assert part in text


# ---- the command itself


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (smoke("run.name=../x"), "run.name: got '../x'"),
        (smoke("model.path=./nothing"), "found nothing"),
        (["resume", "nosuchrun"], "no run 'nosuchrun'"),
    ],
)
def test_as_a_process(here, arguments, expected):
    """As above in a process of its own; Prefect, torch and transformers are not loaded for it."""
    before = listing(here)
    code = (
        "import atexit, sys\n"
        "heavy = {'prefect', 'mlflow', 'torch', 'transformers'}\n"
        "atexit.register(lambda: print(sorted(heavy & sys.modules.keys())))\n"
        "from flows.cli.main import main\n"
        "main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(shipped())}
    began = time.monotonic()
    done = subprocess.run(
        [KNOWRL[0], "-c", code, *arguments],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
        env=environment,
    )
    assert done.returncode == 2, done.stderr
    assert expected in check_message(done.stderr)
    assert done.stdout == "[]\n"
    assert listing(here) == before
    assert time.monotonic() - began < 30  # about 2 s; this bound is for a busy machine
