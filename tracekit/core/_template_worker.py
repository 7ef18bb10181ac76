"""The child process that renders chat templates: reads one JSON request, writes one JSON answer.

The environment is that of `transformers.PreTrainedTokenizerBase.apply_chat_template`, so that the text is the same.
The process limits its own CPU time and memory before it compiles the template, which is foreign input.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(jinja2.ext.Extension):
    """The block `{% generation %}…{% endgeneration %}`, which marks an assistant's text: its body is printed."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        """Parse the block as a plain scope around its body."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


def environment() -> ImmutableSandboxedEnvironment:
    """Return the sandbox with the filters and functions that chat templates may use."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = to_json
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
    return made


def to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Return JSON without jinja2's escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message: str) -> None:
    """Let a template refuse a conversation."""
    raise jinja2.TemplateError(message)


def limit(cpu_seconds: int, memory_bytes: int) -> None:
    """Have the operating system end this process beyond these limits."""
    try:
        import resource
    except ImportError:  # Windows: the parent's time limit alone
        return
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Render each conversation; the answer holds the texts or the fault."""
    try:
        template = environment().from_string(request["template"])
        texts = []
        for messages in request["conversations"]:
            longest = request["extra_characters"] + 8 * sum(len(message["content"]) for message in messages)
            text, pieces = 0, []
            for piece in template.generate(messages=messages, **request["variables"]):
                text += len(piece)
                if text > longest:
                    return {"fault": f"it prints more than {longest} characters for one prompt"}
                pieces.append(piece)
            texts.append("".join(pieces))
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
        return {"fault": f"{type(error).__name__}: {error}"}
    except (MemoryError, RecursionError) as error:
        return {"fault": f"it needs too much memory ({type(error).__name__})"}
    return {"texts": texts}


def main() -> None:
    """Answer the one request on standard input."""
    limit(int(sys.argv[1]), int(sys.argv[2]))
    request = json.loads(sys.stdin.buffer.read())
    sys.stdout.buffer.write(json.dumps(answer(request)).encode("ascii"))


if __name__ == "__main__":
    main()
