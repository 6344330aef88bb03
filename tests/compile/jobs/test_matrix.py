"""Matrix files: what they ask for, and every way in which they can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvlm.compile.jobs.matrix import MAX_JOBS, MatrixError, read_matrix
from mvlm.runtime.errors import UsageError


def write(folder: Path, text: str, name: str = "matrix.toml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def names(path: Path) -> list[str]:
    return ["/".join(cell.names.values()) for cell in read_matrix(path).cells]


def test_matrix_is_the_product_of_its_lists(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        store = "store"
        models = ["a", { path = "b", vision_tower = "clip", name = "bee" }]
        quantizations = ["q4a8", { scheme = "q8a8", vision = "q8a8" }]
        targets = ["host", "boards/mine.toml"]
        adapters = ["none", "flowers"]
        platform = "linux"
        context = 512
        """,
    )
    matrix = read_matrix(path)
    assert len(matrix.cells) == 16
    assert matrix.store == str(tmp_path / "store")
    last = matrix.cells[-1]
    assert last.model.path == str(tmp_path / "b") and last.model.name == "bee"
    assert last.model.vision_tower == str(tmp_path / "clip")
    assert last.adapter == tmp_path / "flowers"
    assert last.quantization.label == "q8a8,vision=q8a8"
    assert last.target == str(tmp_path / "boards/mine.toml")
    assert (last.platform, last.context) == ("linux", 512)
    assert last.places == {
        "model": "models[1]",
        "adapter": "adapters[1]",
        "quantization": "quantizations[1]",
        "target": "targets[1]",
    }
    assert (matrix.cells[0].adapter, matrix.cells[0].target) == (None, "host")


def test_matrix_defaults(tmp_path: Path) -> None:
    matrix = read_matrix(write(tmp_path, 'models = ["a"]'))
    assert names(matrix.path) == ["a/none/q4a8/host"]
    assert matrix.store is None
    url = read_matrix(write(tmp_path, 'models = ["a"]\nstore = "s3://bucket/x"'))
    assert url.store == "s3://bucket/x"


def test_calibrated_quantizations_are_entries_of_their_own(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        models = ["a"]
        quantizations = [
            "q4a8",
            { scheme = "q4a8", calibrate = "default" },
            { scheme = "q4a8", calibrate = "default", calibration_seed = 0 },
            { scheme = "q3a8", head = "q8a8", calibrate = ["a.txt", "b.json"],
              calibration_images = "photos", calibration_tokens = 4096 },
            { scheme = "q8a8", calibrate = "default", name = "best" },
            { scheme = "q4a8", bits = 4, calibrate = "default" },
            { scheme = "q4a8", ffn = "q3a8" },
            { scheme = "q4a8", plan = "plans/small.json" },
        ]
        exclude = [{ quantization = "q4a8,calibrate=default" }]
        """.replace("\n              ", " "),
    )
    assert names(path) == [
        "a/none/q4a8/host",
        "a/none/q4a8,calibrate=default,calibration_seed=0/host",
        "a/none/q3a8,head=q8a8,calibrate=a.txt+b.json,calibration_images=photos,"
        "calibration_tokens=4096/host",
        "a/none/best/host",
        "a/none/q4a8,bits=4,calibrate=default/host",
        "a/none/q4a8,ffn=q3a8/host",
        "a/none/q4a8,plan=plans/small.json/host",
    ]
    assert read_matrix(path).cells[2].quantization.schemes() == {"scheme": "q3a8", "head": "q8a8"}


def test_matrix_exclude(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        models = ["a", "b"]
        quantizations = ["q4a8", "q0f16"]
        targets = ["host", "opencl"]
        exclude = [{ target = "opencl", quantization = "q0f16" }, { model = "b" }]
        """,
    )
    assert names(path) == ["a/none/q4a8/host", "a/none/q4a8/opencl", "a/none/q0f16/host"]


def test_matrix_include(tmp_path: Path) -> None:
    """Each file has its own lists and paths; one that is reached twice is read once."""
    write(tmp_path, 'models = ["c"]', "inner/c.toml")
    write(tmp_path, 'models = ["b"]\ninclude = ["inner/c.toml"]', "b.toml")
    path = write(
        tmp_path, 'models = ["a"]\ninclude = ["b.toml", "inner/c.toml"]\nquantizations = ["q8a8"]'
    )
    cells = read_matrix(path).cells
    assert [cell.model.path for cell in cells] == [
        str(tmp_path / "a"),
        str(tmp_path / "b"),
        str(tmp_path / "inner" / "c"),
    ]
    assert [cell.names["quantization"] for cell in cells] == ["q8a8", "q4a8", "q4a8"]


