"""The compose file and the manifests, as far as no engine is needed: schemas, and our own rules."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from doc_pages import ROOT

from callboard.settings import Settings, load_settings

COMPOSE = ROOT / "docker-compose.yml"
MANIFESTS = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
KUBERNETES = "1.34"
STOP_GRACE = Settings.model_fields["stop_grace"].default  # seconds
OURS = ("api", "worker", "beat", "flower")
DATABASES = ("valkey", "mongo")
NOT_PASSED = {
    "CALLBOARD_ENV": "a container is production; `callboard up` alone sets anything else",
}
MADE_IN_THE_FILE = {
    "REDIS_URL": "of VALKEY_PASSWORD, which is in the example",
    "MONGODB_URI": "of MONGODB_PASSWORD, which is in the example",
}
SETTINGS = {str(field.validation_alias) for field in Settings.model_fields.values()} - {*NOT_PASSED}


@cache
def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text())


def service(name: str) -> dict[str, Any]:
    return compose()["services"][name]


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def all_of_kind(kind: str) -> list[Any]:
    found = [one for path in MANIFESTS for one in documents(path) if one["kind"] == kind]
    return [pytest.param(one, id=one["metadata"]["name"]) for one in found]


def seconds(text: str) -> int:
    return int(re.fullmatch(r"(\d+)s", text)[1])


def example() -> dict[str, str]:
    """The variables of .env.example."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


class TestEverySetting:
    """A setting that exists can be set where the application is deployed."""

    @pytest.mark.parametrize("name", OURS)
    def test_reaches_each_container(self, name):
        assert set(service(name)["environment"]) >= SETTINGS
        assert not {*NOT_PASSED} & set(service(name)["environment"])

    def test_comes_from_the_variable_of_its_name(self):
        given = compose()["x-callboard"]["environment"]
        for name in SETTINGS - {*MADE_IN_THE_FILE}:
            assert re.match(rf"\$\{{{name}:[?-]", given[name]), name

    def test_is_in_the_example(self):
        assert set(example()) >= SETTINGS - {*MADE_IN_THE_FILE}

    def test_what_the_example_has_is_used(self):
        used = set(re.findall(r"\$\{(\w+):", COMPOSE.read_text()))
        assert set(example()) == used

    def test_is_in_the_manifests(self):
        config, (secret, *_) = (
            documents(ROOT / "deploy" / "kubernetes" / name)
            for name in ("config.yaml", "secret.example.yaml")
        )
        assert {*config[0]["data"], *secret["stringData"]} == SETTINGS

    @pytest.mark.parametrize("empty", [True, False])
    def test_that_is_empty_has_its_default(self, empty, monkeypatch):
        required = {
            "REDIS_URL": "redis://valkey/0", "MONGODB_URI": "mongodb://mongo/callboard",
            "SECRET_KEY": "k" * 32, "JWT_SECRET": "s" * 32,
        }  # fmt: skip
        for name in SETTINGS:
            monkeypatch.delenv(name, raising=False)
            if empty or name in required:
                monkeypatch.setenv(name, required.get(name, ""))
        defaults = {
            name: field.get_default(call_default_factory=True, validated_data={})
            for name, field in Settings.model_fields.items()
            if not field.is_required() and name != "jwt_secret"
        }
        settings = load_settings()
        assert {name: getattr(settings, name) for name in defaults} == defaults


