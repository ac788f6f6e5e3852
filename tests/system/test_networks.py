"""Networks where a host can have none: what says so."""
from hulld_fixtures import hulld  # noqa: F401 (a fixture)

MONITOR = "#!/bin/sh\nexec sleep 1000\n"


def test_a_host_without_what_networks_need_says_so(hulld):
    hulld.options["--network"] = "/nonexistent/hull-network"
    hulld.restart()
    refused = hulld.post("/v1/networks", {"name": "back"})
    assert refused.status == 409 and refused.json["code"] == "unsupported" and refused.json["hint"], refused
    shown = hulld.get("/v1/host").json["networks"]
    assert shown["available"] is False and shown["reason"] == refused.json["detail"]
    assert hulld.get("/v1/networks").json == {"items": []}


def test_a_machine_names_a_network_that_is_there(hulld):
    refused = hulld.post("/v1/machines", {"image": "hello", "network": "nowhere"})
    assert refused.status == 404 and refused.json["field"] == "network" and "nowhere" in refused.json["detail"], refused
    refused = hulld.post("/v1/machines", {"image": "hello", "network": "No Where"})
    assert refused.status == 400 and refused.json["field"] == "network", refused
    for kind in "default", "none":
        made = hulld.post("/v1/machines", {"image": "hello", "network": kind})
        assert made.status == 201 and made.json["network"] == kind and made.json["address"] is None
    assert hulld.post("/v1/machines", {"image": "hello"}).json["network"] == "default"
