"""Frames of a WebSocket beside Boost.Beast, compressed ones too, and their masking, beside memcpy as well."""

from groups.google import google


def websocket(figures, programs, options):
    if "websocket" not in programs:
        return

    def known(name):
        who, case, size = name.split("/")
        return who, f"websocket/{case}_{size}"

    figures.expect("websocket", "Boost.Beast")
    google(figures, programs["websocket"], options, known, "ns CPU/frame", counter="allocations/frame")
    for case, unit in list(figures.values):
        # A message in a write of its own is what Beast's users have to do; packs are ours alone.
        if case.startswith("websocket/send_") and "packed" not in case and unit == "ns CPU/frame":
            packed = figures.values.get((case.replace("send_", "send_packed_"), unit), {})
            packed["Boost.Beast"] = figures.values[case, unit].get("Boost.Beast", [])


def deflate(figures, programs, options):
    if "deflate" not in programs:
        return

    def known(name):
        who, case, how = name.split("/")[:3]
        return who, f"deflate/{case}_{how}"

    figures.expect("deflate", "Boost.Beast")
    google(figures, programs["deflate"], options, known, "ns CPU/message", counter="bytes/message")


def mask(figures, programs, options):
    for name in [p for p in programs if p.startswith("mask_")]:
        compiler = name.removeprefix("mask_")
        google(figures, programs[name], options, lambda n, c=compiler: (n.split("/")[0], f"mask/{c}/{n.split('/')[1]}"), "GB/s")
        figures.expect("mask", "memcpy")
        if "websocket" in programs:
            figures.expect("mask", "Boost.Beast")
