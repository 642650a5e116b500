"""One iteration of the real SmolLM2, as `make demo` runs it but smaller."""

import json

import pytest

from knowrl_core.storage.layout import RunPaths, StageKey
from knowrl_core.storage.manifest import read_manifest
from knowrl_core.storage.schemas import Candidate, ConsensusRecord, PoolRecord, PredictionRecord, VerdictRecord
from knowrl_core.storage.tables import read_table
from tests.e2e.helpers import knowrl

pytestmark = [pytest.mark.e2e, pytest.mark.model, pytest.mark.slow]

SMALL = [
    "--set=evaluation.probe_limit=24",
    "--set=introspection.calls_per_label=2",
    "--set=introspection.max_candidates=8",
    "--set=evaluation.frozen_limit=4",
    "--set=warmup.epochs=0",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory, home, prefect_server):
    root = tmp_path_factory.mktemp("real")
    arguments = ["run", "--config=cpu", f"--set=run.root={root}", "--set=run.iterations=1", *SMALL]
    done = knowrl(*arguments, home=home, check=0, PREFECT_API_URL=prefect_server)
    return RunPaths(root, "cpu"), done


def test_it_ends_with_the_table_and_how_to_open_both_uis(run):
    _, done = run
    for text in ("consensus", "balanced", "F1", "mlflow ui", "prefect server start"):
        assert text in done.stdout
    assert "Traceback" not in done.stderr + done.stdout


def test_iteration_0_is_the_evaluation_of_the_base_model_alone(run, home, tmp_path):
    paths, _ = run
    table = tmp_path / "predictions.parquet"
    done = knowrl("evaluate", "--model=smollm2-135m-instruct", f"--out={table}", "--json", *SMALL, home=home, check=0)
    alone = {name: value for name, value in json.loads(done.stdout).items() if value is not None}
    metrics = read_manifest(paths.stage(StageKey(0, "evaluate"))).metrics
    measured = {name.removeprefix("probe/"): value for name, value in metrics.items() if name.startswith("probe/")}
    assert 0 < measured.pop("verdict_entropy") < 0.6932  # for the guards alone, so not in the command's table
    assert measured == alone
    rows = read_table(paths.file(StageKey(0, "evaluate"), "predictions.parquet"), PredictionRecord)
    assert [row for row in rows if row.dataset == "probe"] == read_table(table, PredictionRecord)


def test_lineage_leads_from_a_pool_task_back_to_its_prompt(run):
    paths, _ = run
    candidates = {
        row.id: row for row in read_table(paths.file(StageKey(1, "generate"), "candidates.parquet"), Candidate)
    }
    verdicts = read_table(paths.file(StageKey(1, "classify"), "verdicts.parquet"), VerdictRecord)
    consensus = read_table(paths.file(StageKey(1, "consensus"), "consensus.parquet"), ConsensusRecord)
    pool = read_table(paths.file(StageKey(1, "consensus"), "pool.parquet"), PoolRecord)
    kept = {key for key, row in candidates.items() if row.kept}
    assert kept
    assert all(row.kept or row.drop_reason for row in candidates.values())
    assert all(len(row.few_shot_ids) == 8 for row in candidates.values())
    assert {row.task_id for row in consensus} == {row.task_id for row in verdicts} == kept
    assert len(verdicts) == 8 * len(kept)
    assert {row.id for row in pool} == {row.task_id for row in consensus if row.pooled}
    assert all(row.policy.startswith("smollm2-135m-instruct@") for row in verdicts)


def test_the_checkpoint_is_a_plain_model_folder(run):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    paths, _ = run
    folder = paths.file(StageKey(1, "update"), "checkpoint")
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert model.num_parameters() == 134_515_008
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert not [path.name for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
