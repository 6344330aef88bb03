"""TVM's worker process, started without the current folder on its module search path."""

from __future__ import annotations

import os
import subprocess

from tvm.support.popen_pool import PopenWorker

from mvlm.runtime.start_module import module_command

_MODULE = "tvm.exec.popen_worker"


class Worker(PopenWorker):
    """A process that runs functions sent to it.

    TVM starts it by ``python -m``, which would import modules from the current folder.
    """

    _proc: subprocess.Popen[bytes] | None

    def _start(self) -> None:
        """Start the process, unless it is there; its protocol's two pipes are TVM's."""
        if self._proc is not None:
            return
        requests, our_requests = os.pipe()
        our_replies, replies = os.pipe()
        try:
            self._proc = subprocess.Popen(
                module_command(_MODULE, str(requests), str(replies)),
                pass_fds=(requests, replies),
                stdout=self._stdout,
                stderr=self._stderr,
            )
        except OSError:
            os.close(our_requests)
            os.close(our_replies)
            raise
        finally:
            os.close(requests)
            os.close(replies)
        self._reader, self._writer = os.fdopen(our_replies, "rb"), os.fdopen(our_requests, "wb")
