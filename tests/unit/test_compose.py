"""``docker-compose.yml``, its environment and images: valid, closed by default, and of the versions that are locked."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from scripts.compose_file import ComposeError, interpolate, read_env_file, read_services
from scripts.compose_local import LocalCompose
from scripts.new_env import new_env

REPOSITORY = Path(__file__).resolve().parents[2]
COMPOSE = REPOSITORY / "docker-compose.yml"
EXAMPLE = (REPOSITORY / ".env.example").read_text()
SECRETS = [
    "POSTGRES_PASSWORD",
    "PREFECT_DB_PASSWORD",
    "MLFLOW_DB_PASSWORD",
    "PREFECT_PASSWORD",
    "MLFLOW_PASSWORD",
    "MLFLOW_SECRET_KEY",
]
ALL = frozenset({"gpu"})


@pytest.fixture
def variables(tmp_path):
    path = tmp_path / "env"
    path.write_text(new_env(EXAMPLE))
    return read_env_file(path)


@pytest.fixture(scope="module")
def document():
    return yaml.safe_load(COMPOSE.read_text())


def locked(name):
    [version] = re.findall(rf"^{re.escape(name)}==(\S+)$", (REPOSITORY / "requirements.lock").read_text(), re.M | re.I)
    return version


def tool(name, *arguments):
    return subprocess.run(
        [str(Path(sys.executable).parent / name), *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_follows_the_schema_of_the_compose_specification():
    done = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE))
    assert done.returncode == 0, done.stdout


def test_a_wrong_file_does_not(tmp_path):
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(COMPOSE.read_text().replace("cap_drop: [ALL]", "cap_drop: ALL"))
    assert tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(wrong)).returncode == 1


def test_the_dockerfile_passes_the_linter():
    done = tool("hadolint", "--failure-threshold", "info", "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", SECRETS)
def test_nothing_starts_while_a_secret_is_empty(name, variables):
    with pytest.raises(ComposeError, match=name):
        read_services(COMPOSE, variables | {name: ""}, ALL)


def test_new_secrets_are_long_and_different(variables):
    found = [variables[name] for name in SECRETS]
    assert len(set(found)) == len(SECRETS)
    assert all(len(secret) >= 40 and re.fullmatch(r"[\w-]+", secret) for secret in found)
    assert not set(found) & set(read_text_values(new_env(EXAMPLE)))
    assert all(name in EXAMPLE for name in SECRETS)


def read_text_values(text):
    return [line.partition("=")[2] for line in text.splitlines()]


def test_the_example_names_every_variable_and_no_other():
    used = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE.read_text()))
    named = set(re.findall(r"^([A-Z_]+)=", EXAMPLE, re.M))
    assert used == named


def test_services_are_closed(document, variables):
    for name, body in document["services"].items():
        assert body["read_only"] is True, name
        assert body["cap_drop"] == ["ALL"], name
        assert body["security_opt"] == ["no-new-privileges:true"], name
        assert not body.get("privileged"), name
        assert all(port.startswith("${BIND:-127.0.0.1}:") for port in body.get("ports", [])), name
        assert "network_mode" not in body, name
        assert body["image"].rpartition(":")[2] not in ("", "latest"), name
        assert name == "setup" or body["healthcheck"]["test"], name
    limits = interpolate({name: body["deploy"]["resources"] for name, body in document["services"].items()}, variables)
    assert [name for name, item in limits.items() if not re.fullmatch(r"\d+g", item["limits"]["memory"])] == []
    services = read_services(COMPOSE, variables, ALL)
    assert {name for name, item in services.items() if item.published} == {"prefect", "mlflow"}
    secrets = {variables[name] for name in SECRETS}
    for item in services.values():
        assert not any(secret in part for secret in secrets for part in (*item.command, *item.healthcheck)), item.name


def test_only_the_gpu_worker_reaches_vllm_and_has_its_key(document, variables):
    networks = {name: body.get("networks", ["default"]) for name, body in document["services"].items()}
    assert networks.pop("vllm") == ["sampling"]
    assert [name for name, item in networks.items() if "sampling" in item] == ["worker-gpu"]
    services = read_services(COMPOSE, variables, ALL)
    assert {name for name, item in services.items() if variables["VLLM_API_KEY"] in item.environment.values()} == {
        "vllm",
        "worker-gpu",
    }


def test_every_pool_of_the_deployments_is_served(variables):
    pools = {
        item["work_pool"]["name"] for item in yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    }
    commands = [item.command for item in read_services(COMPOSE, variables, ALL).values()]
    assert pools == {command[command.index("--pool") + 1] for command in commands if "--pool" in command}


@pytest.mark.parametrize(
    ("given", "prefect", "mlflow", "hosts"),
    [
        ({}, "http://127.0.0.1:4200/api", "http://127.0.0.1:5000", "127.0.0.1,127.0.0.1:*"),
        (
            {"PREFECT_PORT": "1", "MLFLOW_PORT": "2"},
            "http://127.0.0.1:1/api",
            "http://127.0.0.1:2",
            "127.0.0.1,127.0.0.1:*",
        ),
        (
            {
                "PUBLIC_PREFECT_URL": "https://prefect.example.org",
                "PUBLIC_MLFLOW_URL": "https://mlflow.example.org",
                "PUBLIC_MLFLOW_HOST": "mlflow.example.org",
            },
            "https://prefect.example.org/api",
            "https://mlflow.example.org",
            "mlflow.example.org,mlflow.example.org:*",
        ),
    ],
)  # fmt: skip
def test_public_addresses(given, prefect, mlflow, hosts, variables):
    services = read_services(COMPOSE, variables | given)
    assert services["prefect"].environment["PREFECT_SERVER_UI_API_URL"] == prefect
    assert services["mlflow"].environment["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] == mlflow
    assert services["mlflow"].environment["MLFLOW_SERVER_ALLOWED_HOSTS"].endswith(hosts)


def test_images_run_as_no_root(document):
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    stages = re.split(r"^FROM ", dockerfile, flags=re.M)[1:]
    built = {body["build"]["target"] for body in document["services"].values() if "build" in body}
    for stage in stages:
        name = stage.splitlines()[0].rpartition(" AS ")[2]
        if name in built:
            assert stage.rstrip().endswith("USER 10001:10001"), name
    assert built == {"services", "cpu", "cuda"}
    assert all(body.get("user") for body in document["services"].values() if "build" not in body)


def test_versions_are_those_of_the_lock(document):
    makefile = (REPOSITORY / "Makefile").read_text()
    [vllm] = re.findall(r"^VLLM := (\S+)$", makefile, re.M)
    assert document["services"]["vllm"]["image"] == f"vllm/vllm-openai:v{vllm}"
    assert yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["prefect-version"] == locked("prefect")
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    installs = re.findall(r"pip install .*", dockerfile)
    assert installs
    assert all("--constraint requirements.lock" in line or "requirements.lock)" in line for line in installs)
    for package in ("prefect", "mlflow", "asyncpg", "psycopg2-binary", "Flask-WTF", "torch", "deepspeed"):
        assert locked(package)


def test_jobs_on_kubernetes_have_the_environment_of_a_worker(variables):
    """But for passwords, which come from the secret, and what is another place there."""
    template = json.loads((REPOSITORY / "deploy" / "kubernetes.json").read_text())
    worker = read_services(COMPOSE, variables, ALL)["worker"].environment
    elsewhere = ("PASSWORD", "AUTH_STRING", "TOKEN", "USERNAME", "PREFECT_API_URL", "AWS_", "PREFECT_WORKER_")
    own = {name: text for name, text in worker.items() if not any(part in name for part in elsewhere)}
    assert template["variables"]["properties"]["env"]["default"] == own


@pytest.mark.parametrize("name", ["prefect", "mlflow", "setup", "worker", "worker-control", "worker-gpu"])
def test_the_commands_have_these_options(name, variables):
    """Every option of a service's command is one of the locked version."""
    command = read_services(COMPOSE, variables, ALL)[name].command
    words = [part for part in command[:3] if not part.startswith("-") and "/" not in part]
    help_text = tool(*words, "--help").stdout
    options = [part for part in command if part.startswith("--")]
    assert options
    assert [option for option in options if option not in help_text] == []


