"""Links from pages to files of the repository, which the site has as pages of their own."""

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "seeds/README.md": "seeds.md",
}
"""Documents outside of ``docs/``, and the page that each becomes."""

REFERENCES = {
    "configs": "configuration.md#profiles",
    "flows/cli": "commands.md",
    "knowrl_core/config": "configuration.md",
    "knowrl_core/errors.py": "commands.md#exit-codes",
}
"""Code of which the site has a generated reference, and its place there: a repository host can show the code only."""

_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
_FENCE = re.compile(r"^( *)(```+).*?^\1\2 *$", re.MULTILINE | re.DOTALL)
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".sh": "sh", ".c": "c"}


def site_links(text: str, source: str, found: Callable[[str], None]) -> str:
    """A document of the repository with links that fit the site.

    Args:
        text: Its Markdown.
        source: Its path in the repository, from which its links count.
        found: Called with each file, outside of the documents, that is linked to.

    Returns:
        The text; a link to something that is not there is left as it is, and the build complains of it.
    """

    def target(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        anchor = match[2] or ""
        if path in PAGES:
            return PAGES[path] + anchor
        if path in REFERENCES:
            return REFERENCES[path].partition("#")[0] + anchor if anchor else REFERENCES[path]
        if path.startswith("docs/"):
            return path.removeprefix("docs/") + anchor
        if (REPOSITORY / path).is_file():
            found(path)
            return f"{source_page(path)}{anchor}"
        return match[0]

    pieces, end = [], 0
    for fence in _FENCE.finditer(text):  # code is left as it stands
        pieces += [_LINK.sub(target, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*pieces, _LINK.sub(target, text[end:])])


def source_page(path: str) -> str:
    """Where the site shows a file of the repository."""
    return f"source/{path}.md"


def source_text(path: str) -> str:
    """The page of a file of the repository."""
    language = _LANGUAGES.get(Path(path).suffix, "text")
    content = (REPOSITORY / path).read_text(encoding="utf-8").rstrip("\n")
    return f"---\nsearch:\n  exclude: true\n---\n\n# {path}\n\n``````{language}\n{content}\n``````\n"
