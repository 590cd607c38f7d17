"""What signals do in the sandbox's own processes, whatever the trainer's parents had left them to do.

For the first process of each tree, which its children inherit from. `nohup`, a shell's background and schedulers
leave signals ignored or blocked: then programs are not as in a fresh Python, and children cannot be waited for.
"""

from __future__ import annotations

import signal


def heed_signals() -> None:
    """Let signals do what they do in a fresh Python."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # those Python ignores itself
        if signal.getsignal(number) == signal.SIG_IGN:
            fresh = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, fresh)
