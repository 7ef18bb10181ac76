"""benchmarks/results/*.md → benchmarks/RESULTS.md: each benchmark leaves one file, this lays them one after another.

python benchmarks/assemble.py
"""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
HEAD = """# Measured

Each figure was printed by the command beside it, as a ratio against the named peer in one run: the machines are shared
and noisy, so seconds alone say little. Where a goal was not reached the table says so. Assembled by
`python benchmarks/assemble.py` from `benchmarks/results/`.
"""


def main() -> None:
    parts = [HEAD]
    for path in sorted((HERE / "results").glob("*.md")):
        text = path.read_text(encoding="utf-8").strip()
        # every file's own headings one level down, so that the page has one title
        parts.append(re.sub(r"^#(?=#* )", "##", text, flags=re.M) if text.startswith("# ") else text)
    (HERE / "RESULTS.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
