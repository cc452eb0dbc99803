import time

from fewlabels.training.tuning import MAX_TUNING_FRACTION, StepExecution, fastest_execution

START = StepExecution(threads=2)
MESSAGES: list[str] = []
CHANGES = [{"channels_last": True}, {"prefetch": True}, {"threads": 1}]


def run_with(seconds_per_step):
    """A run whose timings are computed by ``seconds_per_step``, without waiting."""
    return lambda execution, steps: seconds_per_step(execution)


def test_fastest_execution_accepts_faster_changes_only():
    def seconds_per_step(execution: StepExecution) -> float:
        return 0.01 * (0.8 if execution.channels_last else 1) * (1.1 if execution.prefetch else 1) * execution.threads

    execution, _ = fastest_execution(run_with(seconds_per_step), START, 10**6, CHANGES, MESSAGES.append)
    assert execution == StepExecution(threads=1, channels_last=True)


def test_fastest_execution_ignores_single_slow_timings():
    calls = iter(range(10**6))

    def seconds_per_step(execution: StepExecution) -> float:
        return 0.01 * (1.5 if next(calls) in (3, 4, 9) else 1) * (0.9 if execution.threads == 1 else 1)

    execution, _ = fastest_execution(run_with(seconds_per_step), START, 10**6, CHANGES, MESSAGES.append)
    assert execution == StepExecution(threads=1)


def test_fastest_execution_rejects_changes_of_equal_speed():
    assert fastest_execution(run_with(lambda execution: 0.01), START, 10**6, CHANGES, MESSAGES.append)[0] == START


def test_fastest_execution_skips_trial_of_a_short_run():
    def never(execution, steps):
        raise AssertionError

    assert fastest_execution(never, START, 759, CHANGES, MESSAGES.append) == (START, 0.0)


def test_fastest_execution_stops_at_its_time_limit():
    def slow(execution: StepExecution, steps: int) -> float:
        if execution.channels_last:
            time.sleep(60)
        return 0.02

    total = 1000
    execution, seconds = fastest_execution(slow, START, total, CHANGES, MESSAGES.append)
    assert execution == START
    assert seconds < MAX_TUNING_FRACTION * total * 0.02 + 1


def test_step_execution_as_text():
    assert str(StepExecution(1)) == "1 thread, not compiled"
    assert str(StepExecution(2, True, True, True)) == "2 threads, channels last, prefetching, compiled"


def test_fastest_execution_skips_failing_change_with_a_message():
    def seconds_per_step(execution: StepExecution) -> float:
        if execution.channels_last:
            raise RuntimeError("no compiler\nsecond line")
        return 0.01 * execution.threads

    messages: list[str] = []
    execution, _ = fastest_execution(run_with(seconds_per_step), START, 10**6, CHANGES, messages.append)
    assert execution == StepExecution(threads=1)
    assert messages == ["2 threads, channels last, not compiled: does not work here (no compiler); skipped"]
