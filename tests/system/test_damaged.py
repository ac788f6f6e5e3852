"""Rows of the database that hulld has not written so: they are told of, in one line, and stand in no other's way."""
import contextlib
import json
import sqlite3

import pytest

from hulld_fixtures import Hulld, make_erofs

PATCH = {"Content-Type": "application/merge-patch+json"}
SPECS = ["", "{", "[]", "{}", '{"name": "bad"}', '{"name": "bad", "subnet": "10.88.0.0/99"}', '{"name": "bad", "subnet": "10.88.0.0/24", "more": 1}',
         '{"name": 7, "subnet": "10.88.0.0/24"}', '{"name": "bad", "subnet": "10.88.0.0/24", "labels": {"a": 1}}']


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hulld")
    daemon = Hulld(folder).with_stand_in().start()
    daemon.image("hello", make_erofs(folder, {}), command=["true"])
    yield daemon
    daemon.stop()


def store(hulld, statement, *values):
    with contextlib.closing(sqlite3.connect(hulld.state / "hull.db", isolation_level=None)) as rows:
        rows.execute(statement, values)


def told(answer, line):
    assert answer.status == 500 and answer.json["code"] == "internal" and answer.json["detail"] == line, answer


@pytest.mark.parametrize("spec", SPECS)
def test_a_damaged_network_is_told_of_and_can_be_deleted(hulld, spec):
    store(hulld, "INSERT INTO networks (project, name, id, spec, created_at) VALUES ('default', 'bad', 'nbad', ?, 1)", spec)
    line = "network bad is damaged in the database, and can only be deleted"
    told(hulld.get("/v1/networks/bad"), line)
    told(hulld.get("/v1/networks"), line)
    told(hulld.request("PATCH", "/v1/networks/bad", json.dumps({"labels": {"a": "b"}}), headers=PATCH), line)
    told(hulld.post("/v1/machines", {"name": "m", "image": "hello", "network": "bad"}), line)
    hulld.restart()
    told(hulld.get("/v1/networks/bad"), line)
    assert hulld.request("DELETE", "/v1/networks/bad", headers={"If-Match": '"x"'}).status == 412
    assert hulld.delete("/v1/networks/bad").status == 204
    assert hulld.get("/v1/networks").json["items"] == []


@pytest.mark.parametrize("document", ["", "{", "7", '{"name": 5}'])
def test_a_damaged_image_is_told_of_as_the_host_s_failure(hulld, document):
    store(hulld, "INSERT INTO images SELECT project, 'bad', rootfs, ? FROM images WHERE name = 'hello'", document)
    for answer in (hulld.get("/v1/images/bad"), hulld.get("/v1/images"), hulld.delete("/v1/images/bad"), hulld.post("/v1/machines", {"name": "m", "image": "bad"})):
        told(answer, "an image is damaged in the database")
    assert hulld.get("/v1/images/hello").status == 200
    store(hulld, "DELETE FROM images WHERE name = 'bad'")


def test_a_machine_whose_image_s_configuration_is_damaged_is_told_of(hulld):
    assert hulld.post("/v1/machines", {"name": "m", "image": "hello"}).status == 201
    store(hulld, "UPDATE machines SET image_config = '{' WHERE name = 'm'")
    hulld.restart()
    told(hulld.request("PATCH", "/v1/machines/m", json.dumps({"env": {"A": "b"}}), headers=PATCH),
         "what machine m has of its image is damaged in the database")
    assert hulld.delete("/v1/machines/m").status == 204
