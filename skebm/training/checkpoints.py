"""A training run on disk: written whole or not at all, read back only if intact."""

import contextlib
import hashlib
import io
import os
import pickle
import re
import uuid
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

MAGIC = b"skebm checkpoint 1\n"
"""First bytes of a checkpoint: what the file is, and the version of its layout."""


class Checkpoint:
    """The file of one run: written whole or not at all, read only by the same run.

    Parameters
    ----------
    path : Path
        Where it lies; the folder exists.
    fingerprint : dict of str to str
        What the run depends on, by name.

    Raises
    ------
    ValueError
        If the folder does not exist.
    """

    def __init__(self, path: Path, fingerprint: dict[str, str]) -> None:
        if not path.parent.is_dir():
            raise ValueError(
                f"Got checkpoint={str(path)!r}, but the folder {str(path.parent)!r} "
                "does not exist. Make it first, or pass another path."
            )
        self.path, self.fingerprint = path, fingerprint

    def save(self, content: dict[str, Any]) -> None:
        """Write ``content`` so that a crash leaves the old file or the new one.

        Parameters
        ----------
        content : dict
            Tensors, numbers, strings, None, and lists and dicts of them.
        """
        buffer = io.BytesIO()
        torch.save({"content": content, "fingerprint": self.fingerprint}, buffer)
        payload = buffer.getbuffer()
        head = MAGIC + hashlib.sha256(payload).digest()
        temporary = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("xb") as file:
                file.write(head)
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(self.path.parent)

    def load(self) -> dict[str, Any] | None:
        """Return what `save` wrote, tensors on the CPU; None if there is no file.

        Nothing is unpickled but tensors and plain containers.

        Returns
        -------
        dict or None
            The content.

        Raises
        ------
        ValueError
            If the file is no checkpoint, if a byte of it changed, or if it is of
            another run.
        """
        if not self.path.exists():
            return None
        found = _loaded(self.path)
        self._refuse_other_run(found["fingerprint"])
        content: dict[str, Any] = found["content"]
        return content

    def _refuse_other_run(self, found: dict[str, str]) -> None:
        """Raise if the fingerprint is not the one of this run, naming what differs."""
        differences = [
            f"{name}: got {_short(found.get(name))}, wanted {_short(wanted)}"
            for name, wanted in self.fingerprint.items()
            if found.get(name) != wanted
        ]
        if differences:
            raise ValueError(
                f"Got checkpoint={str(self.path)!r} of another run "
                f"({'; '.join(differences)}). Delete the file to train from the start, "
                "or pass another path. To resume, fit the same rows with the same "
                "parameters; an integer random_state splits rows the same way."
            )


def digest(rows: Tensor | None) -> str:
    """Return the SHA-256 of the shape, type and values of ``rows``.

    Parameters
    ----------
    rows : Tensor or None
        Rows on any device.

    Returns
    -------
    str
        Hexadecimal digits; "none" for None.
    """
    if rows is None:
        return "none"
    found = hashlib.sha256(f"{tuple(rows.shape)} {rows.dtype}".encode())
    values = rows.detach().cpu().contiguous().reshape(-1)
    found.update(values.view(torch.uint8).numpy().data)
    return found.hexdigest()


def description(value: object, module: nn.Module | None = None) -> str:
    """Return the text of a value, equal for equal values in every process.

    Parameters
    ----------
    value : object
        Anything with a repr; memory addresses in it are dropped.
    module : Module or None, default=None
        Its tensors' names, shapes and types are added.

    Returns
    -------
    str
        The description.
    """
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
    if module is None:
        return text
    tensors = module.state_dict().items()
    shapes = [f"{name} {tuple(t.shape)} {t.dtype}" for name, t in tensors]
    return "; ".join([text, *shapes])


def _loaded(path: Path) -> dict[str, Any]:
    """Return the payload of a file whose checksum is right."""
    found = path.read_bytes()
    start = len(MAGIC) + hashlib.sha256().digest_size
    payload = memoryview(found)[start:]
    if found[:start] != MAGIC + hashlib.sha256(payload).digest():
        raise ValueError(
            f"Got checkpoint={str(path)!r}, which is damaged or no checkpoint of this "
            "version of skebm: its checksum does not fit its content. Delete the file "
            "to train from the start, or pass another path."
        )
    try:
        loaded: dict[str, Any] = torch.load(
            io.BytesIO(payload), map_location="cpu", weights_only=True
        )
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"Got checkpoint={str(path)!r}, which holds more than tensors and plain "
            "containers, so it is not loaded. Pass another path."
        ) from error
    return loaded


def _short(text: str | None, length: int = 160) -> str:
    """Return the head of a long text."""
    text = str(text)
    return text if len(text) <= length else f"{text[:length]}..."


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` last; some systems cannot open folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
