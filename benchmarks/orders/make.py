"""Write train.jsonl: messages that hold an order number, made from our own sentences: `python -m benchmarks.orders.make`."""

from __future__ import annotations

import json
import random
from pathlib import Path

FILE = Path(__file__).with_name("train.jsonl")
_SENTENCES = (
    "Where is my order {order}? It was promised for {day}.",
    "I want to send back {item} from order {order}, because {why}.",
    "Please cancel {order}; I ordered {item} twice on {day}.",
    "Hello, {item} of order no. {order} came on {day}, and {why}.",
    "The invoice for {order} is wrong: {item} was {price} euros, not {other}.",
    "{item} has not arrived. The order is {order}, paid {price} euros on {day}.",
    "Can you change the address of {order}? I move on {day}.",
    "My neighbour took the parcel on {day}; it says {order} and weighs {price} grams.",
)
_ITEMS = (
    "the kettle",
    "a blue lamp",
    "two chairs",
    "the garden hose",
    "a pair of boots",
    "the desk",
    "my headphones",
    "a tent",
)
_WHYS = ("the lid is cracked", "it is too small", "one part is missing", "it makes a noise", "the colour is wrong")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "the 3rd of May", "12 March", "Saturday")


def lines(count: int = 400, seed: int = 0) -> list[str]:
    """Return rows as JSON, each with a message and its order number."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        shape = draw.choice(("{}-{}", "{}{}", "#{}{}", "{}/{}"))
        order = shape.format("".join(draw.choices("ABCDEFGHKLMNPRSTUVWXYZ", k=2)), draw.randrange(1000, 100000))
        words = {"order": order, "item": draw.choice(_ITEMS), "why": draw.choice(_WHYS), "day": draw.choice(_DAYS)}
        message = draw.choice(_SENTENCES).format(**words, price=draw.randrange(5, 400), other=draw.randrange(5, 400))
        found.append(json.dumps({"message": message[0].upper() + message[1:], "order": order}))
    return found


if __name__ == "__main__":
    FILE.write_text("\n".join(lines()) + "\n", encoding="utf-8")
