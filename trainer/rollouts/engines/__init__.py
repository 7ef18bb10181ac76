"""Rollout engines behind one small protocol: embedded (default), vLLM in process, vLLM over HTTP."""
