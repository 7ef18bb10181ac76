"""Whether the Hugging Face hub answers: asked once, so that a name fails in seconds, not after minutes of retries."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path

ENDPOINT = "https://huggingface.co"
#: How long the hub may take to answer at all.
SECONDS = 6.0


def prepare_hub(name: str | Path) -> None:
    """Before a hub name is loaded: where the hub does not answer, read its cache alone, without retries."""
    if not Path(name).exists() and not hub_answers():
        os.environ["HF_HUB_OFFLINE"] = "1"
        for module in ("huggingface_hub.constants", "datasets.config"):  # they read the variable when imported
            if module in sys.modules:
                vars(sys.modules[module])["HF_HUB_OFFLINE"] = True


@lru_cache(maxsize=1)
def hub_answers() -> bool:
    """Whether the hub (HF_ENDPOINT, if set) answers within SECONDS; False where HF_HUB_OFFLINE is set."""
    import httpx

    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    try:
        answer = httpx.head(os.environ.get("HF_ENDPOINT", ENDPOINT), timeout=SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError):
        return False
    return answer.status_code < 500


def unreachable(name: str | Path) -> str:
    """What to tell of a name that is neither here nor to be had."""
    endpoint = os.environ.get("HF_ENDPOINT", ENDPOINT)
    return (
        f"{name} is no file or folder here and not in the hub's cache, and {endpoint} does not answer; check the name "
        "and the network, or download it on another machine and name the folder."
    )