@pytest.mark.slow
def test_vllm_takes_these_arguments(variables):
    """Where an environment with vLLM is built, its own parser says so; the image's entry point is `vllm serve`."""
    python = Path(os.environ.get("KNOWRL_VLLM_PYTHON", REPOSITORY / ".venv-vllm" / "bin" / "python"))
    if not python.exists():
        pytest.skip(f"{python} is not there: make vllm builds it, or KNOWRL_VLLM_PYTHON names another one")
    code = (
        "import sys\n"
        "from vllm.entrypoints.launchers.cli_args import make_arg_parser\n"
        "from vllm.utils.argparse_utils import FlexibleArgumentParser\n"
        "found = make_arg_parser(FlexibleArgumentParser()).parse_args(sys.argv[1:])\n"
        "print(found.model_tag, found.port, found.max_model_len, found.enable_sleep_mode)\n"
    )
    command = read_services(COMPOSE, variables, ALL)["vllm"].command
    done = subprocess.run([python, "-c", code, *command], capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout.split() == [variables["VLLM_MODEL"], "8000", variables["VLLM_MAX_MODEL_LEN"], "True"], (
        done.stderr
    )


def test_local_services_use_this_machine_alone(tmp_path, variables):
    local = LocalCompose(tmp_path, variables, also=["worker-control"], free_ports=True)
    ports = local.ports
    prefect = local.environment("prefect")
    assert prefect["PREFECT_SERVER_DATABASE_HOST"] == "127.0.0.1"
    assert prefect["PREFECT_SERVER_DATABASE_PORT"] == str(ports["postgres"])
    worker = local.environment("worker")
    assert worker["PREFECT_API_URL"] == f"http://127.0.0.1:{ports['prefect']}/api"
    assert worker["MLFLOW_TRACKING_URI"] == f"http://127.0.0.1:{ports['mlflow']}"
    assert worker["PREFECT_WORKER_WEBSERVER_PORT"] == str(ports["worker"])
    assert local.environment("worker-control")["PREFECT_WORKER_WEBSERVER_PORT"] == str(ports["worker-control"])
    assert worker["KNOWRL_CACHE"].startswith(str(tmp_path))
    for item in local.services.values():
        mine = {**local.environment(item.name)}
        assert not [key for key in item.environment if mine[key].startswith(("/app", "/cache", "/var/lib"))], item.name
        own = [key for key, text in item.environment.items() if text.startswith("/tmp")]  # noqa: S108
        assert all(mine[key].startswith(str(tmp_path)) for key in own), item.name
    command = [local._local(part, "mlflow") for part in local.services["mlflow"].command]
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--port") + 1] == str(ports["mlflow"])
    assert command[command.index("--artifacts-destination") + 1] == str(tmp_path / "volumes" / "mlflow")
    assert local.environment("mlflow")["MLFLOW_AUTH_CONFIG_PATH"] == str(REPOSITORY / "deploy" / "mlflow-auth.ini")
    assert set(local.services) == {"postgres", "prefect", "mlflow", "setup", "worker", "worker-control"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${A}", "1"),
        ("x${A}y${B:-z}", "x1yz"),
        ("$A-${A}", "1-1"),
        ("$${A}", "${A}"),
        ("${EMPTY:-d}", "d"),
        ("${B}", ""),
        ("${B:-}", ""),
        ("${A:?needed}", "1"),
        ("cost: 5 $ or so", "cost: 5 $ or so"),
        ("${B:-x${A}y${EMPTY:-z}}!", "x1yz!"),
        ("${A:-${B}}", "1"),
    ],
)
def test_variables(text, expected):
    assert interpolate(text, {"A": "1", "EMPTY": ""}) == expected


