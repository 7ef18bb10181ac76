"""Pushing to the hub, against a stand-in on this machine that answers as the hub's interface is described."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tracekit.core.hub_push import HubError, kind_of, model_card, push_folder

pytest.importorskip("huggingface_hub")


@dataclass
class Hub:
    """What the stand-in was asked and given."""

    url: str = ""
    refuse: int = 0
    created: list[dict] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    tokens: set[str | None] = field(default_factory=set)


@contextmanager
def hub_on_this_machine() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(200, {})

        def do_GET(self) -> None:
            self.answer(hub.refuse or 404, {"error": "no"})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            hub.tokens.add(self.headers.get("authorization"))
            if hub.refuse:
                self.answer(hub.refuse, {"error": "no"})
            elif self.path.endswith("/repos/create"):
                hub.created.append(json.loads(body))
                made = hub.created[-1]
                kind = "datasets/" if made.get("type") == "dataset" else ""
                self.answer(200, {"url": f"{hub.url}/{kind}{made['organization']}/{made['name']}"})
            elif "/preupload/" in self.path:
                files = json.loads(body)["files"]
                modes = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in files]
                self.answer(200, {"files": modes})
            elif "/commit/" in self.path:
                for line in body.decode().splitlines():
                    item = json.loads(line)
                    if item["key"] == "file":
                        hub.files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
                self.answer(200, {"commitUrl": f"{hub.url}/owner/name/commit/1", "commitOid": "1", "success": True})
            else:
                self.answer(200, {})

        def answer(self, status: int, content: dict) -> None:
            payload = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(payload)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_on_this_machine() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield hub


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    (folder / "trl-sft").mkdir(parents=True)
    (folder / "trl-sft" / "train.jsonl").write_text('{"a": 1}\n', encoding="utf-8")
    (folder / "README.md").write_text("---\nconfigs: []\n---\n\n# Data\n", encoding="utf-8")
    (folder / ".tracekit-folder.json").write_text("{}", encoding="utf-8")
    return folder


def test_a_data_set_arrives_with_its_card_and_is_private(hub: Hub, data: Path) -> None:
    address = push_folder(data, "owner/name", kind_of(data))  # type: ignore[arg-type]
    assert address.endswith("owner/name")
    assert hub.created[0]["visibility"] == "private"
    assert hub.created[0]["type"] == "dataset"
    assert set(hub.files) == {"README.md", "trl-sft/train.jsonl"}
    assert hub.files["trl-sft/train.jsonl"] == b'{"a": 1}\n'
    assert hub.tokens == {"Bearer hf_secret"}


def test_it_is_public_where_that_is_said(hub: Hub, data: Path) -> None:
    push_folder(data, "owner/name", "dataset", public=True)
    assert hub.created[0]["visibility"] == "public"


def test_a_model_arrives_with_a_card_that_names_no_path(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "luffy" / "final"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    record = {"settings": {"method": "luffy", "output": str(tmp_path)}, "seed": 3, "versions": {"torch": "2.8"}}
    (folder.parent / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert kind_of(folder) == "model"
    push_folder(folder, "owner/model", "model", card=model_card(folder))
    card = hub.files["README.md"].decode()
    assert "| method | luffy |" in card
    assert "# luffy" in card
    assert str(tmp_path) not in card
    assert "config.json" in hub.files


@pytest.mark.parametrize(("status", "said"), [(401, "check HF_TOKEN"), (403, "may not write there")])
def test_a_refusal_is_a_sentence_without_the_token(hub: Hub, data: Path, status: int, said: str) -> None:
    hub.refuse = status
    with pytest.raises(HubError, match=said) as caught:
        push_folder(data, "owner/name", "dataset")
    assert "hf_secret" not in str(caught.value)


def test_what_cannot_be_pushed_is_refused_at_once(
    hub: Hub, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HubError, match="is no name of the hub"):
        push_folder(data, "one/two/three", "dataset")
    (tmp_path / "empty").mkdir()
    with pytest.raises(HubError, match="holds no file"):
        push_folder(tmp_path / "empty", "owner/name", "dataset")
    (tmp_path / "curated.parquet").touch()
    with pytest.raises(HubError, match=r"whole run; push .*export"):
        kind_of(tmp_path)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(HubError, match="set HF_TOKEN"):
        push_folder(data, "owner/name", "dataset")
    assert not hub.created


def test_a_hub_that_is_not_there_is_told_within_ten_seconds(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    began = time.monotonic()
    with pytest.raises(HubError, match="cannot be reached"):
        push_folder(data, "owner/name", "dataset")
    assert time.monotonic() - began < 10
