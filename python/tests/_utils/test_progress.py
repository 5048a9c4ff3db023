"""Progress: a bar on a terminal, lines with the time left in a command's log, else silence."""

import io
import time

import pytest

from agflow._utils import progress
from agflow._utils.progress import (
    ProgressMeter,
    hidden_progress,
    in_words,
    logged_progress,
    progress_bar,
)
from agflow.training.finetuning import finetune


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    return now


def test_a_call_outside_of_a_command_is_silent_where_there_is_no_terminal(capsys, clock):
    for _ in progress_bar(range(5), "evaluate"):
        clock[0] += 100
    assert capsys.readouterr() == ("", "")


def test_a_log_gets_lines_with_the_time_left_of_long_work_alone(clock):
    lines = []
    with logged_progress(lines.append):
        for _ in progress_bar(range(4), "evaluate"):
            clock[0] += progress.LINE_SECONDS / 10
        assert not lines
        for _ in progress_bar(range(4), "evaluate"):
            clock[0] += progress.LINE_SECONDS
    assert lines == [
        "evaluate 1/4, 1 min 30 s left",
        "evaluate 2/4, 1 min 0 s left",
        "evaluate 3/4, 30 s left",
        "evaluate 4/4",
    ]


def test_work_of_unknown_length_says_how_far_it_is(clock):
    lines = []
    with logged_progress(lines.append):
        for _ in progress_bar((n for n in range(2)), "calibrate"):
            clock[0] += progress.LINE_SECONDS
    assert lines == ["calibrate 1", "calibrate 2"]


def test_the_time_left_leaves_out_what_an_earlier_process_did(clock):
    lines = []
    with logged_progress(lines.append), ProgressMeter("fine-tune", total=100) as meter:
        meter.skip(90)
        clock[0] += 5
        meter.advance(5)
        meter.report("epoch 2/3: done")
    assert lines == ["fine-tune epoch 2/3: done, 5 s left"]


@pytest.mark.parametrize("disabled", ["1", "true"])
def test_tqdm_disable_turns_bars_and_lines_off(monkeypatch, clock, disabled):
    monkeypatch.setenv("TQDM_DISABLE", disabled)
    terminal, lines = Terminal(), []
    with logged_progress(lines.append):
        for _ in progress_bar(range(3), "evaluate"):
            clock[0] += 100
        monkeypatch.setattr("sys.stderr", terminal)
        for _ in progress_bar(range(3), "evaluate"):
            clock[0] += 100
    assert not lines and not terminal.getvalue()


def test_a_terminal_shows_a_bar_over_the_whole_work_and_no_lines(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    terminal, lines = Terminal(), []
    monkeypatch.setattr("sys.stderr", terminal)
    with logged_progress(lines.append), ProgressMeter("fine-tune", total=8) as meter:
        meter.skip(2)
        time.sleep(0.11)  # tqdm draws a tenth of a second apart
        meter.advance(3, loss="0.412")
        meter.report("epoch 1/2: done")
    assert not lines and "5/8" in terminal.getvalue() and "loss=0.412" in terminal.getvalue()
    shown = terminal.getvalue()
    with hidden_progress():
        list(progress_bar(range(3), "evaluate"))
    assert terminal.getvalue() == shown


def test_fine_tuning_writes_a_line_an_epoch_into_a_commands_log(make_vit, images):
    lines, batches = [], [(images[0], images[1])]
    with logged_progress(lines.append):
        history = finetune(make_vit(), batches, epochs=2)
    first, last = lines
    assert first.startswith(f"fine-tune epoch 1/2: loss {history[0]['loss']:.3f}, ")
    assert "% of the training images correct, " in first and first.endswith(" s left")
    assert last.startswith("fine-tune epoch 2/2: ") and not last.endswith("left")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (41.4, "41 s"), (59.6, "1 min 0 s"), (185, "3 min 5 s"), (4330, "1 h 12 min")],
)
def test_durations_in_words(seconds, words):
    assert in_words(seconds) == words
