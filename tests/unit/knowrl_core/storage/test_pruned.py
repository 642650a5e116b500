"""The record of what was pruned is believed for checkpoints alone, and damage to it says what to do."""

import json

import pytest

from knowrl_core.errors import ArtifactError
from knowrl_core.storage.retention import PRUNED, pruned_files

FILE = "iterations/001/update/checkpoint/model.safetensors"


def test_what_it_says(tmp_path):
    assert pruned_files(tmp_path) == frozenset()
    (tmp_path / PRUNED).write_text(json.dumps({"files": [FILE]}))
    assert pruned_files(tmp_path) == {FILE}


@pytest.mark.parametrize(
    "text",
    ["", '{"files": [', "[]", '{"files": 3}', json.dumps({"files": [FILE, "iterations/001/update/steps.parquet"]})],
)
def test_damage_names_the_file_and_the_command(tmp_path, text):
    (tmp_path / PRUNED).write_text(text)
    with pytest.raises(ArtifactError, match=r"pruned\.json") as caught:
        pruned_files(tmp_path)
    assert "--repair" in caught.value.hint
