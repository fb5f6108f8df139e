"""Ask a model what is known before it is trusted: a wrong pooling, table or tokenizer shows at once.

Questions and answers share no telling words, so that a model whose layers do nothing finds no more of them
than chance does. A model has to know one of the languages: many good ones know only one.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.errors import UnsupportedModel

Embed = Callable[[Sequence[str], Literal["document", "query"]], NDArray[np.float32]]
Rerank = Callable[[str, Sequence[str]], NDArray[np.float32]]

PAIRS: dict[str, tuple[tuple[str, str], ...]] = {
    "English": (
        ("What do cats like to eat?", "Kittens love fish, chicken and other kinds of meat."),
        ("How is the weather today?", "It will be sunny this afternoon with a little rain at night."),
        ("What is the capital of France?", "Paris is a large European city on the river Seine."),
        ("How can I repair my bicycle?", "First remove the wheel, then patch the hole in the tire."),
        ("Who wrote this novel?", "The author of the book published her first story at the age of twenty."),
        ("How much does a phone cost?", "The price of the new smartphone is 500 dollars."),
        ("Why does my head hurt?", "Stress and lack of sleep are common causes of migraine pain."),
        ("Which instrument does she play?", "The musician practises the piano and the violin every day."),
    ),
    "Chinese": (
        ("猫喜欢吃什么？", "小猫爱吃鱼、鸡肉和其他肉类。"),
        ("今天天气怎么样？", "下午晴朗，夜间有小雨。"),
        ("法国的首都在哪里？", "巴黎是塞纳河畔的一座欧洲大城市。"),
        ("怎样修理自行车？", "先卸下车轮，再补好轮胎上的洞。"),
        ("这本小说是谁写的？", "该书作者二十岁时发表了第一篇故事。"),
        ("手机多少钱？", "新款智能电话的价格是三千元。"),
        ("为什么会头疼？", "压力大和睡眠不足是偏头痛的常见原因。"),
        ("她会演奏哪种乐器？", "这位音乐家每天练习钢琴和小提琴。"),
    ),
}
_LEAST_FOUND = 5
"""Of 8 answers; guessing finds that many once in 800 times."""
_N_RANKED = 5
_LEAST_RANKED = 4
"""Of 5 answers ranked over two others; guessing ranks that many once in 22 times."""


def check_embedder(embed: Embed) -> None:
    """Refuse a model that finds the answers in no language. Raises: UnsupportedModel with what it found."""
    found: dict[str, int] = {}
    for language, pairs in PAIRS.items():
        questions = embed([question for question, _ in pairs], "query")
        answers = embed([answer for _, answer in pairs], "document")
        cosines = np.asarray(questions @ answers.T, np.float64)
        if not np.isfinite(cosines).all():
            raise UnsupportedModel(
                "the model's vectors of plain sentences are not numbers; is the file whole?"
            )
        right = np.diagonal(cosines)
        found[language] = int(np.sum(right >= cosines.max(axis=1)))
        if found[language] >= _LEAST_FOUND and right.mean() > cosines.mean() + 1e-3:
            return
    raise UnsupportedModel(_refusal("brings too few questions near their answers", found, len(pairs)))


def check_reranker(rerank: Rerank) -> None:
    """Refuse a model that ranks the answers in no language. Raises: UnsupportedModel with what it ranked."""
    found: dict[str, int] = {}
    for language, all_pairs in PAIRS.items():
        pairs = all_pairs[:_N_RANKED]
        answers = [answer for _, answer in pairs]
        found[language] = 0
        for i, (question, answer) in enumerate(pairs):
            others = [answers[(i + step) % len(pairs)] for step in (1, 2)]
            scores = rerank(question, [answer, *others])
            if not np.isfinite(scores).all():
                raise UnsupportedModel(
                    "the model's scores of plain sentences are not numbers; is the file whole?"
                )
            found[language] += bool(scores[0] > scores[1:].max())
        if found[language] >= _LEAST_RANKED:
            return
    raise UnsupportedModel(_refusal("ranks too few answers over unrelated sentences", found, _N_RANKED))


def _refusal(what: str, found: dict[str, int], n: int) -> str:
    counts = ", ".join(f"{count} of {n} in {language}" for language, count in found.items())
    return (
        f"the model {what}: {counts}. Its pooling, its tokenizer or its weights are not what the file says, "
        "or it is no such model. If it knows neither language, check_models = false lets it in"
    )
