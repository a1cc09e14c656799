"""What the README says of Python runs, as it stands, from top to bottom."""

import re
from importlib import resources
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_the_python_of_the_readme_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trained = resources.files("refrnn.verify") / "models" / "running_sum.keras"
    (tmp_path / "my_model.keras").write_bytes(trained.read_bytes())
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert float(capsys.readouterr().out) < 1e-6  # what it prints, and what it says of it


def test_every_layer_of_the_readme_is_there() -> None:
    import refrnn

    text = README.read_text(encoding="utf-8")
    for name in refrnn.layers.__all__:
        if name in ("Layer", "Recurrent"):  # what the others are made of
            continue
        assert name.removesuffix("Cell") in text, name
