"""Runs a command that dies with the process that started it, if asked as another user.

Started as `python -I -S tether.py <signal> <parent pid> <user or -> <command...>` and replaced by
the command through exec, so the pid stays. It exists because the alternative, a `preexec_fn`, runs
Python between fork and exec of a process that may have gRPC's threads, which can deadlock.
The death signal, which only Linux has, is sent when the *thread* that started the command ends,
so commands are started from the main thread.
"""

import ctypes
import os
import pwd
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Drops to the user, ties this process to its parent and becomes the command."""
    death_signal, parent_pid, user, *command = sys.argv[1:]
    if user != "-":
        account = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    # After setuid: a change of user clears the death signal.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != int(parent_pid):
            sys.exit("the process that started this one is already gone")
    os.execv(command[0], command)  # noqa: S606 - becoming the command is the point.


if __name__ == "__main__":
    main()
