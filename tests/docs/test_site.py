"""The documentation site: it builds without a warning, needs no other host, and leaves out no field and no command."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import typer

from flows.cli.main import app
from knowrl_core.config import Config
from scripts.site.command_reference import walk
from scripts.site.repository_links import PAGES
from tests.docs.pages import REPOSITORY, pages, read


def mkdocs(*arguments, config=REPOSITORY / "mkdocs.yml"):
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(config), *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.mark.parametrize("document", sorted({*pages(), *PAGES}))
def test_every_link_leads_somewhere_in_the_repository_too(document):
    """Where a repository host shows the documents, there are no generated pages."""
    text = re.sub(r"^( *)(```+).*?^\1\2 *$", "", read(document), flags=re.MULTILINE | re.DOTALL)
    folder = (REPOSITORY / document).parent
    targets = re.findall(r"\]\((?!https?:|mailto:|#)([^)\s#]+)", text)
    assert [target for target in targets if not (folder / target).exists()] == []


def test_links_to_code_with_a_reference_lead_there_in_the_site(site):
    assert "configuration.html#profiles" in (site / "gpu.html").read_text()
    assert "commands.html#exit-codes" in (site / "troubleshooting.html").read_text()
    assert re.search(
        r"configuration\.html[\">][^<]*>?the configuration reference", (site / "quickstart.html").read_text()
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = mkdocs("--site-dir", str(folder))
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_every_config_field_stands_in_the_reference(site):
    page = (site / "configuration.html").read_text()

    def fields(section, path):
        for name, field in section.model_fields.items():
            below = field.annotation
            if isinstance(below, type) and hasattr(below, "model_fields"):
                yield from fields(below, f"{path}{name}.")
            else:
                yield f"{path}{name}", field

    found = list(fields(Config, ""))
    assert len(found) > 100
    for name, field in found:
        assert f"id={name}>" in page.replace('"', ""), name
        assert field.description, name


def test_every_command_and_option_stands_in_the_reference(site):
    page = (site / "commands.html").read_text()
    for path, command in walk(typer.main.get_command(app)):
        if hasattr(command, "commands"):
            continue
        assert f"{path}<a class=headerlink" in page.replace('"', ""), path
        part = page.replace('"', "").split(f"{path}<a class=headerlink")[1].split("<h2")[0]
        assert [
            flag for item in command.params for flag in item.opts if flag.startswith("-") and flag not in part
        ] == []


def test_no_page_needs_another_host(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for path in pages:
        text = path.read_text()
        loaded = re.findall(
            r"<(?:script|img|iframe|source|link)\b[^>]*?(?:src|href)=\"?((?:https?:)?//[^\s\">]+)", text
        )
        assert loaded == [], path
        assert "class=mermaid" not in text.replace('"', "")  # Material would load it from elsewhere
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert re.findall(r"url\(\"?(?:https?:)?//", styles) == []


def test_every_picture_has_a_text(site):
    for path in site.rglob("*.html"):
        for image in re.findall(r"<img\b[^>]*>", path.read_text()):
            assert re.search(r"alt=(\"[^\"]{10,}\"|[^\s\"]{10,})", image), (path, image)


def test_broken_links_and_anchors_fail(tmp_path):
    shutil.copytree(REPOSITORY / "docs", tmp_path / "docs")
    (tmp_path / "docs/new.md").write_text(
        "# New\n\n[a](nowhere.md) [b](use.md#nowhere) [c](../configs/nowhere.yaml) [d](#nowhere)\n"
        "[e](../configs/smoke.yaml) [f](../SECURITY.md) [g](configuration.md#rl.kl_coef)\n"
        "[h](../knowrl_core/config#rl.kl_coef) [i](../configs) [j](../flows/cli/)\n"
    )
    config = tmp_path / "mkdocs.yml"
    config.write_text(
        f"INHERIT: {REPOSITORY / 'mkdocs.yml'}\ndocs_dir: {tmp_path / 'docs'}\nsite_dir: {tmp_path / 'site'}\n"
        f"hooks: [{REPOSITORY / 'scripts/site/hooks.py'}]\nwatch: []\n"
    )
    done = mkdocs(config=config)
    assert done.returncode == 1
    warnings = [line for line in done.stderr.splitlines() if "WARNING" in line]
    assert len(warnings) == 4, done.stderr
    for named in ("'nowhere.md'", "'use.md#nowhere'", "'../configs/nowhere.yaml'", "'#nowhere'"):
        assert any(named in line for line in warnings), named
