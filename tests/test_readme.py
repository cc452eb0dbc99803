from benchmarks.readme import README, filled_in


def test_the_readme_quotes_only_what_was_measured():
    text = README.read_text()
    assert filled_in(text) == text, "run: python -m benchmarks.readme"
