"""Shows notebooks as pages: text, code, what it printed and its pictures, as they were committed; nothing is run.

They become Markdown, so that they look like every other page, their links are checked, and nothing is loaded from
elsewhere. The notebook itself lies beside its page.
"""

import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ENDING: Final = ".ipynb"


def page_of(notebook: Mapping[str, Any], name: str) -> tuple[str, dict[str, bytes]]:
    """The notebook as Markdown, and its pictures by file name.

    Args:
        notebook: as its file holds it (nbformat 4).
        name: of the page, for its pictures' names.
    """
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        source = _text(cell["source"])
        if cell["cell_type"] != "code":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                picture = f"{name}-{len(pictures) + 1}.png"
                pictures[picture] = b64decode(_text(data["image/png"]))
                parts.append(f"![{cell['metadata'].get('alt', '')}]({picture})")
            else:
                printed = _text(output.get("text") or data.get("text/plain", ""))
                parts.append(f"```text\n{printed.rstrip()}\n```")
    return "\n\n".join(parts) + "\n", pictures


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page and the pictures of every notebook."""
    for file in list(files):
        if not file.src_uri.endswith(_ENDING) or file.abs_src_path is None:
            continue
        place = file.src_uri.removesuffix(_ENDING)
        notebook = json.loads(Path(file.abs_src_path).read_text(encoding="utf-8"))
        text, pictures = page_of(notebook, Path(place).name)
        files.append(File.generated(config, f"{place}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, str(Path(place).with_name(name)), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - MkDocs' names
    """Link the notebook below the title of its page."""
    name = Path(page.file.src_uri).with_suffix(_ENDING)
    if files.get_file_from_path(str(name)) is None:
        return markdown
    title, _, rest = markdown.partition("\n")
    return f"{title}\n\n[This page as a notebook]({name.name})\n{rest}"


def _text(lines: str | Sequence[str]) -> str:
    """Text that a notebook holds as one string or as a list of lines."""
    return lines if isinstance(lines, str) else "".join(lines)
