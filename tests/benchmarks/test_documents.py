import pytest

from benchmarks.documents import BLOCKS, documents, fill_blocks


@pytest.mark.parametrize("page", documents(), ids=lambda page: page.name)
def test_fill_blocks_leaves_page_unchanged(page):
    text = page.read_text()
    assert fill_blocks(text) == text


def test_every_block_is_in_a_page():
    text = "".join(page.read_text() for page in documents())
    assert [name for name in BLOCKS if f"<!-- {name} -->" not in text] == []
