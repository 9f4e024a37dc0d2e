"""A metric of one's own, for `own-metric-cpu.yaml`: called in a worker process, once for every item."""

from collections.abc import Mapping

NEAR = {"fear": "sadness", "sadness": "fear", "joy": "surprise", "surprise": "joy"}


def near(prediction: str, reference: str, item: Mapping[str, object]) -> float:
    """Return 1 for the right tone, half for its neighbour, 0 for any other; `item` has id, prompt and completion."""
    said = prediction.strip(" .").lower()
    if said == reference:
        return 1.0
    return 0.5 if said == NEAR[reference] else 0.0
