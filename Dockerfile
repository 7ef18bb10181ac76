# CPU by default; for CUDA with vLLM: docker build --build-arg BASE=vllm/vllm-openai:v0.32.0 --build-arg EXTRA=train,hub .
ARG BASE=python:3.11-slim
FROM ${BASE}
ARG EXTRA=all
WORKDIR /opt/tracekit
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY evaluators evaluators
COPY tracekit tracekit
COPY trainer trainer
COPY probes probes
RUN python3 -m pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu ".[${EXTRA}]"
WORKDIR /work
ENTRYPOINT ["tracekit"]
