#pragma once

// The version of these headers, which follows semantic versioning; before 1.0 a minor version may break the interface.
// CMake and the packages have it from here, and meson compares.

/// Three numbers.
#define RUNNEL_VERSION_MAJOR 0
#define RUNNEL_VERSION_MINOR 1
#define RUNNEL_VERSION_PATCH 0

/// As one number, for `#if`: 1.2.3 is 10203.
#define RUNNEL_VERSION (RUNNEL_VERSION_MAJOR * 10000 + RUNNEL_VERSION_MINOR * 100 + RUNNEL_VERSION_PATCH)

/// As text: "1.2.3".
#define RUNNEL_VERSION_STRING \
    RUNNEL_DETAIL_VERSION_TEXT(RUNNEL_VERSION_MAJOR, RUNNEL_VERSION_MINOR, RUNNEL_VERSION_PATCH)
#define RUNNEL_DETAIL_VERSION_TEXT(major, minor, patch) RUNNEL_DETAIL_VERSION_JOIN(major, minor, patch)
#define RUNNEL_DETAIL_VERSION_JOIN(major, minor, patch) #major "." #minor "." #patch
