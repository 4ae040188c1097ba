#pragma once

/// Alink, the platform's protocol of requests and replies in JSON: devices, gateways and sub-devices. Needs
/// nlohmann/json, which nothing else in the library does.
#include <runnel/aliyun/alink/device.hpp>
#include <runnel/aliyun/alink/gateway.hpp>
