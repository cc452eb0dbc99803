import time

from fewlabels.training.tuning import SHARE, Choice, fastest

START = Choice(threads=2)
SAID: list[str] = []
CHANGES = [{"channels_last": True}, {"prefetch": True}, {"threads": 1}]


def paced(pace):
    """A run whose steps take as long as ``pace`` says, without taking it."""
    return lambda choice, steps: pace(choice)


def test_what_is_faster_is_kept_and_what_is_not_is_not():
    def pace(choice: Choice) -> float:
        return 0.01 * (0.8 if choice.channels_last else 1) * (1.1 if choice.prefetch else 1) * choice.threads

    choice, _ = fastest(paced(pace), START, 10**6, CHANGES, SAID.append)
    assert choice == Choice(threads=1, channels_last=True)


def test_a_slow_moment_of_the_machine_decides_nothing():
    calls = iter(range(10**6))

    def pace(choice: Choice) -> float:
        return 0.01 * (1.5 if next(calls) in (3, 4, 9) else 1) * (0.9 if choice.threads == 1 else 1)

    assert fastest(paced(pace), START, 10**6, CHANGES, SAID.append)[0] == Choice(threads=1)


def test_what_is_as_fast_is_left():
    assert fastest(paced(lambda choice: 0.01), START, 10**6, CHANGES, SAID.append)[0] == START


def test_a_short_run_is_not_tried():
    def never(choice, steps):
        raise AssertionError

    assert fastest(never, START, 759, CHANGES, SAID.append) == (START, 0.0)


def test_a_trial_breaks_off_at_its_share_of_the_run():
    def slow(choice: Choice, steps: int) -> float:
        if choice.channels_last:
            time.sleep(60)
        return 0.02

    total = 1000
    choice, seconds = fastest(slow, START, total, CHANGES, SAID.append)
    assert choice == START
    assert seconds < SHARE * total * 0.02 + 1


def test_a_choice_says_what_it_is():
    assert str(Choice(1)) == "1 thread, not compiled"
    assert str(Choice(2, True, True, True)) == "2 threads, channels last, prefetching, compiled"


def test_a_change_that_does_not_work_here_is_left_out_with_a_line():
    def pace(choice: Choice) -> float:
        if choice.channels_last:
            raise RuntimeError("no compiler\nsecond line")
        return 0.01 * choice.threads

    said: list[str] = []
    assert fastest(paced(pace), START, 10**6, CHANGES, said.append)[0] == Choice(threads=1)
    assert said == ["2 threads, channels last, not compiled: does not work here (no compiler); left out"]
