"""The trainer ``deepspeed`` against the torch trainer, on loopback with gloo."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from knowrl_core.config.rl import DeepSpeedConfig, RLConfig
from knowrl_core.errors import InputError, WorkerDiedError
from knowrl_core.resources import shipped
from knowrl_core.rl import FlatVerdict, Rollout, UpdateJob, UpdateResult, Verdict
from knowrl_core.rl.distributed import command as commands
from knowrl_core.rl.distributed import folder as words
from knowrl_core.rl.distributed.launch import run_distributed
from knowrl_core.rl.update import run_update
from knowrl_core.worker.process import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

VOCABULARY = 61
HERE = Path(__file__).parent


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with the models ``policy`` and ``reference``. Widths are odd, so that they cannot be shared evenly."""
    folder = tmp_path_factory.mktemp("deepspeed")
    shape = {"hidden_size": 33, "intermediate_size": 49, "num_hidden_layers": 2, "num_attention_heads": 3}
    for name, seed in [("policy", 0), ("reference", 7)]:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            config = LlamaConfig(
                **shape,
                vocab_size=VOCABULARY,
                num_key_value_heads=1,
                head_dim=12,
                max_position_embeddings=128,
                initializer_range=0.2,
                tie_word_embeddings=True,
            )
            LlamaForCausalLM(config).save_pretrained(folder / name)
    return folder


def rollouts(n=7, k=4):
    """A step of 4 tasks is three passes of 64 tokens, and so one process has more to do than the other."""
    rng = np.random.default_rng(0)

    def tokens(low, high):
        return tuple(int(t) for t in rng.integers(3, VOCABULARY, rng.integers(low, high + 1)))

    def verdict(sample):
        response = tokens(1, 5)
        logprobs = tuple(float(x) for x in rng.normal(-3, 1, len(response)))
        reward = float(rng.integers(2))
        return Verdict(sample=sample, response_token_ids=response, engine_logprobs=logprobs, reward=reward)

    prompts = [tokens(22, 30) for _ in range(n)]
    return tuple(
        Rollout.from_verdicts(f"task-{i}", [FlatVerdict(prompt, verdict(j)) for j in range(k)])
        for i, prompt in enumerate(prompts)
    )


def make_job(root, output, *, after=None, deepspeed=None, precision="fp32", **fields):
    """``after`` is a checkpoint to go on from."""
    learning_rate = fields.pop("learning_rate", 1e-3)
    rl = RLConfig(
        learning_rate=learning_rate,
        weight_decay=0.1,
        kl_coef=0.05,
        rollout_batch_size=4,
        train_batch_size=16,
        micro_token_budget=64,
        max_prompt_tokens=64,
        max_grad_norm=0.5,
        epochs=fields.pop("epochs", 1),
        precision=precision,
        trainer="torch" if deepspeed is None else "deepspeed",
        deepspeed=DeepSpeedConfig(**(deepspeed or {})),
    )
    return UpdateJob(
        policy_dir=after or root / "policy",
        optimizer_dir=after,
        reference_dir=root / "reference",
        output_dir=root / output,
        rollouts=fields.pop("rollouts", rollouts()),
        rl=rl,
        device="cpu",
        shuffle_seed=3,
        **fields,
    )


@pytest.fixture(scope="module")
def torch_chain(root):
    """The torch trainer's checkpoints after one update, two, and three; their results."""
    folders, results = [None], []
    for name in ("one", "two", "three"):
        job = make_job(root, f"torch-{name}", after=folders[-1])
        results.append(run_update(job))
        folders.append(job.output_dir)
    return folders[1:], results


