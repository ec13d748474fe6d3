#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace moelora {

// What --demo writes: examples/data of the repository, which the commands of README.md are about.
struct Demo {
  size_t files = 0;
  uint64_t bytes = 0;
};

// Into the new folder `out`, which appears complete or not at all; `ready` is called just before.
// Throws Error.
void write_demo(const std::string& out, bool durable,
                const std::function<void(const Demo& demo)>& ready);

}  // namespace moelora
