#include <cstdlib>

#include "lib/base/error.h"
#include "lib/io/shard_index.h"

namespace {

using namespace moelora;

// Whatever an index says, it leads nowhere but to files beside it.
void check(const ShardIndex& index) {
  if (index.weight_map.empty()) std::abort();
  for (const std::string& file : index.files()) {
    if (file.find_first_of(std::string_view("/\\:\0", 4)) != std::string::npos) std::abort();
    if (!file.ends_with(".safetensors")) std::abort();
  }
  if (missing_numbers(index.files()).size() > 5) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    check(parse_shard_index({reinterpret_cast<const char*>(data), size}, "f"));
  } catch (const Error&) {
  }
  return 0;
}
