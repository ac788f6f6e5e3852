"""The examples of hulld-api(7), as they are written there."""
import os
import re
import subprocess
from pathlib import Path

import pytest

from hulld_fixtures import make_erofs
from test_exec import start_alone
from test_tenants import project, token
from test_webhooks import Receiver, create

TOP = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the agent is root")


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    daemon = start_alone(tmp_path_factory.mktemp("hulld"), "--webhook-allow", "127.0.0.0/8")
    yield daemon
    daemon.stop()


def examples():
    page = (TOP / "docs" / "hulld-api.7.scd").read_text().split("# EXAMPLES")[1]
    return re.findall(r"```\n(.*?)```", page, re.DOTALL)


def test_a_machine_is_made_and_deleted_by_curl_alone(hulld, tmp_path):
    acme = project(hulld, "acme")
    assert acme.image("shop", make_erofs(tmp_path)).status == 201
    client, _ = token(acme, "read", "write")
    ran = subprocess.run(["sh", "-e", "-c", examples()[0]], env=dict(os.environ, API=hulld.listen, TOKEN=client.token), capture_output=True,
                         text=True, timeout=120)
    assert ran.returncode == 0 and '"type":"machine.running"' in ran.stdout, (ran.stdout, ran.stderr)
    assert acme.get("/v1/machines").json["items"] == []


def test_a_receiver_believes_hull_and_nobody_else(hulld):
    space, receiver = {}, Receiver()
    exec(examples()[1], space)  # pylint: disable=exec-used
    try:
        secret = create(hulld, receiver.url)["secret"]
        receiver.wait(1)
        _, headers, body, _ = receiver.got[0]
    finally:
        receiver.close()
    headers = {name.lower(): value for name, value in headers.items()}
    assert space["is_from_hull"](secret, headers, body)
    assert not space["is_from_hull"](secret, headers, body + b" ")
    assert not space["is_from_hull"]("whsec_" + "A" * 43 + "=", headers, body)
    assert not space["is_from_hull"](secret, {**headers, "webhook-timestamp": "1"}, body)
