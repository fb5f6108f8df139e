"""Special tokens in a text: the longest at each place, as an expression of all of them would find."""

import random
import re

import pytest

from engine.special_tokens import SpecialTokens


@pytest.mark.parametrize(
    ("tokens", "text", "expected"),
    [
        pytest.param(["<a>", "<a>b"], "x<a>b<a>c", [(1, 5, 1), (5, 8, 0)], id="longest"),
        pytest.param(["\n", "\n\n\n"], "\n\n", [(0, 1, 0), (1, 2, 0)], id="shorter-at-the-end"),
        pytest.param(
            ["[", "]", "^", "-"], "^-]", [(0, 1, 2), (1, 2, 3), (2, 3, 1)], id="letters-of-expressions"
        ),
        pytest.param(["aa"], "aaa", [(0, 2, 0)], id="none-inside-another"),
        pytest.param([], "anything", [], id="no-tokens"),
        pytest.param(["", "x"], "ax", [(1, 2, 1)], id="empty-token"),
    ],
)
def test_found(tokens: list[str], text: str, expected: list[tuple[int, int, int]]) -> None:
    special = SpecialTokens({token: i for i, token in enumerate(tokens)})
    assert list(special.find(text)) == expected
    assert special.is_in(text) == bool(expected)


def test_as_an_expression_of_all_tokens_finds_them() -> None:
    drawn = random.Random(5)
    for _ in range(300):
        tokens = {
            "".join(drawn.choices("ab<|", k=drawn.randrange(1, 5))) for _ in range(drawn.randrange(1, 9))
        }
        text = "".join(drawn.choices("ab<| ", k=40))
        longest_first = sorted(tokens, key=len, reverse=True)
        expected = [
            (match.start(), match.end(), match.group())
            for match in re.finditer("|".join(map(re.escape, longest_first)), text)
        ]
        ids = {token: i for i, token in enumerate(longest_first)}
        found = [(start, end, longest_first[i]) for start, end, i in SpecialTokens(ids).find(text)]
        assert found == expected
