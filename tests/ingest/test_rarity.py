"""How much a word says, whatever the library."""

import pytest

from ingest.rarity import information


@pytest.mark.parametrize(
    ("rarer", "commoner"),
    [
        pytest.param("疫苗", "申请", id="a thing says more than what is done with anything"),
        pytest.param("申请", "公司", id="pairs"),
        pytest.param("蚓", "有", id="characters"),
        pytest.param("dolorin", "疫苗", id="what stands in no table is rare"),
        pytest.param("e07", "dolorin", id="an identifier says the most"),
    ],
)
def test_rarer_words_say_more(rarer: str, commoner: str) -> None:
    assert information(rarer) > information(commoner) >= 0
