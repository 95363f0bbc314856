"""What holds for all tests."""

import signal

# A job that a shell runs in the background ignores these, and so would every process that a test starts; but Ctrl-C and
# a closed terminal are among what is tested.
for _signal, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, _usual)
