"""Writes a checkpoint so that there is always a whole one."""

import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the file, then takes its place in one step.

    Lightning's own writes to the system's temporary folder and moves the file from there; where that is another disk,
    moving is copying, and a kill or a full disk in the middle would leave half a checkpoint in place of the last one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Save `checkpoint` at `path`, a local file.

        Raises:
            OSError: If it cannot be written; what was at `path` before is still there.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        buffer = io.BytesIO()  # torch.save straight to a file turns a full disk into an error without a reason
        torch.save(checkpoint, buffer)
        try:
            with partial.open("wb") as file:
                file.write(buffer.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
