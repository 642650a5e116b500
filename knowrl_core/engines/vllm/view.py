"""A checkpoint as vLLM may see it."""

import shutil
import tempfile
from pathlib import Path
from typing import Final

_OURS: Final = ("optimizer", "trainer_state")


class CheckpointView:
    """A temporary folder of links to what belongs to the model.

    vLLM loads every ``*.safetensors`` of a folder; a checkpoint of the update holds optimizer state in that form, too.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None

    def of(self, folder: Path) -> Path:
        """The view of a checkpoint, which takes the place of the one before."""
        self.close()
        self._folder = Path(tempfile.mkdtemp(prefix="knowrl-policy-"))
        for file in folder.iterdir():
            if file.is_file() and not file.name.startswith(_OURS):
                (self._folder / file.name).symlink_to(file.resolve())
        return self._folder

    def close(self) -> None:
        """Remove it; what it links to stays."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
