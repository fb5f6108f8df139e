"""Calibrate what "near" means for an embedder.

Cosines of unrelated texts are about 0.05 with one model and 0.7 with another, and higher in a language that a
model was not trained on. So it is measured, per language, on a few pairs whose answer is known.
"""

from dataclasses import dataclass, replace

import numpy as np

from rag.evidence import Reading
from rag.language import share_of_identifiers
from rag.ports import Embedder

_ENGLISH = (
    ("How long does the battery last?", "On a full charge the device runs for about nine hours."),
    (
        "When was the bridge built?",
        "Construction of the bridge was finished in 1932 after six years of work.",
    ),
    (
        "How do I reset my password?",
        "Open the account page and choose Forgot password to get a new one by mail.",
    ),
    (
        "What does the soup need?",
        "Add two carrots, an onion and a litre of stock, and simmer for half an hour.",
    ),
    ("Who may borrow books?", "Every resident with a library card can take out up to ten volumes at a time."),
    ("How many days of leave do employees get?", "Staff are entitled to 25 days of paid holiday a year."),
    ("Why do leaves turn red in autumn?", "Shorter days stop chlorophyll, and other pigments begin to show."),
    ("Which port does the server use?", "The service listens on TCP port 5432 unless configured otherwise."),
)
_CHINESE = (
    ("电池能用多久？", "充满电后，设备可以连续工作大约九个小时。"),
    ("这座桥是什么时候建成的？", "大桥经过六年施工，于一九三二年竣工通车。"),
    ("怎样重置密码？", "打开账户页面，选择“忘记密码”，系统会把新密码发到邮箱。"),
    ("做这道汤需要什么？", "加入两根胡萝卜、一个洋葱和一升高汤，小火煮半小时。"),
    ("谁可以借书？", "凡持有借书证的居民，每次最多可以借十册。"),
    ("员工每年有几天年假？", "职工每年享有二十五天带薪休假。"),
    ("秋天树叶为什么变红？", "日照变短，叶绿素减少，其他色素就显现出来。"),
    ("服务器使用哪个端口？", "除非另行配置，服务监听 TCP 5432 端口。"),
)


_LEAST_SEPARATION, _FULL_SEPARATION = 1.0, 3.0

# What the words of a passage must say (see LexicalIndex.search) where its vector is as near as unrelated
# texts hardly ever are, and where they are all there is. Set on the development half of bench/questions and
# on help pages of GNOME, low enough that few answerable questions are refused when the lists of synonyms,
# which the questions' author wrote as well, are left out: docs/evaluation.md has the figures.
_BESIDE_VECTORS, _ALONE = 0.25, 0.28

# Below the one no passage speaks of what is asked, from the other on one does; between them it is read.
_HOPELESS, _CLEAR = 0.45, 1.1
_HOPELESS_WORDS, _CLEAR_WORDS = 0.15, 0.8
# What a close reading must come to, and what words count in it. `python -m bench.questions.fit` finds them.
_WORDS_BESIDE_SENTENCE, _LEAST_READ = 0.68, 0.9
_INFORMATION, _LEAST_INFORMED = 0.0162, 0.59


@dataclass(frozen=True, slots=True)
class Nearness:
    """What the cosines of an embedder mean for questions in one language.

    unrelated, related: what they are on average for pairs that have nothing, or the answer, in common.
    floor: from here a passage counts as relevant.
    trust: 0 to 1; 0 where the embedder cannot tell the two kinds of pairs apart.
    """

    unrelated: float
    related: float
    floor: float
    trust: float

    def of(self, cosine: float) -> float:
        """Place a cosine: 0 as near as unrelated texts are, 1 as near as question and answer are."""
        reach = self.related - self.unrelated
        return min(max((cosine - self.unrelated) / reach, 0.0), 1.5) if reach > 0 else 0.0

    def score(self, cosine: float, evidence: float) -> float:
        """Add up what vector and words say: each is about 1 for a passage that answers.

        A vector counts as far as the embedder is to be trusted in the question's language. evidence: see
        LexicalIndex.search.
        Source: Bruch, Gai, Ingber, An analysis of fusion functions for hybrid retrieval, TOIS 2023.
        """
        return self.trust * self.of(cosine) + evidence

    def least(self, *, with_words: bool = True) -> float:
        """Return the score from which a passage has to do with the question.

        with_words: whether its words count as well.
        """
        words = self.trust * _BESIDE_VECTORS + (1 - self.trust) * _ALONE if with_words else 0.0
        return self.trust * self.of(self.floor) + words

    def seems(self, score: float) -> bool | None:
        """Tell by the best passage's score whether a question is answered; None: only reading tells."""
        if score >= self._between(_CLEAR, _CLEAR_WORDS):
            return True
        return None if score > self._between(_HOPELESS, _HOPELESS_WORDS) else False

    def proves(self, reading: Reading) -> bool:
        """Tell whether passages that were read speak of what is asked."""
        near = self.of(reading.sentence) + _WORDS_BESIDE_SENTENCE * reading.words - _LEAST_READ
        said = reading.words - _ALONE
        if reading.information is not None:
            said = reading.words + _INFORMATION * reading.information - _LEAST_INFORMED
        return self._between(near, said) >= 0

    def _between(self, trusted: float, words: float) -> float:
        return self.trust * trusted + (1 - self.trust) * words

    def for_question(self, question: str) -> "Nearness":
        """Trust the embedder less where a question names identifiers, which it cannot read."""
        return replace(self, trust=self.trust * (1 - share_of_identifiers(question)))


UNKNOWN = Nearness(unrelated=0.0, related=1.0, floor=2.0, trust=0.0)
"""Without an embedder nothing is near."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Nearness by the language of the question."""

    english: Nearness
    chinese: Nearness

    def of(self, *, chinese: bool) -> Nearness:
        return self.chinese if chinese else self.english


def calibrate(embedder: Embedder | None) -> Calibration:
    """Measure an embedder. Blocking; 32 short texts."""
    if embedder is None:
        return Calibration(english=UNKNOWN, chinese=UNKNOWN)
    return Calibration(english=_measure(embedder, _ENGLISH), chinese=_measure(embedder, _CHINESE))


def _measure(embedder: Embedder, pairs: tuple[tuple[str, str], ...]) -> Nearness:
    """Compare each question with its answer and with the answers of the others.

    The floor lies above almost all unrelated pairs: mean and 2.5 deviations, at least a third of the way up.
    Trust grows with the distance of the two kinds in deviations: all-MiniLM has 4.4 in English and 0.8 in
    Chinese, which it was not trained on.
    """
    questions = embedder.embed([question for question, _ in pairs], kind="query")
    passages = embedder.embed([passage for _, passage in pairs], kind="document")
    cosines = np.asarray(questions @ passages.T, dtype=np.float64)
    answers = np.diagonal(cosines)
    others = cosines[~np.eye(len(pairs), dtype=bool)]
    unrelated, related = float(others.mean()), float(np.median(answers))
    spread = float(np.sqrt((answers.var() + others.var()) / 2)) or 1e-6
    separation = (float(answers.mean()) - unrelated) / spread
    trust = (separation - _LEAST_SEPARATION) / (_FULL_SEPARATION - _LEAST_SEPARATION)
    return Nearness(
        unrelated=unrelated,
        related=related,
        floor=max(unrelated + 2.5 * float(others.std()), unrelated + (related - unrelated) / 3),
        trust=min(max(trust, 0.0), 1.0),
    )
