"""Names of columns in foreign data sets, by what they hold."""

from __future__ import annotations

import re

#: Names of columns, lower-cased, in the order in which they are looked for.
PROBLEM = ("problem", "question", "prompt", "instruction", "query", "user_prompt", "input", "user")
RESPONSE = (
    *("response", "completion", "output", "generation", "generated_solution", "generated_text", "model_output"),
    *("model_response", "generated_response", "assistant", "deepseek_solution", "r1_solution_1"),
    *("llm_response", "model_answer"),
)
SAMPLES = ("generations", "responses", "completions", "outputs", "samples", "choices", "resps", "candidates", "code")
THOUGHT = (
    *("reasoning_content", "reasoning", "thinking", "thought", "thoughts", "thought_process", "chain_of_thought"),
    *("cot", "complex_cot", "reasoning_trace", "thinking_trajectory", "deepseek_reasoning"),
)
GOLD = (
    *("gold", "gold_answer", "ground_truth", "expected_answer", "reference_answer", "correct_answer", "final_answer"),
    *("answer", "target", "label", "gt", "gts", "gt_answer"),
)
#: A list of texts under one of these names may be the options of a multiple-choice question.
OPTIONS = ("choices", "options")
#: Objects, or JSON texts, that may hold the gold under one of these keys.
GOLD_HOLDERS = ("reward_model", "verification_info", "metadata", "extra_info", "info")
HELD_GOLD = ("ground_truth", "expected_answer", "reference_answer", "gold_answer")
CONVERSATION = ("messages", "conversations", "conversation", "dialogue", "turns", "contents")
AUTHOR = ("author", "model", "generator", "generation_model", "model_name", "teacher")
FLAG = ("flagged_correct", "is_correct", "correct", "correctness", "score", "scores", "exact_match", "label")
#: Why a response ended, as APIs and engines name it.
FINISH = ("finish_reason", "finish_reasons", "stop_reason", "done_reason")
KIND = ("kind", "subject", "problem_type", "category", "domain")
LEVEL = ("level", "difficulty")

#: Columns that are no response, whatever their text.
METADATA = {
    *("id", "uuid", "idx", "index", "problem_id", "unique_id", "url", "source", "split", "license", "licence"),
    *("type", "tags", "object", "created", "usage", "finish_reason", "finish_reasons", "prompt_hash", "doc_hash"),
    *(
        "request_id",
        "task_id",
        "metadata",
        "extra_info",
        "info",
        "ability",
        "style",
        "body",
        "request",
        "version",
        "language",
        "tools",
    ),
    *("prompt_token_ids", "token_ids", "logprobs", "system_fingerprint", "timestamp", "date"),
    *("system", "system_prompt", "solution", "dataset", "data_source", "year", "topic", "question_type", "custom_id"),
    *KIND,
    *LEVEL,
    *AUTHOR,
}

#: A text column of this mean length that nothing was read from may hold what a user wants: he is asked.
LONG_TEXT = 40

#: Names such as r1_reasoning, deepseek_thinking, cot_trace; and gold_solution, correct_option, final_ans.
NAMES_A_THOUGHT = re.compile(r"reasoning|think|thought|(?:^|_)cot(?:_|$)|trajector|scratchpad", re.IGNORECASE)
NAMES_A_GOLD = re.compile(r"gold|truth|expected|(?:reference|correct|right|true|final)_?ans", re.IGNORECASE)
#: Names of what belongs to the question: SVAMP's `Body` before its `Question`, the options of MMLU-Pro.
NAMES_A_CONTEXT = re.compile(
    r"^(?:body|context|passage|premise|stem|background|options|choices|hints?)$", re.IGNORECASE
)
#: Names such as response_id, uuid.
NAMES_AN_ID = re.compile(r"(?:^|_)u?u?id$", re.IGNORECASE)
#: Names such as llm_response, model_responses, r1_generations, student_output.
NAMES_A_RESPONSE = re.compile(
    r"respon|generat|complet|output|rollout|prediction|^(?:llm|model|student)_", re.IGNORECASE
)
