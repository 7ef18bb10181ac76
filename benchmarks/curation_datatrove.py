"""The same pass in datatrove, run by the interpreter that has it: prints the seconds. Called by curation.py."""

from __future__ import annotations

import sys
import time

from curation_measure import measure_one
from datatrove.data import Document, DocumentsPipeline
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import ParquetWriter


class Measure(PipelineStep):
    name = "measure"

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        for document in data:
            document.metadata = measure_one(document.text)
            document.text = ""
            yield document


def adapter(self: object, document: Document) -> dict:
    return {"id": document.id, **document.metadata}


if __name__ == "__main__":
    source, target = sys.argv[1:]
    executor = LocalPipelineExecutor(
        pipeline=[
            ParquetReader(source, text_key="response", id_key="trace_id"),
            Measure(),
            ParquetWriter(target, adapter=adapter),
        ],
        tasks=2,
        workers=2,
        logging_dir=f"{target}-logs",
    )
    began = time.perf_counter()
    executor.run()
    print(time.perf_counter() - began)
