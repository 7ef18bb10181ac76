"""The one prompt renderer and the one model loader."""

import json
import subprocess
import sys
import time

import pytest

pytest.importorskip("transformers")

from tracekit.core import chat_templates
from tracekit.core.models import ModelError, open_config, open_model, open_tokenizer
from tracekit.core.prompts import (
    PROMPT_FILE,
    PromptError,
    PromptSettings,
    make_prompts,
    opened_characters,
    print_prompts,
    read_prompt_settings,
    save_prompt_settings,
)
from tracekit.study.tasks.world import World, write_tokenizer

#: Written for this test after the layouts of Qwen3, Llama 3, Mistral and DeepSeek-R1.
TEMPLATES = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "bos": "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}",
    "namespace": "{%- set ns = namespace(n=0) -%}{%- for m in messages -%}{%- set ns.n = ns.n + 1 -%}"
    "{{ ns.n }}:{{ m.content }}{%- if loop.last %}!{% endif -%}{%- endfor -%}",
    "json": "{{ messages | tojson(indent=1) }}"
    "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}x{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}"
    "{{ m.content }} {{ eos_token }}{% endgeneration %}\n{% endfor %}",
    "arguments": "{{ messages[0].content }}{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n"
    "{% else %}<think>\n{% endif %}",
}


@pytest.fixture
def tokenizer(tmp_path):
    return open_tokenizer(write_tokenizer(World(), tmp_path / "tokenizer"))


@pytest.mark.parametrize("name", TEMPLATES)
def test_prompts_are_printed_as_transformers_prints_them(tokenizer, name):
    tokenizer.chat_template = TEMPLATES[name]
    settings = PromptSettings(system_prompt="Be <brief> & 'exact'.", template_arguments={"enable_thinking": False})
    problems = ["1 A +1 ?", " two\nlines\n", ""]
    expected = [
        tokenizer.apply_chat_template(
            [{"role": "system", "content": settings.system_prompt}, {"role": "user", "content": problem}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
        for problem in problems
    ]
    assert print_prompts(tokenizer, problems, settings) == expected


def test_bos_stands_once_whether_template_or_tokenizer_gives_it(tokenizer):
    bos = tokenizer.bos_token_id
    plain, templated = PromptSettings(chat_template=False), PromptSettings()
    tokenizer.chat_template = TEMPLATES["bos"]
    for settings, problem in ((plain, "1 A"), (plain, f"{tokenizer.bos_token} 1 A"), (templated, "1 A")):
        ids = make_prompts(tokenizer, [problem], settings)[0].token_ids
        assert (ids[0], ids.count(bos)) == (bos, 1)


def test_an_opened_think_block_is_seen_and_a_closed_one_is_not(tokenizer):
    tokenizer.chat_template = TEMPLATES["arguments"]
    assert make_prompts(tokenizer, ["1"])[0].think_open
    assert not make_prompts(tokenizer, ["1"], PromptSettings(template_arguments={"enable_thinking": False}))[
        0
    ].think_open
    tokenizer.chat_template = "{{ messages[0].content }}[THINK]"
    assert make_prompts(tokenizer, ["1"])[0].think_open
    tokenizer.chat_template = TEMPLATES["chatml"]
    assert not make_prompts(tokenizer, ["1"])[0].think_open


@pytest.mark.parametrize(
    ("prompt", "response", "rest"),
    [
        ("x<think>\n", "<think>\na", "a"),
        ("x<think>\n", "\n <think> a", " a"),
        ("x<think>\n", "a <think> b", "a <think> b"),
        ("x[THINK]", "[THINK]a", "a"),
        ("x[THINK]", "<think>a", "<think>a"),
        ("x", "<think>\na", "<think>\na"),
    ],
)
def test_the_tag_that_the_prompt_opened_is_not_read_twice(prompt, response, rest):
    assert response[opened_characters(prompt, response) :] == rest


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% set x = i * j %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{{ messages[0].content }}{% endfor %}{% endfor %}",
        "{{ 'a' * 9999999999 }}",
        "{{ 9 ** (9 ** 9) }}",
    ],
    ids=["loops", "prints", "memory", "power"],
)
def test_a_template_that_does_not_end_is_an_error_and_not_a_hang(tokenizer, template, monkeypatch):
    monkeypatch.setattr(chat_templates, "CPU_SECONDS", 1)
    tokenizer.chat_template = template
    started = time.monotonic()
    with pytest.raises(PromptError, match="chat template"):
        print_prompts(tokenizer, ["1 A +1 ?"])
    assert time.monotonic() - started < 60


