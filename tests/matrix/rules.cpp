// Stands behind all headers that do no I/O: a session's rules at work, and then what would throw, which without
// exceptions is the end of the program.
#include <cstdio>
#include <cstring>
#include <string_view>

struct listener : runnel::mqtt::session_handler {
    void on_message(runnel::mqtt::publish const& p, runnel::mqtt::delivery) { received = p.topic == "b"; }
    void on_published(void*, runnel::mqtt::acknowledgement const&) { published = true; }

    bool received = false, published = false;
};

int main() {
    using namespace std::string_view_literals;
    namespace mqtt = runnel::mqtt;
    mqtt::session_state client(mqtt::role::client, mqtt::protocol_version::v5);
    runnel::send_buffer out;
    listener heard;
    mqtt::connect packet;
    packet.client_id = "id";
    bool ok = client.connect(out, packet, {}) == mqtt::errc::ok;
    std::string_view connack = "\x20\x03\0\0\0"sv, puback = "\x40\x02\0\x01"sv,
                     publish =
                         "\x30\x05\0\x01"
                         "b\0p"sv;
    ok = ok && client.receive(connack, out, heard) == mqtt::errc::ok && client.connected();
    out.clear();
    ok = ok && client.publish(out, {.topic = "a", .qos = mqtt::qos::at_least_once}, &heard).error == mqtt::errc::ok;
    ok = ok && out.view() ==
                   "\x32\x06\0\x01"
                   "a\0\x01\0"sv;
    ok = ok && client.receive(puback, out, heard) == mqtt::errc::ok && heard.published;
    ok = ok && client.receive(publish, out, heard) == mqtt::errc::ok && heard.received;

    char masked[300] = "masked";
    runnel::websocket::apply_mask(masked, sizeof(masked), 0x1234'5678);
    ok = ok && std::strcmp(masked, "masked") != 0;
    runnel::websocket::apply_mask(masked, sizeof(masked), 0x1234'5678);
    ok = ok && std::strcmp(masked, "masked") == 0;

    std::puts(ok ? "rules: ok" : "rules: wrong");
    std::fflush(stdout);
    mqtt::check(mqtt::reconnect_policy{.jitter = 2});  // without exceptions: std::abort()
    std::puts("went on");
}
