"""The notebook of docs/ runs from its first cell to its last."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
TOUR = Path(__file__).parent.parent / "docs" / "tour.ipynb"


def test_the_tour(tmp_path, monkeypatch):
    notebook = nbformat.read(TOUR, 4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) > 5
    budget = '"trainer.max_time=00:00:00:30"'
    assert budget in cells[0].source
    # a few steps, and small images, are enough to see that every line runs
    cells[0].source = cells[0].source.replace(
        budget, '"trainer.max_steps=60", "field.width=64", "model.code_size=8"'
    )
    for cell in cells:
        cell.source = cell.source.replace("size=160", "size=24").replace("steps=100", "steps=3")
    package = Path(__file__).parent.parent
    monkeypatch.setenv("PYTHONPATH", str(package))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
