"""Who may talk to the explorer: whoever holds its token, from a page of its own."""

import hmac
import secrets
from email.message import Message
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from cryohydra.explorer.http import Refusal

_OWN_NAMES = {"127.0.0.1", "localhost"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Sent with every reply."""


class Guard:
    """Lets requests pass that hold the token of this start of the explorer."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(24)
        # Cookies are shared by all ports of a host: two explorers must not share a name.
        self._cookie = f"drgnai_{secrets.token_hex(4)}"

    def check_place(self, headers: Message) -> None:
        """See that the request was meant for this server and does not come from the page of another.

        Any port is taken, for those who forward one by ssh. A name that a stranger's DNS points to this machine
        is not one of ours.

        Raises:
            Refusal: Otherwise.
        """
        host = headers.get("Host", "")
        if urlsplit(f"//{host}").hostname not in _OWN_NAMES:
            raise Refusal(403, "This server answers to 127.0.0.1 and localhost only; open the address it printed.")
        origin = headers.get("Origin")
        comes_from_elsewhere = origin is not None and origin != f"http://{host}"
        if comes_from_elsewhere or headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            raise Refusal(403, "A page of another site may not ask this server; open the address it printed.")

    def check_token(self, headers: Message) -> None:
        """See that the cookie, or the header X-Token, holds the token.

        Raises:
            Refusal: If neither does.
        """
        if not self.is_token(headers.get("X-Token", "")) and not self.is_token(self._from_cookie(headers)):
            raise Refusal(401, "The token is missing or wrong; open the address that `drgnai explore` printed.")

    def is_token(self, text: str) -> bool:
        """Whether a text is the token, in a time that tells nothing of it."""
        return hmac.compare_digest(text.encode(errors="replace"), self.token.encode())

    def cookie(self) -> str:
        """The header that makes a browser remember the token for this server's own pages, and from no script."""
        return f"{self._cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"

    def _from_cookie(self, headers: Message) -> str:
        try:
            found = SimpleCookie(headers.get("Cookie", "")).get(self._cookie)
        except CookieError:
            return ""
        return found.value if found else ""
