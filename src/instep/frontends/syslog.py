"""Log records to syslog, through the C library, which finds the socket and outlives the logger's restarts."""

from __future__ import annotations

import logging
import syslog

FACILITIES = {
    name: int(getattr(syslog, f"LOG_{name.upper()}"))
    for name in (
        "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
        "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
    )
}  # fmt: skip
"""By their names in syslog.conf(5)."""

_PRIORITIES = (
    (logging.ERROR, syslog.LOG_ERR),
    (logging.WARNING, syslog.LOG_WARNING),
    (logging.INFO, syslog.LOG_NOTICE),
)


class SyslogHandler(logging.Handler):
    """One line a record; there is one such handler in a process, as the C library has one ident."""

    def __init__(self, ident: str, *, facility: int = syslog.LOG_DAEMON, options: int = 0) -> None:
        super().__init__()
        syslog.openlog(ident, options, facility)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        try:
            priority = next((each for level, each in _PRIORITIES if record.levelno >= level), syslog.LOG_DEBUG)
            syslog.syslog(priority, self.format(record))
        except Exception:  # noqa: BLE001  # logging's own rule: a record that cannot be written stops nothing
            self.handleError(record)
