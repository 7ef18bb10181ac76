"""MkDocs hook: pages link to files of the repository outside docs/; the site carries those files under repository/."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\((\.\./[^)#\s]+)\)")


def outside(markdown: str, page: str) -> dict[str, str]:
    """Return link → path in the repository, of the links that lead out of docs/ to a file."""
    found = {}
    for link in LINK.findall(markdown):
        target = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
        if not target.startswith("docs/") and (ROOT / target).is_file():
            found[link] = target
    return found


def on_files(files: Files, config: Any) -> Files:
    """Add the linked files of the repository to the site."""
    targets = {
        target
        for file in files.documentation_pages()
        if file.src_uri.endswith(".md")
        for target in outside(Path(str(file.abs_src_path)).read_text(encoding="utf-8"), file.src_uri).values()
    }
    for target in sorted(targets):
        files.append(File.generated(config, f"repository/{_name(target)}", abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Point such links at the site's copy; a link to a folder of the repository becomes its name."""
    source = page.file.src_uri
    up = "../" * source.count("/")
    for link, target in outside(markdown, source).items():
        markdown = markdown.replace(f"]({link})", f"]({up}repository/{_name(target)})")
    return re.sub(r"\[([^\]]+)\]\(\.\./(?![^)]*repository/)(?:studies|benchmarks|docs|[A-Z])[^)]*\)", r"\1", markdown)


def _name(target: str) -> str:
    """A report in markdown is carried as text: it is no page of the site."""
    return f"{target}.txt" if target.endswith(".md") else target
