"""Frames and masking, beside Boost.Beast and memcpy."""

import re

from groups.figures import run


def websocket(figures, programs, runs):
    """Its last lines compare: `send runnel packed 64 bytes: 2.9 M frames/CPU-s = 8.9 x send beast`."""
    line = re.compile(r"^(\w+) runnel( packed)?\s+(\d+) bytes:\s+([\d.]+) (M frames/CPU-s|GB/s)(?:\s+=\s+([\d.]+) x (\w+) (\w+))?",
                      re.MULTILINE)
    for _ in range(runs):
        done = run(figures, [programs["websocket"]], "websocket")
        seen = set()
        for what, packed, size, value, unit, ratio, _, peer in line.findall(done.stdout if done else ""):
            case, value = f"websocket/{what}{packed.replace(' ', '_')}_{size}", float(value)
            peer = {"beast": "Boost.Beast"}.get(peer, peer)
            # Time a frame; a rate stays one.
            unit, ours = ("ns CPU/frame", 1000 / value) if unit.startswith("M") else (unit, value)
            if case not in seen:
                figures.add(case, "runnel", unit, ours)
            seen.add(case)
            if peer:
                figures.add(case, peer, unit, ours * float(ratio) if unit == "ns CPU/frame" else ours / float(ratio))
