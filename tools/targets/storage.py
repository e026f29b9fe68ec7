"""A place for the lab's disks on a file system that can carry them.

A target writes to the upper layer of an overlay, and an overlay cannot lie on another one. Where this machine's own
root is an overlay, as in most containers and inside a target, the lab gets an ext4 image of its own, mounted.
"""

import contextlib
import os
import shutil
import stat
from pathlib import Path

from tools.targets.errors import TargetError
from tools.targets.lab import Lab, locked
from tools.targets.network import REGISTRY
from tools.targets.process import run

_IMAGE_BYTES = 64 << 30  # sparse: takes what is written, no more
_LOOP_MAJOR, _LOOP_DEVICES = 7, 32


def prepare(lab: Lab) -> None:
    """Make the lab's folder, on an image where it would lie on an overlay."""
    with locked(_lock(lab)):
        if not lab.root.is_mount() and _file_system(lab.root) == "overlay":
            _mount_image(lab)
    lab.make()


def delete(lab: Lab) -> None:
    """Remove the lab's folder, its image and what the registry has of it."""
    if lab.root.is_mount():
        run("umount", lab.root)
    shutil.rmtree(lab.root)
    _image(lab).unlink(missing_ok=True)
    _lock(lab).unlink(missing_ok=True)


def _lock(lab: Lab) -> Path:
    return REGISTRY / f"{lab.id}.storage"


def _image(lab: Lab) -> Path:
    return lab.root.with_name(f"{lab.root.name}.img")


def _file_system(path: Path) -> str:
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    return run("findmnt", "--noheadings", "--output", "FSTYPE", "--target", existing).strip()


def _mount_image(lab: Lab) -> None:
    lab.root.mkdir(parents=True, exist_ok=True)
    image = _image(lab)
    try:
        if not image.exists():
            part = image.with_suffix(".part")
            with part.open("wb") as handle:
                handle.truncate(_IMAGE_BYTES)
            run("mkfs.ext4", "-q", "-F", "-O", "^has_journal", part)
            part.replace(image)
        _make_loop_devices()
        run("mount", "-o", "loop", image, lab.root)
    except (TargetError, OSError) as error:
        raise TargetError(
            f"{lab.root} lies on an overlay, which cannot carry targets, and an image there could not be mounted:"
            f" {error}. Name a folder on another file system: export TARGETS_LAB=/srv/targets"
        ) from error


def _make_loop_devices() -> None:
    """Containers have no device nodes for loop devices, though the kernel has the devices."""
    wanted = [(Path("/dev/loop-control"), stat.S_IFCHR, os.makedev(10, 237))]
    wanted += [(Path(f"/dev/loop{n}"), stat.S_IFBLK, os.makedev(_LOOP_MAJOR, n)) for n in range(_LOOP_DEVICES)]
    for path, kind, device in wanted:
        with contextlib.suppress(FileExistsError):
            os.mknod(path, kind | 0o660, device)
