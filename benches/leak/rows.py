"""What the row alone tells: a paced stream has a number of chunks out of a row, and an observer who sees nothing else.

Records nothing: takes the engine's plans, rounds their times up to ticks and these up to a row, and tells topics apart by the
row. Prints, for answers of equal length over two doublings and for natural ones, AUC and what the row adds in time.
"""

import math
import random

import numpy as np
from sklearn.metrics import roc_auc_score

import topics

TICK_S, BEFORE_S = 0.040, 0.020
"""The pace, and what passes between acceptance and the first tick on the mean."""
STEPS = (1, 2, 4)
"""Places of a row in each doubling."""
EQUAL = tuple(round(24 * 2 ** (step / 4)) for step in range(9))
PROMPTS = 300


def placed(chunks: int, steps: int) -> int:
    """The next number of a row: powers of two, with `steps` to each doubling."""
    power = 1 << max(0, chunks.bit_length() - 1)
    part = max(1, power // steps)
    return power + math.ceil((chunks - power) / part) * part


def told(max_tokens: int | None, steps: int, scale: float = 1.0) -> tuple[float, float]:
    """AUC of rows, and the mean of how much longer they make a stream."""
    rows, longer, ours = [], [], []
    for prompt in topics.prompts(PROMPTS, 2):
        seconds = sum(step.after_s for step in topics.answer(prompt.text, 3, max_tokens)) * scale
        chunks = math.ceil((seconds + BEFORE_S) / TICK_S) + 1
        rows.append(placed(chunks, steps))
        longer.append(rows[-1] / chunks - 1)
        ours.append(prompt.topic == topics.TARGET)
    found = roc_auc_score(ours, rows)
    return max(found, 1 - found), float(np.mean(longer))


def main() -> None:
    random.seed(1)
    print("| answers | " + " | ".join(f"{steps} to a doubling" for steps in STEPS) + " |\n|---|" + "---|" * len(STEPS))
    equal = {steps: [told(tokens, steps) for tokens in EQUAL] for steps in STEPS}
    cells = (f"{np.mean([auc for auc, _ in found]):.2f} ({min(found)[0]:.2f}–{max(found)[0]:.2f}), "
             f"{100 * np.mean([more for _, more in found]):+.0f} % time" for found in equal.values())
    print(f"| {EQUAL[0]} to {EQUAL[-1]} tokens, all equal | {' | '.join(cells)} |")
    for scale in (1, 4, 16):
        cells = ("{:.2f}, {:+.0f} % time".format(auc, 100 * more) for auc, more in (told(None, steps, scale) for steps in STEPS))
        print(f"| as long as topics have them, times {scale} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
