"""Packets encoded and decoded: nanoseconds, and instructions where valgrind counts them."""

import re

from groups.figures import run
from groups.google import google

# Whose instructions are counted.
COUNTED = [
    *(f"{what}/publish_{size}/3.1.1" for what in ("encode", "decode") for size in ("64", "64KiB")),
    *(f"{what}/publish_64/5" for what in ("encode", "decode")),
    *(f"{what}/publish_256_three_user_properties/5" for what in ("encode", "decode")),
]


def instructions(figures, programs, who, case):
    """Those of many calls less those of few, a call."""
    totals = []
    for n in ("1000", "11000"):
        command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", programs, "--count", case, n]
        done = run(figures, command, f"{case} by {who} under valgrind")
        found = re.search(r"Collected : (\d+)", done.stderr) if done else None
        if found is None:
            return
        totals.append(int(found.group(1)))
    figures.add("codec/" + case, who, "instructions", (totals[1] - totals[0]) / 10_000)


def codec(figures, programs, options):
    peers = {"Boost.MQTT5": "codec_boost_mqtt5", "async_mqtt": "codec_async_mqtt"}
    for who, name in {"runnel": "codec", **peers}.items():
        if name not in programs:
            continue
        figures.expect("codec", who)
        google(figures, programs[name], options, lambda case, w=who: (w, "codec/" + case), "ns")
        for case in COUNTED if options.valgrind else []:
            # Boost.MQTT5 speaks MQTT 5 only: its packets without properties stand beside both of ours.
            instructions(figures, programs[name], who, case)
    compare(figures)


def compare(figures):
    """How a long payload compares with a short one, and with copying it."""
    long_decode, long_encode = "codec/decode/publish_64KiB/3.1.1", "codec/encode/publish_64KiB/3.1.1"
    # In instructions where they are counted: of a few nanoseconds, chance has too large a share.
    for unit in ("instructions", "ns"):
        ours = figures.median(long_decode, unit, "runnel")
        short = figures.median("codec/decode/publish_64/3.1.1", unit, "runnel")
        if ours and short:
            figures.add(long_decode, "runnel", "times that of 64 B", ours / short)
            break
    ours, copied = figures.median(long_encode, "ns", "runnel"), figures.median("codec/copy/65570", "ns", "runnel")
    if ours and copied:
        figures.add(long_encode, "runnel", "times memcpy", ours / copied)
