"""Registration of a study: recipe, claims, bases, tests and looks are fixed, with a hash, before the first job.

`tracekit study register RECIPE` writes `prereg.json`. A run copies it into its folder before its first job, and its
report compares: where recipe or claims differ from the copy, or where jobs were done before there was one, every
claim is exploratory and the page says why.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tracekit.core.runs import write_text
from tracekit.study.analysis.claim_sets import CLAIM_SETS
from tracekit.study.analysis.registered import ALPHA, MARGIN, SOLVED
from tracekit.study.analysis.time_to_solve import THRESHOLD, WINDOW
from tracekit.study.settings import StudySettings

FILE = "prereg.json"

#: Settings that decide no number.
NOT_REGISTERED = {"output", "workers", "title", "registration"}


class RegistrationError(ValueError):
    """A registration cannot be used: the message says what differs."""


def registration_of(settings: StudySettings) -> dict[str, Any]:
    """What is registered of a study: everything that decides a conclusion, and the hash of it."""
    claims = CLAIM_SETS[settings.claims]
    body: dict[str, Any] = {
        "recipe": settings.model_dump(mode="json", exclude=NOT_REGISTERED, exclude_defaults=True),
        "bases": len(settings.seeds),
        "claims": [
            {
                "id": claim.id,
                "question": claim.question,
                "claim": claim.text,
                "falsified if": claim.falsified,
                "test": claim.test,
                "runs": [list(run) for run in claim.runs],
            }
            for claim in claims.claims
        ],
        "analysis": {
            "alpha": ALPHA,
            "correction": "Holm within each question; an unfinished claim counts as p = 1",
            "margin": MARGIN,
            "solved": f"greedy accuracy of at least {SOLVED} on the test problems",
            "time to solve": f"first round whose last {WINDOW} have a mean on-policy reward of {THRESHOLD} or more",
            "complete": f"every base whose gates held, and at least {claims.least_bases}",
            "excluded": "a base whose rung fails a gate (skill on logs, highest pass rate); the count is reported",
        },
        "looks": "one, when every planned base is finished; counts shown before that carry no conclusion",
    }
    return {"hash": digest(body), **body}


def digest(body: dict[str, Any]) -> str:
    """SHA-256 of a registration without its hash."""
    plain = json.dumps({k: v for k, v in body.items() if k != "hash"}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(plain.encode("utf-8")).hexdigest()


def register(settings: StudySettings, path: Path) -> dict[str, Any]:
    """Write the registration. Raises RegistrationError where another one stands there."""
    found = registration_of(settings)
    if path.exists() and read_registration(path)["hash"] != found["hash"]:
        raise RegistrationError(
            f"{path} holds another registration. A registration is not changed: give this one a path of its own."
        )
    write_text(path, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return found


def registered_by(settings: StudySettings, path: Path) -> StudySettings:
    """The settings with `path` as their registration where it registers them; unchanged, so exploratory, elsewhere."""
    if read_registration(path)["hash"] != registration_of(settings)["hash"]:
        return settings
    return settings.model_copy(update={"registration": path})


def read_registration(path: Path) -> dict[str, Any]:
    """A registration whose hash is that of its content. Raises RegistrationError where it is not."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RegistrationError(f"{path} does not exist; write it with `tracekit study register RECIPE`.") from error
    except json.JSONDecodeError as error:
        raise RegistrationError(f"{path} is damaged: {error}") from error
    if not isinstance(found, dict) or found.get("hash") != digest(found):
        raise RegistrationError(f"{path} was changed after it was written: its hash is not that of its content.")
    return found


def check_registration(settings: StudySettings) -> dict[str, Any] | None:
    """The registration that a recipe names, None where it names none. Raises RegistrationError where it differs."""
    if settings.registration is None:
        return None
    found = read_registration(settings.registration)
    wanted = registration_of(settings)
    if found["hash"] != wanted["hash"]:
        raise RegistrationError(
            f"{settings.registration} registers another study (hash {found['hash'][:12]}, this recipe and these claims "
            f"have {wanted['hash'][:12]}). Register it anew before its first job, or take `registration` out of the "
            "recipe to run it as exploratory."
        )
    return found


def begin_registered(settings: StudySettings, started: bool) -> None:
    """Lay the registration into the run's folder before the first job. Raises RegistrationError where it differs.

    started: whether jobs are done already; a folder that has jobs and no copy stays unregistered.
    """
    found, copy = check_registration(settings), settings.output / FILE
    if found is not None and not copy.exists() and not started:
        write_text(copy, json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def standing(settings: StudySettings) -> tuple[bool, str]:
    """(whether the study's claims are registered, a sentence for the page)."""
    copy = settings.output / FILE
    if not copy.exists():
        return False, "Exploratory: nothing was registered before the first job."
    found, wanted = read_registration(copy), registration_of(settings)
    if found["hash"] != wanted["hash"]:
        return False, "Exploratory: the recipe or the claims were changed after the registration."
    return True, f"Registered before the first job; SHA-256 {found['hash']}."
