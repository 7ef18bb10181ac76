"""Values as scripts. A page opened from disk may not fetch, but it may load `<script src>`.

Model text passes through here on its way to the page. It is data inside a JSON string, and what could end
the script or the line is written as an escape.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tracekit.core.runs import write_text

# JSON allows these raw; HTML (`</script`, `<!--`) and JavaScript before 2019 (the line separators) do not.
_ESCAPES = (("<", "\\u003c"), (">", "\\u003e"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029"))


def as_script(name: str, value: Any) -> str:
    """JavaScript that hands `value` (plain JSON values) to the page under `name`."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for raw, escape in _ESCAPES:  # four passes of `replace` take a tenth of one `translate`
        text = text.replace(raw, escape)
    return f'tracekit.receive("{name}",{text});\n'


def write_script(folder: Path, name: str, value: Any) -> None:
    """Write `folder/name.js`."""
    write_text(folder / f"{name}.js", as_script(name, value))
