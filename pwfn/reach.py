"""Finds out within seconds whether a server can be reached; libraries would try again for a minute."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request

PATIENCE_SECONDS = 3.0
"""How long a server may take to answer before it counts as out of reach."""


def answers(url: str) -> bool:
    """Whether a server answers within PATIENCE_SECONDS, even with an error.

    The request runs in a thread, because the look-up of the server's name may take longer than the request's timeout.
    """
    found: list[bool] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=PATIENCE_SECONDS).close()
            found.append(True)
        except urllib.error.HTTPError:
            found.append(True)
        except (OSError, ValueError):
            found.append(False)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    return found == [True]
