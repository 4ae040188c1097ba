#include <runnel/mqtt/client/publish_result.hpp>

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

using namespace runnel::mqtt;

TEST_CASE("what a server says beside its reason is kept, and its text made printable") {
    user_property const pairs[] = {{"node", "7"}, {"queue", "full"}};
    properties props;
    props.reason_string = "no\x1b[2J";
    props.user_properties = pairs;
    auto const details = publish_details::of(&props);
    REQUIRE(details != nullptr);
    CHECK(details->reason_string == "no\\x1b[2J");
    CHECK(details->user_properties ==
          std::vector<std::pair<std::string, std::string>>{{"node", "7"}, {"queue", "full"}});
    CHECK(publish_details::of({}) == nullptr);
}
