"""One HTML file that shows a report anywhere: no network, light or dark, on paper, the data behind each picture."""

import base64
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from pathlib import Path
from typing import Self

from plotly.offline import get_plotlyjs

from rung.reporting.chart import Axis, Cell, Chart
from rung.reporting.elements import periodic_table_html
from rung.reporting.table import Column, table_html
from rung.reporting.theme import DARK, DARK_PAGE, LIGHT, LIGHT_PAGE

_FOLDER = Path(__file__).parent


@dataclass
class Section:
    """A part of a page with its heading. Its methods add to it in the order of reading and return it."""

    title: str
    anchor: str
    _parts: list[str] = field(default_factory=list)
    _charts: int = 0

    @property
    def draws(self) -> bool:
        """Whether it has a chart, which needs the plotting script."""
        return self._charts > 0

    def text(self, *paragraphs: str) -> Self:
        """Add paragraphs."""
        self._parts += [f'<p class="wide">{escape(paragraph)}</p>' for paragraph in paragraphs]
        return self

    def note(self, text: str) -> Self:
        """Add something that the reader should not overlook."""
        self._parts.append(f'<p class="note wide" role="note">{escape(text)}</p>')
        return self

    def tiles(self, figures: Mapping[str, str]) -> Self:
        """Add a row of key figures: their names, and the figures as text with their units."""
        pairs = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in figures.items())
        self._parts.append(f'<dl class="tiles wide">{pairs}</dl>')
        return self

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], caption: str) -> Self:
        """Add a table."""
        self._parts.append(table_html(columns, rows, caption, self._file()))
        return self

    def periodic_table(self, values: Mapping[str, float], value: Axis, caption: str) -> Self:
        """Add a periodic table coloured by a number for each element."""
        self._parts.append(periodic_table_html(values, value, caption, self._file()))
        return self

    def figure(self, chart: Chart, caption: str, *, wide: bool = False) -> Self:
        """Add a chart.

        Args:
            chart: what to draw.
            caption: what it shows and what to see in it; it is also what a screen reader says.
            wide: whether it takes the whole width of the page, not half.
        """
        note = f' <span class="left-out">{escape(chart.note)}</span>' if chart.note else ""
        self._charts += 1
        self._parts.append(
            f'<figure class="chart{" wide" if wide else ""}" data-file="{self._file()}">\n'
            f'<div class="plot" role="img" aria-label="{escape(caption)}" style="height:{chart.height}px"></div>\n'
            f'<figcaption>{escape(caption)}{note} <button type="button" class="csv">CSV</button></figcaption>\n'
            f"<details><summary>Show the data</summary></details>\n"
            f'<script type="application/json">{chart.to_json()}</script>\n</figure>'
        )
        return self

    def html(self) -> str:
        """The section as HTML."""
        inside = "\n".join(self._parts)
        return f'<section id="{self.anchor}">\n<h2>{escape(self.title)}</h2>\n{inside}\n</section>'

    def _file(self) -> str:
        return f"{self.anchor}-{len(self._parts) + 1}"


@dataclass
class Page:
    """A report. Add sections, fill them, write it; the same input gives the same bytes.

    Attributes:
        title: of the page.
        subtitle: one sentence below it.
    """

    title: str
    subtitle: str = ""
    _sections: list[Section] = field(default_factory=list)

    def section(self, title: str) -> Section:
        """Add a section."""
        anchor = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        taken = sum(section.anchor == anchor or section.anchor.startswith(f"{anchor}-") for section in self._sections)
        added = Section(title, f"{anchor}-{taken + 1}" if taken else anchor)
        self._sections.append(added)
        return added

    def html(self) -> str:
        """The whole page as HTML."""
        links = "\n".join(f'<li><a href="#{s.anchor}">{escape(s.title)}</a></li>' for s in self._sections)
        script = (_FOLDER / "page.js").read_text(encoding="utf-8")
        library = _library() if any(section.draws for section in self._sections) else ""
        return _TEMPLATE.format(
            policy=_policy(library, script),
            title=escape(self.title),
            subtitle=f"<p>{escape(self.subtitle)}</p>" if self.subtitle else "",
            style=_style(),
            links=links,
            sections="\n".join(section.html() for section in self._sections),
            library=library,
            script=script,
        )

    def write(self, path: Path) -> None:
        """Write the page; the file appears whole or not at all."""
        partial = path.with_name(f".{path.name}.partial")
        try:
            with partial.open("wb") as file:
                # Text from broken data files may hold half a surrogate pair, which UTF-8 cannot.
                file.write(self.html().encode("utf-8", errors="backslashreplace"))
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@cache
def _library() -> str:
    """Plotly's script as it is: a page that had to unpack it first would print and photograph empty if it came late."""
    return get_plotlyjs().replace("</script", "<\\/script")


def _policy(*scripts: str) -> str:
    """The page may run these scripts and load nothing: markup that slipped in from a data file could do no harm."""
    allowed = " ".join(_hash(script.encode()) for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; form-action 'none'"
    )


def _hash(script: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"


def _style() -> str:
    def variables(page: str, series: Sequence[str]) -> str:
        return f"--page:{page};" + "".join(f"--series-{at}:{value};" for at, value in enumerate(series))

    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    return style.replace("/*light*/", variables(LIGHT_PAGE, LIGHT)).replace("/*dark*/", variables(DARK_PAGE, DARK))


_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header>
<div><h1>{title}</h1>
{subtitle}</div>
<button type="button" id="theme" hidden></button>
</header>
<div class="columns">
<nav aria-label="Contents"><details open><summary>Contents</summary>
<ol>
{links}
</ol></details></nav>
<main id="content">
<noscript><p class="note">The charts of this page are drawn by a script it carries, and this browser runs no scripts.
The tables are complete without it.</p></noscript>
{sections}
</main>
</div>
<footer>Made by Rung. This file loads nothing from the network.</footer>
<script id="library">{library}</script>
<script>{script}</script>
</body>
</html>
"""
