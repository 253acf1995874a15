"""A temporary folder that is removed when the process ends, even if it is killed."""

from __future__ import annotations

import os
import subprocess
import tempfile

_ONCE_IT_ENDS = 'exec 3<&0; (read -r _ <&3; rm -rf -- "$0") >/dev/null 2>&1 &'
"""Reading a pipe ends once the process that holds its other side has ended. The shell puts it into the background, so
that it is not a child that would be killed together with the process."""


def keep_temporary_files_together() -> None:
    """Put this process's temporary files into a folder that is removed when it ends, even if it is killed."""
    folder = tempfile.mkdtemp(prefix="maag-predict-")
    read, _write = os.pipe()  # the system closes the other side when this process ends
    subprocess.run(["sh", "-c", _ONCE_IT_ENDS, folder], stdin=read, start_new_session=True, check=True)
    os.close(read)
    tempfile.tempdir = folder
