"""What MkDocs is told beside ``mkdocs.yml``: generated pages, documents outside of ``docs/``, pages without a place."""

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from scripts.site.command_reference import commands_page
from scripts.site.config_reference import config_page
from scripts.site.repository_links import PAGES, REPOSITORY, site_links, source_page, source_text

_GENERATED = {"configuration.md": config_page, "commands.md": commands_page}
_SECTION = "Guides"
"""Where a page goes that the navigation does not name."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages that nobody named to the navigation."""
    named = set(_pages(config.nav))
    section = next(item[_SECTION] for item in config.nav or [] if _SECTION in item)
    section += sorted(path.name for path in Path(config.docs_dir).glob("*.md") if path.name not in named)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add generated pages, documents of the repository, and the files that any page links to."""
    linked: set[str] = set()
    for source, page in PAGES.items():
        text = site_links((REPOSITORY / source).read_text(encoding="utf-8"), source, linked.add)
        files.append(File.generated(config, page, content=text))
    for name, page_of in _GENERATED.items():
        files.append(File.generated(config, name, content=page_of()))
    for file in files.documentation_pages():
        if file.generated_by is None:
            site_links(file.content_string, f"docs/{file.src_uri}", linked.add)
    for path in sorted(linked):
        files.append(
            File.generated(config, source_page(path), content=source_text(path), inclusion=InclusionLevel.NOT_IN_NAV)
        )
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links that leave ``docs/`` into links of the site."""
    if page.file.generated_by is not None:
        return markdown
    return site_links(markdown, f"docs/{page.file.src_uri}", lambda _: None)


def _pages(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    items = nav.values() if isinstance(nav, dict) else nav or []
    return [page for item in items for page in _pages(item)]
