"""What machine this is, as far as compiled code cares; read without any compiler."""

from mvlm.runtime.machine.description import FEATURES, Machine, read_machine
from mvlm.runtime.machine.limits import available_memory_bytes, peak_rss_bytes

__all__ = ["FEATURES", "Machine", "available_memory_bytes", "peak_rss_bytes", "read_machine"]
