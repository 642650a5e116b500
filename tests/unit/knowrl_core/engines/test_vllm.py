"""The parts of the vLLM engine that need no vLLM; servers here are small real HTTP servers that misbehave."""

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowrl_core.config import load_config
from knowrl_core.engines import GenerateRequest, Turn
from knowrl_core.engines.vllm.api import ServerGoneError, VllmApi
from knowrl_core.engines.vllm.fleet import Fleet
from knowrl_core.engines.vllm.questions import Node, generation, nodes, samples, scores
from knowrl_core.engines.vllm.served import Fingerprint
from knowrl_core.engines.vllm.weights import ServedPolicy
from knowrl_core.errors import InputError, StageError
from tasks.prepare import prepare

ASK = GenerateRequest(turns=(Turn(role="user", content="hi"),), n=2, seed=5, max_new_tokens=4)
choices = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=5).map(tuple), min_size=1, max_size=6)


class Ending:
    """Reads no text out of tokens."""

    def text(self, ids):
        return " ".join(map(str, ids))


@pytest.fixture
def serve():
    """Start a server that answers each POST with what a function of the number of the request gives."""
    started = []

    def start(answer):
        seen = Counter()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.reply(200, "{}")

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                seen["requests"] += 1
                self.reply(*answer(seen["requests"], body))

            def reply(self, status, text):
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return VllmApi(f"http://127.0.0.1:{server.server_address[1]}", timeout=5.0, connections=4), seen

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


@given(choices=choices)
def test_the_nodes_score_every_token_of_every_choice(choices):
    found = nodes(choices)
    assert len({node.said for node in found}) == len(found)
    assert found[0].said == ()
    following = {node.said: set(node.following) for node in found}
    for choice in choices:
        for place, token in enumerate(choice):
            assert token in following[choice[:place]]
    wanted = {(choice[:place], choice[place]) for choice in choices for place in range(len(choice))}
    assert sum(map(len, following.values())) == len(wanted)


def test_neighbouring_seeds_share_no_sample():
    """vLLM gives sample j the seed ``seed + j``."""
    seeds = [generation("m", [1], ASK.model_copy(update={"seed": seed}), [2])["seed"] for seed in range(50)]
    assert all(abs(a - b) > 10_000 for a in seeds for b in seeds if a is not b)


def completion(ids, logprobs, reason="stop", index=0):
    return {"index": index, "token_ids": ids, "logprobs": {"token_logprobs": logprobs}, "finish_reason": reason}


def test_samples_come_in_their_order():
    answer = {"choices": [completion([7, 2], [-1, -2], index=1), completion([8], [-3], "length")]}
    first, second = samples(answer, ASK, Ending())
    assert (first.token_ids, first.logprobs, first.finish_reason) == ((8,), (-3.0,), "length")
    assert (second.text, second.finish_reason) == ("7 2", "stop")


@pytest.mark.parametrize(
    "answer",
    [{}, {"choices": [{}]}, {"choices": [completion([1], [-1])]}, {"choices": [completion([1, 2], [-1])] * 2},
     {"choices": [completion([1], [None])] * 2}, {"choices": None}],
)  # fmt: skip
def test_an_answer_of_another_form_is_none(answer):
    with pytest.raises(ServerGoneError):
        samples(answer, ASK, Ending())


def test_scores_are_those_of_the_tokens_asked_for():
    answer = {"choices": [{"logprobs": {"top_logprobs": [{"token_id:4": -0.5, "token_id:6": -1.5, "token_id:9": -2}]}}]}
    assert scores(answer, Node((), (4, 6))) == {4: -0.5, 6: -1.5}
    with pytest.raises(ServerGoneError, match="token_id:5"):
        scores(answer, Node((), (4, 5)))


def test_answers_keep_their_order_and_none_is_asked_twice(serve):
    api, seen = serve(lambda number, body: (200, json.dumps({"n": body["n"]})))
    other, more = serve(lambda number, body: (200, json.dumps({"n": body["n"]})))
    fleet = Fleet([api, other], concurrency=3, retries=0, where="log")
    got = [answer["n"] for answer in fleet.run(list(range(40)), lambda one, job: one.complete({"n": job}))]
    assert got == list(range(40))
    assert seen["requests"] + more["requests"] == 40
    assert min(seen["requests"], more["requests"]) == 20


