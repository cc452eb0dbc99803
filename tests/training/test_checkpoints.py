import shutil
from pathlib import Path

import pytest

from fewlabels._internal.errors import InputError
from fewlabels.training.checkpoints import newest_checkpoint, write_checkpoint


def write(folder: Path, *steps: int) -> None:
    for step in steps:
        write_checkpoint(folder, step, {"a": b"%d" % step, "b": b"same"})


def test_the_last_three_are_kept_and_the_newest_is_read(tmp_path: Path):
    write(tmp_path, 5, 9, 10, 100)
    assert {path.name for path in tmp_path.iterdir()} == {"step-9", "step-10", "step-100"}
    assert newest_checkpoint(tmp_path, say=print) == (100, {"a": b"100", "b": b"same"})


def test_without_any_there_is_none(tmp_path: Path):
    assert newest_checkpoint(tmp_path / "nowhere", say=print) is None


def edit(place: Path) -> None:
    (place / "b").write_bytes(b"sane")


def tear(place: Path) -> None:
    (place / "a").unlink()


def empty(place: Path) -> None:
    (place / "checksums.json").write_bytes(b"")


def shorten(place: Path) -> None:
    (place / "b").write_bytes(b"sam")


def forget(place: Path) -> None:
    (place / "checksums.json").write_bytes(b"{}")


def name_less(place: Path) -> None:
    (place / "checksums.json").write_bytes(b"7")


@pytest.mark.parametrize("spoil", [edit, tear, empty, shorten, forget, name_less])
def test_a_spoiled_one_is_set_aside_and_the_one_before_it_used(spoil, tmp_path: Path):
    write(tmp_path, 1, 2)
    spoil(tmp_path / "step-2")
    said: list[str] = []
    assert newest_checkpoint(tmp_path, said.append) == (1, {"a": b"1", "b": b"same"})
    assert len(said) == 1
    assert "step-2" in said[0]
    assert (tmp_path / "damaged-step-2").is_dir()  # nothing is deleted
    assert newest_checkpoint(tmp_path, said.append) == (1, {"a": b"1", "b": b"same"})
    assert len(said) == 1


def test_if_all_are_spoiled_nothing_is_begun_anew(tmp_path: Path):
    write(tmp_path, 1, 2)
    edit(tmp_path / "step-1")
    edit(tmp_path / "step-2")
    for _ in range(2):  # also when asked again
        with pytest.raises(InputError, match="every checkpoint is damaged"):
            newest_checkpoint(tmp_path, say=print)


def test_a_copy_that_a_user_made_is_none(tmp_path: Path):
    write(tmp_path, 1)
    shutil.copytree(tmp_path / "step-1", tmp_path / "step-1 copy")
    write(tmp_path, 2)
    assert newest_checkpoint(tmp_path, say=print) == (2, {"a": b"2", "b": b"same"})
    assert (tmp_path / "step-1 copy").is_dir()


def test_what_a_killed_process_left_half_written_is_no_checkpoint(tmp_path: Path):
    write(tmp_path, 1)
    shutil.copytree(tmp_path / "step-1", tmp_path / ".step-2.123.tmp")
    assert newest_checkpoint(tmp_path, say=print) == (1, {"a": b"1", "b": b"same"})
    assert not list(tmp_path.glob(".*"))
