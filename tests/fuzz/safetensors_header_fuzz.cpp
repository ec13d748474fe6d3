// Input: two bytes, the size of the data section (little endian), then the header.

#include <cstdlib>
#include <set>

#include "lib/base/error.h"
#include "lib/io/safetensors.h"

namespace {

using namespace moelora;

uint64_t bits_of(const TensorEntry& entry) {
  uint64_t bits = static_cast<uint64_t>(dtype_bits(entry.dtype));
  for (const uint64_t dim : entry.shape) bits *= dim;
  return bits;
}

// What the reader promises about a header that it accepts.
void check(const SafetensorsHeader& header, uint64_t data_bytes) {
  uint64_t at = 0;
  std::set<std::string> names;
  for (const TensorEntry& entry : header.tensors) {
    if (entry.begin != at || bits_of(entry) != (entry.end - entry.begin) * 8) std::abort();
    if (entry.shape.size() > kMaxTensorRank || !names.insert(entry.name).second) std::abort();
    at = entry.end;
  }
  if (at != data_bytes) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const uint64_t data_bytes = data[0] | static_cast<uint64_t>(data[1]) << 8U;
  const std::string_view header(reinterpret_cast<const char*>(data) + 2, size - 2);
  try {
    check(parse_safetensors_header(header, 8 + header.size() + data_bytes, "f"), data_bytes);
  } catch (const Error&) {
  }
  return 0;
}
