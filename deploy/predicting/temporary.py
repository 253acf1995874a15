"""A folder for what a process makes in passing, which goes with the process, however that ends."""

from __future__ import annotations

import os
import subprocess
import tempfile

_ONCE_IT_ENDS = 'exec 3<&0; (read -r _ <&3; rm -rf -- "$0") >/dev/null 2>&1 &'
"""A pipe that nobody writes to can be read to its end once the process that holds its other side is no more. In the
background, and so nobody's child, for whoever ends the process may end its children too."""


def keep_temporary_files_together() -> None:
    """Have this process make its temporary files in a folder that is removed when it ends, also where it is killed."""
    folder = tempfile.mkdtemp(prefix="maag-predict-")
    read, _write = os.pipe()  # the system closes the other side
    subprocess.run(["sh", "-c", _ONCE_IT_ENDS, folder], stdin=read, start_new_session=True, check=True)
    os.close(read)
    tempfile.tempdir = folder
