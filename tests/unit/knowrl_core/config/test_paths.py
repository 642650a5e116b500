"""Paths of a config made absolute."""

from knowrl_core.config import anchored, load_config


def test_relative_paths_start_at_the_folder_and_builtin_stays(tmp_path):
    (tmp_path / "models" / "mine").mkdir(parents=True)
    overrides = [
        "run.root=runs",
        "files.feasible=mine.jsonl",
        "prompts.verdict_free=/abs/free.jinja",
        "model.path=models/mine",
        "evaluation.benchmarks=[{name: selfaware, path: data/S.json}, {name: paired}]",
    ]
    config = anchored(load_config("smoke", overrides), tmp_path)
    assert config.run.root == str(tmp_path / "runs")
    assert config.files.feasible == str(tmp_path / "mine.jsonl")
    assert config.files.infeasible == "builtin"
    assert config.prompts.verdict_free == "/abs/free.jinja"
    assert config.model.path == str(tmp_path / "models" / "mine")
    assert [item.path for item in config.evaluation.benchmarks] == [str(tmp_path / "data" / "S.json"), None]
    assert anchored(config, tmp_path / "elsewhere") == config


def test_aliases_hub_ids_and_urls_are_left_alone(tmp_path):
    for model in ("smollm2-135m-instruct", "Qwen/Qwen2.5-7B-Instruct"):
        assert anchored(load_config("smoke", [f"model.path={model}"]), tmp_path).model.path == model
    assert anchored(load_config("smoke", ["run.root=s3://bucket/x"]), tmp_path).run.root == "s3://bucket/x"
    assert anchored(load_config("smoke", ["model.path=~/m"]), tmp_path).model.path.endswith("/m")
