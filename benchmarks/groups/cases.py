"""The cases of sessions, and the clients that are measured in them."""

CPU = "ns CPU/message"

# Messages of a run, by case.
SESSION_CASES = {
    "session/publish_qos0_try": 2_000_000,
    "session/publish_qos0": 2_000_000,
    "session/publish_qos1_window_20": 400_000,
    "session/publish_qos1_window_10000": 400_000,
    "session/publish_qos2_window_20": 200_000,
    "session/receive_qos0_view": 2_000_000,
    "session/receive_qos0": 2_000_000,
    "session/latency": 5_000,
    "store/publish_qos1_window_20_process": 100_000,
    "store/publish_qos1_window_20_power": 2_000,
    **{
        f"{below}/{case}": messages
        for below in ("ws", "wss")
        for case, messages in {
            "publish_qos0_try": 1_000_000,
            "publish_qos0": 1_000_000,
            "publish_qos0_try_1024": 200_000,
            "publish_qos0_1024": 200_000,
            "publish_qos1_window_20": 200_000,
            "receive_qos0_view": 1_000_000,
            "receive_qos0": 1_000_000,
        }.items()
    },
}


def base(case):
    """The case as the other clients have it, which know one way only."""
    return case.replace("_try", "").replace("_view", "")


class Client:
    """A program that sends and receives messages, by its name in Meson's target without the transport."""

    def __init__(self, who, programs, share, counted, skips=(), idle=0):
        self.who = who
        self.programs = programs  # by what is below the session
        self.share = share  # of the messages of a run: slower ones send fewer
        self.counted = counted  # messages of the shorter run whose instructions are counted
        self.skips = skips
        self.idle = idle  # sessions that are held

    def program(self, case, programs):
        """The path of the program for this case; None if it is not there, or does not know the case."""
        below = case.split("/")[0]
        if any(s in case for s in self.skips):
            return None
        return programs.get(self.programs.get(below))

    def messages(self, case):
        # A window is filled more than once. Where the cost grows with it, fewer messages show so.
        return min(int(SESSION_CASES[case] * self.share), 30_000 if "10000" in case and self.share < 1 else 1 << 30)


CLIENTS = [
    Client("runnel", {"session": "session", "ws": "session_ws", "wss": "session_wss", "store": "session_store"}, 1, 30_000, idle=10_000),
    Client("libmosquitto", {"session": "session_mosquitto"}, 0.05, 2_000, idle=300),
    Client("Paho C", {"session": "session_paho", "ws": "session_paho", "store": "session_paho"}, 0.025, 500, idle=20, skips=("power",)),
    Client("Boost.MQTT5", {"session": "session_boost_mqtt5"}, 0.05, 2_000, idle=300),
    Client("async_mqtt", {"session": "session_async_mqtt"}, 0.025, 1_000, idle=300),
    Client("Boost.Beast", {"ws": "session_beast", "wss": "session_beast"}, 0.1, 5_000, skips=("qos1",)),
    Client("floor", {"session": "floor"}, 1, 30_000, skips=("window_10000", "latency")),
    Client("raw socket", {"session": "session_raw", "ws": "session_raw"}, 1, 0, skips=("window_10000", "qos2")),
    Client("raw TLS", {"wss": "session_raw"}, 1, 0),
]
