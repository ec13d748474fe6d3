#include "lib/engine/vllm/load/set_lora.h"

#include <algorithm>

namespace moelora::vllm {
namespace {

// Whether `source` exceeds `buffer` in no dim but the rank's: the last of a lora_B, the first that
// is clipped of a lora_A.
bool exceeds_rank_alone(std::string_view attribute, const Shape& source, const Shape& buffer,
                        size_t clipped) {
  if (source.size() != buffer.size()) return false;
  const bool b = attribute.find("_b_") != std::string_view::npos;
  const size_t rank = b ? buffer.size() - 1 : clipped;
  for (size_t d = 0; d < buffer.size(); ++d)
    if (d != rank && source[d] > buffer[d]) return false;
  return source[rank] > buffer[rank];
}

}  // namespace

void Slot::handle(const View& factor) { at = {factor.sources, factor.shape, "", {}, false}; }

void Slot::expect(const View& factor, int64_t dim, int64_t extent) {
  if (extent < 0 || dim >= factor.rank() || factor.dim(dim) == extent) return;
  Misfit misfit;
  (factor.dim(dim) < extent ? misfit.smaller : misfit.larger) = true;
  for (uint32_t source : factor.sources) misfits.push_back({source, misfit});
}

void Slot::collapsed(const View& factor) {
  Misfit misfit;
  misfit.collapsed = true;
  for (uint32_t source : factor.sources) misfits.push_back({source, misfit});
}

size_t Slot::index_of(std::string_view attribute) const {
  const auto found = std::find_if(buffers.begin(), buffers.end(),
                                  [&](const Buffer& b) { return b.name.ends_with(attribute); });
  return static_cast<size_t>(found - buffers.begin());
}

void Slot::put(std::string_view attribute, std::vector<View> parts, size_t clipped) {
  const size_t index = index_of(attribute);
  const Shape& buffer = buffers[index].shape;
  Shape source = parts.front().shape;
  at = {parts.front().sources, source, buffers[index].name, buffer, false};
  for (size_t d = clipped; d < buffer.size(); ++d)
    parts.front().size(static_cast<int64_t>(d));  // raises for want of dims
  for (size_t i = 1; i < parts.size(); ++i) source[clipped] += parts[i].shape[clipped];
  Shape count = buffer;
  for (size_t d = clipped; d < buffer.size(); ++d) count[d] = std::min(buffer[d], source[d]);
  at.only_rank = exceeds_rank_alone(attribute, source, buffer, clipped);
  check_copy(count, source);
  writes.push_back({index, clipped, std::move(parts), std::move(count)});
}

}  // namespace moelora::vllm
