"""Rate limit of checkpoints and progress lines."""

import time


class Throttle:
    """True at most once per `seconds`: for checkpoints and progress lines."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.last = time.monotonic()

    def __call__(self) -> bool:
        """Whether the time has come; if so, it begins anew."""
        now = time.monotonic()
        if now - self.last < self.seconds:
            return False
        self.last = now
        return True
