"""The OpenAPI document that hulld serves says what hulld does: schemathesis makes requests of it, those that it allows and those that it
does not, and compares what is answered. A third party's validator finds the document itself in order.

HULL_SCHEMA_EXAMPLES  how many requests to make for each operation (default: 8), for a long run
HULL_SCHEMA_SEED      what they are made of (default: 1)"""
import json
import os
import subprocess

import pytest

from conftest import BUILD, TOP
from free_ports import free_port
from hulld_fixtures import Hulld, make_erofs

TOOLS = BUILD / "compat" / "openapi" / "bin"
CONFIGURATION = TOP / "tests" / "compat" / "openapi"
TOKEN = "a-token-for-schemathesis"
EXAMPLES = os.environ.get("HULL_SCHEMA_EXAMPLES", "8")
SEED = os.environ.get("HULL_SCHEMA_SEED", "1")
CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
          "response_schema_conformance", "negative_data_rejection", "positive_data_acceptance", "unsupported_method",
          "allow_header_conformance", "use_after_free", "ensure_resource_availability"]


@pytest.fixture
def hulld(tmp_path):
    """With something of each kind in it, and its port."""
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    address = f"127.0.0.1:{free_port()}"
    hulld = Hulld(tmp_path, "--listen", address, "--token-file", tmp_path / "token").with_stand_in().start()
    hulld.url = f"http://{address}"
    hulld.image("hello", make_erofs(tmp_path), command=["/bin/true"])
    assert hulld.post("/v1/machines", {"name": "one", "image": "hello", "network": "none", "disk_mib": 16}).status == 201
    assert hulld.post("/v1/projects", {"name": "other"}).status == 201
    assert hulld.request("PUT", "/v1/secrets/S", {"value": "secret"}).status == 201
    assert hulld.post("/v1/volumes", {"name": "data", "size_mib": 16}).status == 201
    yield hulld
    hulld.stop()


def test_the_document_is_one(hulld, tmp_path):
    """To the validator of the OpenAPI project."""
    (tmp_path / "openapi.json").write_bytes(hulld.get("/v1/openapi.json").body)
    done = subprocess.run([TOOLS / "openapi-spec-validator", tmp_path / "openapi.json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.strip().endswith("OK"), done.stdout + done.stderr


def test_what_is_answered_is_what_the_document_says(hulld, tmp_path):
    done = subprocess.run(
        [TOOLS / "schemathesis", "--config-file", CONFIGURATION / "schemathesis.toml", "run", f"{hulld.url}/v1/openapi.json",
         "--header", f"Authorization: Bearer {TOKEN}", "--seed", SEED, "--max-examples", EXAMPLES, "--checks", ",".join(CHECKS),
         "--generation-database", "none", "--request-timeout", "20", "--no-color"],
        cwd=tmp_path, env=dict(os.environ, PYTHONPATH=str(CONFIGURATION), PYTHONDONTWRITEBYTECODE="1", HULL_TEST_URL=hulld.url, HULL_TEST_TOKEN=TOKEN),
        capture_output=True, text=True, timeout=60 + 30 * int(EXAMPLES))
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr
    assert hulld.process.poll() is None
    assert "panic" not in hulld.log.read_text() and json.loads(hulld.get("/v1/version").body)["api"] == "v1"
