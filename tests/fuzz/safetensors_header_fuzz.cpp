// Input: two bytes, the size of the data section (little endian), then the header.

#include <set>

#include "lib/io/safetensors.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace moelora;

uint64_t bits_of(const TensorEntry& entry) {
  uint64_t bits = static_cast<uint64_t>(dtype_bits(entry.dtype));
  for (const uint64_t dim : entry.shape) bits *= dim;
  return bits;
}

}  // namespace

void fuzz(std::string_view input) {
  if (input.size() < 2) return;
  const auto byte = [&](size_t i) { return static_cast<uint64_t>(static_cast<uint8_t>(input[i])); };
  const uint64_t data_bytes = byte(0) | byte(1) << 8U;
  input.remove_prefix(2);
  const auto header =
      parse_safetensors_header(std::string(input), 8 + input.size() + data_bytes, "f");

  uint64_t at = 0;
  std::set<std::string_view> names;
  for (const TensorEntry& entry : header.tensors) {
    require(entry.begin == at && bits_of(entry) == (entry.end - entry.begin) * 8);
    require(entry.shape.size() <= kMaxTensorRank && names.insert(entry.name).second);
    at = entry.end;
  }
  require(at == data_bytes);
}
