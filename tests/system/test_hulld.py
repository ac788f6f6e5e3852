"""hulld's API where no machine has to run: storage, validation, ports, long polls, crashes."""
import contextlib
import http.client
import json
import os
import resource
import signal
import sqlite3
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from free_ports import free_port
from hulld_fixtures import BUILD, DEADLINE, Connection, Hulld, make_erofs, wait_until

TOKEN = "0123456789abcdef-test"


@pytest.fixture(scope="session")
def erofs(tmp_path_factory):
    return make_erofs(tmp_path_factory.mktemp("erofs"))


@pytest.fixture
def hulld(tmp_path):
    daemon = Hulld(tmp_path).start()
    yield daemon
    daemon.stop()


@pytest.fixture
def with_image(hulld, erofs):
    hulld.image("hello", erofs, command=["/bin/true"])
    return hulld


def refused(answer, status, code, field=None):
    assert answer.status == status, answer
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json
    assert (problem["status"], problem["code"], problem.get("field")) == (status, code, field), problem
    assert problem["detail"] and "retryable" in problem and problem["title"]
    return problem


# The service.

def test_version_names_itself_and_the_api(hulld):
    assert hulld.get("/v1/version").json == {"version": "0.1.0", "api": "v1"}


def test_openapi_describes_every_route_and_resolves(hulld):
    document = hulld.get("/v1/openapi.json").json
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]["/v1/machines"]) == {"get", "post"}
    assert document["paths"]["/v1/machines/{machine}/wait"]["get"]["parameters"][1]["name"] == "state"
    references = [part.split('"')[0] for part in json.dumps(document).split('"$ref": "#/components/schemas/')[1:]]
    assert references and set(references) <= set(document["components"]["schemas"])
    assert document["components"]["schemas"]["MachineSpec"]["required"] == ["image"]
    assert document["components"]["schemas"]["Machine"]["properties"]["state"]["readOnly"]


@pytest.mark.parametrize("method,path,status,code,field", [
    ("GET", "/", 404, "not_found", None),
    ("GET", "/v1/machines/", 404, "not_found", None),
    ("GET", "/v1/machines/none", 404, "not_found", None),
    ("POST", "/v1/machines/none/start", 404, "not_found", None),
    ("GET", "/v1/machines/none/logs", 404, "not_found", None),
    ("DELETE", "/v1/machines/none", 404, "not_found", None),
    ("GET", "/v1/images/none", 404, "not_found", None),
    ("DELETE", "/v1/images/none", 404, "not_found", None),
    ("PATCH", "/v1/machines", 405, "method_not_allowed", None),
    ("GET", "/v1/machines?colour=red", 400, "unknown_field", "colour"),
    ("PUT", "/v1/blobs/md5:abc", 400, "invalid_field", "digest"),
])
def test_what_is_not_there_is_refused(hulld, method, path, status, code, field):
    refused(hulld.request(method, path), status, code, field)


def test_a_wrong_method_is_told_the_right_ones(hulld):
    assert hulld.request("PUT", "/v1/version").headers["Allow"] == "GET"


def test_bodies_must_be_json_and_small(hulld):
    header = {"Content-Type": "application/json"}
    refused(hulld.post("/v1/machines", "{", headers=header), 400, "invalid_json")
    refused(hulld.post("/v1/machines", "", headers=header), 400, "invalid_json")
    refused(hulld.post("/v1/machines", "{}", headers={"Content-Type": "text/plain"}), 415, "unsupported_media_type")
    refused(hulld.post("/v1/machines", b" " * (1 << 20), headers=header), 413, "payload_too_large")
    chunks = (b" " * 65536 for _ in range(32))
    refused(hulld.post("/v1/machines", chunks, headers=header), 413, "payload_too_large")
    nested = '{"labels":' + '[' * 40 + ']' * 40 + '}'
    refused(hulld.post("/v1/machines", nested, headers=header), 400, "invalid_json")


@pytest.mark.parametrize("body,says", [
    (b'{"image":"hello","image":"other"}', "duplicate"),
    (b'{"image":"hello\xff"}', "line 1"),
    (b'{"image":"hello\\u0000"}', "line 1"),
    (b'{"image":"hello","cpus":99999999999999999999}', "integer"),
    (b'{"image":\0', "line 1"),
])
def test_what_is_nearly_json_is_refused_in_one_line(hulld, body, says):
    answer = hulld.post("/v1/machines", body, headers={"Content-Type": "application/json"})
    detail = refused(answer, 400, "invalid_json")["detail"]
    assert says in detail and "\n" not in detail


@pytest.mark.parametrize("request_line", [
    b"GET /v1/machines/\xff HTTP/1.1", b"GET /v1/machines/..%2f..%2fetc HTTP/1.1",
    b"PUT /v1/blobs/sha256:..%2f..%2fhull.db HTTP/1.1", b"GET /v1/machines?%ff=1 HTTP/1.1",
    b"GET /v1/machines/" + b"a" * 4000 + b" HTTP/1.1", b"GET /%00/v1/version HTTP/1.1",
])
def test_paths_of_any_bytes_are_refused_as_problems(hulld, request_line):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(str(hulld.socket))
        client.sendall(request_line + b"\r\nHost: hulld\r\nContent-Length: 0\r\n\r\n")
        response = http.client.HTTPResponse(client)
        response.begin()
        assert response.status in (400, 404)
        problem = json.loads(response.read())
        assert problem["status"] == response.status and "\n" not in problem["detail"]
    assert hulld.answers()


