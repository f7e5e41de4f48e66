"""What a cryoSPARC job passes through: fields of its particles that are in a second file beside the first."""

from pathlib import Path

import numpy as np

from cryohydra.errors import UserError
from cryohydra.io.cs import read_cs, with_columns

_WANTED = ("blob/path", "ctf/df1_A", "alignments3D/pose", "location/micrograph_path")
"""A field of each group that is used."""


def with_passthrough(path: Path, records: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """The records with the groups of fields they lack, from the passthrough files beside them, joined on uid.

    Returns:
        Records in their own order, and what was taken from where.
    """
    notes: tuple[str, ...] = ()
    if "uid" not in (records.dtype.names or ()):
        return records, notes
    for beside in sorted(path.parent.glob("*passthrough*.cs")):
        own = records.dtype.names or ()
        lacking = {name.partition("/")[0] for name in _WANTED if name not in own}
        if not lacking or beside.resolve() == path.resolve():
            continue
        try:
            other = read_cs(beside)
        except UserError:  # not asked for
            continue
        names = [name for name in other.dtype.names or () if name.partition("/")[0] in lacking and name not in own]
        rows = rows_of_uids(records["uid"], other["uid"]) if "uid" in (other.dtype.names or ()) else None
        if not names or rows is None:
            continue
        records = with_columns(records, {name: other[name][rows] for name in names})
        taken = ", ".join(sorted({name.partition("/")[0] for name in names}))
        notes += (f"{path} has no {taken}; taken from {beside}, joined on uid.",)
    return records, notes


def rows_of_uids(uid: np.ndarray, other: np.ndarray) -> np.ndarray | None:
    """Where each uid is among the others; None if one is not."""
    order = np.argsort(other, kind="stable")
    place = np.searchsorted(other, uid, sorter=order)
    rows = order[np.minimum(place, len(order) - 1)] if len(order) else np.zeros(0, dtype=np.int64)
    return rows if len(rows) == len(uid) and np.array_equal(other[rows], uid) else None
