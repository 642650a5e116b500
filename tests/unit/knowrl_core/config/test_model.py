import pytest

from knowrl_core.config import build_config
from knowrl_core.errors import InputError


def test_probabilities_need_constrained_verdicts():
    with pytest.raises(InputError, match=r"verdict\.mode is 'free', expected 'constrained'"):
        build_config({}, ["consensus.reward.evidence=probability", "verdict.mode=free"])
    assert build_config({}, ["consensus.reward.evidence=probability"]).verdict.mode == "constrained"
    assert build_config({}, ["verdict.mode=free"]).consensus.reward.evidence == "votes"
