"""What happens to the vLLM engine when servers die, do not start, are slow, or serve other weights; on real servers."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from knowrl_core.config import EngineConfig
from knowrl_core.config.rl import LoraConfig
from knowrl_core.engines import ChooseRequest, GenerateRequest, Turn, build_engine
from knowrl_core.errors import StageError
from tests.adapted import write_adapted

pytestmark = [pytest.mark.vllm, pytest.mark.model, pytest.mark.slow]

RANK = 4
LABELS = (" feasible", " infeasible")


def turns(number):
    return (Turn(role="user", content=f"Can you count to {number}? Answer in a few words."),)


GENERATE = [GenerateRequest(turns=turns(i), n=2, seed=i, max_new_tokens=48) for i in range(16)]
CHOOSE = [ChooseRequest(turns=turns(i), choices=LABELS) for i in range(4)]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("vllm") / "vllm.log"


@pytest.fixture(scope="module")
def engine(vllm_config, smollm2_path, log):
    found = build_engine(vllm_config, smollm2_path, device="cpu", log=log)
    yield found
    found.close()


def server_processes(engine):
    """The guardian's children: the server and what it started."""
    return psutil.Process(engine.policy._server._process.pid).children(recursive=True)


def tokens(results):
    return [[sample.token_ids for sample in result.samples] for result in results]


def with_vllm(config: EngineConfig, **change):
    return config.model_copy(update={"vllm": config.vllm.model_copy(update=change)})


def test_a_killed_server_is_started_again_and_nothing_is_lost(engine):
    expected = tokens(engine.generate(GENERATE))
    starts = engine.policy._server.starts
    answers = engine.generate(GENERATE)
    got = [next(answers)]
    for process in server_processes(engine):
        process.kill()
    got += list(answers)
    assert tokens(got) == expected
    assert engine.policy._server.starts == starts + 1


def test_other_weights_are_served_after_a_load(engine, smollm2_path, tmp_path):
    import torch

    from knowrl_core.models.load import load_policy, load_tokenizer

    before = list(engine.choose(CHOOSE))
    model = load_policy(smollm2_path, device="cpu", dtype=torch.float32)
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * parameter.std() * torch.randn(parameter.shape, generator=draws))
    other = tmp_path / "other"
    model.save_pretrained(other)
    load_tokenizer(smollm2_path).save_pretrained(other)

    engine.rest()
    engine.load(other)
    here = build_engine(EngineConfig(dtype="fp32", threads=1), other, device="cpu")
    for old, served, computed in zip(before, engine.choose(CHOOSE), here.choose(CHOOSE), strict=True):
        assert served.token_ids == computed.token_ids
        for mine, plain in zip(served.token_logprobs, computed.token_logprobs, strict=True):
            assert mine == pytest.approx(plain, abs=1e-3)
        assert served.token_logprobs[0] != pytest.approx(old.token_logprobs[0], abs=1e-2)
    engine.load(smollm2_path)


@pytest.fixture(scope="module")
def adapted(smollm2_path, tmp_path_factory):
    """Two checkpoints of one LoRA lineage, as updates leave them."""
    config = LoraConfig(rank=RANK, alpha=8.0)
    return [
        write_adapted(
            smollm2_path, tmp_path_factory.mktemp("adapted") / "policy", config, scale=0.01, names="lora_B", seed=seed
        )
        for seed in range(2)
    ]


def assert_served(engine, folder):
    """The engine gives what the weights in a folder give in this process."""
    here = build_engine(EngineConfig(dtype="fp32", threads=1), folder, device="cpu")
    for served, computed in zip(engine.choose(CHOOSE), here.choose(CHOOSE), strict=True):
        for mine, plain in zip(served.token_logprobs, computed.token_logprobs, strict=True):
            assert mine == pytest.approx(plain, abs=1e-3)


