import pytest

from benchmarks.documents import BLOCKS, documents, filled_in


@pytest.mark.parametrize("page", documents(), ids=lambda page: page.name)
def test_every_figure_is_the_measured_one(page):
    text = page.read_text()
    assert filled_in(text) == text


def test_every_block_is_quoted_somewhere():
    text = "".join(page.read_text() for page in documents())
    assert [name for name in BLOCKS if f"<!-- {name} -->" not in text] == []
