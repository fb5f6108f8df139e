"""Settings: the environment before `.env` before `quarry.toml` before the defaults."""

import ipaddress
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import (
    SettingsError as SourceError,
)

from rag.errors import SettingsError, UnsafeBind

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_TOML = Path("quarry.toml")


class Settings(BaseSettings):
    """Everything that a user can set, as QUARRY_<NAME> or as a key of `quarry.toml`."""

    model_config = SettingsConfigDict(
        env_prefix="QUARRY_",
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        toml_file=_TOML,
        extra="ignore",
        frozen=True,
    )

    data_dir: Path = Path("data")
    documents_dir: Path = Path("documents")
    models_dir: Path = Path("models")

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535, description="a whole number from 0 to 65535")
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    key_collections: dict[SecretStr, tuple[str, ...]] = {}
    """The collections that a key may see, by key; one that is not named here sees all."""
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    public_url: str | None = None
    max_body_bytes: int = Field(
        16 << 20, ge=1 << 10, le=1 << 30, description="a number of bytes from 1024 to 1073741824"
    )
    max_upload_bytes: int = Field(
        512 << 20, ge=1 << 10, le=1 << 36, description="a number of bytes from 1024 to 68719476736"
    )
    stop_grace_s: float = Field(20.0, ge=0, le=600, description="a number of seconds up to 600")
    body_timeout_s: float = Field(30.0, gt=0, le=3600, description="a number of seconds up to 3600")

    chat_model: str | None = "starter-chat"
    embedding_model: str = "starter-embedding"
    rerank_model: str | None = None
    # Each of the three may run elsewhere, behind an OpenAI-compatible URL; the model is then its name there.
    chat_url: str | None = None
    chat_key: SecretStr | None = None
    chat_context: int = Field(
        8192, ge=512, le=1 << 24, description="a whole number of tokens from 512 to 16777216"
    )
    """How much the chat model at `chat_url` reads, where it does not say so itself."""
    embedding_url: str | None = None
    embedding_key: SecretStr | None = None
    embedding_tokens: int = Field(
        512, ge=64, le=1 << 20, description="a whole number of tokens from 64 to 1048576"
    )
    """How much the embedding model at `embedding_url` reads at once."""
    # None: what the model's file says, or what is known of a model of its name; at a URL, nothing.
    embedding_query_prefix: str | None = None
    embedding_document_prefix: str | None = None
    rerank_url: str | None = None
    rerank_key: SecretStr | None = None
    check_models: bool = Field(True, description="true or false")
    """Whether embedders and rerankers must answer a few known questions before they serve."""
    threads: int | None = Field(None, ge=1, le=256, description="a whole number from 1 to 256")
    cache_tokens: int | None = Field(
        None, ge=256, le=1 << 24, description="a whole number of tokens from 256 to 16777216"
    )
    cache_type: Literal["f16", "q8_0"] = Field("f16", description="f16 or q8_0")
    prefix_disk_mb: int = Field(
        1024, ge=0, le=1 << 20, description="a whole number of megabytes up to 1048576; 0 keeps nothing"
    )
    """Of beginnings of prompts, kept in the data folder for the next start."""
    speculation: bool = Field(True, description="true or false")
    """Whether what an answer quotes is guessed ahead: it changes speed, not answers."""
    queue_limit: int = Field(64, ge=1, le=10000, description="a whole number from 1 to 10000")
    gpt_aliases: bool = Field(True, description="true or false")

    chroma_url: str | None = None
    top_k: int = Field(6, ge=1, le=100, description="a whole number from 1 to 100")
    candidates: int = Field(40, ge=1, le=1000, description="a whole number from 1 to 1000")
    rerank_candidates: int = Field(20, ge=1, le=200, description="a whole number from 1 to 200")
    context_tokens: int = Field(
        1536, ge=64, le=1 << 20, description="a whole number of tokens from 64 to 1048576"
    )
    answer_tokens: int = Field(
        1024, ge=16, le=1 << 20, description="a whole number of tokens from 16 to 1048576"
    )
    answers: Literal["strict", "mixed"] = Field("strict", description="strict or mixed")
    """Where the documents do not say: strict says so, mixed adds a general answer, set apart."""
    prompts_dir: Path | None = None
    """A folder of prompts that take the place of the shipped ones; see rag/prompt_files.py."""
    sources_footer: bool = Field(True, description="true or false")
    source_links: Literal["none", "list", "text"] = "list"
    link_days: int = Field(30, ge=1, le=3650, description="a whole number of days from 1 to 3650")

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_json: bool = Field(False, description="true or false")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (the base class names it)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources; the first that has a value wins."""
        return init_settings, env_settings, dotenv_settings, TomlConfigSettingsSource(settings_cls)

    @field_validator("api_keys", "allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            try:
                return json.loads(value)
            except json.JSONDecodeError as error:
                raise ValueError("starts with [ and is not a JSON list") from error
        return [part.strip() for part in value.split(",") if part.strip()]

    @field_validator(
        "chat_model",
        "rerank_model",
        "chat_url",
        "embedding_url",
        "rerank_url",
        "chroma_url",
        "public_url",
        mode="before",
    )
    @classmethod
    def _none(cls, value: Any) -> Any:
        return None if isinstance(value, str) and value.strip().lower() in {"", "none"} else value

    @field_validator("embedding_query_prefix", "embedding_document_prefix", mode="before")
    @classmethod
    def _no_prefix(cls, value: Any) -> Any:
        return "" if isinstance(value, str) and value.strip().lower() == "none" else value

    @field_validator("api_keys")
    @classmethod
    def _check_keys(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for number, key in enumerate(keys, 1):
            text = key.get_secret_value()
            if not text or not text.isascii() or any(ch.isspace() or not ch.isprintable() for ch in text):
                raise ValueError(f"key {number} is empty or has blanks or characters outside ASCII")
            if text.startswith("nk-"):
                # ChatGPT-Next-Web takes such a key for its own access code and never sends it on.
                raise ValueError(f"key {number} starts with nk-, which ChatGPT-Next-Web keeps for itself")
        return keys

    @model_validator(mode="after")
    def _check_remote_models(self) -> Self:
        for role in ("chat", "embedding", "rerank"):
            url, model = getattr(self, f"{role}_url"), getattr(self, f"{role}_model")
            if url and (model is None or model.startswith("starter-")):
                name = f"QUARRY_{role.upper()}"
                raise ValueError(f"{name}_URL needs {name}_MODEL: the name of the model there")
        return self

    @model_validator(mode="after")
    def _check_limited_keys(self) -> Self:
        keys = {key.get_secret_value() for key in self.api_keys}
        for number, key in enumerate(self.key_collections, 1):
            if key.get_secret_value() not in keys:
                raise ValueError(f"QUARRY_KEY_COLLECTIONS: key {number} is not among QUARRY_API_KEYS")
        return self

    @field_validator("chroma_url", "public_url", "chat_url", "embedding_url", "rerank_url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        if url is not None and (urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname):
            raise ValueError("must be a URL such as http://127.0.0.1:8000")
        return url.rstrip("/") if url else None


def load_settings(**overrides: Any) -> Settings:
    """Read the settings once. Raises: SettingsError, one line per variable that cannot be used."""
    try:
        _check_toml_keys()
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsError("\n".join(_describe(fault) for fault in error.errors())) from error
    except SourceError as error:
        raise SettingsError(f"settings: {error}") from error


def check_bind(settings: Settings) -> None:
    """Refuse an address that others can reach unless a key protects it. Raises: UnsafeBind."""
    if settings.api_keys or is_loopback(settings.host):
        return
    raise UnsafeBind(
        f"QUARRY_HOST={settings.host} can be reached from other machines and no API key is set: "
        "set QUARRY_API_KEYS, or QUARRY_HOST=127.0.0.1"
    )


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine alone."""
    name = host.strip("[]").lower()
    if name in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _check_toml_keys() -> None:
    """Refuse unknown keys in `quarry.toml`: a misspelt one would otherwise do nothing, silently."""
    if not _TOML.is_file():
        return
    try:
        keys = tomllib.loads(_TOML.read_text("utf-8")).keys()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{_TOML}: {error}") from error
    if unknown := sorted(keys - Settings.model_fields.keys()):
        raise SettingsError(f"{_TOML}: unknown key {unknown[0]}; known: {', '.join(Settings.model_fields)}")


def _describe(fault: Any) -> str:
    name = str(fault["loc"][0]) if fault["loc"] else ""
    field = Settings.model_fields.get(name)
    variable = f"QUARRY_{name.upper()}"
    if not name:
        return str(fault["msg"]).removeprefix("Value error, ")
    if name in {"api_keys", "key_collections"}:
        return f"{variable}: {fault['msg'].removeprefix('Value error, ')}"  # a key is never shown
    reason = (
        f"must be {field.description}"
        if field and field.description
        else str(fault["msg"]).removeprefix("Value error, ")
    )
    return f"{variable}={fault.get('input')}: {reason}"