def test_adapters_are_loaded_while_the_server_runs(vllm_config, smollm2_path, adapted, log, monkeypatch):
    first, second = adapted
    engine = build_engine(vllm_config, smollm2_path, device="cpu", log=log, adapter_rank=RANK)
    server = engine.policy._server
    try:
        before = list(engine.choose(CHOOSE))
        for folder in (first, second, first):
            engine.rest()
            engine.load(folder)
            assert_served(engine, folder)
        (now, *_) = list(engine.choose(CHOOSE))
        assert now.token_logprobs[0] != pytest.approx(before[0].token_logprobs[0], abs=1e-2)
        assert server.starts == 1

        # A server of others, which serves the model that the run began with and can load adapters alone.
        url = engine.policy.fleet.apis[0].url
        monkeypatch.setenv("KNOWRL_VLLM_API_KEY", server._key)
        other = build_engine(with_vllm(vllm_config, urls=(url,)), smollm2_path, device="cpu", log=log)
        other.load(second)
        assert_served(other, second)
        other.close()

        for process in server_processes(engine):
            process.kill()
        assert_served(engine, first)  # on the merged weights now
        assert server.starts == 2
        engine.load(second)
        assert_served(engine, second)
        assert server.starts == 2
    finally:
        engine.close()


def test_the_requests_of_a_dead_server_go_to_the_others(engine, vllm_config, smollm2_path, log, monkeypatch):
    api = engine.policy.fleet.apis[0]
    monkeypatch.setenv("KNOWRL_VLLM_API_KEY", engine.policy._server._key)
    expected = tokens(engine.generate(GENERATE))
    both = with_vllm(vllm_config, urls=(api.url, api.url))
    shared = build_engine(both, smollm2_path, device="cpu", log=log)
    assert tokens(shared.generate(GENERATE)) == expected  # two servers give what one gives
    shared.policy.fleet.apis[0]._client.base_url = "http://127.0.0.1:9"  # nobody listens there
    assert tokens(shared.generate(GENERATE)) == expected
    shared.policy.fleet.apis[1]._client.base_url = "http://127.0.0.1:9"
    with pytest.raises(StageError, match="no vLLM server is left") as caught:
        list(shared.generate(GENERATE))
    assert "engine.vllm.urls" in caught.value.hint
    shared.close()
    assert api.healthy()  # a server of others is not ended


def test_a_slow_answer_is_an_error_that_names_the_log(engine, monkeypatch):
    (api,) = engine.policy.fleet.apis
    slow = [GenerateRequest(turns=turns(1), n=8, seed=1, max_new_tokens=1000)]
    monkeypatch.setattr(api._client, "timeout", 0.2)
    monkeypatch.setattr(engine.policy.fleet, "_retries", 0)
    with pytest.raises(StageError, match="no answer within") as caught:
        list(engine.generate(slow))
    assert str(engine.policy._server.log) in caught.value.hint


def test_a_server_that_cannot_start_names_its_log(vllm_config, smollm2_path, tmp_path):
    log = tmp_path / "logs" / "vllm.log"
    wrong = with_vllm(vllm_config, args=("--no-such-option",))
    with pytest.raises(StageError, match="no-such-option") as caught:
        build_engine(wrong, smollm2_path, device="cpu", log=log)
    assert str(log) in caught.value.hint


def test_the_server_dies_with_a_killed_parent(vllm_config, smollm2_path, tmp_path):
    """The parent gets SIGKILL while the server starts: no process of it is left."""
    log = tmp_path / "vllm.log"
    program = (
        "import sys, pathlib\n"
        "from knowrl_core.config import EngineConfig\n"
        "from knowrl_core.engines.vllm.server import VllmServer\n"
        "config = EngineConfig.model_validate_json(sys.argv[1])\n"
        "VllmServer(config.vllm, dtype='fp32', log=pathlib.Path(sys.argv[2]), cuda=False)"
        ".start(pathlib.Path(sys.argv[3]))\n"
    )
    arguments = [vllm_config.model_dump_json(), str(log), str(smollm2_path)]
    root = Path(__file__).parents[2]
    parent = subprocess.Popen([sys.executable, "-c", program, *arguments], env={**os.environ, "PYTHONPATH": str(root)})
    try:
        family = wait_for(lambda: [p for p in psutil.Process(parent.pid).children(recursive=True) if is_vllm(p)])
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive


def is_vllm(process):
    try:
        return "vllm" in str(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def wait_for(look, seconds=60.0):
    """What ``look`` finds, once it finds two."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = look()
        if len(found) >= 2:
            return found
        threading.Event().wait(0.2)
    raise AssertionError("nothing came within the time")
