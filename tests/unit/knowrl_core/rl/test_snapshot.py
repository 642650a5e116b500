"""An update that dies under way goes on, and ends as if nothing had happened."""

import hashlib
import re

import pytest

from knowrl_core.config.rl import LoraConfig
from knowrl_core.rl import trainer as trainer_module
from knowrl_core.rl.snapshot import FILE, Saver
from knowrl_core.rl.update import run_update


def hashes(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


class Died(BaseException):
    """Stands for the end of the process: nothing after it is done."""


def dying(step):
    """Progress that ends the update once a step was made."""

    def report(progress):
        if progress.phase == "train" and progress.done == step and progress.step is not None:
            raise Died

    return report


@pytest.fixture
def work(monkeypatch):
    """Counts optimizer steps and passes of log-probabilities."""
    done = {"steps": 0, "logprobs": 0}
    step, logprobs = trainer_module.Trainer.step, trainer_module.all_logprobs

    def counted_step(self, *args):
        done["steps"] += 1
        return step(self, *args)

    def counted_logprobs(*args, **options):
        done["logprobs"] += 1
        return logprobs(*args, **options)

    monkeypatch.setattr(trainer_module.Trainer, "step", counted_step)
    monkeypatch.setattr("knowrl_core.rl.backend.all_logprobs", counted_logprobs)
    return done


CASES = {
    "plain": {},
    "two epochs": {"epochs": 2},
    "bf16": {"precision": "bf16"},
    "no reference": {"kl_coef": 0.0, "reference_dir": None},
    "lora": {"lora": LoraConfig(rank=2)},
    "schedule": {"schedule": "cosine", "warmup_steps": 2},
    "supervised": {"objective": "supervised"},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("continued", [False, True])
def test_an_interrupted_update_ends_as_an_uninterrupted_one(make_job, make_rollouts, work, tmp_path, case, continued):  # noqa: PLR0917 - fixtures
    before = None
    if continued:  # with optimizer state, and adapters if there are any
        before = make_job("before", rollouts=make_rollouts(seed=5), **CASES[case])
        run_update(before)

    def job(name, **changes):
        after = {"policy_dir": before.output_dir, "optimizer_dir": before.output_dir} if before else {}
        return make_job(name, rollouts=make_rollouts(9), **{**CASES[case], **after, **changes})

    whole = run_update(job("whole"))
    assert len(whole.steps) >= 4
    kept = {"snapshot_dir": tmp_path / "kept", "snapshot_key": "key", "save_steps": 1}
    for stop in (1, 3):
        with pytest.raises(Died):
            run_update(job("died", **kept), progress=dying(stop + 1))
        assert not (tmp_path / "died").exists()
    work.update(steps=0, logprobs=0)
    result = run_update(job("resumed", **kept))
    assert work == {"steps": len(whole.steps) - 3, "logprobs": 0}
    assert result == whole
    assert hashes(tmp_path / "resumed") == hashes(tmp_path / "whole")


@pytest.mark.parametrize(
    "spoil", ["other key", "truncated", "no file of ours", "empty", "a bit of a tensor", "a digit"]
)
def test_a_snapshot_that_does_not_fit_is_not_taken_up(make_job, make_rollouts, work, tmp_path, spoil):
    kept = {"rollouts": make_rollouts(9), "snapshot_dir": tmp_path / "kept", "snapshot_key": "a", "save_steps": 1}
    whole = run_update(make_job("whole", rollouts=make_rollouts(9)))
    with pytest.raises(Died):
        run_update(make_job("died", **kept), progress=dying(3))
    file = tmp_path / "kept" / FILE
    content = file.read_bytes()
    if spoil == "other key":
        kept["snapshot_key"] = "b"
    else:
        bent = bytearray(content)
        bent[-1000] ^= 64
        file.write_bytes(
            {
                "truncated": content[:-100],
                "no file of ours": b"x" * 1000,
                "empty": b"",
                "a bit of a tensor": bytes(bent),
                "a digit": re.sub(
                    rb'(\\"step\\":)(\d)', lambda m: m[1] + (b"2" if m[2] != b"2" else b"1"), content, count=1
                ),
            }[spoil]
        )
        assert file.read_bytes() != content
    work["steps"] = 0
    assert run_update(make_job("resumed", **kept)) == whole
    assert work["steps"] == len(whole.steps)


def test_an_update_goes_on_where_nothing_can_be_saved(make_job, make_rollouts, tmp_path):
    (tmp_path / "file").write_text("")
    kept = {"snapshot_dir": tmp_path / "file" / "below", "save_steps": 1}
    assert run_update(make_job("a", rollouts=make_rollouts(9), **kept)) == run_update(
        make_job("b", rollouts=make_rollouts(9))
    )


def test_how_often_is_saved(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr("knowrl_core.rl.snapshot.time.monotonic", lambda: now)
    every_two, never, auto, nowhere = (
        Saver(folder, "key", every) for folder, every in [(tmp_path, 2), (tmp_path, 0), (tmp_path, None), (None, 1)]
    )
    assert [every_two.due(done) for done in (1, 2, 3, 4)] == [False, True, False, True]
    assert not any(saver.due(1) for saver in (never, auto, nowhere))
    now = 601.0
    assert auto.due(1)
    assert not never.due(1)
    assert not nowhere.due(1)
