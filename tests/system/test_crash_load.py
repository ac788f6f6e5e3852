"""hulld under a mixed load, killed at random instants: every change that it has acknowledged is there, nothing is doubled, nothing is
stuck, and what is asked again is answered as it was. Also with the host that it runs on.

HULL_CRASH_KILLS and HULL_CRASH_HOSTS are how often; HULL_CRASH_SEED makes another run of it."""
import hashlib
import http.client
import json
import os
import random
import re
import signal
import time
from urllib.parse import urlsplit

import pytest

from crash_load import IMAGE, Load
from hulld_fixtures import DEADLINE, Answer, Hulld, make_erofs, wait_until
from test_hulld import processes_of
from test_kvmhost import Host

KILLS = int(os.environ.get("HULL_CRASH_KILLS", "20"))
HOSTS = int(os.environ.get("HULL_CRASH_HOSTS", "1"))
SEED = os.environ.get("HULL_CRASH_SEED", "hull")
CLIENTS = 6
ALIVE_MAX_S = 0.2  # from when hulld answers until it is killed
HOST_ALIVE_MAX_S = 6
MONITOR = "#!/bin/sh\nMONITOR_OF=$2 exec sleep 3600\n"  # a machine of it starts for ever


def monitors(hulld):
    """{a machine's id: the numbers of its monitors}"""
    found = {}
    for pid, words in processes_of(hulld).items():
        match = re.search(rb"MONITOR_OF=.*?/machines/(m\w+)/", words)
        if match:
            found.setdefault(match[1].decode(), []).append(pid)
    return found


def settled(hulld, load):
    """Nothing moves any more; who is to run does, by one monitor, and who is not has none; no operation of those is under way."""
    wanted = load.runs()

    def look():
        machines, running = hulld.get("/v1/machines").json["items"], monitors(hulld)
        if set(running) - {machine["id"] for machine in machines}:
            return False
        for machine in machines:
            has, runs = running.get(machine["id"], []), wanted[machine["name"]]
            if runs != (machine["state"] == "starting") or has != ([machine["pid"]] if machine["pid"] else []):
                return False
            if not runs and (has or machine["state"] not in ("created", "stopped")):
                return False
        under_way = hulld.get("/v1/operations?state=running").json["items"]
        return all(wanted.get(operation["subject"]["name"]) for operation in under_way)

    try:
        wait_until(look, "all is settled")
    except AssertionError:
        pytest.fail(f"wanted {wanted}; there are {hulld.get('/v1/machines').json['items']} and monitors {monitors(hulld)}")


def test_hulld_is_killed_at_random_instants(tmp_path):
    instants = random.Random(SEED)
    hulld = Hulld(tmp_path, env={"HULL_START_TIMEOUT_S": "3600"}).with_stand_in(MONITOR).start()
    try:
        load = Load(hulld.request, CLIENTS, SEED, hulld.image(IMAGE, make_erofs(tmp_path), command=["/bin/true"]))

        def kill():
            time.sleep(instants.uniform(0, ALIVE_MAX_S))  # the instant is what this is about
            hulld.kill()

        for _ in range(KILLS):
            load.run(kill)
            hulld.start()
            load.verify()
            settled(hulld, load)
        assert load.answered() > KILLS, "the clients have got on"
        print(f"{KILLS} kills, {load.answered()} changes, {load.cursor} events")
        for name in load.runs():
            assert hulld.delete(f"/v1/machines/{name}?force=1").status == 204
        wait_until(lambda: not processes_of(hulld), "no process is left")
        assert os.listdir(hulld.state / "machines") == os.listdir(hulld.run / "machines") == []
    finally:
        hulld.stop()


class HullHost(Host):
    """With hulld in it."""

    def up(self):
        result = self("up")
        assert result.returncode == 0, result.stderr

    def ask(self, method, path, body=None, headers=None):
        api = json.loads((self.state / "api.json").read_text())
        url = urlsplit(api["url"])
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=DEADLINE)
        try:
            connection.request(method, path, body, {**(headers or {}), "Authorization": f"Bearer {api['token']}"})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()


def test_its_host_is_killed_over_its_state_disk(tmp_path):
    instants, host = random.Random(SEED), HullHost(tmp_path)
    try:
        host.up()
        erofs = make_erofs(tmp_path, {})
        digest = "sha256:" + hashlib.sha256(erofs).hexdigest()
        assert host.ask("PUT", f"/v1/blobs/{digest}", erofs).status == 201
        image = {"name": IMAGE, "rootfs": digest, "config": {"command": ["/bin/true"]}}
        assert host.ask("POST", "/v1/images", json.dumps(image), {"Content-Type": "application/json"}).status == 201
        load = Load(host.ask, CLIENTS, SEED, digest)

        def kill():
            time.sleep(instants.uniform(0.1, HOST_ALIVE_MAX_S))  # the instant is what this is about
            os.kill(host.qemu()[0], signal.SIGKILL)
            wait_until(lambda: host("status").returncode == 3, "kvmhost knows")

        for _ in range(HOSTS):
            load.run(kill)
            host.up()
            load.verify()
            wait_until(lambda: all(machine["state"] in ("created", "running", "stopped", "failed")
                                   for machine in load.get("/v1/machines")["items"]), "all is settled", 120)
        assert load.answered() > HOSTS, "the clients have got on"
        print(f"{HOSTS} kills, {load.answered()} changes, {load.cursor} events")
    finally:
        host("down")
    assert not host.qemu()
