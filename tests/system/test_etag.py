"""Entity tags: each answer bears one, and what a client asks for may depend on it."""
import pytest

from free_ports import free_port
from hulld_fixtures import Connection, hulld, make_erofs
from test_hulld import refused

ANY = "\"00000000000000000000000000000000\""


@pytest.fixture
def machine(hulld):
    """A path. The machine goes with the test."""
    answer = hulld.post("/v1/machines", {"name": "a", "image": "hello", "ports": [{"host": free_port(), "guest": 80}]})
    assert answer.status == 201, answer
    yield "/v1/machines/a"
    hulld.delete("/v1/machines/a?force=1")


def tag(answer):
    assert answer.headers["ETag"][0] == answer.headers["ETag"][-1] == '"', answer.headers
    return answer.headers["ETag"]


def test_the_tag_is_the_same_in_each_answer_and_after_a_crash(hulld):
    made = hulld.post("/v1/machines", {"name": "a", "image": "hello"}, headers={"Idempotency-Key": "k"})
    again = hulld.post("/v1/machines", {"name": "a", "image": "hello"}, headers={"Idempotency-Key": "k"})
    assert again.headers["Idempotent-Replayed"] == "true"
    tags = {tag(made), tag(again), tag(hulld.get("/v1/machines/a")), tag(hulld.get("/v1/machines/a/wait?state=created"))}
    hulld.restart()
    assert tags == {tag(hulld.get("/v1/machines/a"))}
    assert hulld.delete("/v1/machines/a").status == 204
    assert hulld.get("/v1/machines").headers["ETag"] is None


def test_the_tag_changes_with_what_is_seen(hulld, machine):
    tags = [tag(hulld.get(machine))]
    tags.append(tag(hulld.post(machine + "/start")))
    tags.append(tag(hulld.post(machine + "/kill")))
    assert len(set(tags)) == 3
    hulld.delete(machine + "?force=1")
    hulld.post("/v1/machines", {"name": "a", "image": "hello"})
    assert tag(hulld.get(machine)) not in tags


def test_what_the_client_has_is_not_sent_again(hulld, machine):
    first = hulld.get(machine)
    for field in (tag(first), f"{ANY}, W/{tag(first)}", "*"):
        answer = hulld.get(machine, headers={"If-None-Match": field})
        assert (answer.status, answer.body, tag(answer)) == (304, b"", tag(first)), field
    for field in (ANY, "nonsense", ""):
        answer = hulld.get(machine, headers={"If-None-Match": field})
        assert (answer.status, answer.body) == (200, first.body), field
    for path in ("/v1/images/hello", "/v1/projects/default"):
        assert hulld.get(path, headers={"If-None-Match": tag(hulld.get(path))}).status == 304


@pytest.mark.parametrize("method, path", [
    ("DELETE", ""), ("POST", "/start"), ("POST", "/stop"), ("POST", "/kill"), ("POST", "/restart"), ("POST", "/freeze"),
    ("POST", "/thaw"), ("GET", ""), ("GET", "/stats")])
def test_what_has_changed_meanwhile_is_left_alone(hulld, machine, method, path):
    before = hulld.get(machine)
    for field in (ANY, "W/" + tag(before)):
        problem = refused(hulld.request(method, machine + path, headers={"If-Match": field}), 412, "precondition_failed", "If-Match")
        assert tag(before) in problem["detail"]
    refused(hulld.request(method, machine + path, headers={"If-Match": tag(before)[:-1]}), 400, "invalid_field", "If-Match")
    assert hulld.get(machine).body == before.body


def test_what_is_there_already_is_left_alone(hulld, machine):
    def put(value, field):
        return hulld.request("PUT", "/v1/secrets/ONCE", {"value": value}, headers={"If-None-Match": field})

    made = put("1", "*")
    assert made.status == 201
    for field in ("*", tag(made), "W/" + tag(made)):
        refused(put("2", field), 412, "precondition_failed", "If-None-Match")
    assert put("2", ANY).status == 200
    refused(hulld.request("DELETE", machine, headers={"If-None-Match": "*"}), 412, "precondition_failed", "If-None-Match")
    assert hulld.delete("/v1/secrets/ONCE").status == 204


