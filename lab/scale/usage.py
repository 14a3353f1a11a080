"""Run a command and write its usage as JSON: ``usage.py USAGE OUTPUT COMMAND…``.

This is a small program of its own, since the peak memory of a new process includes
the memory of the process that started it:
https://man7.org/linux/man-pages/man2/getrusage.2.html
"""

import ctypes
import json
import os
import sys
import time

_SET_CHILD_SUBREAPER = 36  # of linux/prctl.h


def main() -> None:
    usage_file, output_file, *command = sys.argv[1:]
    # Processes that the command leaves behind become children of this one.
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    began = time.monotonic()
    output = os.open(output_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    redirections = [(os.POSIX_SPAWN_DUP2, output, number) for number in (1, 2)]
    child = os.posix_spawn(command[0], command, os.environ, file_actions=redirections)
    usage = {"cpu": 0.0, "memory": 0.0}
    while True:
        try:
            pid, status, resources = os.wait4(-1, 0)
        except ChildProcessError:
            break
        if pid == child:
            usage["status"] = os.waitstatus_to_exitcode(status)
            usage["seconds"] = time.monotonic() - began
        usage["cpu"] += resources.ru_utime + resources.ru_stime
        usage["memory"] = max(usage["memory"], resources.ru_maxrss / 1024)
    with open(usage_file, "w") as file:  # noqa: PTH123 pathlib would take memory
        json.dump(usage, file)


if __name__ == "__main__":
    main()
