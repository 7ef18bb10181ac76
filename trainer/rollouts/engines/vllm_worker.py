"""The part that runs inside a vLLM server: weights received over gloo, on any device.

    VLLM_SERVER_DEV_MODE=1 python -m vllm.entrypoints.openai.api_server --model MODEL --host 127.0.0.1 \\
        --logprobs-mode processed_logprobs --weight-transfer-config '{"backend": "gloo"}' \\
        --worker-extension-cls trainer.rollouts.engines.vllm_worker.WorkerExtension

vLLM imports the extension in every worker before it makes the transfer engine; that import registers ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import WeightTransferInitInfo
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine, NCCLWeightTransferUpdateInfo

from trainer.rollouts.engines.weight_transfer import GlooGroup, Meeting

BACKEND = "gloo"


class WorkerExtension:
    """Named by `--worker-extension-cls`: adds no method, its module is what a worker needs."""


@dataclass
class GlooInitInfo(WeightTransferInitInfo):
    """Body of /init_weight_transfer_engine. world_size: the trainer and all workers. rank_offset: of this server's
    first worker. transport: "gloo", which a trainer that sends by NCCL does not say."""

    master_address: str
    master_port: int
    rank_offset: int
    world_size: int
    transport: str


class GlooWeightTransferEngine(NCCLWeightTransferEngine):
    """vLLM's dense engine with gloo as its transport: same four phases, same layer by layer reloading."""

    init_info_cls = GlooInitInfo
    update_info_cls = NCCLWeightTransferUpdateInfo

    def init_transfer_engine(self, init_info: GlooInitInfo) -> None:
        """Meet the trainer."""
        parallel = self.parallel_config
        place = parallel.data_parallel_index * parallel.world_size + parallel.rank
        meeting = Meeting(init_info.master_address, init_info.master_port, init_info.world_size)
        self.shutdown()
        self._group = GlooGroup(meeting, init_info.rank_offset + place)

    def start_weight_update(self) -> None:
        """Begin an update. Layers that one which broke off left half filled are ended first: their counts of loaded
        elements would otherwise be full before the new weights are all there."""
        self.finish_weight_update()
        super().start_weight_update()

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Receive one chunk and load it. vLLM's own waits for an accelerator, which a CPU worker has not."""
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: NCCLWeightTransferUpdateInfo) -> None:
        """Receive the tensors that the trainer announced, one by one."""
        try:
            for name, dtype, shape in zip(update_info.names, update_info.dtype_names, update_info.shapes):
                # a new one each, in the host's memory: loading keeps references until a layer is whole
                weight = torch.empty(shape, dtype=getattr(torch, dtype), device="cpu")
                self._group.broadcast(weight)
                self.model.load_weights([(name, weight)])
        except BaseException:
            self.shutdown()  # or the trainer would wait for this rank until its timeout
            raise

    def shutdown(self) -> None:
        """Leave the group, where there is one."""
        group = self.__dict__.pop("_group", None)
        if group is not None:
            group.close()


WeightTransferEngineFactory.register_engine(BACKEND, GlooWeightTransferEngine)
