"""Damaged artifacts are found and named, and redone on request; a run has one writer."""

import shutil
import socket

import pytest

from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.storage.run_file import RunFile
from knowrl_core.storage.schemas import SCHEMA_VERSION, VerdictRecord
from knowrl_core.storage.tables import read_table
from tests.e2e.helpers import TINY, artifacts, in_stage, kill_group, knowrl, manifests, start, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def truncate(file):
    file.write_bytes(file.read_bytes()[:-7])


def flip_a_bit(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def delete(file):
    file.unlink()


def command(root):
    return ["run", "--config=smoke", f"--set=run.root={root}", "--set=run.iterations=1", *TINY]


def test_damage(tmp_path, home, prefect_server, reference):
    """Three kinds of damage, each before the last one: the first in the order of the stages is named; one repair."""
    shutil.copytree(reference, tmp_path / "smoke")
    paths = RunPaths(tmp_path, "smoke")
    for damage, key, name in (
        (flip_a_bit, StageKey(1, "update"), "checkpoint/model.safetensors"),
        (truncate, StageKey(1, "classify"), "verdicts.parquet"),
        (delete, StageKey(0, "evaluate"), "manifest.json"),
    ):
        file = paths.file(key, name)
        damage(file)
        before = artifacts(paths.folder), manifests(paths.folder)

        refused = knowrl(*command(tmp_path), home=home, check=4, PREFECT_API_URL=prefect_server)

        assert refused.stderr.count(str(file)) == 1
        assert "--repair" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert (artifacts(paths.folder), manifests(paths.folder)) == before, "a refused run changed something"

    done = knowrl(*command(tmp_path), "--repair", home=home, check=0, PREFECT_API_URL=prefect_server)

    assert f"{key} and what follows are done again" in done.stderr
    assert f"resuming at {key}" in done.stderr
    assert artifacts(paths.folder) == artifacts(reference)
    first = "iterations/000/generate"
    assert manifests(paths.folder)[first] == manifests(reference)[first], "what was sound was done again"
    assert RunFile.read(paths).attempts[-1].first_stage == str(key)


def test_a_second_writer_is_refused(tmp_path, home, prefect_server):
    first = start(*command(tmp_path), home=home, log=tmp_path / "log", PREFECT_API_URL=prefect_server)
    paths = RunPaths(tmp_path, "smoke")
    try:
        wait_for(in_stage(paths, StageKey(0, "generate")), process=first, what="its first stage")
        first.send_signal(19)  # SIGSTOP: it holds its lock while the second one starts
        before = paths.run_file.read_bytes()
        second = knowrl(*command(tmp_path), home=home, check=3, PREFECT_API_URL=prefect_server)
        assert paths.run_file.read_bytes() == before
    finally:
        kill_group(first)
    started = RunFile.read(paths).attempts[0].started
    assert f"run 'smoke' is being written by process {first.pid} on {socket.gethostname()}, started " in second.stderr
    assert started[:13] in second.stderr
    assert "Traceback" not in second.stderr


def test_repair_behind_pruned_checkpoints_makes_the_policy_again(tmp_path, home, prefect_server, reference):
    """Only what is damaged, and what follows, is done again."""
    shutil.copytree(reference, tmp_path / "smoke")
    longer = [
        *command(tmp_path),
        "--set=run.iterations=3",
        "--set=retention.keep_last=1",
        "--set=retention.keep_best=false",
    ]
    knowrl(*longer, home=home, check=0, PREFECT_API_URL=prefect_server)
    paths = RunPaths(tmp_path, "smoke")
    assert paths.file(StageKey(2, "update"), "pruned.json").exists()
    before = artifacts(paths.folder)
    truncate(paths.file(StageKey(3, "classify"), "verdicts.parquet"))

    done = knowrl(*longer, "--repair", home=home, check=0, PREFECT_API_URL=prefect_server)

    assert "003/classify needs pruned checkpoints: those of iteration 1, 2 are made again" in done.stderr
    assert "003/classify and what follows are done again" in done.stderr
    assert artifacts(paths.folder) == before


def test_repair_leaves_what_another_version_wrote(tmp_path, home, prefect_server, reference):
    shutil.copytree(reference, tmp_path / "smoke")
    paths = RunPaths(tmp_path, "smoke")
    file = paths.file(StageKey(0, "generate"), "manifest.json")
    file.write_text(file.read_text().replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 99'))
    before = artifacts(paths.folder), manifests(paths.folder)
    refused = knowrl(*command(tmp_path), "--repair", home=home, check=4, PREFECT_API_URL=prefect_server)
    assert f"got schema version 99, expected {SCHEMA_VERSION}" in refused.stderr
    assert (artifacts(paths.folder), manifests(paths.folder)) == before


def test_another_k_applies_from_the_next_self_assessment_on(tmp_path, home, prefect_server, reference):
    shutil.copytree(reference, tmp_path / "smoke")
    paths = RunPaths(tmp_path, "smoke")
    for stage in ("consensus", "update", "evaluate"):
        shutil.rmtree(paths.stage(StageKey(1, stage)))
    options = ["--set=verdict.k=6", "--set=run.iterations=2"]
    knowrl("resume", str(paths.folder), *options, home=home, check=0, PREFECT_API_URL=prefect_server)
    assert artifacts(paths.folder).items() >= artifacts(reference).items()
    verdicts = read_table(paths.file(StageKey(2, "classify"), "verdicts.parquet"), VerdictRecord)
    assert {verdict.sample for verdict in verdicts} == set(range(6))


def test_a_renamed_run_does_not_go_on_elsewhere(tmp_path, home, reference):
    shutil.copytree(reference, tmp_path / "renamed")
    refused = knowrl("resume", str(tmp_path / "renamed"), "--set=run.iterations=2", home=home, check=2)
    assert "run.name: got 'renamed', expected 'smoke'" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["renamed"]
