"""Weights by memory, on servers that have vLLM's routes and no vLLM: real sockets, real gloo, real tensors.

`test_engine_vllm.py` does the same with the real one.
"""

import threading
from contextlib import ExitStack

import pytest
import torch
from json_server import serving

from trainer.rollouts.engines.vllm_server import ServerError, VllmServerEngine
from trainer.rollouts.engines.weight_transfer import GlooGroup, Meeting, address_towards, chunks, described

WEIGHTS = {
    "embed": torch.arange(12.0).reshape(3, 4),
    "layers.0.up": torch.linspace(-1, 1, 40).reshape(8, 5).T,  # not contiguous
    "layers.0.scale": torch.tensor(0.5),
    "head": torch.full((3, 4), 7.0),
}


class Workers:
    """A server's workers: what they received, and the routes that were called, in order."""

    def __init__(self, count, refuses=None, gives_up_at=None):
        self.count, self.refuses, self.gives_up_at = count, refuses, gives_up_at
        self.routes, self.groups, self.received = [], [], [{} for _ in range(count)]

    def answer(self, route, body):
        self.routes.append(route)
        if route == self.refuses:
            return 500, {"error": "Weight transfer not configured."}
        try:
            if route == "/init_weight_transfer_engine":
                self.groups = self.on_each(self.meet, body["init_info"])
            if route == "/update_weights":
                self.on_each(self.receive, body["update_info"])
        except RuntimeError as error:
            return 500, {"error": str(error)}
        told = {"/v1/models": {"data": [{"id": "m"}]}, "/get_world_size": {"world_size": self.count}}
        return 200, told.get(route, {})

    def on_each(self, call, about):
        """Every worker at once, as vLLM's collective_rpc."""
        found = [None] * self.count
        faults = []

        def run(worker):
            try:
                found[worker] = call(worker, about)
            except RuntimeError as error:
                faults.append(error)

        threads = [threading.Thread(target=run, args=(worker,)) for worker in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if faults:
            raise faults[0]
        return found

    def meet(self, worker, about):
        meeting = Meeting(about["master_address"], about["master_port"], about["world_size"])
        return GlooGroup(meeting, about["rank_offset"] + worker)

    def receive(self, worker, about):
        for name, dtype, shape in zip(about["names"], about["dtype_names"], about["shapes"], strict=True):
            if name == self.gives_up_at:
                for group in self.groups:
                    group.close()
                raise RuntimeError(f"no parameter {name}")
            tensor = torch.empty(shape, dtype=getattr(torch, dtype))
            self.groups[worker].broadcast(tensor)
            self.received[worker][name] = tensor


UPDATE = [
    "/pause",
    "/start_weight_update",
    "/update_weights",
    "/finish_weight_update",
    "/reset_prefix_cache",
    "/resume",
]


def test_every_worker_of_every_server_receives_every_tensor(tmp_path):
    servers = [Workers(1), Workers(2)]
    with ExitStack() as stack:
        urls = [stack.enter_context(serving(workers.answer)) for workers in servers]
        engine = VllmServerEngine(urls, "m", tmp_path / "unused", weights="gloo")
        for factor in (1.0, 2.0):
            sent = {name: factor * tensor for name, tensor in WEIGHTS.items()}
            engine.load_weights(iter(sent.items()))
            for workers in servers:
                for received in workers.received:
                    assert list(received) == list(WEIGHTS)
                    assert all(torch.equal(received[name], tensor) for name, tensor in sent.items())
        engine.close()
    for workers in servers:
        first = ["/v1/models", "/shutdown_weight_transfer_engine", "/get_world_size", "/init_weight_transfer_engine"]
        assert workers.routes == [*first, *UPDATE, *UPDATE]  # they meet once


def test_weights_travel_in_the_servers_dtype(tmp_path):
    workers = Workers(1)
    with serving(workers.answer) as url:
        engine = VllmServerEngine([url], "m", tmp_path / "unused", weights="gloo", dtype=torch.bfloat16)
        engine.load_weights(WEIGHTS.items())
        engine.close()
    assert all(torch.equal(workers.received[0][name], t.to(torch.bfloat16)) for name, t in WEIGHTS.items())


def test_a_server_without_a_transfer_engine_is_told_at_once(tmp_path):
    """Its partner in the meeting would wait for minutes."""
    workers = Workers(1, refuses="/init_weight_transfer_engine")
    with serving(workers.answer) as url:
        engine = VllmServerEngine([url], "m", tmp_path / "unused", weights="gloo")
        with pytest.raises(ServerError, match=r"Weight transfer not configured.*--weight-transfer-config"):
            engine.load_weights(WEIGHTS.items())
    assert "/start_weight_update" not in workers.routes


def test_a_worker_that_gives_up_says_why_and_the_server_resumes(tmp_path):
    workers = Workers(1, gives_up_at="head")
    with serving(workers.answer) as url:
        engine = VllmServerEngine([url], "m", tmp_path / "unused", weights="gloo")
        with pytest.raises(ServerError, match="no parameter head"):
            engine.load_weights(WEIGHTS.items())
        assert workers.routes[-1] == "/resume"
        workers.gives_up_at = None
        engine.load_weights(WEIGHTS.items())  # they meet again
        engine.close()
    assert list(workers.received[0]) == list(WEIGHTS)


def test_an_update_left_unfinished_by_a_trainer_that_died_is_ended_first(tmp_path):
    workers = Workers(1, refuses="/shutdown_weight_transfer_engine")

    def until_finished(route, body):
        if route == "/finish_weight_update":
            workers.refuses = None
        return workers.answer(route, body)

    with serving(until_finished) as url:
        engine = VllmServerEngine([url], "m", tmp_path / "unused", weights="gloo")
        engine.load_weights(WEIGHTS.items())
        engine.close()
    shutdown = "/shutdown_weight_transfer_engine"
    assert workers.routes[1:4] == [shutdown, "/finish_weight_update", shutdown]
    assert list(workers.received[0]) == list(WEIGHTS)


def test_chunks_keep_the_order_and_the_limit():
    found = list(chunks(WEIGHTS.items(), limit=170))
    assert [[name for name, _ in chunk] for chunk in found] == [["embed"], ["layers.0.up", "layers.0.scale"], ["head"]]
    assert described(found[1]) == {
        "names": ["layers.0.up", "layers.0.scale"],
        "dtype_names": ["float32", "float32"],
        "shapes": [[5, 8], []],
    }
    assert [len(chunk) for chunk in chunks(WEIGHTS.items(), limit=1)] == [1, 1, 1, 1]


def test_the_way_to_this_machine_is_its_loopback():
    assert address_towards("127.0.0.1", 80) == "127.0.0.1"
    assert address_towards("localhost", 80) in ("127.0.0.1", "::1")
