#pragma once

namespace runnel::testing {

/// How the simulated platform is to answer wrongly.
struct wrong_answer {
    int code = 0;           ///< this one, with no data and nothing done; 0: the right one
    bool silent = false;    ///< nothing at all, and nothing done
    bool wrong_id = false;  ///< with an identifier that nobody asked with
    bool garbage = false;   ///< with what is not JSON
};

}  // namespace runnel::testing
