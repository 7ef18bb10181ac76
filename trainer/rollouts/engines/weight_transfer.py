"""Weights from the trainer's memory into the memory of vLLM's workers: a process group of rank 0 and all workers.

The group is apart from the trainer's own and from the servers'. Rank 0 of the trainer is its rank 0, and broadcasts;
the workers of the first server follow, then those of the next.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor
from torch.distributed import ProcessGroupGloo, TCPStore

#: How weights reach a vLLM server: over the disk, or from memory to memory over gloo or NCCL.
Way = Literal["disk", "gloo", "nccl"]

#: Bytes of the tensors that one call of a server's /update_weights announces.
CHUNK_BYTES = 1 << 30
#: Longest wait for the other end, in meeting and in one broadcast.
TIMEOUT = timedelta(seconds=300)


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where a group meets: the trainer's rank 0 listens at `address`:`port`. size: rank 0 and all workers."""

    address: str
    port: int
    size: int


class Group(Protocol):
    """Rank 0's end of a group whose other ranks are workers."""

    def broadcast(self, tensor: Tensor) -> None:
        """Send a tensor to every worker; it may be changed afterwards."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...


class GlooGroup:
    """One rank's end of a group over gloo: through the host's memory, so that any device has part in it.

    listening: rank 0's socket, bound to the meeting's address; the group takes it over.
    """

    def __init__(self, meeting: Meeting, rank: int, listening: socket.socket | None = None) -> None:
        store = TCPStore(
            meeting.address,
            meeting.port,
            is_master=rank == 0,
            timeout=TIMEOUT,
            wait_for_workers=False,
            master_listen_fd=None if listening is None else listening.detach(),
        )
        # Bound to the address that leads to the other end: gloo's own choice is whatever the host's name resolves to.
        own = meeting.address if rank == 0 else address_towards(meeting.address, meeting.port)
        options = ProcessGroupGloo._Options()  # type: ignore[attr-defined]  # torch's stubs leave it out
        options._devices, options._timeout = [ProcessGroupGloo.create_device(hostname=own)], TIMEOUT
        self._group: Any = ProcessGroupGloo(store, rank, meeting.size, options)

    def broadcast(self, tensor: Tensor) -> None:
        """Rank 0's tensor into that of every other rank, of the same shape and dtype, in the host's memory."""
        self._group.broadcast(tensor.detach().cpu().contiguous(), 0).wait()

    def close(self) -> None:
        """Leave the group: what waits for this rank breaks off."""
        self._group = None


class NcclGroup:
    """Rank 0's end of a group over NCCL, by vLLM's own functions: it is installed in the trainer's environment too.

    device: number of the CUDA device to send from.
    """

    def __init__(self, meeting: Meeting, listening: socket.socket, device: int) -> None:
        from vllm.distributed.weight_transfer.nccl_common import trainer_init

        listening.close()  # vLLM binds the port itself
        torch.cuda.set_device(device)  # a thread has a current device of its own
        self._communicator = trainer_init(
            {"master_address": meeting.address, "master_port": meeting.port, "world_size": meeting.size}
        )

    def broadcast(self, tensor: Tensor) -> None:
        """Send a tensor to every worker."""
        stream = torch.cuda.current_stream()
        self._communicator.broadcast(tensor.detach().cuda().contiguous(), src=0, stream=stream)
        stream.synchronize()

    def close(self) -> None:
        """Leave the group."""
        self._communicator.destroy()


def chunks(weights: Iterable[tuple[str, Tensor]], limit: int = CHUNK_BYTES) -> Iterator[list[tuple[str, Tensor]]]:
    """The weights in their order, in lists of at most `limit` bytes; a larger tensor stands alone."""
    found: list[tuple[str, Tensor]] = []
    held = 0
    for name, tensor in weights:
        if found and held + tensor.nbytes > limit:
            yield found
            found, held = [], 0
        found.append((name, tensor))
        held += tensor.nbytes
    if found:
        yield found


def described(chunk: Iterable[tuple[str, Tensor]]) -> dict[str, list[Any]]:
    """What /update_weights must know of the tensors that are broadcast next: names, dtypes, shapes."""
    pairs = list(chunk)
    return {
        "names": [name for name, _ in pairs],
        "dtype_names": [str(tensor.dtype).removeprefix("torch.") for _, tensor in pairs],
        "shapes": [list(tensor.shape) for _, tensor in pairs],
    }


def address_towards(host: str, port: int) -> str:
    """This machine's own address on the way to a host: 127.0.0.1 where it is itself. Sends nothing."""
    family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(target)
        return cast(str, probe.getsockname()[0])


def listen(address: str) -> socket.socket:
    """A socket that listens at an address, on a port that was free."""
    return socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
