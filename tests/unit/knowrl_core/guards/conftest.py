import pytest

from tests.unit.knowrl_core.guards.runs import Run


@pytest.fixture
def run(tmp_path):
    """A run without stages."""
    return Run(tmp_path)