@pytest.mark.parametrize("broken", [(500, "boom"), (200, "no json"), (200, "[]"), (404, "gone")])
def test_an_error_of_the_server_is_tried_again(serve, broken, monkeypatch):
    monkeypatch.setattr("knowrl_core.engines.vllm.fleet._PAUSE", 0.0)
    api, seen = serve(lambda number, body: broken if number == 1 else (200, '{"ok": 1}'))
    fleet = Fleet([api], concurrency=1, retries=1, where="log")
    assert list(fleet.run([1, 2], lambda one, job: one.complete({"n": job}))) == [{"ok": 1}] * 2
    assert seen["requests"] == 3


def test_the_last_attempt_is_an_error_that_says_where_to_look(serve, monkeypatch):
    monkeypatch.setattr("knowrl_core.engines.vllm.fleet._PAUSE", 0.0)
    api, seen = serve(lambda number, body: (500, "boom <b>"))
    fleet = Fleet([api], concurrency=1, retries=2, where="the log of it")
    with pytest.raises(StageError, match=r"failed 3 times.*boom") as caught:
        list(fleet.run([1], lambda one, job: one.complete({})))
    assert caught.value.hint == "the log of it"
    assert seen["requests"] == 3


def test_a_refused_request_is_not_tried_again(serve):
    api, seen = serve(lambda number, body: (400, "too long"))
    fleet = Fleet([api], concurrency=1, retries=5, where="log")
    with pytest.raises(StageError, match="HTTP 400: too long"):
        list(fleet.run([1], lambda one, job: one.complete({})))
    assert seen["requests"] == 1


def test_a_dead_server_is_started_again_once(serve):
    live, seen = serve(lambda number, body: (200, "{}"))
    dead = VllmApi("http://127.0.0.1:9", timeout=1.0, connections=4)
    starts = []

    def revive():
        starts.append(1)
        return live

    fleet = Fleet([dead], concurrency=8, retries=1, where="log", revive=revive)
    assert len(list(fleet.run(list(range(20)), lambda one, job: one.complete({})))) == 20
    assert len(starts) == 1
    assert seen["requests"] == 20


def test_when_all_servers_are_dead_every_job_says_so():
    dead = [VllmApi("http://127.0.0.1:9", timeout=1.0, connections=8) for _ in range(2)]
    fleet = Fleet(dead, concurrency=8, retries=3, where="the logs of them")

    def ask(api, job):
        if job == 0:  # the first answer that is waited for fails last, when the others have found all servers dead
            time.sleep(1.5)
        return api.complete({})

    with pytest.raises(StageError, match="no vLLM server is left") as caught:
        list(fleet.run(list(range(16)), ask))
    assert caught.value.hint == "the logs of them"


@pytest.fixture
def fingerprint():
    """A checkpoint that gives the same log-probability to every token of the fixed prompts."""

    def build(value):
        made = object.__new__(Fingerprint)
        made.prompts, made.tolerance = [[1, 2, 3], [4, 5]], 0.1
        made.expected = [[value] * (len(prompt) - 1) for prompt in made.prompts]
        return made

    return build


@pytest.mark.parametrize(("served", "before", "right"), [
    (-1.0, None, True), (-1.05, None, True), (-1.2, None, False), (float("nan"), None, False),
    (-1.0, -1.01, True), (-1.01, -1.01, False), (-1.004, -1.01, True), (-1.0, -1.0, True),
])  # fmt: skip
def test_weights_are_right_if_near_and_not_nearer_to_those_before(serve, fingerprint, served, before, right):
    """An update moves log-probabilities by less than rounding may, so near alone would not do."""

    def answer(_number, body):
        rows = [None, *({str(token): {"logprob": served}} for token in body["prompt"][1:])]
        return 200, json.dumps({"choices": [{"prompt_logprobs": rows}]})

    api, _ = serve(answer)
    policy = ServedPolicy(Fleet([api], concurrency=1, retries=0, where="log"), None, dtype="fp32", verify=True)
    policy._before = None if before is None else fingerprint(before)
    assert policy._matches(api, fingerprint(-1.0)) is right


def test_the_config_refuses_what_cannot_be(tmp_path):
    with pytest.raises(InputError, match="workers is 2 with kind vllm"):
        load_config("smoke", ["engine.kind=vllm", "engine.workers=2"])
    for url in ("ftp://host", "http://user:secret@host:1", "host:8000"):
        with pytest.raises(InputError, match=r"engine\.vllm\.urls"):
            load_config("smoke", [f"engine.vllm.urls=[{url}]"])
    config = load_config("smoke", ["engine.kind=vllm", "engine.vllm.python=/no/python", f"run.root={tmp_path}"])
    with pytest.raises(InputError, match=r"engine\.vllm\.python: got /no/python"):
        prepare(config)
