"""LoRA adapters as peft saves them, merged into a checkpoint's tensors while they are read.

:func:`open_adapter` decides from `adapter_config.json` and from the tensors' names and shapes
whether the adapter is understood; :meth:`Adapter.check` whether it fits a model. What is not
understood is refused by name: nothing that an adapter holds is left out silently.
"""

from mvlm.models.checkpoint.adapter.adapter import Adapter
from mvlm.models.checkpoint.adapter.open import open_adapter

__all__ = ["Adapter", "open_adapter"]
