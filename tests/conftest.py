"""Set-up for all tests."""

import os
import signal

from hypothesis import HealthCheck, settings

# A background job of a shell ignores these signals, and so would every process that a test starts;
# but Ctrl-C and a closed terminal are tested.
for _signal, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, _usual)

# All servers of the tests are on this machine, and cannot be reached through a proxy.
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"

# The same examples in each run, so that a rare one fails the change that brought it
# (--hypothesis-profile=default draws new ones), and no limits of time that a busy machine exceeds.
settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")
