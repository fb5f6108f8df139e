"""Calibrate what "near" means for an embedder.

Cosines of unrelated texts are about 0.05 with one model and 0.7 with another, and higher in a language that a
model was not trained on. So the floor is measured, per language, on a few pairs whose answer is known.
"""

from dataclasses import dataclass

import numpy as np

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


@dataclass(frozen=True, slots=True)
class Floor:
    """The cosine from which a passage counts as relevant, by the language of the question."""

    english: float
    chinese: float

    def of(self, *, chinese: bool) -> float:
        return self.chinese if chinese else self.english


def calibrate(embedder: Embedder | None) -> Floor:
    """Measure the floor of an embedder. Blocking; 32 short texts. Without one nothing is near."""
    if embedder is None:
        return Floor(english=2.0, chinese=2.0)
    return Floor(english=_floor(embedder, _ENGLISH), chinese=_floor(embedder, _CHINESE))


def _floor(embedder: Embedder, pairs: tuple[tuple[str, str], ...]) -> float:
    """Lie above almost all unrelated pairs: mean and 2.5 deviations, at least a third of the way up."""
    questions = embedder.embed([question for question, _ in pairs], kind="query")
    passages = embedder.embed([passage for _, passage in pairs], kind="document")
    cosines = np.asarray(questions @ passages.T, dtype=np.float64)
    unrelated = cosines[~np.eye(len(pairs), dtype=bool)]
    related = float(np.median(np.diagonal(cosines)))
    low = float(unrelated.mean())
    return max(low + 2.5 * float(unrelated.std()), low + (related - low) / 3)
