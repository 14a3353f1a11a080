"""Run a command and write down what it used: ``usage.py TOLD OUTPUT COMMAND…``.

A small program of its own, since the memory of the process that starts a command
counts as the command's: https://man7.org/linux/man-pages/man2/getrusage.2.html
"""

import ctypes
import json
import os
import sys
import time

_SET_CHILD_SUBREAPER = 36  # of linux/prctl.h


def main() -> None:
    told, output, *command = sys.argv[1:]
    # What the command starts and leaves behind becomes a child of ours.
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    began = time.monotonic()
    said = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    to_output = [(os.POSIX_SPAWN_DUP2, said, 1), (os.POSIX_SPAWN_DUP2, said, 2)]
    child = os.posix_spawn(command[0], command, os.environ, file_actions=to_output)
    usage = {"cpu": 0.0, "memory": 0.0}
    while True:
        try:
            ended, status, used = os.wait4(-1, 0)
        except ChildProcessError:
            break
        if ended == child:
            usage["status"] = os.waitstatus_to_exitcode(status)
            usage["seconds"] = time.monotonic() - began
        usage["cpu"] += used.ru_utime + used.ru_stime
        usage["memory"] = max(usage["memory"], used.ru_maxrss / 1024)
    with open(told, "w") as file:  # noqa: PTH123
        json.dump(usage, file)


if __name__ == "__main__":
    main()
