"""What the site needs beyond the pages in docs/: pages that lie elsewhere, names by their short form, and a look at the result.

mkdocs calls the functions below (``hooks`` in mkdocs.yml). The tests do not import this file.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
#: file at the top of the repository → its page
ELSEWHERE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
#: a link to a file that is not in docs/: its label, the way up, the file
OUTSIDE = re.compile(r"\[([^\]]+)\]\(((?:\.\./)*)([A-Z]+\.md|LICENSE|(?:benchmarks|examples|src|tests)/[^)]*)\)")
#: what a browser would fetch by itself; a plain link (<a href>) is fetched only when a person follows it
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//[^"'\s>]+"""
    r"""|<link\b[^>]*\brel=["']?(?:stylesheet|preload|preconnect|icon)[^>]*\bhref=["']?(?:https?:)?//[^"'\s>]+"""
    r"""|@import\s+(?:url\()?["']?(?:https?:)?//[^"'\s)]+|url\(["']?(?:https?:)?//[^"'\s)]+"""
)


def on_files(files: Files, config: Any) -> Files:
    """CONTRIBUTING.md and CHANGELOG.md become pages; their links are then relative to docs/."""
    for name, page in ELSEWHERE.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=re.sub(r"\]\(docs/", "](", text)))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Links out of docs/ lead to the page that the file became, or become plain text; ``::: mixtura.run`` names its home."""
    text = OUTSIDE.sub(_inside(page), markdown)
    return re.sub(r"^::: mixtura\.(\w+)$", _home, text, flags=re.MULTILINE)


def _inside(page: Page) -> Any:
    up = "../" * page.file.src_uri.count("/")

    def replace(link: re.Match[str]) -> str:
        label, _, target = link.groups()
        return f"[{label}]({up}{ELSEWHERE[target]})" if target in ELSEWHERE else label

    return replace


def _home(directive: re.Match[str]) -> str:
    sys.path.insert(0, str(ROOT / "src"))
    try:
        from mixtura import _HOME
    finally:
        sys.path.remove(str(ROOT / "src"))
    name = directive[1]
    return f"::: mixtura.{_HOME[name]}.{name}" if name in _HOME else directive[0]


def on_page_content(html: str, page: Page, config: Any, files: Files) -> str:
    """The docstrings mark names as ``:class:`Weights```, for readers of the source; here the name alone is shown."""
    return re.sub(r":(?:attr|class|data|exc|func|meth|mod):(?=<code)", "", html)


def on_post_build(config: Any) -> None:
    """Fails where a page would fetch anything from the network."""
    pages = [*Path(config["site_dir"]).rglob("*.html"), *Path(config["site_dir"]).rglob("*.css")]
    found = [f"{path.name}: {match[0]}" for path in pages for match in FETCHED.finditer(path.read_text(encoding="utf-8"))]
    if found:
        raise PluginError("the site must work offline, but would fetch " + "; ".join(sorted(set(found))[:5]))
