"""The cases of the session group."""

# Messages of a run, by case; the peers that are much slower send fewer.
SESSION_CASES = {
    "publish_qos0_try": 2_000_000,
    "publish_qos0": 2_000_000,
    "publish_qos1_window_20": 400_000,
    "publish_qos1_window_10000": 400_000,
    "publish_qos2_window_20": 200_000,
    "receive_qos0_view": 2_000_000,
    "receive_qos0": 2_000_000,
    "latency": 5_000,
}
SLOWER = {"mosquitto": 20, "paho": 40, "raw": 1}
CPU = "ns CPU/message"
