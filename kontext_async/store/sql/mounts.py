"""Finds out if a file lies on a network file system.

Linux only: `/proc/self/mountinfo` names the type of each mount.
"""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["find_type", "network_file_system"]

MOUNTS = Path("/proc/self/mountinfo")

NETWORK_TYPES = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|9p|afs|ceph|glusterfs|lustre|gpfs|beegfs|ocfs2|gfs2|orangefs|ncpfs|coda|vboxsf|prl_fs|"
    r"fuse\.(sshfs|s3fs|rclone|gcsfuse|goofys|glusterfs|ceph|davfs2?|mountpoint-s3|blobfuse2?|juicefs|s3ql|curlftpfs|smb.*)"
)
"""https://www.kernel.org/doc/html/latest/filesystems/ and the FUSE file systems of object stores."""

ESCAPE = re.compile(r"\\([0-7]{3})")


def network_file_system(folder: Path) -> str | None:
    """Return the type of the network file system that a folder lies on; None if it is local, or not known. Blocks."""
    try:
        mounts = MOUNTS.read_text("utf-8", "surrogateescape")
        found = find_type(mounts, str(folder.resolve()))
    except (OSError, RuntimeError, ValueError):
        return None
    return found if found and NETWORK_TYPES.fullmatch(found) else None


def find_type(mounts: str, path: str) -> str | None:
    """Return the type of the file system that a path lies on. Pure.

    Args:
        mounts: The text of a `mountinfo`: https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
        path: An absolute path without symbolic links.
    """
    deepest, found = -1, None
    for line in mounts.splitlines():
        place, _, rest = line.partition(" - ")
        fields, types = place.split(), rest.split()
        if len(fields) < 5 or not types:  # noqa: PLR2004 # the mount point is the fifth
            continue
        point = ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4])
        is_below = path == point or path.startswith(point.rstrip("/") + "/")
        if is_below and len(point) >= deepest:  # a later mount hides an earlier one
            deepest, found = len(point), types[0]
    return found
