import shutil
from pathlib import Path

import pytest

from fewlabels._internal.errors import InputError
from fewlabels.training.checkpoints import newest_checkpoint, write_checkpoint


def write(folder: Path, *steps: int) -> None:
    for step in steps:
        write_checkpoint(folder, step, {"a": b"%d" % step, "b": b"same"})


def test_last_three_checkpoints_are_kept_and_newest_is_read(tmp_path: Path):
    write(tmp_path, 5, 9, 10, 100)
    assert {path.name for path in tmp_path.iterdir()} == {"step-9", "step-10", "step-100"}
    assert newest_checkpoint(tmp_path, say=print) == (100, {"a": b"100", "b": b"same"})


def test_newest_checkpoint_of_missing_folder_is_none(tmp_path: Path):
    assert newest_checkpoint(tmp_path / "nowhere", say=print) is None


def change_byte(checkpoint: Path) -> None:
    (checkpoint / "b").write_bytes(b"sane")


def delete_file(checkpoint: Path) -> None:
    (checkpoint / "a").unlink()


def empty_checksums(checkpoint: Path) -> None:
    (checkpoint / "checksums.json").write_bytes(b"")


def shorten_file(checkpoint: Path) -> None:
    (checkpoint / "b").write_bytes(b"sam")


def remove_checksums(checkpoint: Path) -> None:
    (checkpoint / "checksums.json").write_bytes(b"{}")


def invalid_checksums(checkpoint: Path) -> None:
    (checkpoint / "checksums.json").write_bytes(b"7")


@pytest.mark.parametrize(
    "damage", [change_byte, delete_file, empty_checksums, shorten_file, remove_checksums, invalid_checksums]
)
def test_damaged_checkpoint_is_renamed_and_previous_one_is_read(damage, tmp_path: Path):
    write(tmp_path, 1, 2)
    damage(tmp_path / "step-2")
    messages: list[str] = []
    assert newest_checkpoint(tmp_path, messages.append) == (1, {"a": b"1", "b": b"same"})
    assert len(messages) == 1
    assert "step-2" in messages[0]
    assert (tmp_path / "damaged-step-2").is_dir()  # nothing is deleted
    assert newest_checkpoint(tmp_path, messages.append) == (1, {"a": b"1", "b": b"same"})
    assert len(messages) == 1


def test_newest_checkpoint_is_refused_if_all_are_damaged(tmp_path: Path):
    write(tmp_path, 1, 2)
    change_byte(tmp_path / "step-1")
    change_byte(tmp_path / "step-2")
    for _ in range(2):  # the second attempt, too
        with pytest.raises(InputError, match="every checkpoint is damaged"):
            newest_checkpoint(tmp_path, say=print)


def test_copy_of_a_checkpoint_folder_is_ignored(tmp_path: Path):
    write(tmp_path, 1)
    shutil.copytree(tmp_path / "step-1", tmp_path / "step-1 copy")
    write(tmp_path, 2)
    assert newest_checkpoint(tmp_path, say=print) == (2, {"a": b"2", "b": b"same"})
    assert (tmp_path / "step-1 copy").is_dir()


def test_partial_checkpoint_of_a_killed_process_is_deleted(tmp_path: Path):
    write(tmp_path, 1)
    shutil.copytree(tmp_path / "step-1", tmp_path / ".step-2.123.tmp")
    assert newest_checkpoint(tmp_path, say=print) == (1, {"a": b"1", "b": b"same"})
    assert not list(tmp_path.glob(".*"))