def test_a_flood_of_headers_ends_its_connection_only(hulld):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(str(hulld.socket))
        try:
            client.sendall(b"GET /v1/version HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"x" * 500) for i in range(400)))
            assert client.recv(12) in (b"HTTP/1.1 431", b"HTTP/1.1 413", b"")
        except OSError:
            pass  # closed while we sent
    assert hulld.answers()


def test_more_waits_than_a_process_may_open_by_default(tmp_path, erofs):
    hulld = Hulld(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = len(os.listdir("/proc/self/fd")) + 64  # it is this process's, too, until hulld has it
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        hulld.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    waits = []
    try:
        hulld.image("hello", erofs, command=["/bin/true"])
        hulld.post("/v1/machines", {"name": "a", "image": "hello"})
        waits = [open_wait(hulld) for _ in range(limit + 72)]
        assert hulld.get("/v1/version").status == 200
    finally:
        for wait in waits:
            wait.close()
        hulld.stop()


def test_tcp_wants_the_token_and_the_socket_does_not(tmp_path):
    port = free_port()
    (tmp_path / "token").write_text(TOKEN + "\n")
    hulld = Hulld(tmp_path, "--listen", f"127.0.0.1:{port}", "--token-file", str(tmp_path / "token")).start()

    def ask(headers):
        connection = Connection("", timeout=DEADLINE)
        connection.sock = socket.create_connection(("127.0.0.1", port), DEADLINE)
        connection.request("GET", "/v1/machines", headers=headers)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, json.loads(body)

    try:
        for wrong in ({}, {"Authorization": "Bearer " + TOKEN[:-1]}, {"Authorization": "Bearer "},
                      {"Authorization": "Bearer " + TOKEN + "x"}, {"Authorization": "Basic " + TOKEN}):
            status, problem = ask(wrong)
            assert (status, problem["code"]) == (401, "unauthorized")
        assert ask({"Authorization": "Bearer " + TOKEN}) == (200, {"items": []})
        assert hulld.get("/v1/machines").status == 200
        assert oct((hulld.run / "hulld.sock").stat().st_mode)[-3:] == "660"
    finally:
        hulld.stop()


@pytest.mark.parametrize("options,says", [
    (["--listen", "127.0.0.1:1"], "--listen and --token-file go together"),
    (["--state", "relative"], "--state: must be an absolute path"),
    (["--run", "/" + "x" * 80], "--run: must have at most"),
    (["surplus"], "surplus"),
    (["--colour"], "--help"),
])
def test_a_wrong_command_line_is_refused(options, says):
    result = subprocess.run([BUILD / "hulld", *options], capture_output=True, text=True, timeout=DEADLINE)
    assert result.returncode == 2 and says in result.stderr


def test_a_second_hulld_on_the_same_state_is_refused(hulld):
    result = subprocess.run(hulld.command(), capture_output=True, text=True, timeout=DEADLINE)
    assert result.returncode == 1 and "another hulld" in result.stderr
    assert hulld.answers()


# Blobs and images.

def test_a_blob_is_stored_once_and_found(hulld, erofs):
    digest, answer = hulld.upload(erofs)
    assert answer.status == 201 and answer.json == {"digest": digest, "size_bytes": len(erofs)}
    assert hulld.upload(erofs)[1].status == 200
    assert hulld.request("HEAD", f"/v1/blobs/{digest}").status == 200
    assert (hulld.state / "blobs" / "sha256" / digest[7:]).read_bytes() == erofs


def test_a_blob_with_another_digest_leaves_nothing(hulld):
    digest = "sha256:" + "0" * 64
    refused(hulld.request("PUT", f"/v1/blobs/{digest}", b"x" * 100000), 422, "digest_mismatch", "digest")
    assert hulld.request("HEAD", f"/v1/blobs/{digest}").status == 404
    assert os.listdir(hulld.state / "blobs" / "sha256") == []


def begin_upload(hulld):
    """A thousandth of a blob: the connection, and the folder that its file is in."""
    blobs = hulld.state / "blobs" / "sha256"
    connection = Connection(hulld.socket)
    connection.putrequest("PUT", "/v1/blobs/sha256:" + "1" * 64)
    connection.putheader("Content-Length", "1000000")
    connection.endheaders(b"x" * 1000)
    wait_until(lambda: os.listdir(blobs), "the upload has begun")
    return connection, blobs


def test_an_upload_that_breaks_off_leaves_nothing(hulld):
    connection, blobs = begin_upload(hulld)
    connection.close()
    wait_until(lambda: not os.listdir(blobs), "its file is gone")


def test_a_blob_that_goes_while_it_is_uploaded_again_is_not_said_to_be_there(with_image, erofs):
    digest = with_image.get("/v1/images/hello").json["rootfs"]
    connection = Connection(with_image.socket)
    connection.putrequest("PUT", f"/v1/blobs/{digest}")
    connection.putheader("Content-Length", str(len(erofs)))
    connection.endheaders(erofs[:1000])
    with_image.get("/v1/version")
    assert with_image.delete("/v1/images/hello").status == 204
    connection.send(erofs[1000:])
    response = connection.getresponse()
    assert response.status == 404 and json.loads(response.read())["field"] == "digest"
    connection.close()


def test_an_upload_cut_by_a_crash_leaves_nothing(hulld):
    connection, blobs = begin_upload(hulld)
    hulld.restart()
    assert os.listdir(blobs) == []


def test_an_upload_larger_than_the_disk_is_refused_before_it_begins(hulld):
    connection = Connection(hulld.socket)
    connection.putrequest("PUT", "/v1/blobs/sha256:" + "1" * 64)
    connection.putheader("Content-Length", str(1 << 60))
    connection.endheaders()
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["code"]) == (507, "insufficient_storage")
    connection.close()


def test_an_image_moves_to_new_content_and_the_old_blob_goes(hulld, erofs, tmp_path):
    old = hulld.image("hello", erofs, command=["/bin/true"], ports=[80])
    assert hulld.get("/v1/images/hello").json["config"]["ports"] == [80]
    new = hulld.image("hello", erofs + b"\0" * 4096)
    assert hulld.get("/v1/images/hello").json["rootfs"] == new
    assert hulld.get("/v1/images/hello").json["size_bytes"] == len(erofs) + 4096
    assert hulld.request("HEAD", f"/v1/blobs/{old}").status == 404
    assert len(hulld.get("/v1/images").json["items"]) == 1
    assert hulld.delete("/v1/images/hello").status == 204
    assert os.listdir(hulld.state / "blobs" / "sha256") == []


def test_an_image_needs_a_blob_that_is_a_file_system(hulld):
    spec = {"name": "hello", "rootfs": "sha256:" + "0" * 64}
    refused(hulld.post("/v1/images", spec), 404, "not_found", "rootfs")
    spec["rootfs"], _ = hulld.upload(b"no file system" * 1000)
    refused(hulld.post("/v1/images", spec), 400, "invalid_field", "rootfs")


@pytest.mark.parametrize("change,code,field", [
    ({"name": "Hello"}, "invalid_field", "name"),
    ({"name": None}, "invalid_field", "name"),
    ({"rootfs": "sha256:abc"}, "invalid_field", "rootfs"),
    ({"confg": {}}, "unknown_field", "confg"),
    ({"size_bytes": 1}, "unknown_field", "size_bytes"),
    ({"config": {"ports": [0]}}, "invalid_field", "config.ports[0]"),
    ({"config": {"ports": "80"}}, "invalid_field", "config.ports"),
    ({"config": {"workdir": "srv"}}, "invalid_field", "config.workdir"),
    ({"config": {"env": {"A=B": "c"}}}, "invalid_field", "config.env.A=B"),
    ({"config": {"command": [""]}}, "invalid_field", "config.command[0]"),
])
def test_bad_images_are_refused_by_field(hulld, erofs, change, code, field):
    digest, _ = hulld.upload(erofs)
    refused(hulld.post("/v1/images", {"name": "hello", "rootfs": digest, **change}), 400, code, field)
    assert hulld.get("/v1/images").json["items"] == []


def test_an_image_in_use_is_kept_unless_forced(with_image, erofs):
    with_image.post("/v1/machines", {"name": "a", "image": "hello"})
    refused(with_image.delete("/v1/images/hello"), 409, "image_in_use")
    assert with_image.delete("/v1/images/hello?force=1").status == 204
    blobs = with_image.state / "blobs" / "sha256"
    assert len(os.listdir(blobs)) == 1, "the machine keeps its blob"
    assert with_image.delete("/v1/machines/a").status == 204
    assert os.listdir(blobs) == []


def test_a_blob_that_nobody_uses_is_removed_at_a_start_a_day_later(with_image, erofs):
    """So does one whose last user's removal was cut short by a crash."""
    blobs = with_image.state / "blobs" / "sha256"
    used = os.listdir(blobs)
    fresh, stray = (with_image.upload(erofs + bytes([n]))[0][7:] for n in (1, 2))
    two_days_ago = (blobs / stray).stat().st_mtime - 2 * 86400
    for name in [stray, *used]:
        os.utime(blobs / name, (two_days_ago, two_days_ago))
    with contextlib.closing(sqlite3.connect(with_image.state / "hull.db", isolation_level=None)) as rows:
        for name in [stray, *used]:
            rows.execute("UPDATE blob_owners SET owned_at = ? WHERE digest = ?", (int(two_days_ago * 1000), "sha256:" + name))
    with_image.restart()
    assert sorted(os.listdir(blobs)) == sorted([fresh, *used])


# Machines.

def test_a_machine_is_what_was_asked_for_with_defaults(with_image):
    answer = with_image.post("/v1/machines", {"name": "web", "image": "hello", "env": {"A": "b"}, "labels": {"x": "y"}})
    assert answer.status == 201
    machine = answer.json
    assert machine["id"][0] == "m" and len(machine["id"]) == 13
    expected = {"name": "web", "state": "created", "cpus": 1, "memory_mib": 256, "disk_mib": 1024, "network": "default",
                "env": {"A": "b"}, "labels": {"x": "y"}, "ports": [], "restart": {"policy": "never", "max_retries": 0},
                "stop": {"signal": "image", "timeout_s": 10, "drain_s": 5}, "cause": None, "exit_status": None, "pid": None, "restarts": 0, "started_at": None}
    assert {key: machine[key] for key in expected} == expected
    assert with_image.machine("web") == with_image.machine(machine["id"]) == machine
    assert with_image.get("/v1/machines").json["items"] == [machine]


def test_names_are_made_up_and_unique(with_image):
    first, second = (with_image.post("/v1/machines", {"image": "hello"}).json for _ in range(2))
    assert first["name"] != second["name"]
    refused(with_image.post("/v1/machines", {"image": "hello", "name": first["name"]}), 409, "name_taken", "name")


@pytest.mark.parametrize("change,status,code,field", [
    ({"image": None}, 400, "invalid_field", "image"),
    ({"image": "none"}, 404, "not_found", "image"),
    ({"name": "Web"}, 400, "invalid_field", "name"),
    ({"name": "-web"}, 400, "invalid_field", "name"),
    ({"name": "a" * 64}, 400, "invalid_field", "name"),
    ({"name": "../../etc"}, 400, "invalid_field", "name"),
    ({"cpus": 0}, 400, "invalid_field", "cpus"),
    ({"cpus": 33}, 400, "invalid_field", "cpus"),
    ({"cpus": 10000}, 400, "invalid_field", "cpus"),
    ({"cpus": -1}, 400, "invalid_field", "cpus"),
    ({"cpus": 1.5}, 400, "invalid_field", "cpus"),
    ({"cpus": "1"}, 400, "invalid_field", "cpus"),
    ({"memory_mib": 1}, 400, "invalid_field", "memory_mib"),
    ({"memory_mib": 63}, 400, "invalid_field", "memory_mib"),
    ({"memory_mib": 1048576}, 400, "invalid_field", "memory_mib"),
    ({"memory_mib": 1 << 30}, 400, "invalid_field", "memory_mib"),
    ({"memory_mib": -(1 << 63)}, 400, "invalid_field", "memory_mib"),
    ({"disk_mib": 1}, 400, "invalid_field", "disk_mib"),
    ({"command": ["a", 1]}, 400, "invalid_field", "command[1]"),
    ({"command": [""]}, 400, "invalid_field", "command[0]"),
    ({"env": {"": "x"}}, 400, "invalid_field", "env"),
    ({"workdir": "srv"}, 400, "invalid_field", "workdir"),
    ({"ports": [{"host": 0, "guest": 1}]}, 400, "invalid_field", "ports[0].host"),
    ({"ports": [{"host": 1}]}, 400, "missing_field", "ports[0].guest"),
    ({"ports": [{"host": 1, "guest": 1, "adress": "::"}]}, 400, "unknown_field", "ports[0].adress"),
    ({"ports": [{"host": 1, "guest": 1, "address": "localhost"}]}, 400, "invalid_field", "ports[0].address"),
    ({"ports": [{"host": 1, "guest": 1}, {"host": 1, "guest": 2}]}, 400, "invalid_field", "ports[1].host"),
    ({"ports": [{"host": 1, "guest": 1, "address": "192.0.2.1"}]}, 400, "invalid_field", "ports[0].address"),
    ({"ports": [{"host": 1, "guest": 1}] * 65}, 400, "invalid_field", "ports"),
    ({"network": "bridge"}, 404, "not_found", "network"),
    ({"network": "Bridge"}, 400, "invalid_field", "network"),
    ({"network": "b" * 39 + "\u00e9"}, 400, "invalid_field", "network"),
    ({"restart": {"policy": "sometimes"}}, 400, "invalid_field", "restart.policy"),
    ({"restart": {"max_retries": -1}}, 400, "invalid_field", "restart.max_retries"),
    ({"stop": {"signal": "TERM"}}, 400, "invalid_field", "stop.signal"),
    ({"stop": {"timeout_s": 3601}}, 400, "invalid_field", "stop.timeout_s"),
    ({"stop": {"drain_s": -1}}, 400, "invalid_field", "stop.drain_s"),
    ({"stop": {"drain": 1}}, 400, "unknown_field", "stop.drain"),
    ({"labels": {"a": 1}}, 400, "invalid_field", "labels.a"),
    ({"state": "running"}, 400, "unknown_field", "state"),
    ({"memory": 1}, 400, "unknown_field", "memory"),
])
def test_bad_machines_are_refused_by_field(with_image, change, status, code, field):
    answer = with_image.post("/v1/machines", {"image": "hello", **change})
    if field == "env":
        assert answer.json["field"].startswith("env")
    else:
        refused(answer, status, code, field)
    assert with_image.get("/v1/machines").json["items"] == []
    assert os.listdir(with_image.state / "machines") == []


def test_a_misspelt_field_is_answered_with_the_right_one(with_image):
    problem = refused(with_image.post("/v1/machines", {"image": "hello", "comand": []}), 400, "unknown_field", "comand")
    assert "command" in problem["hint"]


def test_a_machine_needs_a_command_from_somewhere(hulld, erofs):
    hulld.image("bare", erofs)
    refused(hulld.post("/v1/machines", {"image": "bare"}), 400, "missing_field", "command")
    assert hulld.post("/v1/machines", {"image": "bare", "command": ["/x"]}).status == 201


def test_of_many_creates_of_one_name_one_wins(with_image):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(with_image.post(
        "/v1/machines", {"name": "one", "image": "hello"}).status)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [201] + [409] * 11


def test_stop_kill_and_delete_of_what_never_ran(with_image):
    with_image.post("/v1/machines", {"name": "a", "image": "hello"})
    assert with_image.post("/v1/machines/a/stop", {"timeout_s": 1}).json["state"] == "created"
    assert with_image.post("/v1/machines/a/stop").status == 200
    assert with_image.post("/v1/machines/a/kill").json["state"] == "created"
    refused(with_image.post("/v1/machines/a/stop", {"timeout": 1}), 400, "unknown_field", "timeout")
    assert with_image.get("/v1/machines/a/logs").body == b""
    assert with_image.get("/v1/machines/a/logs?follow=1").body == b"", "nothing to follow"
    refused(with_image.get("/v1/machines/a/logs?source=kernel"), 400, "invalid_field", "source")
    refused(with_image.get("/v1/machines/a/logs?tail=-1"), 400, "invalid_field", "tail")
    assert with_image.delete("/v1/machines/a").status == 204


def test_a_start_that_cannot_succeed_says_so_at_once(tmp_path, erofs):
    hulld = Hulld(tmp_path)
    hulld.options["--kernel"] = "/nonexistent"
    hulld.start()
    try:
        hulld.image("hello", erofs, command=["/bin/true"])
        hulld.post("/v1/machines", {"name": "a", "image": "hello"})
        problem = refused(hulld.post("/v1/machines/a/start"), 409, "machine_failed")
        assert "/nonexistent" in problem["detail"] and "--kernel" in problem["hint"]
        assert hulld.machine("a")["state"] == "created"
    finally:
        hulld.stop()


def test_a_monitor_that_refuses_makes_a_failed_machine(tmp_path, erofs):
    """No kernel is in /etc/hostname: the real monitor says so, with or without KVM."""
    hulld = Hulld(tmp_path)
    hulld.options["--kernel"] = hulld.options["--initrd"] = "/etc/hostname"
    hulld.start()
    try:
        hulld.image("hello", erofs, command=["/bin/true"])
        hulld.post("/v1/machines", {"name": "a", "image": "hello", "network": "none", "disk_mib": 64})
        assert hulld.post("/v1/machines/a/start").json["state"] == "starting"
        machine = hulld.wait("a", "failed")
        assert machine["cause"]["code"] == "error" and machine["cause"]["message"]
        assert machine["pid"] is None and machine["stopped_at"]
        assert (hulld.state / "machines" / machine["id"] / "scratch.ext4").stat().st_size == 64 << 20
        problem = refused(hulld.get("/v1/machines/a/wait?state=running"), 409, "machine_failed")
        assert machine["cause"]["message"] in problem["detail"]
        assert hulld.get("/v1/machines/a/logs?source=monitor&tail=1&follow=1").body.startswith(b"hull-vmm:")
        assert hulld.delete("/v1/machines/a").status == 204
        assert os.listdir(hulld.state / "machines") == os.listdir(hulld.run / "machines") == []
    finally:
        hulld.stop()


@pytest.fixture
def silent(tmp_path, erofs):
    """A monitor that only waits: its machine is starting until somebody ends it."""
    monitor = tmp_path / "monitor"
    monitor.write_text("#!/bin/sh\nexec sleep 600\n")
    monitor.chmod(0o755)
    hulld = Hulld(tmp_path)
    hulld.options["--vmm"] = monitor
    hulld.options["--kernel"] = hulld.options["--initrd"] = "/etc/hostname"
    hulld.start()
    hulld.image("hello", erofs, command=["/bin/true"])
    assert hulld.post("/v1/machines", {"name": "a", "image": "hello", "network": "none", "disk_mib": 16}).status == 201
    assert hulld.post("/v1/machines/a/start").status == 200
    wait_until(lambda: hulld.machine("a")["pid"], "its monitor runs")
    yield hulld
    hulld.stop()


def test_a_forced_delete_that_the_database_refuses_can_be_repeated(silent):
    with contextlib.closing(sqlite3.connect(silent.state / "hull.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        refused(silent.delete("/v1/machines/a?force=1"), 500, "internal")
        other.execute("ROLLBACK")
    assert silent.machine("a")["state"] == "starting"
    assert silent.post("/v1/machines/a/kill").json["state"] == "stopped"
    assert silent.delete("/v1/machines/a").status == 204


@pytest.fixture
def log(silent):
    return silent.state / "machines" / silent.machine("a")["id"] / "workload.log"


def test_a_log_that_is_one_hole_is_empty(silent, log):
    os.truncate(log, 1 << 40)
    for query in "", "?tail=1":
        assert silent.get(f"/v1/machines/a/logs{query}", timeout=20).body == b""


def test_the_tail_of_a_log_without_lines_is_bounded(silent, log):
    log.write_bytes(b"x" * (20 << 20))
    assert len(silent.get("/v1/machines/a/logs?tail=1", timeout=20).body) == 16 << 20


def cut(log):
    """As the monitor does it: what is older becomes a hole."""
    subprocess.run(["fallocate", "--punch-hole", "--offset", "0", "--length", "4096", log], check=True)


LINES = [b"line %d\n" % n for n in range(10000)]


@pytest.mark.parametrize("query", ["", "?tail=100000"])
def test_a_log_that_was_cut_begins_with_a_whole_line(silent, log, query):
    log.write_bytes(b"".join(LINES))
    cut(log)
    kept = silent.get(f"/v1/machines/a/logs{query}").body
    assert kept == b"".join(LINES)[-len(kept):] and kept.startswith(b"line ")
    assert len(b"".join(LINES)) - len(kept) in range(4096, 4096 + 10)


def test_who_follows_a_log_that_is_emptied_goes_on_at_its_start(silent, log):
    log.write_bytes(b"".join(LINES))
    connection = Connection(silent.socket)
    connection.request("GET", "/v1/machines/a/logs?follow=1&tail=1")
    response = connection.getresponse()
    assert response.readline() == LINES[-1]
    os.truncate(log, 0)
    with log.open("ab") as file:
        file.write(b"new\n")
    assert response.readline() == b"new\n"
    connection.close()


# Waiting.

def test_wait_answers_now_later_or_never(with_image):
    with_image.post("/v1/machines", {"name": "a", "image": "hello"})
    assert with_image.wait("a", "stopped,created")["state"] == "created"
    refused(with_image.get("/v1/machines/a/wait?state=running&timeout_s=0"), 408, "timeout")
    refused(with_image.get("/v1/machines/a/wait?state=resting"), 400, "invalid_field", "state")
    refused(with_image.get("/v1/machines/a/wait?state=creating"), 400, "invalid_field", "state")
    refused(with_image.get("/v1/machines/a/wait"), 400, "missing_field", "state")
    refused(with_image.get("/v1/machines/a/wait?state=running&timeout_s=1e3"), 400, "invalid_field", "timeout_s")


def open_wait(hulld):
    connection = Connection(hulld.socket)
    connection.request("GET", "/v1/machines/a/wait?state=running&timeout_s=600")
    return connection


def test_many_waits_hold_up_nobody_and_end_with_the_machine(with_image):
    with_image.post("/v1/machines", {"name": "a", "image": "hello"})
    waits = [open_wait(with_image) for _ in range(100)]
    assert with_image.get("/v1/version").status == 200
    assert with_image.delete("/v1/machines/a").status == 204
    for wait in waits:
        response = wait.getresponse()
        assert (response.status, json.loads(response.read())["code"]) == (404, "not_found")
        wait.close()


def test_a_client_that_goes_while_it_waits_is_forgotten(with_image):
    with_image.post("/v1/machines", {"name": "a", "image": "hello"})
    folder = f"/proc/{with_image.process.pid}/fd"
    waits = [open_wait(with_image) for _ in range(50)]
    wait_until(lambda: len(os.listdir(folder)) > 50, "they wait")
    for wait in waits:
        wait.close()
    wait_until(lambda: len(os.listdir(folder)) < 25, "their connections are closed")


def test_sigterm_ends_hulld_with_waits_open(with_image):
    with_image.post("/v1/machines", {"name": "a", "image": "hello"})
    wait = open_wait(with_image)
    with_image.get("/v1/version")
    with_image.kill(signal.SIGTERM)
    assert with_image.process.returncode == 0
    wait.close()


def test_sigterm_ends_hulld_while_requests_come(with_image):
    """It is stopped while it gets the signal and then, on connections it has taken already, requests that would wait."""
    with_image.post("/v1/machines", {"name": "a", "image": "hello"})
    waits = [Connection(with_image.socket) for _ in range(8)]
    for wait in waits:
        wait.request("GET", "/v1/version")
        wait.getresponse().read()
    with_image.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: open(f"/proc/{with_image.process.pid}/stat").read().rsplit(")")[1].split()[0] == "T", "it is stopped")
    with_image.process.send_signal(signal.SIGTERM)
    for wait in waits:
        wait.request("GET", "/v1/machines/a/wait?state=running&timeout_s=600")
    with_image.process.send_signal(signal.SIGCONT)
    assert with_image.process.wait(DEADLINE) == 0, with_image.log.read_text()
    for wait in waits:
        wait.close()


def test_a_host_that_goes_down_ends_its_machines_first(silent):
    """SIGPWR. Those that their policy starts always are started with the next hulld; until then, none is."""
    port = free_port()
    spec = {"name": "b", "image": "hello", "network": "none", "disk_mib": 16, "restart": {"policy": "always"},
            "ports": [{"host": port, "guest": 80}]}
    assert silent.post("/v1/machines", spec).status == 201
    assert silent.post("/v1/machines/b/start").status == 200
    wait_until(lambda: silent.machine("b")["pid"], "its monitor runs")
    monitors = [silent.machine(name)["pid"] for name in "ab"]
    assert listens(port)
    silent.kill(signal.SIGPWR)
    assert silent.process.returncode == 0
    assert not any(os.path.exists(f"/proc/{pid}") for pid in monitors) and not listens(port)
    silent.start()
    assert silent.machine("a")["state"] == "stopped"
    wait_until(lambda: silent.machine("b")["pid"], "it is started again")
    wait_until(lambda: listens(port), "its port is published")
    assert silent.machine("b")["restarts"] == 0


def test_a_host_that_goes_down_with_nothing_running_is_down_at_once(hulld):
    hulld.kill(signal.SIGPWR)
    assert hulld.process.returncode == 0


# Ports.

def publishes(port):
    return {"name": f"p{port}", "image": "hello", "ports": [{"host": port, "guest": 80}]}


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_port_is_held_from_create_to_delete(with_image):
    port = free_port()
    assert with_image.post("/v1/machines", publishes(port)).status == 201
    assert listens(port)
    again = {"image": "hello", "ports": [{"host": port, "guest": 1, "address": "0.0.0.0"}]}
    problem = refused(with_image.post("/v1/machines", again), 409, "port_taken", "ports[0].host")
    assert f"p{port}" in problem["detail"]
    assert with_image.delete(f"/v1/machines/p{port}").status == 204
    assert not listens(port)
    assert with_image.post("/v1/machines", publishes(port)).status == 201


def test_a_port_that_somebody_else_has_leaves_nothing_behind(with_image):
    free = free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        spec = {"name": "a", "image": "hello", "ports": [{"host": free, "guest": 1}, {"host": taken, "guest": 2}]}
        refused(with_image.post("/v1/machines", spec), 409, "port_taken", "ports[1].host")
    assert with_image.get("/v1/machines").json["items"] == []
    assert not listens(free), "what was published before is given up"
    assert with_image.post("/v1/machines", spec).status == 201, "the name is free again"


def test_ports_outlive_hulld_and_its_crash(with_image):
    port = free_port()
    with_image.post("/v1/machines", publishes(port))
    with_image.kill()
    assert listens(port)
    with_image.start()
    assert with_image.delete(f"/v1/machines/p{port}").status == 204
    assert not listens(port)


def ingress_pid(hulld):
    for entry in os.listdir("/proc"):
        try:
            words = open(f"/proc/{entry}/cmdline", "rb").read().split(b"\0") if entry.isdigit() else []
        except OSError:
            continue
        if str(hulld.run / "ingress.sock").encode() in words:
            return int(entry)
    return None


def test_a_dead_ingress_is_started_again_with_its_ports(with_image):
    port = free_port()
    with_image.post("/v1/machines", publishes(port))
    os.kill(ingress_pid(with_image), signal.SIGKILL)
    wait_until(lambda: listens(port), "the port is published again")


def test_without_ingress_ports_are_refused_and_nothing_stays(tmp_path, erofs):
    hulld = Hulld(tmp_path)
    hulld.options["--ingress"] = "/bin/false"
    hulld.start()
    try:
        hulld.image("hello", erofs, command=["/bin/true"])
        refused(hulld.post("/v1/machines", publishes(free_port())), 500, "internal")
        assert hulld.get("/v1/machines").json["items"] == []
    finally:
        hulld.stop()


def test_a_port_of_a_machine_that_is_no_more_is_free_at_once(with_image):
    """As after a crash in the middle of its creation. hull-ingress stands still until it has been asked for the port."""
    with_image.post("/v1/machines", publishes(free_port()))
    spec, ingress = publishes(free_port()), ingress_pid(with_image)
    with_image.kill()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(with_image.run / "ingress.sock"))
        port = {"op": "publish", "machine": "maaaaaaaaaaaa", "address": "127.0.0.1", "host": spec["ports"][0]["host"], "guest": 80,
                "vsock": str(with_image.run / "none")}
        client.sendall(json.dumps(port).encode() + b"\n")
        assert json.loads(client.makefile().readline())["ok"]
    os.kill(ingress, signal.SIGSTOP)
    with ThreadPoolExecutor() as pool:
        try:
            with_image.start()
            asked = pool.submit(with_image.post, "/v1/machines", spec)
            with contextlib.closing(sqlite3.connect(with_image.state / "hull.db")) as rows:
                wait_until(lambda: rows.execute("SELECT 1 FROM machines WHERE state = 'creating'").fetchone(), "it waits for its port")
        finally:
            os.kill(ingress, signal.SIGCONT)
        assert asked.result().status == 201, asked.result()


def test_a_port_of_a_machine_being_deleted_is_not_published_again(with_image):
    """hull-ingress answers `list` only once the deletion has begun."""
    path = with_image.run / "ingress.sock"
    spec = publishes(free_port())
    machine = with_image.post("/v1/machines", spec).json["id"]
    with_image.kill()
    os.kill(ingress_pid(with_image), signal.SIGKILL)
    path.unlink()
    ops, begun = [], threading.Event()

    def serve(listener):
        client = listener.accept()[0]
        for line in client.makefile():
            request = json.loads(line)
            ops.append((request["op"], request.get("machine")))
            if request["op"] == "list":
                begun.wait(DEADLINE)
                client.sendall(b'{"ok":true,"ports":[]}\n')
            else:
                client.sendall(b'{"ok":true}\n')

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        with_image.start()
        wait_until(lambda: ("list", None) in ops, "hulld asks what is published")
        connection = Connection(with_image.socket)
        connection.request("DELETE", f"/v1/machines/{machine}")
        for _ in range(2):  # it has been read before the second is
            assert with_image.get(f"/v1/machines/{machine}").status == 200
        begun.set()
        assert connection.getresponse().status == 204
        assert with_image.post("/v1/machines", spec).status == 201
        assert ops.count(("unpublish", machine)) == 1 and ("publish", machine) not in ops
        with_image.kill()
    path.unlink()


# Crashes.

@pytest.mark.parametrize("signo", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_acknowledged_is_there_after_a_restart(with_image, signo):
    with_image.post("/v1/machines", {"name": "a", "image": "hello", "env": {"A": "ä"}})
    before = with_image.machine("a"), with_image.get("/v1/images").json
    with_image.restart(signo)
    assert (with_image.machine("a"), with_image.get("/v1/images").json) == before


def test_folders_of_no_machine_are_removed(with_image):
    stray = with_image.state / "machines" / "mabcdefghijkl"
    (stray / "sub").mkdir(parents=True)
    (stray / "sub" / "file").write_text("x")
    with_image.restart()
    assert not stray.exists()


def test_sigkill_at_any_instant_loses_no_acknowledged_create_or_delete(with_image):
    """A client creates, publishes and deletes as fast as it can while hulld is killed again and again."""
    created, deleted, stop, port = set(), set(), threading.Event(), free_port()

    def client():
        number = 0
        while not stop.is_set():
            number += 1
            name = f"m{number}"
            spec = {"name": name, "image": "hello"}
            if number % 3 == 0:
                spec["ports"] = [{"host": port, "guest": 80}]
            try:
                status = with_image.post("/v1/machines", spec).status
                assert status in (201, 409), status
                if status == 201:
                    created.add(name)
                if status == 201 and (number % 2 or "ports" in spec):
                    deleted.add(name)
                    if with_image.delete(f"/v1/machines/{name}").status == 204:
                        created.discard(name)
            except (OSError, http.client.HTTPException):
                pass

    thread = threading.Thread(target=client)
    thread.start()
    try:
        for round_number in range(12):
            target = len(created) + 1 + round_number % 4
            wait_until(lambda: len(created) >= target, "the client gets on")
            with_image.restart()
    finally:
        stop.set()
        thread.join()
    names = [machine["name"] for machine in with_image.get("/v1/machines").json["items"]]
    assert len(names) == len(set(names))
    assert created - deleted <= set(names), "an acknowledged machine is lost"
    assert {machine["state"] for machine in with_image.get("/v1/machines").json["items"]} <= {"created"}
    for name in names:
        assert with_image.delete(f"/v1/machines/{name}").status == 204
    wait_until(lambda: not listens(port), "the port is free")
    assert os.listdir(with_image.state / "machines") == []


def processes_of(hulld):
    """Command lines and environments of all that was started for the machines: {pid: bytes}."""
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = open(f"/proc/{entry}/cmdline", "rb").read() + open(f"/proc/{entry}/environ", "rb").read()
            if f"{hulld.state}/machines/".encode() in words or f"{hulld.run}/machines/".encode() in words:
                found[int(entry)] = words
    return found


def test_sigkill_at_any_instant_neither_loses_nor_doubles_a_monitor(tmp_path, erofs):
    """A client starts, stops and restarts machines of a monitor that only waits, while hulld is killed again and again."""
    monitor, stop = tmp_path / "monitor", threading.Event()
    monitor.write_text("#!/bin/sh\nMONITOR_OF=$2 exec sleep 600\n")
    monitor.chmod(0o755)
    hulld = Hulld(tmp_path)
    hulld.options["--vmm"] = monitor
    hulld.options["--kernel"] = hulld.options["--initrd"] = "/etc/hostname"
    hulld.start()
    answered = [0]

    def client(name):
        verbs = ["start", "kill", "start", "restart", "stop", "start", "restart"]
        while not stop.is_set():
            for verb in verbs:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    assert hulld.post(f"/v1/machines/{name}/{verb}").status in (200, 409)
                    answered[0] += 1

    try:
        hulld.image("hello", erofs, command=["/bin/true"])
        for name, network in (("a", "none"), ("b", "default")):
            spec = {"name": name, "image": "hello", "network": network, "disk_mib": 16}
            assert hulld.post("/v1/machines", spec).status == 201
        threads = [threading.Thread(target=client, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        try:
            for round_number in range(12):
                target = answered[0] + 1 + round_number % 5
                wait_until(lambda: answered[0] >= target, "the clients get on")
                hulld.restart()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        for name in "ab":
            hulld.post(f"/v1/machines/{name}/kill")
            assert hulld.post(f"/v1/machines/{name}/start").status == 200
            machine = wait_until(lambda: (m := hulld.machine(name))["pid"] and m, "its monitor is started")
            mark = f"MONITOR_OF={hulld.state}/machines/{machine['id']}/".encode()
            wait_until(lambda: [pid for pid, words in processes_of(hulld).items() if mark in words] == [machine["pid"]],
                       "the monitor hulld knows of is the only one")
            assert hulld.delete(f"/v1/machines/{name}?force=1").status == 204
        wait_until(lambda: not processes_of(hulld), "no process is left")
        assert os.listdir(hulld.state / "machines") == os.listdir(hulld.run / "machines") == []
    finally:
        hulld.stop()
