"""A handler that others may talk to while it works."""

from __future__ import annotations

from collections.abc import Callable

from instep.daemon.control import ControlServer
from instep.daemon.handlers.handled import Handled
from instep.daemon.handlers.sight import OwnSight, Sight
from instep.daemon.handlers.workshop import Workshop
from instep.ports import Handler, Place


class Served(Handled):
    """A unit of the process: a handler with its control socket."""

    def __init__(
        self,
        handler: Handler,
        workshop: Workshop,
        *,
        server: ControlServer | None,
        see: Callable[[Place], Sight] = OwnSight,
        ready: Callable[[], None] | None = None,
    ) -> None:
        """Nothing is started.

        Args:
            handler: see ``Handled``.
            workshop: as above.
            server: open already; None: nobody may talk to it.
            see: as above.
            ready: as above.
        """
        super().__init__(handler, workshop, see=see, ready=ready)
        self._server = server

    async def run(self) -> int:
        """See ``Handled``."""
        if self._server is not None:
            self._server.start()
        try:
            return await super().run()
        finally:
            if self._server is not None:
                self._server.close()
