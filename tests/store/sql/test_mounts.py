from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kontext_async import StoreSettings, StoreUnusable
from kontext_async.store.sql import mounts
from kontext_async.store.sql.mounts import find_type, network_file_system
from kontext_async.store.urls import store_from_url

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

MOUNTS = r"""22 1 0:20 / / rw - ext4 /dev/sda1 rw
30 22 0:30 / /home rw shared:1 - nfs4 server:/home rw
31 22 0:31 / /home/ada/local rw - xfs /dev/sdb1 rw
32 22 0:32 / /mnt/a\040b rw - fuse.sshfs host:/ rw
33 22 0:33 / /srv rw - ext4 /dev/sdc1 rw
34 22 0:34 / /srv rw - cifs //host/share rw
35 22 broken
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/homes", "ext4"),
        ("/home", "nfs4"),
        ("/home/ada/paid", "nfs4"),
        ("/home/ada/local/paid", "xfs"),
        ("/mnt/a b/paid", "fuse.sshfs"),
        ("/srv/paid", "cifs"),
    ],
)
def test_a_path_lies_on_the_deepest_mount_above_it(path: str, kind: str) -> None:
    assert find_type(MOUNTS, path) == kind


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.s3fs", "ceph", "lustre"])
async def test_a_store_on_a_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(f"22 1 0:20 / / rw - {kind} somewhere rw\n")
    monkeypatch.setattr(mounts, "MOUNTS", table)
    with pytest.raises(StoreUnusable, match="PostgreSQL for several machines"):
        await store_from_url(tmp_path / "paid.db", StoreSettings()).open()
    assert not (tmp_path / "paid.db").exists()


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "fuse.fuse-overlayfs", "virtiofs"])
def test_a_local_file_system_is_none_of_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(f"22 1 0:20 / / rw - {kind} somewhere rw\n")
    monkeypatch.setattr(mounts, "MOUNTS", table)
    assert network_file_system(tmp_path) is None


def test_without_a_table_of_mounts_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "none")
    assert network_file_system(tmp_path) is None