def test_what_is_as_it_was_is_changed(hulld, machine):
    assert hulld.post(machine + "/stop", headers={"If-Match": tag(hulld.get(machine))}).status == 200
    assert hulld.post(machine + "/stop", headers={"If-Match": f"{ANY}, {tag(hulld.get(machine))}"}).status == 200
    assert hulld.request("DELETE", machine, headers={"If-Match": "*"}).status == 204
    refused(hulld.request("DELETE", machine, headers={"If-Match": "*"}), 404, "not_found")


def test_a_field_in_several_lines_is_one_list(hulld, machine):
    for last, status in ((tag(hulld.get(machine)), 200), ('"b"', 412), ("nonsense", 400)):
        connection = Connection(hulld.socket)
        connection.putrequest("POST", machine + "/stop")
        for field in (ANY, last):
            connection.putheader("If-Match", field)
        connection.endheaders()
        assert connection.getresponse().status == status
        connection.close()


def test_images_projects_secrets_and_tokens_have_tags_too(hulld):
    digest = hulld.image("other", make_erofs(hulld.folder))
    first = tag(hulld.get("/v1/images/other"))
    moved = hulld.post("/v1/images", {"name": "other", "rootfs": digest, "labels": {"a": "b"}})
    assert tag(moved) == tag(hulld.get("/v1/images/other")) != first
    token = f"/v1/tokens/{hulld.post('/v1/tokens', {'scopes': ['read']}).json['id']}"
    assert hulld.post("/v1/projects", {"name": "p"}).status == 201
    refused(hulld.request("PUT", "/v1/secrets/S", {"value": "1"}, headers={"If-Match": "*"}), 412, "precondition_failed", "If-Match")
    assert hulld.request("PUT", "/v1/secrets/S", {"value": "1"}).status == 201
    for path in ("/v1/images/other", token, "/v1/projects/p", "/v1/secrets/S"):
        refused(hulld.request("DELETE", path, headers={"If-Match": first}), 412, "precondition_failed", "If-Match")
        assert hulld.request("DELETE", path, headers={"If-Match": tag(hulld.get(path))}).status == 204


@pytest.mark.parametrize("method, path", [("POST", "/v1/machines"), ("POST", "/v1/images"), ("GET", "/v1/machines"),
                                          ("PUT", f"/v1/blobs/sha256:{'0' * 64}")])
def test_a_condition_that_means_nothing_is_not_passed_over(hulld, method, path):
    refused(hulld.request(method, path, headers={"If-Match": ANY}), 400, "invalid_field", "If-Match")


def test_a_start_that_is_repeated_is_answered_whatever_has_changed(hulld, machine):
    """What changed is what it did itself (section 13.1.1)."""
    fields = {"If-Match": tag(hulld.get(machine)), "Idempotency-Key": "start"}
    first = hulld.post(machine + "/start", headers=fields)
    assert first.status == 200
    assert hulld.post(machine + "/start", headers=fields).body == first.body


def test_what_failed_for_its_tag_is_tried_anew_with_the_same_key(hulld, machine):
    refused(hulld.post(machine + "/stop", headers={"If-Match": "none"}), 400, "invalid_field", "If-Match")
    refused(hulld.post("/v1/machines/nobody/stop", headers={"If-Match": "none"}), 400, "invalid_field", "If-Match")
    refused(hulld.post(machine + "/stop", headers={"If-Match": ANY, "Idempotency-Key": "anew"}), 412, "precondition_failed", "If-Match")
    assert hulld.post(machine + "/stop", headers={"If-Match": "*", "Idempotency-Key": "anew"}).status == 200


def test_openapi_says_so(hulld):
    paths = hulld.get("/v1/openapi.json").json["paths"]
    get, stop = paths["/v1/machines/{machine}"]["get"], paths["/v1/machines/{machine}/stop"]["post"]
    assert "ETag" in get["responses"]["200"]["headers"] and "304" in get["responses"]
    assert {"If-Match", "If-None-Match"} <= {parameter["name"] for parameter in get["parameters"]}
    assert "412" in stop["responses"] and "If-Match" in [parameter["name"] for parameter in stop["parameters"]]
    assert "ETag" not in paths["/v1/machines"]["get"]["responses"]["200"].get("headers", {})
