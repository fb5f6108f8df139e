"""Settings: where they come from, which wins, and how a wrong one names itself."""

import os
from pathlib import Path

import pytest

from rag.errors import SettingsError, UnsafeBind
from rag.settings import check_bind, load_settings


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("QUARRY_")]:
        monkeypatch.delenv(name)
    return tmp_path


def test_environment_wins_over_dotenv_over_toml(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty_folder / "quarry.toml").write_text('port = 1\ntop_k = 2\nhost = "localhost"\n')
    (empty_folder / ".env").write_text("QUARRY_PORT=3\nQUARRY_TOP_K=4\n")
    monkeypatch.setenv("QUARRY_PORT", "5")
    settings = load_settings()
    assert (settings.port, settings.top_k, settings.host) == (5, 4, "localhost")


NAMES = {
    "data_dir": ("elsewhere", "elsewhere"),
    "documents_dir": ("papers", "papers"),
    "models_dir": ("shelf", "shelf"),
    "host": ("::1", "::1"),
    "port": ("8123", "8123"),
    "api_keys": ("alpha", "(SecretStr('**********'),)"),
    "chat_model": ("zh-small", "zh-small"),
    "embedding_model": ("zh-embedding", "zh-embedding"),
    "rerank_model": ("some.gguf", "some.gguf"),
    "embedding_query_prefix": ("ask:", "ask:"),
    "embedding_document_prefix": ("none", ""),
    "chroma_url": ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
    "threads": ("3", "3"),
}


@pytest.mark.parametrize("source", [pytest.param(s, id=s) for s in ("environment", ".env", "quarry.toml")])
@pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in NAMES])
def test_every_name_works_from_every_source(
    name: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    value, expected = NAMES[name]
    assert str(getattr(load_settings(), name)) != expected
    match source:
        case "environment":
            monkeypatch.setenv(f"QUARRY_{name.upper()}", value)
        case ".env":
            (tmp_path / ".env").write_text(f"QUARRY_{name.upper()}={value}\n")
        case _:
            (tmp_path / "quarry.toml").write_text(f"{name} = {value if value.isdigit() else repr(value)}\n")
    assert str(getattr(load_settings(), name)) == expected


@pytest.mark.parametrize(
    "text",
    [pytest.param("alpha, beta", id="commas"), pytest.param('["alpha", "beta"]', id="json")],
)
def test_keys_are_a_list(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUARRY_API_KEYS", text)
    assert [key.get_secret_value() for key in load_settings().api_keys] == ["alpha", "beta"]


def test_chat_model_none_means_extraction(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().chat_model == "starter-chat"
    monkeypatch.setenv("QUARRY_CHAT_MODEL", "none")
    assert load_settings().chat_model is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        pytest.param("QUARRY_PORT", "70000", ["70000", "0 to 65535"], id="port too large"),
        pytest.param("QUARRY_PORT", "web", ["web", "0 to 65535"], id="port not a number"),
        pytest.param("QUARRY_THREADS", "0", ["=0", "1 to 256"], id="no threads"),
        pytest.param("QUARRY_CHROMA_URL", "chroma:8000", ["chroma:8000", "URL"], id="url without scheme"),
        pytest.param("QUARRY_API_KEYS", "nk-x", ["key 1", "nk-"], id="key of nextchat"),
        pytest.param("QUARRY_API_KEYS", "[1", ["JSON"], id="broken json"),
    ],
)
def test_wrong_value_names_variable_and_range(
    name: str, value: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    message = str(caught.value)
    assert "\n" not in message
    for word in [name, *words]:
        assert word in message


def test_misspelt_key_in_toml_is_refused(empty_folder: Path) -> None:
    (empty_folder / "quarry.toml").write_text("prot = 1\n")
    with pytest.raises(SettingsError, match="unknown key prot"):
        load_settings()


@pytest.mark.parametrize(
    ("host", "keys", "refused"),
    [
        pytest.param("127.0.0.1", "", False, id="loopback"),
        pytest.param("::1", "", False, id="loopback v6"),
        pytest.param("localhost", "", False, id="localhost"),
        pytest.param("0.0.0.0", "", True, id="everywhere"),  # noqa: S104 (the point of the test)
        pytest.param("192.168.1.5", "", True, id="lan"),
        pytest.param("nas.local", "", True, id="name"),
        pytest.param("0.0.0.0", "key", False, id="everywhere with a key"),  # noqa: S104
    ],
)
def test_reachable_address_needs_a_key(host: str, keys: str, refused: bool) -> None:
    settings = load_settings(host=host, api_keys=keys)
    if refused:
        with pytest.raises(UnsafeBind, match="QUARRY_API_KEYS"):
            check_bind(settings)
    else:
        check_bind(settings)
