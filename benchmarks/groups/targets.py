"""What is to be reached, by case and unit: the largest value, or the smallest for units that end in "/s" and for shares
of a rate. A name stands for what that peer is measured at in the same run; `above_floor` for what was set as a target,
or 1.3 times what floor.cpp takes where that is more."""

from groups.cases import CPU, SESSION_CASES


def of(cases, **by_unit):
    """One target for several cases, by the names of the units with `_` for what no name can hold."""
    units = {
        "cpu": CPU,
        "instructions": "instructions/message",
        "system_calls": "system calls/message",
        "raw_share": "share of the raw rate",
    }
    return {(case, units[unit]): value for case in cases for unit, value in by_unit.items()}


def above_floor(target):
    return target, 1.3, "floor"


TARGETS = {
    ("codec/decode/publish_64/3.1.1", "instructions"): 80,
    ("codec/encode/publish_64/3.1.1", "instructions"): 80,
    ("codec/decode/publish_256_three_user_properties/5", "instructions"): 450,
    ("codec/encode/publish_256_three_user_properties/5", "instructions"): 350,
    ("codec/decode/publish_64KiB/3.1.1", "times that of 64 B"): 1.5,
    ("codec/encode/publish_64KiB/3.1.1", "times memcpy"): 1.15,
    **of(["session/publish_qos0_try"], cpu=250),
    **of(["session/publish_qos0"], cpu=350),
    **of(["session/publish_qos0_try"], instructions=400),
    **of(["session/publish_qos0"], instructions=above_floor(450)),
    **of(["session/publish_qos0_try", "session/publish_qos0"], system_calls=0.05, raw_share=0.5),
    **of(["session/publish_qos1_window_20"], cpu=1500, instructions=above_floor(1000), system_calls=above_floor(0.15)),
    **of(["session/publish_qos1_window_10000"], cpu=600),
    **of(["session/publish_qos2_window_20"], cpu=3000, instructions=above_floor(1500), system_calls=above_floor(0.3)),
    **of(["session/receive_qos0_view"], cpu=150),
    **of(["session/receive_qos0"], cpu=250),
    **of(["session/receive_qos0_view"], instructions=280),
    **of(["session/receive_qos0"], instructions=above_floor(450)),
    **of(["session/receive_qos0_view", "session/receive_qos0"], system_calls=0.02, raw_share=0.5),
    ("store/publish_qos1_window_20_process", "messages/s"): (0, 10, "Paho C"),
    ("session/round_trip_qos1_median", "us"): "libmosquitto",
    ("session/round_trip_qos1_p99", "us"): "libmosquitto",
    ("session/idle", "bytes/session"): 4096,
    **{(f"{below}/idle_lost", "sessions"): 0 for below in ("session", "tls", "wss")},
    **of(["ws/publish_qos0_try", "ws/publish_qos0"], cpu=400),
    **of(["ws/receive_qos0_view", "ws/receive_qos0"], cpu=250),
    **of(["wss/publish_qos0_try", "wss/publish_qos0"], cpu=600),
    **of(["wss/publish_qos0_try_1024", "wss/publish_qos0_1024"], cpu=1500),
    **{(case, "allocations/message"): 0 for case in SESSION_CASES
       if "latency" not in case and not case.startswith("store/")},
    **{
        (f"mask/{compiler}/{size}", "GB/s"): rate
        for compiler in ("g++", "clang++")
        for size, rate in ((64, 25), (1024, 55), (65536, 50))
    },
    ("fleet/subscriptions", "growth"): 1.5,
    ("fleet/sessions", "growth"): 1.5,
    ("fleet/in_flight", "growth"): 1.5,
    ("crowd/idle", "sessions lost"): 0,
    ("footprint/publisher", "s CPU"): 9,
    ("footprint/publisher", "MiB compiler memory"): 480,
    ("footprint/publisher", "KiB stripped"): 260,
    ("footprint/further_publisher", "times bare Asio"): 1.2,
    ("signer/hmacsha256", "share of HMAC()"): 0.5,
    ("signer/hmacsha1", "share of HMAC()"): 0.5,
    ("signer/hmacmd5", "share of HMAC()"): 0.5,
}
