"""Whether a server on the network can be reached, decided in seconds: libraries retry for a minute."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request

PATIENCE_SECONDS = 3.0
"""How long a server may take to answer before it counts as out of reach."""


def answers(url: str) -> bool:
    """Whether a server says anything at all in time; its name may take longer to look up than a timeout covers."""
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
