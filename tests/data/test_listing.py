import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewlabels._internal.errors import InputError
from fewlabels.cli.csv_output import escape_formula
from fewlabels.data.listing import list_images, select_test


def picture(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4)).save(file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cat/1.png", "cat/2.PNG", "dog/deep/3.jpg", "4.png", "_unlabelled/5.png", ".hidden/6.png"):
        picture(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("not an image")
    return tmp_path / "photos"


def table(folder: Path, text: str, name: str = "table.csv") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_list_images_uses_subfolders_as_classes(folder):
    found = list_images(folder)
    assert found.class_names == ("cat", "dog")
    labels = dict(zip(found.names, found.labels.tolist(), strict=True))
    assert labels == {"4.png": -1, "_unlabelled/5.png": -1, "cat/1.png": 0, "cat/2.PNG": 0, "dog/deep/3.jpg": 1}
    assert Path(found.item(0)).is_file()


def test_list_images_reads_train_and_test_folders(folder):
    for name in ("test/cat/7.png", "test/8.png", "train/cat/1.png", "train/_unlabelled/2.png", "train/dog/3.png"):
        picture(folder.parent / "divided" / name)
    found = list_images(folder.parent / "divided")
    assert found.class_names == ("cat", "dog")
    assert list(zip(found.splits, found.labels.tolist(), strict=True)) == [
        ("test", -1),
        ("test", 0),
        ("train", -1),
        ("train", 0),
        ("train", 1),
    ]


def test_list_images_uses_validation_images_for_training(folder):
    for name in ("train/cat/1.png", "val/cat/2.png", "val/dog/3.png"):
        picture(folder.parent / "split" / name)
    found = list_images(folder.parent / "split")
    assert found.class_names == ("cat", "dog")
    assert found.splits == ["", "", ""]  # so that a test can be drawn
    picture(folder.parent / "split" / "test" / "cat" / "4.png")
    assert list_images(folder.parent / "split").splits == ["test", "train", "train", "train"]


def test_list_images_restores_labels_that_escape_formula_wrote(folder):
    label = escape_formula("+ve")
    assert label == "'+ve"
    assert list_images(table(folder, f"path,label\ncat/1.png,{label}\n4.png,'quoted'\n")).class_names == (
        "'quoted'",
        "+ve",
    )


def test_list_images_reads_csv_with_semicolons(folder):
    found = list_images(table(folder, "path;label\ncat/1.png;a, or b\n4.png;\n"))
    assert (found.names, found.class_names, found.labels.tolist()) == (["cat/1.png", "4.png"], ("a, or b",), [0, -1])


def test_list_images_reads_label_split_and_group_of_csv_and_tsv(folder):
    rows = "path,Label,split,group\ncat/1.png,10,train,a\n4.png,,test,\ndog/deep/3.jpg,9,Test,b\n\n"
    found = list_images(table(folder, rows))
    assert found.class_names == ("9", "10")
    assert found.labels.tolist() == [1, -1, 0]
    assert found.splits == ["train", "test", "test"]
    assert found.groups == ["a", "", "b"]
    assert select_test(found, 0.2, 0).tolist() == [False, True, True]
    tabs = list_images(table(folder, rows.replace(",", "\t"), "table.tsv"))
    assert (tabs.names, tabs.class_names) == (found.names, found.class_names)


def test_list_images_reads_parquet(folder):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"path": ["cat/1.png", "4.png"], "label": [7, None]}
    parquet.write_table(pyarrow.table(columns), folder / "table.parquet")
    found = list_images(folder / "table.parquet")
    assert found.labels.tolist() == [0, -1]
    assert found.class_names == ("7",)


def test_list_images_reads_image_contents_from_parquet(folder):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    content = (folder / "cat" / "1.png").read_bytes()
    for cells in ([content, b""], [{"bytes": content, "path": "a.png"}, {"bytes": b"", "path": None}]):
        parquet.write_table(pyarrow.table({"image": cells, "label": ["cat", "dog"]}), folder / "table.parquet")
        found = list_images(folder / "table.parquet")
        assert [found.item(0), found.item(1)] == [content, b""]
        assert (found.names, found.class_names) == (["row 0", "row 1"], ("cat", "dog"))


def saved(folder: Path, table, name: str = "data-00000-of-00001.arrow") -> None:
    """Write a data set as ``datasets`` 3 does, with those files only that are read."""
    pyarrow = pytest.importorskip("pyarrow")
    folder.mkdir(parents=True)
    file = str(folder / "data-00000-of-00001.arrow")
    with pyarrow.OSFile(file, "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}], "_split": None}))


def test_list_images_reads_a_saved_hugging_face_dataset(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow")
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    images = pyarrow.array([{"bytes": bytes([n]), "path": None} for n in range(3)])
    table = pyarrow.table({"image": images, "label": [1, 0, -1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    saved(tmp_path / "one", table)
    found = list_images(tmp_path / "one")
    assert found.class_names == ("cat", "dog")
    assert found.labels.tolist() == [1, 0, -1]
    assert found.contents == [b"\0", b"\1", b"\2"]
    saved(tmp_path / "both" / "validation", table)
    saved(tmp_path / "both" / "test", table)
    (tmp_path / "both" / "dataset_dict.json").write_text('{"splits": ["validation", "test"]}')
    both = list_images(tmp_path / "both")
    assert both.splits == ["train"] * 3 + ["test"] * 3
    assert both.labels.tolist() == [1, 0, -1] * 2


@pytest.mark.parametrize("name", ["../one/data-00000-of-00001.arrow", "none.arrow"])
def test_list_images_refuses_a_saved_dataset_whose_files_are_outside_or_missing(tmp_path: Path, name):
    pyarrow = pytest.importorskip("pyarrow")
    saved(tmp_path / "one", pyarrow.table({"path": ["a.png"]}), name)
    with pytest.raises(InputError, match="one: not a whole dataset"):
        list_images(tmp_path / "one")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", "no column 'path'; found none"),
        ("file,label\ncat/1.png,a\n", "no column 'path'; found file, label"),
        ("path,label\n", "no rows"),
        ("path,path\na,b\n", "two columns have the same name"),
        ("path,label\ncat/1.png\n", "row 2: 1 cells, the header has 2"),
        ("path\n../secret.png\n", "row 2: ../secret.png is outside"),
        ("path\ncat/../../x.png\n", "is outside"),
        ("path\n/etc/passwd\n", "row 2: /etc/passwd is outside"),
        ("path\nC:\\x.png\n", "is outside"),
        ("path\ncat/1.png\ncat/1.png\n", "row 3: cat/1.png is in row 2, too"),
        ("path,split\ncat/1.png,validation\n", "row 2: split 'validation' is not train or test"),
        ('path\n"cat/1.png\n', "not a whole table"),
        ("path,label\n,a\n", "row 2: no path"),
    ],
)
def test_list_images_refuses_wrong_tables_with_the_row(folder, rows, message):
    with pytest.raises(InputError, match=message):
        list_images(table(folder, rows))


def test_list_images_refuses_links_out_of_the_folder_and_links_to_folders(folder, tmp_path: Path):
    picture(tmp_path / "outside.png")
    link = folder / "cat" / "link.png"
    link.symlink_to(tmp_path / "outside.png")
    with pytest.raises(InputError, match="leads out of"):
        list_images(folder)
    link.unlink()
    (folder / "loop").symlink_to(folder)
    with pytest.raises(InputError, match="a link to a folder"):
        list_images(folder)


@pytest.mark.parametrize(
    ("name", "message"), [("nowhere", "no such file or folder"), ("x.txt", "neither a folder nor")]
)
def test_list_images_refuses_missing_paths_and_other_files(tmp_path: Path, name, message):
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(InputError, match=message):
        list_images(tmp_path / name)


def test_list_images_refuses_a_folder_without_images(tmp_path: Path):
    with pytest.raises(InputError, match="no image here"):
        list_images(tmp_path)


def test_select_test_is_stratified_seeded_and_never_divides_groups(folder):
    rows = [f"{n}.png,{n % 3},{n // 4 if n < 120 else ''}" for n in range(240)]
    found = list_images(table(folder, "path,label,group\n" + "\n".join(rows) + "\n"))
    in_test = select_test(found, 0.25, 0)
    counts = np.bincount(found.labels[in_test])
    assert all(counts <= 20)
    assert counts.sum() >= 50
    for group in set(found.groups) - {""}:
        assert len({bool(in_test[row]) for row in range(240) if found.groups[row] == group}) == 1
    assert not np.array_equal(in_test, select_test(found, 0.25, 1))
    assert np.array_equal(in_test, select_test(found, 0.25, 0))


def test_select_test_refuses_a_group_in_training_and_test(folder):
    rows = "path,split,group\ncat/1.png,train,p1\n4.png,test,p1\n"
    with pytest.raises(InputError, match="group p1: images in training and in test"):
        select_test(list_images(table(folder, rows)), 0.2, 0)