def test_a_needed_variable_is_missed_by_name():
    with pytest.raises(ComposeError, match="variable SECRET is empty"):
        interpolate({"a": ["${SECRET:?make env}"]}, {})


@given(st.dictionaries(st.sampled_from(["A", "B", "C"]), st.text(alphabet="ab$ {}", max_size=8)))
def test_values_are_put_in_as_they_are(values):
    """A value with a variable in it is not expanded again."""
    assert (
        interpolate("<${A}|${B}|${C}>", values)
        == f"<{values.get('A', '')}|{values.get('B', '')}|{values.get('C', '')}>"
    )


@given(st.text(alphabet=st.characters(blacklist_characters="$", blacklist_categories=["Cs"])))
def test_text_without_variables_stays(text):
    assert interpolate({"k": [text, 3, None]}, {}) == {"k": [text, 3, None]}


def test_an_env_file_is_read_as_compose_reads_it(tmp_path):
    path = tmp_path / ".env"
    path.write_text(
        "PLAIN=a b # comment\nexport EXPORTED=1\nSINGLE='a # ${PLAIN}'\nDOUBLE=\"x\\t$EXPORTED\"\nHASH=a#b\n"
        "OTHER=${EXPORTED}2\nDOLLAR=a$$b\nEMPTY=\n"
    )
    assert read_env_file(path) == {
        "PLAIN": "a b",
        "EXPORTED": "1",
        "SINGLE": "a # ${PLAIN}",
        "DOUBLE": "x\t1",
        "HASH": "a#b",
        "DOLLAR": "a$b",
        "OTHER": "12",
        "EMPTY": "",
    }


def test_the_shell_wins_over_the_env_file(tmp_path):
    """As with compose: what the shell leaves empty is missed, though the file has it."""
    env = tmp_path / "env"
    env.write_text(new_env(EXAMPLE))
    done = subprocess.run(
        [sys.executable, "scripts/compose_local.py", "--env-file", str(env), "--state", str(tmp_path / "state")],
        cwd=REPOSITORY,
        env={**os.environ, "MLFLOW_SECRET_KEY": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "MLFLOW_SECRET_KEY is empty" in done.stderr


def test_a_broken_env_file_is_named_with_its_line(tmp_path):
    path = tmp_path / ".env"
    path.write_text("A=1\n# fine\n\nnot a variable\n")
    with pytest.raises(ComposeError, match=r"\.env:4"):
        read_env_file(path)