def launched(root, processes, jobs, broken):
    """What each process answers to the jobs; they run one after the other in one process group."""
    todo = {name: {"job": job.model_dump(mode="json"), "broken_rank": broken.get(name)} for name, job in jobs.items()}
    (root / "jobs.json").write_text(json.dumps(todo))
    world = base64.urlsafe_b64encode(json.dumps({"localhost": list(range(processes))}).encode()).decode()
    command = [
        *(sys.executable, "-u", "-m", "deepspeed.launcher.launch", f"--world_info={world}"),
        *("--master_addr=127.0.0.1", f"--master_port={free_port()}", "--no_local_rank", "-q"),
        *(str(HERE / "deepspeed_jobs.py"), str(root / "jobs.json"), str(root / "answers")),
    ]
    environment = commands.environment(next(iter(jobs.values()))) | {"PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads((root / f"answers.{rank}").read_text()) for rank in range(processes)]


def difference(one, other, file):
    """The largest difference in a tensor, relative to its largest number."""
    a, b = (load_file(folder / file) for folder in (one, other))
    assert a.keys() == b.keys()
    assert all(a[name].shape == b[name].shape and a[name].dtype == b[name].dtype for name in a)
    return max(float((a[n].double() - b[n].double()).abs().max() / b[n].double().abs().max()) for n in a)


def assert_same_checkpoint(one, other, tolerance=1e-4):
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in other.iterdir())
    assert difference(one, other, "model.safetensors") < tolerance
    assert difference(one, other, "optimizer/moments.safetensors") < tolerance
    states = [json.loads((folder / "trainer_state.json").read_text()) for folder in (one, other)]
    assert states[0] == states[1]
    configs = [json.loads((folder / "config.json").read_text()) for folder in (one, other)]
    assert configs[0] == configs[1]


def assert_same_result(one, other):
    assert one.metrics == pytest.approx(other.metrics, rel=1e-3, abs=1e-5)
    for a, b in zip(one.steps, other.steps, strict=True):
        assert (a.grad_norm, a.loss) == pytest.approx((b.grad_norm, b.loss), rel=1e-3, abs=1e-5)
    for a, b in zip(one.rollouts, other.rollouts, strict=True):
        assert (a.task_id, a.sample) == (b.task_id, b.sample)
        assert a.logprob_policy == pytest.approx(b.logprob_policy, abs=1e-4)


def flat_weights(folder):
    return torch.cat([value.flatten() for _, value in sorted(load_file(folder / "model.safetensors").items())])


def options(processes):
    """Settings of DeepSpeed by name."""
    found = {f"zero{stage}": {"stage": stage} for stage in range(4)}
    example = shipped("configs", "deepspeed", "zero3-offload.json")
    found["offload3"] = {"stage": 3, "offload_optimizer": True, "offload_parameters": True, "config": str(example)}
    found["offload2"] = {"stage": 2, "offload_optimizer": True}
    return {name: settings | {"processes": processes} for name, settings in found.items()}


def answers(root, torch_chain, processes):
    """What the processes answer to all jobs that ``check`` knows."""
    first = torch_chain[0][0]
    jobs, broken = {}, {}
    for name, deepspeed in options(processes).items():
        at = f"{name}-{processes}"
        jobs[f"{name} on"] = make_job(root, f"{at}-on", deepspeed=deepspeed, after=first)
        if not name.startswith("offload"):
            jobs[f"{name} one"] = make_job(root, f"{at}-one", deepspeed=deepspeed)
            jobs[f"{name} two"] = make_job(root, f"{at}-two", deepspeed=deepspeed, after=root / f"{at}-one")
            jobs[f"{name} bad"] = make_job(root, f"{at}-bad", deepspeed=deepspeed, after=first, non_finite="discard")
            broken[f"{name} bad"] = processes - 1
    split = options(processes)["zero3"]
    jobs["worse"] = make_job(root, f"worse-{processes}", deepspeed=split)
    broken["worse"] = processes - 1
    recomputed = make_job(root, f"recomputed-{processes}", deepspeed=split)
    rl = recomputed.rl.model_copy(update={"gradient_checkpointing": True})
    jobs["recomputed"] = recomputed.model_copy(update={"rl": rl})
    jobs["nothing"] = make_job(root, f"nothing-{processes}", deepspeed=split, rollouts=())
    if processes == 2:  # without hardware for it bf16 is slow
        jobs["narrow"] = make_job(root, "narrow", deepspeed=split, precision="bf16")
    found = launched(root, processes, jobs, broken)
    assert all(answer == found[0] for answer in found), "the processes do not agree"
    return found[0]


