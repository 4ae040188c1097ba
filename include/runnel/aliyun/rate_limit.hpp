#pragma once

#include <runnel/core/rate_limit.hpp>

namespace runnel::aliyun {

/// At most so many events in any span of a period: that is how the platform words its limits.
using runnel::rate_limit;

}  // namespace runnel::aliyun
