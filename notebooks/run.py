"""Run notebooks of this folder from top to bottom, in place: python notebooks/run.py [NAME ...] (make notebooks: all).

Neither times of day nor the version of Python are kept, so that a run that shows the same changes nothing; pictures
are kept in 256 colours, at a third of their size.
"""

import base64
import io
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).parent


def lighter(png: str) -> str:
    """A picture, in base64, with a palette."""
    packed = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").quantize(256).save(packed, "PNG", optimize=True)
    return base64.b64encode(packed.getvalue()).decode()


def main() -> None:
    for path in [HERE / f"{name}.ipynb" for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(notebook, timeout=None, record_timing=False, resources={"metadata": {"path": HERE}}).execute()
        notebook.metadata["language_info"] = {"name": "python"}
        for data in [out.data for cell in notebook.cells for out in cell.get("outputs", ()) if "data" in out]:
            data.pop("image/jpeg", None)  # Pillow shows a picture in both formats
            if "image/png" in data:
                data["image/png"] = lighter(data["image/png"])
        nbformat.write(notebook, path)
        print(path.relative_to(HERE.parent))


if __name__ == "__main__":
    main()