def check(root, torch_chain, processes, answer):
    """Two updates in a row at each stage, from and to the torch trainer, and gradients that are not finite."""
    (first, second, third), results = torch_chain
    assert answer["worse"]["error"].startswith("the gradient norm of optimizer step 1 is")
    assert not (root / f"worse-{processes}").exists()
    found = {name: UpdateResult.model_validate(a["result"]) for name, a in answer.items() if "result" in a}
    expected = {"one": (first, results[0]), "two": (second, results[1]), "on": (second, results[1])}
    for name in options(processes):
        for step, (folder, result) in expected.items():
            if f"{name} {step}" in found:
                assert_same_checkpoint(root / f"{name}-{processes}-{step}", folder)
                assert_same_result(found[f"{name} {step}"], result)
        if f"{name} bad" in found:
            assert found[f"{name} bad"].metrics["non_finite"] == 1.0
            for file in ("model.safetensors", "optimizer/moments.safetensors", "trainer_state.json"):
                assert (root / f"{name}-{processes}-bad" / file).read_bytes() == (first / file).read_bytes()
    assert_same_checkpoint(root / f"recomputed-{processes}", first)
    assert found["nothing"].metrics["skipped"] == 1.0
    assert difference(root / f"nothing-{processes}", root / "policy", "model.safetensors") == 0.0
    back = make_job(root, f"torch-again-{processes}", after=root / f"zero3-{processes}-two")
    run_update(back)
    assert_same_checkpoint(back.output_dir, third)


@pytest.fixture(scope="module")
def one_process(root, torch_chain):
    return answers(root, torch_chain, 1)


def test_one_process_trains_as_the_torch_trainer_does(root, torch_chain, one_process):
    check(root, torch_chain, 1, one_process)


def test_two_processes_train_as_the_torch_trainer_does(root, torch_chain):
    check(root, torch_chain, 2, answers(root, torch_chain, 2))
    # In bf16 the ways of the two heads' backward passes part by rounding, and Adam makes that a share of a step.
    narrow = make_job(root, "torch-narrow", precision="bf16")
    run_update(narrow)
    start, one, other = (flat_weights(folder) for folder in (root / "policy", root / "narrow", narrow.output_dir))
    assert torch.cosine_similarity(one - start, other - start, dim=0) > 0.99


def test_equal_jobs_give_equal_bytes(root, one_process):
    """This time through the launcher, with its progress and its result."""
    seen = []
    job = make_job(root, "bytes", deepspeed={"stage": 2}, average_dir=root / "policy")
    result = run_distributed(job, progress=seen.append)
    expected = root / "zero2-1-one"
    for file in (path.relative_to(expected) for path in expected.rglob("*") if path.is_file()):
        assert (job.output_dir / file).read_bytes() == (expected / file).read_bytes(), file
    assert (job.output_dir / "average" / "model.safetensors").is_file()
    assert result == UpdateResult.model_validate(one_process["zero2 one"]["result"])
    assert [p.phase for p in seen][-1] == "save"
    assert [(p.done, p.step.step) for p in seen if p.phase == "train" and p.step] == [(1, 1), (2, 2)]
    assert not list(root.glob(".deepspeed-*"))


def test_an_error_in_one_process_ends_all(root, monkeypatch):
    launcher = commands.launcher

    def other_rank(job, folder):
        parts = [str(HERE / "deepspeed_rank.py") if part == commands.RANK else part for part in launcher(job, folder)]
        return [part for part in parts if part != "--module"]

    monkeypatch.setattr(commands, "launcher", other_rank)
    job = make_job(root, "failed", deepspeed={"stage": 3, "processes": 2})
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(InputError, match="/nowhere/policy"):
        run_distributed(job)
    assert set(psutil.Process().children(recursive=True)) <= before
    assert not job.output_dir.exists()
    assert not list(root.glob(".deepspeed-*"))


PARENT = """
import sys
from pathlib import Path
from knowrl_core.rl import UpdateJob
from knowrl_core.rl.distributed.launch import run_distributed
def show(progress):
    print(progress.phase, flush=True)
run_distributed(UpdateJob.model_validate_json(Path(sys.argv[1]).read_bytes()), progress=show)
"""


def test_nothing_outlives_the_parent_and_a_killed_process_is_told(root):
    job = make_job(root, "endless", deepspeed={"stage": 2, "processes": 2}, epochs=100, learning_rate=1e-9)
    (root / "job.json").write_text(job.model_dump_json())
    command = [sys.executable, "-c", PARENT, str(root / "job.json")]

    def train():
        parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for line in parent.stdout:
            if line.strip() == "train":
                break
        return parent, psutil.Process(parent.pid).children(recursive=True)

    parent, children = train()
    assert len(children) == 3  # the launcher and two ranks
    parent.kill()
    parent.communicate()
    _, alive = psutil.wait_procs(children, timeout=15)
    assert not alive
    for left in root.glob(".deepspeed-*"):
        left.rename(root / "left-by-a-killed-parent")

    parent, children = train()
    ranks = [process for process in children if commands.RANK in process.cmdline()]
    os.kill(ranks[-1].pid, signal.SIGKILL)
    _, text = parent.communicate(timeout=180)
    assert WorkerDiedError.__name__ in text
    assert "a process of the update ended and left no word" in text
    assert not psutil.wait_procs(children, timeout=5)[1]
    assert not job.output_dir.exists()
    assert not list(root.glob(".deepspeed-*"))


