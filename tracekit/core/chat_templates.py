"""Chat templates rendered in a child process under a time, memory and size limit.

A template comes with a model's folder and is a program: one that loops would otherwise hang training, evaluation and
probing, and no limit inside the process reaches a loop that prints nothing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

#: Limits of one call; a usual template takes about 20 µs and some hundred characters a prompt.
CPU_SECONDS, CPU_SECONDS_PER_THOUSAND = 10, 2
MEMORY_BYTES = 2 << 30
EXTRA_CHARACTERS = 1_000_000

Message = Mapping[str, Any]


class TemplateError(ValueError):
    """A chat template cannot be rendered: the message says what it did and what to do."""


def render(template: str, conversations: Sequence[Sequence[Message]], variables: Mapping[str, Any]) -> list[str]:
    """Return each conversation as the Jinja `template` prints it.

    variables: names that the template may read beside `messages`: add_generation_prompt, the tokenizer's special
    tokens, the user's template arguments. Plain JSON values. Raises TemplateError.
    """
    if not conversations:
        return []
    request = {
        "template": template,
        "conversations": [[dict(message) for message in messages] for messages in conversations],
        "variables": dict(variables),
        "extra_characters": EXTRA_CHARACTERS,
    }
    seconds = CPU_SECONDS + CPU_SECONDS_PER_THOUSAND * len(conversations) // 1000
    search_path = os.pathsep.join(os.path.abspath(entry or ".") for entry in sys.path)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "tracekit.core._template_worker", str(seconds), str(MEMORY_BYTES)],
            input=json.dumps(request, default=str).encode("ascii"),
            capture_output=True,
            timeout=60 * seconds,  # of the clock; a busy machine gives a process a small part of its time
            env=os.environ | {"PYTHONPATH": search_path},
        )
    except subprocess.TimeoutExpired as error:
        raise TemplateError(_too_long(seconds)) from error
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise TemplateError(_too_long(seconds))
    if done.returncode:
        last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise TemplateError(f"the chat template cannot be rendered: {last}")
    answer = json.loads(done.stdout)
    if "fault" in answer:
        raise TemplateError(f"the chat template cannot be rendered: {answer['fault']}.")
    return [str(text) for text in answer["texts"]]


def _too_long(seconds: int) -> str:
    return (
        f"the chat template did not end within {seconds} seconds of computing time; it is not one to use. "
        "Set another by model_changes.chat_template, or chat_template=false for the problem's plain text."
    )
