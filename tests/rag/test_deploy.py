"""What is shipped for running Quarry elsewhere: compose.yaml, the Dockerfile, the dashboard."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from rag.metrics import Metrics
from rag.settings import Settings
from scripts.dockerfile_in_debian import steps
from scripts.make_dashboard import OUT, PANELS, dashboard

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())
    return loaded


def metric_names(engine: Any, library: Any) -> set[str]:
    metrics = Metrics(engine, library)
    metrics.requested("/x", 200, 0.1)
    metrics.failed("x")
    families = text_string_to_metric_families(metrics.text().decode())
    return {sample.name for family in families for sample in family.samples}


def test_nothing_is_reached_from_other_machines(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_images_are_pinned_and_volumes_known(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if "image" in service:
            assert re.search(r":v?\d+\.\d+", service["image"]), name
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            if source.startswith("${"):
                assert source == "${QUARRY_DOCUMENTS"
            elif source.startswith("."):
                assert (REPOSITORY / source).exists(), source
            else:
                assert source in compose["volumes"], source


def test_settings_in_compose_exist(compose: dict[str, Any]) -> None:
    for name in compose["services"]["quarry"]["environment"]:
        if name.startswith("QUARRY_"):
            assert name.removeprefix("QUARRY_").lower() in Settings.model_fields, name


def test_one_key_is_shared_and_others_may_follow(compose: dict[str, Any]) -> None:
    services = compose["services"]
    given = re.sub(r"\$\{QUARRY_API_KEYS[^}]*\}", "a", services["quarry"]["environment"]["QUARRY_API_KEYS"])
    for more, keys in (("", ["a"]), ("b,c", ["a", "b", "c"])):
        written = re.sub(r"\$\{QUARRY_MORE_API_KEYS[^}]*\}", more, given)
        settings = Settings(api_keys=written, _env_file=None)
        assert [key.get_secret_value() for key in settings.api_keys] == keys
    assert services["prometheus"]["environment"]["QUARRY_KEY"] == "${QUARRY_API_KEYS}"


def test_alerts_ask_for_numbers_that_exist(engine: Any, library: Any) -> None:
    rules = yaml.safe_load((REPOSITORY / "deploy" / "alerts.yml").read_text())["groups"][0]["rules"]
    asked = {name for rule in rules for name in re.findall(r"quarry_\w+", rule["expr"])}
    assert len(rules) == 6
    assert asked <= metric_names(engine, library)


def test_chatgpt_next_web_is_wired_to_the_root(compose: dict[str, Any]) -> None:
    environment = compose["services"]["chat"]["environment"]
    assert environment["BASE_URL"] == "http://quarry:8080"
    assert environment["OPENAI_API_KEY"] == "${QUARRY_API_KEYS}"
    assert compose["services"]["chat"]["depends_on"] == {"quarry": {"condition": "service_healthy"}}


def test_profiles(compose: dict[str, Any]) -> None:
    profiles = {name: service.get("profiles") for name, service in compose["services"].items()}
    assert profiles == {
        "quarry": None,
        "chat": None,
        "chroma": ["chroma"],
        "vllm": ["gpu"],
        "prometheus": ["metrics"],
        "grafana": ["metrics"],
    }


def test_stop_has_time_for_running_answers(compose: dict[str, Any]) -> None:
    grace = int(compose["services"]["quarry"]["stop_grace_period"].removesuffix("s"))
    assert grace >= Settings(_env_file=None).stop_grace_s + 10


def test_image_is_small_and_not_root() -> None:
    listed = steps((REPOSITORY / "Dockerfile").read_text())
    last = max(index for index, (keyword, _) in enumerate(listed) if keyword == "FROM")
    final = dict(listed[last:])
    assert [keyword for keyword, _ in listed].count("FROM") == 2
    assert final["USER"] == "quarry"
    assert "HEALTHCHECK" in final
    assert not any("apt-get" in rest for _, rest in listed[last:])
    copied = [rest.split()[:-1] for keyword, rest in listed if keyword == "COPY" and "--from" not in rest]
    assert all((REPOSITORY / source).exists() for sources in copied for source in sources)


def test_dashboard_is_the_one_that_is_made() -> None:
    assert json.loads(OUT.read_text()) == dashboard()


def test_dashboard_asks_for_numbers_that_exist(engine: Any, library: Any) -> None:
    asked = {
        name
        for _, _, lines in PANELS
        for query in lines.values()
        for name in re.findall(r"quarry_\w+", query)
    }
    assert asked
    assert asked <= metric_names(engine, library)
