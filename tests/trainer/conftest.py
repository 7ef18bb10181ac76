"""A tokenizer, a corpus and a model small enough for seconds."""

import polars as pl
import pytest
import torch

from tracekit.core.tables import CURATED, check
from tracekit.study.tasks.world import World, corpus, make_problems, teach, write_tokenizer
from trainer.modeling.models import load_tokenizer, new_model
from trainer.settings import NewModelSettings


@pytest.fixture(scope="session")
def world_folder(tmp_path_factory):
    """tokenizer/, text.parquet, problems.parquet and curated.parquet of a small world."""
    folder = tmp_path_factory.mktemp("world")
    world = World()
    write_tokenizer(world, folder / "tokenizer")
    pl.DataFrame({"text": list(corpus(world, 300, 0))}).write_parquet(folder / "text.parquet")
    problems = make_problems(world, "train", 40, 0)
    problems.write_parquet(folder / "problems.parquet")
    curated_rows(problems, teach(world, problems, 0, traces_each=2)).write_parquet(folder / "curated.parquet")
    return folder


@pytest.fixture(scope="session")
def model(world_folder, tmp_path_factory):
    """A run's final folder: random weights, the world's tokenizer with its chat template."""
    folder = tmp_path_factory.mktemp("runs") / "tiny" / "final"
    tokenizer = load_tokenizer(world_folder / "tokenizer")
    torch.manual_seed(0)
    made = NewModelSettings(tokenizer=world_folder / "tokenizer", hidden_size=32, layers=1, heads=2)
    new_model(made, tokenizer, "sdpa").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def curated_rows(problems, traces):
    """CURATED with one right and one wrong row a problem."""
    joined = traces.join(problems, on="problem_id").with_columns(
        correct=pl.int_range(pl.len()).over("problem_id") == 0,
    )
    return check(joined.select(CURATED.keys()).sort("trace_id"), CURATED, "curated")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)
