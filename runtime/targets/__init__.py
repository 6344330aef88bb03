"""Targets: the devices that models are compiled for, as data.

The compiler reads these, and the device on which it has to recognise itself.

==================  ================================================================
``boards/``         ours, one file each
:mod:`description`  what a description holds
:mod:`catalogue`    finds one by its name, or reads a file
:mod:`detect`       which of them a machine is
:mod:`platforms`    the systems that devices run
==================  ================================================================
"""

from mvlm.runtime.targets.catalogue import choose_platform, find_description, known_targets
from mvlm.runtime.targets.description import TargetDescription

__all__ = ["TargetDescription", "choose_platform", "find_description", "known_targets"]
