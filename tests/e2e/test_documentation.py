"""The commands and examples of README.md and docs/*.md are run, in a copy of the repository (tests/docs/scene.py)."""

import pytest

from tests.docs.pages import blocks, pages, read
from tests.docs.scene import Scene
from tests.e2e.helpers import environment_of

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
FIRST = ["README.md", "docs/quickstart.md"]
"""Their runs are used by the other pages."""
OWN = ["docs/extend.md"]
"""Pages that change the code get a copy of their own."""
PLAYED = [
    page
    for page in [*FIRST, *(p for p in pages() if p not in FIRST)]
    if any(b.is_run for b in blocks(page, read(page)))
]


@pytest.fixture(scope="module")
def scene(tmp_path_factory, home, prefect_server):
    return Scene(tmp_path_factory.mktemp("scene") / "knowrl", environment_of(home, PREFECT_API_URL=prefect_server))


@pytest.mark.parametrize("page", PLAYED)
def test_page(page, scene, tmp_path):
    if page in OWN:
        scene = Scene(tmp_path / "knowrl", scene.env)
    assert scene.play(page) > 0
