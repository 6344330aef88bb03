"""Prints which scheme each unit of the decoder's layers has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mvlm.cli.shared.terminal import show_columns


def show_layers(
    layers: Sequence[Mapping[str, str]],
    losses: Sequence[Mapping[str, Mapping[str, float]]] | None = None,
) -> None:
    """Print a row for each layer.

    Args:
        layers: Schemes by units, from the first layer on.
        losses: What each unit loses by each scheme, in nats; printed beside the schemes if given.
    """
    units = list(layers[0])
    rows = [("layer", *units)]
    for index, layer in enumerate(layers):
        cells = [
            scheme if losses is None else f"{scheme} {losses[index][unit][scheme]:.2e}"
            for unit, scheme in layer.items()
        ]
        rows.append((str(index), *cells))
    show_columns(rows)