STAND_INS = {
    "ssh": """#!/bin/sh
# ssh [-o OPTION] HOST COMMAND: as if every host were this one, with the address of loopback
case "$*" in *"hostname -I") echo 127.0.0.1 ;; esac
""",
    "pdsh": """#!/bin/sh
# pdsh -S -f N -w HOST,HOST COMMAND: run it once a host, with %n for the host's number
while [ "$1" != -w ]; do shift; done
hosts=$2; shift 2
n=0; pids=""
for host in $(echo "$hosts" | tr , " "); do
    sh -c "$(echo "$*" | sed "s/%n/$n/")" & pids="$pids $!"; n=$((n + 1))
done
code=0
for pid in $pids; do wait $pid || code=$?; done
exit $code
""",
}


def test_several_nodes(root, torch_chain, monkeypatch, tmp_path):
    """What a node is told, with stand-ins for ssh and pdsh that know this machine alone."""
    for name, text in STAND_INS.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "hosts").write_text("127.0.0.1 slots=4\nlocalhost slots=4\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setenv("SECRET_TOKEN", "not for others")
    job = make_job(root, "nodes", deepspeed={"stage": 3, "hostfile": str(tmp_path / "hosts")})
    result = run_distributed(job)
    assert_same_checkpoint(job.output_dir, torch_chain[0][0])
    assert_same_result(result, torch_chain[1][0])


@pytest.fixture
def two_hosts():
    """Two network namespaces joined by a cable: two hosts that see each other at 10.77.0.1 and 10.77.0.2 only."""
    names = [f"knowrl-{os.getpid()}-{number}" for number in (1, 2)]

    def ip(*arguments, check=True):
        return subprocess.run(["ip", *arguments], check=check, capture_output=True)

    if os.geteuid() != 0 or not shutil.which("ip") or ip("netns", "add", names[0], check=False).returncode:
        pytest.skip("network namespaces cannot be made here (root and iproute2 can)")
    try:
        ip("netns", "add", names[1])
        ip("link", "add", "kn1", "netns", names[0], "type", "veth", "peer", "name", "kn2", "netns", names[1])
        for number, name in enumerate(names, start=1):
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", f"kn{number}")
            for device in (f"kn{number}", "lo"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name, check=False)


def test_two_hosts_without_ssh(root, torch_chain, tmp_path, two_hosts):
    """The same command on both, but for the node's rank, as docs/scale.md says."""
    (tmp_path / "hosts").write_text("10.77.0.1 slots=1\n10.77.0.2 slots=1\n")
    job = make_job(root, "hosts", deepspeed={"stage": 2, "hostfile": str(tmp_path / "hosts")})
    job.output_dir.parent.mkdir(exist_ok=True)
    paths = [tmp_path / name for name in (words.JOB, words.RESULT, words.PROGRESS)]
    paths[0].write_text(job.model_dump_json())
    (tmp_path / words.LEASE).touch()
    processes = []
    for number, name in enumerate(two_hosts, start=1):
        command = [
            *("ip", "netns", "exec", name, sys.executable, "-m", "deepspeed.launcher.runner"),
            *("--hostfile", str(tmp_path / "hosts"), "--no_ssh", "--node_rank", str(number - 1)),
            *("--master_addr", "10.77.0.1", "--master_port", "29500", "--no_local_rank", "--module"),
            *(commands.RANK, *map(str, paths)),
        ]
        environment = commands.environment(job) | {"GLOO_SOCKET_IFNAME": f"kn{number}", "PYTHONWARNINGS": "ignore"}
        with (tmp_path / f"log-{number}").open("wb") as log:
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path))
    deadline = time.monotonic() + 600
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        (tmp_path / words.LEASE).touch()  # the sign of life of whoever started the update
        time.sleep(1)
    text = "\n".join((tmp_path / f"log-{number}").read_text() for number in (1, 2))
    assert [process.poll() for process in processes] == [0, 0], text
    assert_same_checkpoint(job.output_dir, torch_chain[0][0])
    assert_same_result(UpdateResult.model_validate_json(paths[1].read_bytes()), torch_chain[1][0])
