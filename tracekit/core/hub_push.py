"""Folders pushed to the Hugging Face hub: private unless said otherwise, with a card, the token never in a setting."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from tracekit.core.runs import RUN_FILE

#: Seconds within which a hub that cannot be reached is reported.
REACH_SECONDS = 8.0
#: Files of a folder that are no part of it for others: markers, locks, half-written files.
_LEFT_OUT = [".*", "**/.*", "*.partial"]


class HubError(ValueError):
    """The hub cannot be used: the message says what it answered and what to do."""


def push_folder(
    folder: str | Path, repository: str, kind: Literal["dataset", "model"], *, public: bool = False, card: str = ""
) -> str:
    """Upload a folder to the hub in one commit, and return its address.

    The token is that of `huggingface_hub`: the environment variable HF_TOKEN, or `hf auth login`. HF_ENDPOINT names
    another hub.

    Parameters
    ----------
    folder
        What is uploaded; hidden files are left out.
    repository
        "owner/name"; made if it is not there.
    kind
        "dataset" or "model".
    public
        Whether a repository that is made is visible to everybody; one that is there keeps its visibility.
    card
        README.md of the repository, where the folder has none.

    Raises
    ------
    HubError
        If the hub is not reachable, refuses the token or the name, or the folder is empty.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    folder = Path(folder)
    if not any(path.is_file() and not path.name.startswith(".") for path in folder.rglob("*")):
        raise HubError(f"{folder} holds no file to push.")
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    _check_reachable(api.endpoint)
    if _token(api) is None:
        raise HubError("no token for the hub; set HF_TOKEN in the environment, or run: hf auth login.")
    try:
        address = api.create_repo(repository, repo_type=kind, private=not public, exist_ok=True)
        if card and not (folder / "README.md").is_file():
            api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=repository, repo_type=kind)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            repo_type=kind,
            commit_message="Push by reasoning-tracekit",
            ignore_patterns=_LEFT_OUT,
        )
    except HFValidationError as error:
        raise HubError(f"{repository!r} is no name of the hub; expected owner/name.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        hint = {401: "check HF_TOKEN", 403: "the token may not write there", 404: "check the owner"}
        way_out = hint.get(status, "run the same command again") if isinstance(status, int) else "run it again"
        raise HubError(f"{api.endpoint} answered {status} for {repository}; {way_out}.") from error
    return str(address)


def _token(api: Any) -> str | None:
    from huggingface_hub import get_token

    return api.token or get_token()


def _check_reachable(endpoint: str) -> None:
    """Raise HubError in a few seconds where nothing answers: the library itself retries for minutes."""
    import httpx

    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        raise HubError("HF_HUB_OFFLINE is set; unset it to push.")
    try:
        httpx.head(endpoint, timeout=REACH_SECONDS)
    except httpx.HTTPError as error:
        raise HubError(f"{endpoint} cannot be reached ({type(error).__name__}); check the network.") from error


def kind_of(folder: str | Path) -> Literal["dataset", "model"]:
    """Whether a folder is a model or data. Raises HubError where it is neither."""
    folder = Path(folder)
    if (folder / "curated.parquet").is_file():
        raise HubError(f"{folder} is a whole run; push {folder / 'export'}, which holds its data and card.")
    if (folder / "config.json").is_file():
        return "model"
    if any(folder.rglob("*.parquet")) or any(folder.rglob("*.jsonl")):
        return "dataset"
    raise HubError(f"{folder} holds neither a model (config.json) nor an export (RUN/export of tracekit curate).")


def model_card(folder: str | Path) -> str:
    """A card for a trained model: method, seed and versions of its run; no path of this machine is in it."""
    folder = Path(folder)
    place = next((path for path in (folder / RUN_FILE, folder.parent / RUN_FILE) if path.is_file()), None)
    record = json.loads(place.read_text(encoding="utf-8")) if place else {}
    settings = record.get("settings", {})
    facts = {"method": settings.get("method"), "seed": record.get("seed"), "commit": record.get("commit")}
    facts |= record.get("versions", {})
    rows = "".join(f"| {name} | {value} |\n" for name, value in facts.items() if value is not None)
    return (
        "---\nlibrary_name: transformers\ntags:\n- reasoning-tracekit\n---\n\n"
        f"# {folder.parent.name if folder.name == 'final' else folder.name}\n\n"
        "Trained with reasoning-tracekit.\n\n" + (f"| | |\n|---|---|\n{rows}" if rows else "")
    )
