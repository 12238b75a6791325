"""Turns what an observer saw of one reply into numbers for a classifier, in families that say what each tells."""

import numpy as np

FIRST, LAST = 40, 6
"""Units at the begin and at the end whose sizes and gaps are taken one by one."""
QUANTILES = (5, 10, 25, 50, 75, 90, 95)
SIZE_EDGES = np.unique(np.concatenate([np.arange(0, 256, 32), np.arange(256, 320, 2), np.arange(320, 2048, 32), [1 << 20]]))
"""Finer where the events of one token lie."""
GAP_EDGES_MS = np.array([0, 0.5, 2, 5, 10, 20, 30, 36, 38, 39, 39.5, 40, 40.5, 41, 42, 44, 50, 60, 80, 100, 200, 1e6])
"""Finer around a tick of 40 ms, so that what moves a tick is not lost."""
TICK_MS = 40.0
ANSWERS = (4, 6, 8)
"""HTTP/2's SETTINGS, PING and WINDOW_UPDATE: what goes up because of what came down."""
FAMILIES = ("request", "length", "sizes", "times", "all")


def spread(values: np.ndarray) -> np.ndarray:
    """Mean, deviation and quantiles; zeros of nothing."""
    if values.size == 0:
        return np.zeros(2 + len(QUANTILES))
    return np.concatenate([[values.mean(), values.std()], np.percentile(values, QUANTILES)])


def ends(values: np.ndarray) -> np.ndarray:
    """The first and the last values, zeros where there are none."""
    first, last = np.zeros(FIRST), np.zeros(LAST)
    first[:min(FIRST, values.size)] = values[:FIRST]
    last[LAST - min(LAST, values.size):] = values[-LAST:]
    return np.concatenate([first, last])


def bursts(gaps: np.ndarray) -> np.ndarray:
    """How gaps follow each other: correlation with the one before, and with the one before that."""
    found = []
    for lag in (1, 2):
        one, other = gaps[:-lag], gaps[lag:]
        steady = one.size < 3 or one.std() < 1e-6 or other.std() < 1e-6
        found.append(0.0 if steady else float(np.corrcoef(one, other)[0, 1]))
    return np.array(found)


def families(units: list[list[int]]) -> dict[str, np.ndarray]:
    """Features of each family: what goes up, and of what comes down how much, how large and when; `all` has everything."""
    rows = np.array([unit[:2] for unit in units], dtype=float)
    at, size = rows[:, 0] / 1000, rows[:, 1]
    down, up = size > 0, size < 0
    came, gaps = at[down], np.diff(at[down])
    asked = -size[[unit[1] < 0 and unit[2] not in ANSWERS for unit in units]]
    request = np.concatenate([[asked.size, asked.sum()], spread(asked)])
    length = np.array([down.sum(), size[down].sum(), at[-1] - at[0]])
    sizes = np.concatenate([
        [down.sum(), size[down].sum(), np.unique(size[down]).size],
        spread(size[down]), np.histogram(size[down], SIZE_EDGES)[0], ends(size[down])])
    phase = (came - came[0]) % TICK_MS
    times = np.concatenate([
        [down.sum(), at[-1] - at[0], came[0] - at[0], came[-1] - came[0]],
        spread(gaps), spread(np.minimum(phase, TICK_MS - phase)), bursts(gaps),
        np.histogram(gaps, GAP_EDGES_MS)[0], ends(gaps)])
    everything = np.concatenate([request, [up.sum()], sizes, times, spread(at[up])])
    return {"request": request, "length": length, "sizes": sizes, "times": times, "all": everything}
