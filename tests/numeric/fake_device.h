#pragma once

#include <string>

namespace moelora::test {

// The CUDA module's own code over a CUDA that runs on the CPU (fake_cuda/); "" where it was not
// carried along.
std::string fake_module();

}  // namespace moelora::test