class TestCompose:
    def test_fits_the_compose_specification(self, check_compose):
        check_compose(COMPOSE)

    def test_no_secret_has_a_default(self):
        secrets = re.findall(r"\$\{(\w*(?:PASSWORD|SECRET|AUTH|JWT)\w*)(:?[-?+])?([^}]*)\}",
                             COMPOSE.read_text())  # fmt: skip
        assert len(secrets) > 8
        assert all(rule == ":?" or (rule == ":-" and not text) for _, rule, text in secrets)

    def test_a_variable_without_a_default_is_in_the_example_and_empty_there(self):
        required = set(re.findall(r"\$\{(\w+):\?", COMPOSE.read_text()))
        assert required <= set(example())
        assert not any(example().values())

    @pytest.mark.parametrize("name", DATABASES)
    def test_no_port_of_a_database_is_published(self, name):
        assert "ports" not in service(name)
        assert "network_mode" not in service(name)

    @pytest.mark.parametrize("name", DATABASES)
    def test_data_is_in_named_volumes(self, name):
        used = {entry.split(":")[0] for entry in service(name)["volumes"]}
        assert used <= set(compose()["volumes"])

    def test_what_is_published_is_for_this_machine_unless_its_owner_says_otherwise(self):
        published = [
            port for one in compose()["services"].values() for port in one.get("ports", [])
        ]
        assert len(published) == 2
        assert all(re.match(r"127\.0\.0\.1:|\$\{\w+:-127\.0\.0\.1:", port) for port in published)

    def test_flower_wants_a_password(self):
        assert ":?" in service("flower")["environment"]["FLOWER_BASIC_AUTH"]

    @pytest.mark.parametrize("name", [*OURS, *DATABASES])
    def test_has_a_health_check_and_a_stop_grace(self, name):
        assert service(name)["healthcheck"]["test"]
        assert seconds(service(name)["stop_grace_period"]) > 0

    @pytest.mark.parametrize("name", sorted(compose()["services"]))
    def test_memory_and_logs_have_limits(self, name):
        assert re.fullmatch(r"(\$\{\w+:-)?\d+[mg]\}?", service(name)["mem_limit"])
        logging = service(name)["logging"]
        assert logging["driver"] == "json-file"
        assert set(logging["options"]) == {"max-size", "max-file"}

    def test_valkey_refuses_writes_before_it_is_out_of_memory(self):
        (allowed,) = re.findall(r"maxmemory (\d+)gb", " ".join(service("valkey")["command"]))
        assert service("valkey")["mem_limit"] == f"{2 * int(allowed)}g"  # it copies while it saves

    @pytest.mark.parametrize("name", ["api", "worker"])
    def test_what_has_runs_or_callers_gets_longer_than_our_own_grace(self, name):
        assert seconds(service(name)["stop_grace_period"]) >= STOP_GRACE + 10

    @pytest.mark.parametrize("name", OURS)
    def test_runs_without_privileges_on_a_read_only_disk(self, name):
        assert service(name)["read_only"] is True
        assert service(name)["cap_drop"] == ["ALL"]
        assert re.search(r"^USER callboard$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    def test_valkey_keeps_runs(self):
        configuration = " ".join(service("valkey")["command"])
        assert "appendonly yes" in configuration
        assert "maxmemory-policy noeviction" in configuration

    def test_mongo_is_a_replica_set(self):
        assert "--replSet" in " ".join(service("mongo")["entrypoint"])
        assert "mongo-init" in service("api")["depends_on"]


class TestManifests:
    @pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
    def test_fits_the_schemas_of_kubernetes(self, path):
        for document in documents(path):
            if document["apiVersion"].startswith("keda.sh/"):
                continue  # no schema of it is at hand: see the next test
            kubernetes_validate.validate(document, KUBERNETES, strict=True)

    def test_keda_scales_the_workers_by_a_queue_that_exists(self):
        (scaled,) = (one.values[0] for one in all_of_kind("ScaledObject"))
        assert scaled["spec"]["scaleTargetRef"]["name"] == "callboard-worker"
        (trigger,) = scaled["spec"]["triggers"]
        assert (trigger["type"], trigger["metadata"]["listName"]) == ("redis", "callboard")
        names = {one.values[0]["metadata"]["name"] for one in all_of_kind("TriggerAuthentication")}
        assert trigger["authenticationRef"]["name"] in names

    @pytest.mark.parametrize("deployment", all_of_kind("Deployment"))
    def test_a_pod_is_not_root_and_writes_no_disk(self, deployment):
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert f"--uid {pod['securityContext']['runAsUser']} " in (ROOT / "Dockerfile").read_text()
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}

    @pytest.mark.parametrize("deployment", all_of_kind("Deployment"))
    def test_a_pod_gets_longer_to_stop_than_our_own_grace(self, deployment):
        config = documents(ROOT / "deploy" / "kubernetes" / "config.yaml")[0]["data"]
        grace = float(config["CALLBOARD_STOP_GRACE"])
        given = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        assert given >= grace + 10

    @pytest.mark.parametrize("deployment", all_of_kind("Deployment"))
    def test_a_pod_has_probes_and_asks_for_what_it_needs(self, deployment):
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            assert "livenessProbe" in container
            assert container["resources"]["requests"]
            assert container["resources"]["limits"]["memory"]

    @pytest.mark.parametrize("deployment", all_of_kind("Deployment"))
    def test_labels_and_selectors_agree(self, deployment):
        wanted = deployment["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()

    @pytest.mark.parametrize("secret", all_of_kind("Secret"))
    def test_no_secret_has_a_value(self, secret):
        assert not any(secret["stringData"].values())

    @pytest.mark.parametrize("config", [*all_of_kind("ConfigMap"), *all_of_kind("Secret")])
    def test_variables_are_settings(self, config):
        known = {str(field.validation_alias) for field in Settings.model_fields.values()}
        given = {*config.get("data", {}), *config.get("stringData", {})}
        assert given <= known | {"FLOWER_BASIC_AUTH"}
