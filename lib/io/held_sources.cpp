#include "lib/io/held_sources.h"

#include <algorithm>
#include <functional>

#include "lib/io/safetensors.h"

namespace moelora {
namespace {

constexpr uint64_t kAlign = 64;

bool before(const SourceRange& a, const SourceRange& b) {
  if (a.space != b.space) return std::less<>()(a.space, b.space);
  return a.begin < b.begin;
}

// A source that is no plain file range is read in whole granules.
Run whole_granules(const Source& source, Run run) {
  const int64_t granule = source.granule();
  const int64_t begin = run.begin / granule * granule;
  const int64_t end = (run.end + granule - 1) / granule * granule;
  return {begin, std::min(end, source.elements())};
}

}  // namespace

HeldSources::HeldSources(std::span<const Part* const> parts, uint64_t gap) {
  for (const Part* part : parts) add(*part, gap);
  merge(gap);
  for (Range& held : ranges_) {
    held.at = bytes_;
    bytes_ += (held.range.end - held.range.begin + kAlign - 1) / kAlign * kAlign;
  }
}

void HeldSources::add(const Part& part, uint64_t gap) {
  const Source& source = *part.source;
  const auto width = static_cast<uint64_t>(dtype_bytes(source.dtype()));
  const SourceRange origin = origin_of(source);
  for (const Run& run : runs_of(part, static_cast<int64_t>(gap / width), ~size_t{0})) {
    const Run whole = whole_granules(source, run);
    ranges_.push_back({{origin.space, origin.begin + static_cast<uint64_t>(whole.begin) * width,
                        origin.begin + static_cast<uint64_t>(whole.end) * width},
                       &source,
                       0});
  }
}

void HeldSources::merge(uint64_t gap) {
  std::sort(ranges_.begin(), ranges_.end(),
            [](const Range& a, const Range& b) { return before(a.range, b.range); });
  size_t kept = 0;
  for (const Range& next : ranges_) {
    if (kept > 0) {
      SourceRange& last = ranges_[kept - 1].range;
      if (last.space == next.range.space && next.range.begin <= last.end + gap) {
        last.end = std::max(last.end, next.range.end);
        continue;
      }
    }
    ranges_[kept++] = next;
  }
  ranges_.resize(kept);
}

void HeldSources::read(std::span<std::byte> buffer) {
  buffer_ = buffer.data();
  for (const Range& held : ranges_) read_range(*held.source, held.range, buffer.data() + held.at);
}

const std::byte* HeldSources::find(const Source& source, int64_t begin, int64_t end) const {
  const auto width = static_cast<uint64_t>(dtype_bytes(source.dtype()));
  const SourceRange origin = origin_of(source);
  const SourceRange wanted{origin.space, origin.begin + static_cast<uint64_t>(begin) * width,
                           origin.begin + static_cast<uint64_t>(end) * width};
  auto at =
      std::upper_bound(ranges_.begin(), ranges_.end(), wanted,
                       [](const SourceRange& a, const Range& b) { return before(a, b.range); });
  if (at == ranges_.begin()) return nullptr;
  --at;
  if (at->range.space != wanted.space || wanted.end > at->range.end) return nullptr;
  return buffer_ + at->at + (wanted.begin - at->range.begin);
}

void read_range(const Source& source, const SourceRange& range, std::byte* out) {
  if (const FileRange* plain = file_range(source))
    return plain->file->read(range.begin, range.end - range.begin, out);
  const auto width = static_cast<uint64_t>(dtype_bytes(source.dtype()));
  source.read(static_cast<int64_t>(range.begin / width),
              static_cast<int64_t>((range.end - range.begin) / width), out);
}

}  // namespace moelora