def test_a_template_that_refuses_is_quoted_and_settings_without_a_template_are_refused(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('no system message, please') }}"
    with pytest.raises(PromptError, match="no system message, please"):
        print_prompts(tokenizer, ["1"])
    tokenizer.chat_template = None
    for settings in (PromptSettings(system_prompt="x"), PromptSettings(template_arguments={"a": 1})):
        with pytest.raises(PromptError, match="no chat template"):
            print_prompts(tokenizer, ["1"], settings)


def test_settings_travel_with_a_checkpoint(tmp_path):
    assert read_prompt_settings(tmp_path) is None
    settings = PromptSettings(system_prompt="é\n", template_arguments={"enable_thinking": False})
    save_prompt_settings(settings, tmp_path)
    assert read_prompt_settings(tmp_path) == settings
    (tmp_path / PROMPT_FILE).write_text('{"system_prompt": ', encoding="utf-8")
    with pytest.raises(PromptError, match="damaged"):
        read_prompt_settings(tmp_path)


CODE = """
import pathlib
pathlib.Path({marker!r}).write_text("ran")
from transformers import {base}
class Own({base}):
    pass
"""


@pytest.fixture
def foreign(tmp_path):
    """A model folder that brings code of its own, as hub models do."""
    folder, marker = tmp_path / "foreign", tmp_path / "marker"
    folder.mkdir()
    for name, base in (
        ("own_config", "PreTrainedConfig"),
        ("own_model", "PreTrainedModel"),
        ("own_tok", "PreTrainedTokenizerFast"),
    ):
        (folder / f"{name}.py").write_text(CODE.format(marker=str(marker), base=base), encoding="utf-8")
    auto = {"AutoConfig": "own_config.Own", "AutoModelForCausalLM": "own_model.Own", "AutoModel": "own_model.Own"}
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": auto}), encoding="utf-8")
    kept = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own_tok.Own"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(kept), encoding="utf-8")
    return folder, marker


@pytest.mark.parametrize("opener", ["open_model", "open_config", "open_tokenizer"])
def test_a_folders_code_is_not_run_and_nothing_is_asked_on_standard_input(foreign, opener):
    folder, marker = foreign
    code = f"from tracekit.core.models import ModelError, {opener}\ntry:\n    {opener}({str(folder)!r})\n"
    code += "except ModelError as error:\n    print('refused:', error)"
    done = subprocess.run([sys.executable, "-c", code], input="y\ny\ny\n", capture_output=True, text=True)
    assert "refused" in done.stdout, done.stderr
    assert "[y/N]" not in done.stdout
    assert not marker.exists()


def test_only_safetensors_are_read(tmp_path):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    model = LlamaForCausalLM(config)
    config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        open_model(tmp_path)
    model.save_pretrained(tmp_path)
    assert torch.equal(open_model(tmp_path).lm_head.weight, model.lm_head.weight)
    first, again, other = (open_model(tmp_path, head=False, untrained_seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.embed_tokens.weight, again.embed_tokens.weight)
    assert not torch.equal(first.embed_tokens.weight, other.embed_tokens.weight)
    with pytest.raises(ModelError, match="does not exist"):
        open_config(tmp_path / "none")
