"""What machine this is, as far as compiled code cares; read without any compiler."""

from mvlm.runtime.machine.description import Machine, read_machine
from mvlm.runtime.machine.features import FEATURES
from mvlm.runtime.machine.memory import available_memory_bytes, peak_rss_bytes

__all__ = ["FEATURES", "Machine", "available_memory_bytes", "peak_rss_bytes", "read_machine"]
