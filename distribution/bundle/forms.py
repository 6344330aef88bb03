"""The kinds of devices that bundles are made for: data only."""

from __future__ import annotations

from dataclasses import dataclass

from mvlm.runtime.errors import UsageError


@dataclass(frozen=True)
class Form:
    """A way to run on a device.

    Attributes:
        name: On the command line; of its launcher and its README too.
        summary: The device, in a line.
        has_python: Whether the device has one; else the bundle brings Debian's.
    """

    name: str
    summary: str
    has_python: bool


# All run code for aarch64 and glibc: on Android it comes with the Python that the bundle brings.
ARCHITECTURE, PLATFORM = "aarch64", "linux"
FORMS = {
    form.name: form
    for form in (
        Form("linux-aarch64", "a Linux board with Python 3.10 or newer", has_python=True),
        Form("android-termux", "a phone with the app Termux", has_python=False),
        Form("android-adb", "a phone on a cable, through `adb shell`", has_python=False),
    )
}


def find_form(name: str) -> Form:
    """Return the form of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in FORMS:
        raise UsageError("unknown kind of bundle", expected=" or ".join(FORMS), found=repr(name))
    return FORMS[name]