def test_matrix_include_cycle_is_named(tmp_path: Path) -> None:
    write(tmp_path, 'models = ["a"]\ninclude = ["c.toml"]', "b.toml")
    write(tmp_path, 'models = ["a"]\ninclude = ["./b.toml"]', "c.toml")
    path = write(tmp_path, 'include = ["b.toml"]')
    with pytest.raises(
        MatrixError, match=r"b\.toml includes itself.*b\.toml includes c\.toml includes b\.toml"
    ):
        read_matrix(path)
    itself = write(tmp_path, 'include = ["self.toml"]', "self.toml")
    with pytest.raises(MatrixError, match=r"self\.toml includes self\.toml"):
        read_matrix(itself)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('modles = ["a"]', r"key 'modles' is wrong: expected models, found no such key"),
        ("", r"key 'models' is wrong: expected one at least"),
        ('models = "a"', r"key 'models' is wrong: expected a list.*found str 'a'"),
        ("models = [1]", r"key 'models\[0\]' is wrong: expected a string or a table, found int 1"),
        ('models = [{ pth = "a" }]', r"key 'models\[0\]\.pth' is wrong: expected path"),
        ("models = [{}]", r"key 'models\[0\]\.path' is wrong: expected a string"),
        ('models = ["a", "a"]', r"key 'models' is wrong: expected each once, found 'a'"),
        ('models = ["a"]\ntargets = []', r"key 'targets' is wrong: expected one at least"),
        ('models = ["a"]\ntargets = [3]', r"key 'targets\[0\]' is wrong"),
        ('models = ["a"]\ncontext = -1', r"key 'context' is wrong: expected a number above 0"),
        ('models = ["a"]\ncontext = true', r"key 'context' is wrong: expected a whole number"),
        ('models = ["a"]\nexclude = [{}]', r"key 'exclude\[0\]' is wrong: expected model, adapter"),
        (
            'models = ["a"]\nquantizations = [{ scheme = "q4a8", calibrate = [] }]',
            r"key 'quantizations\[0\]\.calibrate' is wrong: expected files of data, or 'default'",
        ),
        (
            'models = ["a"]\nquantizations = [{ scheme = "q4a8", calibration_seed = 0 }]',
            r"key 'quantizations\[0\]\.calibration_seed' is wrong: expected `calibrate` with it",
        ),
        (
            'models = ["a"]\nquantizations = [{ scheme = "q4a8", calibrate = 1 }]',
            r"key 'quantizations\[0\]\.calibrate' is wrong: expected a list.*found int 1",
        ),
        (
            'models = ["a"]\nquantizations = [{ scheme = "q4a8", bits = "4" }]',
            r"key 'quantizations\[0\]\.bits' is wrong: expected a number.*found str '4'",
        ),
        (
            'models = ["a"]\nexclude = [{ target = "hst" }]',
            r"key 'exclude\[0\]\.target' is wrong: expected host, found 'hst'",
        ),
        ('models = ["a"]\nexclude = [{ model = "a" }]', r"all jobs are excluded"),
        ('models = ["a"', r"is not valid TOML"),
        ("\0", r"is not valid TOML"),
    ],
)
def test_matrix_errors_name_the_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(MatrixError, match=message):
        read_matrix(write(tmp_path, text))


def test_missing_matrix_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the matrix .*nowhere\.toml"):
        read_matrix(tmp_path / "nowhere.toml")
    with pytest.raises(UsageError, match=r"cannot read the matrix .*gone\.toml"):
        read_matrix(write(tmp_path, 'models = ["a"]\ninclude = ["gone.toml"]'))


def test_oversized_matrix_files(tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match="too large"):
        read_matrix(write(tmp_path, "#" * (1 << 20) + "\n"))
    models = ", ".join(f'"m{i}"' for i in range(200))
    targets = ", ".join(f'"t{i}"' for i in range(MAX_JOBS // 200 + 1))
    with pytest.raises(MatrixError, match=f"at most {MAX_JOBS} jobs"):
        read_matrix(write(tmp_path, f"models = [{models}]\ntargets = [{targets}]"))
    for index in range(120):
        write(tmp_path, f'models = ["a"]\ninclude = ["{index + 1}.toml"]', f"{index}.toml")
    with pytest.raises(MatrixError, match="too many files"):
        read_matrix(tmp_path / "0.toml")


@given(data=st.binary(max_size=200))
def test_any_matrix_content_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("matrix") / "matrix.toml"
    path.write_bytes(data)
    with pytest.raises(UsageError):
        read_matrix(path)
