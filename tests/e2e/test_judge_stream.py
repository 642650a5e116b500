"""``knowrl judge`` at the end of a pipe that stays open, as a program that asks and waits for the answer has it."""

import json
import queue
import subprocess
import threading
import time

import pytest

from tasks.judge import CHUNK
from tests.e2e.helpers import KNOWRL, environment_of

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PATIENCE = 300
"""Seconds for an answer; the model is loaded before the first."""


class Asked:
    """A judge that runs, with a pipe to it and one from it."""

    def __init__(self, folder, home):
        self._log = folder / "log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [*KNOWRL, "judge", "--model=tiny-random", "--config=smoke", "--raw"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment_of(home),
            )
        self.asked = 0
        self._lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def ask(self, count):
        for _ in range(count):
            line = json.dumps({"id": self.asked, "task": f"Count to {self.asked % 50}."})
            self.process.stdin.write(line + "\n")
            self.asked += 1
        self.process.stdin.flush()

    def answers(self, count):
        found = [self._lines.get(timeout=PATIENCE) for _ in range(count)]
        assert all(found), f"it ended early:\n{self._log.read_text()}"
        return [json.loads(line) for line in found]

    def has_answered(self):
        return not self._lines.empty()

    def end(self):
        """Close its standard input; gives what it answers then, and its exit code."""
        self.process.stdin.close()
        rest = list(iter(lambda: self._lines.get(timeout=PATIENCE), ""))
        return [json.loads(line) for line in rest], self.process.wait(PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def judge(tmp_path, home):
    with Asked(tmp_path, home) as asked:
        yield asked


def test_answers_come_before_standard_input_is_closed(judge):
    judge.ask(3)
    answers = judge.answers(3)
    judge.ask(1)  # whoever waits for an answer before asking again gets one
    answers += judge.answers(1)
    begun = judge.asked
    while not judge.has_answered() and judge.asked < begun + CHUNK:
        judge.ask(1)
        time.sleep(0.02)  # a line that is never far behind the one before it
    assert judge.asked < begun + CHUNK, "a steady trickle was held back until a chunk was full"
    judge.ask(2 * CHUNK)
    answers += judge.answers(judge.asked - len(answers))
    assert judge.process.poll() is None
    judge.ask(5)
    rest, code = judge.end()
    assert code == 0
    answers += rest
    assert [answer["id"] for answer in answers] == list(range(judge.asked))
    assert all(answer["task"] == f"Count to {answer['id'] % 50}." for answer in answers)
    assert {answer["verdict"] for answer in answers} <= {"feasible", "infeasible"}
