"""How byte-level BPE vocabularies cut text before merging, by the file's `tokenizer.ggml.pre`.

A pre-tokenizer is a list of regular expressions applied one after the other: each cuts every piece into
its matches and what lies between. The expressions are those of the models' own tokenizer.json files, where
known, since the models were trained with them. Source for names and groups: llama.cpp, src/llama-vocab.cpp.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from tokenizers import Regex, pre_tokenizers

from engine.errors import UnsupportedModel


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """The cuts of one family of vocabularies, and what else its name implies."""

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    """A piece that is a token as a whole is that token, whatever its merges say."""
    add_bos: bool = False
    """Begin with the BOS token where the file does not say."""
    writes_bytes: bool = True
    """Pieces are written in the letters of bytes; else as text, with U+2581 for spaces."""


_ELISION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_TITLE = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
_UPPER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
_PATH_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_HAN = r"\p{Han}"

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_ELISION}|{_WORDS}|\p{{N}}{{1,3}}|{_SYMBOLS}|{_SPACES}"
_QWEN2 = rf"{_ELISION}|{_WORDS}|\p{{N}}|{_SYMBOLS}|{_SPACES}"
_QWEN35 = (
    rf"{_ELISION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_GPT4O = rf"{_TITLE}{_ELISION}?|{_UPPER}{_ELISION}?|\p{{N}}{{1,3}}|{_PATH_SYMBOLS}|{_SPACES}"
_YOUTU = rf"{_TITLE}{_ELISION}?|{_UPPER}{_ELISION}?|\p{{N}}|{_PATH_SYMBOLS}|{_SPACES}"
_TEKKEN = rf"{_TITLE}|{_UPPER}|\p{{N}}|{_PATH_SYMBOLS}|{_SPACES}"
_KIMI = rf"{_HAN}+|" + _GPT4O.replace(r"\p{M}]", rf"\p{{M}}&&[^{_HAN}]]").replace(r"[\r\n/]*", r"[\r\n]*")
_MINICPM5 = rf"{_ELISION}|{_WORDS}|\p{{N}}+|{_SYMBOLS}|{_SPACES}"
_BAILING = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
_SEED_CODER = rf"{_ELISION}|{_WORDS}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}"
_EXAONE_MOE = (
    rf"{_ELISION}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)
_JAIS2 = (
    rf"{_ELISION}|{_WORDS}|\p{{N}}{{1,3}}|{_SYMBOLS}|\s*[\r\n]+|"
    + "|".join(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4))
    + r"|\s{1,2}(?!\S)|\s{1}"
)
_CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_DEEPSEEK3_WORDS = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
    r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"
)
_DEEPSEEK3 = (r"\p{N}{1,3}", _CJK, rf"{_DEEPSEEK3_WORDS}[\r\n]*|{_SPACES}")
_DEEPSEEK_CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_DEEPSEEK_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370"
    "-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-"
    "\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-"
    "\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-"
    "\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4"
    "\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a"
    "-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-"
    "\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-"
    "\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-"
    "\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-"
    "\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_DEEPSEEK_PUNCTUATION = "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"
_YOUTU_SCRIPTS = (
    "[\uac00-\ud7a3\u3131-\u318e]+"
    "|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
    "|[\u3105-\u312f]+|" + _CJK
)
_BLOOM = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"

_AFMOE_SCRIPTS = (
    "[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f"
    "\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)
_AFMOE = (
    r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",
    _AFMOE_SCRIPTS,
    rf"{_DEEPSEEK3_WORDS}[\r\n]*|{_SPACES}",
)

_GPT2_CUTS = PreTokenizer((GPT2_PATTERN,))
_DIGIT_CUTS = PreTokenizer((r"\p{N}", GPT2_PATTERN))
_LLAMA3_CUTS = PreTokenizer((_LLAMA3,), ignore_merges=True, add_bos=True)
_QWEN2_CUTS = PreTokenizer((_QWEN2,))
_GPT4O_CUTS = PreTokenizer((_GPT4O,))
_DEEPSEEK3_CUTS = PreTokenizer(_DEEPSEEK3)
_BAILING_CUTS = PreTokenizer((_BAILING,))
_BLOOM_CUTS = PreTokenizer((_BLOOM,))
_SPACED_CUTS = PreTokenizer((r"[^\n]+|\n+",), add_bos=True, writes_bytes=False)
_GLM4_CUTS = PreTokenizer((_LLAMA3,), ignore_merges=True)


def _named(cuts: PreTokenizer, names: str) -> dict[str, PreTokenizer]:
    return dict.fromkeys(names.split(), cuts)


PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    "default": PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", GPT2_PATTERN, r"\p{N}+", r"[0-9][0-9][0-9]")),
    **_named(
        _GPT2_CUTS,
        "gpt-2 gpt2 phi-2 jina-es jina-de jina-v1-en jina-v2-es jina-v2-de jina-v2-code roberta-bpe gigachat "
        "a.x-4.0 mellum modern-bert mpt olmo jais trillion granite-docling exaone4",
    ),
    **_named(_DIGIT_CUTS, "smollm starcoder refact command-r codeshell exaone minerva minerva-7b mellum2"),
    **_named(
        _LLAMA3_CUTS,
        "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
    ),
    **_named(PreTokenizer((_LLAMA3,)), "dbrx smaug-bpe chatglm-bpe"),
    **_named(_GLM4_CUTS, "glm4 glm5"),
    **_named(
        _QWEN2_CUTS,
        "qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 megrez hunyuan solar-open grok-2",
    ),
    "qwen35": PreTokenizer((_QWEN35,)),
    **_named(_GPT4O_CUTS, "gpt-4o llama4 kanana2 talkie minimax-m2"),
    "tekken": PreTokenizer((_TEKKEN,), ignore_merges=True, add_bos=True),
    **_named(
        PreTokenizer((r"\d{1,3}(?=(?:\d{3})*\b)", _GPT4O)),
        "tiny_aya cohere2moe",
    ),
    "kimi-k2": PreTokenizer((_KIMI,)),
    "youtu": PreTokenizer((_YOUTU_SCRIPTS, _YOUTU), ignore_merges=True),
    "deepseek-llm": PreTokenizer(
        (
            r"[\r\n]",
            rf"\s?[{_DEEPSEEK_LETTERS}]+",
            _DEEPSEEK_PUNCTUATION,
            r"\s+$",
            _DEEPSEEK_CJK,
            r"\p{N}+",
        )
    ),
    "deepseek-coder": PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _DEEPSEEK_CJK, r"\p{N}")),
    **_named(_DEEPSEEK3_CUTS, "deepseek-v3 hunyuan-dense hy_v4 joyai-llm"),
    "spark2_5": PreTokenizer((r"\p{N}{1,3}", _CJK, rf"{_DEEPSEEK3_WORDS}|[\r\n]|\s+(?!\S)|\s+", r"\p{N}")),
    "falcon": PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", GPT2_PATTERN, r"[0-9][0-9][0-9]")),
    **_named(_BLOOM_CUTS, "bloom gpt3-finnish poro poro-chat"),
    "viking": PreTokenizer((_BLOOM, r"\p{N}")),
    "superbpe": PreTokenizer((r"\p{N}+", r"(?=(\d{3})+(?!\d))")),
    **_named(_BAILING_CUTS, "bailingmoe bailingmoe2 llada-moe"),
    "seed-coder": PreTokenizer((_SEED_CODER,)),
    "exaone-moe": PreTokenizer((_EXAONE_MOE,)),
    "granite-embed-multi-97m": PreTokenizer((_GPT4O,), ignore_merges=True),
    **_named(_SPACED_CUTS, "gemma4 granite-embed-multi-311m sarvam-moe"),
    "afmoe": PreTokenizer(_AFMOE),
    "minicpm5": PreTokenizer((r"\p{N}{1,3}", _MINICPM5), ignore_merges=True),
    "ufakzeka": PreTokenizer((rf"{_WORDS}|\p{{N}}|{_SYMBOLS}|{_SPACES}",)),
    "laguna": PreTokenizer((r"[^\n]+|[\n]+", _QWEN2)),
    "jais-2": PreTokenizer((_JAIS2,)),
    "chameleon": PreTokenizer(
        (
            r"<sentinel:[0-9]+>",
            r"(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]",
            GPT2_PATTERN,
        ),
        add_bos=True,
    ),
}


def find_pre_tokenizer(name: str) -> PreTokenizer:
    """Return the cuts that a file means by `name`. Raises: UnsupportedModel naming it."""
    try:
        return PRE_TOKENIZERS[name]
    except KeyError:
        near = difflib.get_close_matches(name, PRE_TOKENIZERS, n=3)
        hint = f"; close to it are {', '.join(near)}" if near else ""
        raise UnsupportedModel(
            f"tokenizer.ggml.pre is {name[:60]!r}, a pre-tokenizer not known here{hint}. A guess would cut "
            "texts as the model never saw them; convert the model's own folder (quarry convert), or take "
            "another file of it"
        ) from None


def build_pre_tokenizer(cuts: PreTokenizer) -> pre_tokenizers.PreTokenizer:
    """Make the `tokenizers` object that applies `cuts` and then maps bytes to letters where they are."""
    steps: list[pre_tokenizers.PreTokenizer] = [
        pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in cuts.patterns
    ]
    if cuts.writes_bytes:
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    return pre_tokenizers.Sequence(steps)
