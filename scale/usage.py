"""Run a command and write down what it used: ``usage.py TOLD OUTPUT COMMAND…``.

A small program of its own, since the memory of the process that starts a command
counts as the command's: https://man7.org/linux/man-pages/man2/getrusage.2.html
"""

import json
import os
import sys
import time


def main() -> None:
    told, output, *command = sys.argv[1:]
    began = time.monotonic()
    said = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    to_output = [(os.POSIX_SPAWN_DUP2, said, 1), (os.POSIX_SPAWN_DUP2, said, 2)]
    child = os.posix_spawn(command[0], command, os.environ, file_actions=to_output)
    _, status, used = os.wait4(child, 0)
    usage = {
        "status": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - began,
        "cpu": used.ru_utime + used.ru_stime,
        "memory": used.ru_maxrss / 1024,
    }
    with open(told, "w") as file:  # noqa: PTH123
        json.dump(usage, file)


if __name__ == "__main__":
    main()
