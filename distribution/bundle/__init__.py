"""A bundle: a folder with everything that chatting takes on a device which has nothing of ours.

::

    mvlm          the command: ./mvlm chat artifact --image images/demo.png
    python        the Python that runs it: the device's own, or the one in `root`
    README.txt    step by step
    artifact/     the model, compiled for the device
    code/         our packages
    packages/     what they need: `any`, and one folder for each version of Python
    images/     one to try
    root/         where the device has no Python: Debian's, with its C library

:func:`make_bundle` writes it, whole or not at all.
"""

from mvlm.distribution.bundle.forms import FORMS, Form, find_form
from mvlm.distribution.bundle.make import make_bundle

__all__ = ["FORMS", "Form", "find_form", "make_bundle"]
