// The rows of sessions over `any_transport` with TCP in it: see baseline.hpp. A program of their own, as what is
// inlined depends on what else there is.

#include <runnel/transport/any_transport.hpp>

#include "baseline.hpp"

int main(int argc, char** argv) {
    return bench::counted::main(
        argc, argv, [](bench::options const&, runnel::tcp const& tcp, auto run) { run(runnel::any_transport(tcp)); });
}
