"""Takes the repository's other guides into the site: pages that live beside what they describe.

Links stay as they are in the files, so that they work where the repository is read; here they are turned to the pages'
places in the site.
"""

import posixpath
import re
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parents[2]

PAGES: Final = {
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "data_prep/README.md": "data-preparation.md",
    "k8s/README.md": "kubernetes.md",
    "tests/benchmarks/README.md": "benchmarks.md",
}
"""Place in the site of each page of the repository that is not below docs/."""

_LINK: Final = re.compile(r"\]\((?P<path>[^)#:\s]+)(?P<anchor>#[^)\s]*)?\)")


def places() -> dict[str, str]:
    """Place in the site of every file outside docs/, by its path in the repository."""
    pictures = [*(ROOT / "tests/benchmarks/results").glob("*.svg"), *(ROOT / "tests/benchmarks/results").glob("*.png")]
    return PAGES | {str(path.relative_to(ROOT)): f"results/{path.name}" for path in sorted(pictures)}


def turned(markdown: str, page: str) -> str:
    """The text with the links of a file (its path in the repository) turned to places in the site."""
    here = _site_place(page)
    folder = posixpath.dirname(page)

    def link(match: re.Match[str]) -> str:
        target = _site_place(posixpath.normpath(posixpath.join(folder, match["path"])))
        return f"]({posixpath.relpath(target, posixpath.dirname(here) or '.')}{match['anchor'] or ''})"

    return _LINK.sub(link, markdown)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files from outside."""
    for path, place in places().items():
        if (ROOT / path).is_file():
            files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - MkDocs' names
    """Turn the links of a page."""
    return turned(markdown, _repository_path(page.file.src_uri))


def _site_place(path: str) -> str:
    """From a path in the repository to a place in the site; one that the site lacks is left, for MkDocs to refuse."""
    if path.startswith("docs/") and path.endswith(".ipynb"):  # shown as a page by the hook beside this one
        path = f"{path.removesuffix('.ipynb')}.md"
    return places().get(path, path.removeprefix("docs/"))


def _repository_path(place: str) -> str:
    return next((path for path, other in PAGES.items() if other == place), f"docs/{place}")
