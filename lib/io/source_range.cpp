#include "lib/io/source_range.h"

#include <algorithm>
#include <cstdlib>

#include "lib/base/recipe.h"
#include "lib/io/safetensors.h"

namespace moelora {
namespace {

using Extents = std::vector<int64_t>;

struct Box {
  Extents start, count;
};

// Cuts the flat range [first, last) of the axes from `a` on into boxes; the axes before are fixed
// in `at`. At most two boxes per axis, and one between them.
class RangeCutter {
 public:
  RangeCutter(const Extents& axes, std::vector<Box>& out)
      : axes_(axes),
        inner_(row_major_steps(axes)),
        at_{Extents(axes.size(), 0), Extents(axes.size(), 1)},
        out_(out) {}

  void cut(size_t a, int64_t first, int64_t last) {
    if (a == axes_.size()) return out_.push_back(at_);
    const int64_t inner = inner_[a];
    const int64_t row = first / inner, last_row = last / inner;
    if (row == last_row) return within(a, row, first % inner, last % inner);
    const int64_t full = first % inner == 0 ? row : row + 1;
    if (full != row) within(a, row, first % inner, inner);
    if (last_row > full) whole(a, full, last_row - full);
    if (last % inner != 0) within(a, last_row, 0, last % inner);
  }

 private:
  void within(size_t a, int64_t row, int64_t first, int64_t last) {
    at_.start[a] = row, at_.count[a] = 1;
    cut(a + 1, first, last);
  }

  void whole(size_t a, int64_t row, int64_t rows) {
    Box box = at_;
    box.start[a] = row, box.count[a] = rows;
    for (size_t b = a + 1; b < axes_.size(); ++b) box.start[b] = 0, box.count[b] = axes_[b];
    out_.push_back(std::move(box));
  }

  const Extents& axes_;
  Extents inner_;
  Box at_;
  std::vector<Box>& out_;
};

std::vector<Box> boxes_of(const Tensor& tensor, int64_t first, int64_t count) {
  std::vector<Box> boxes;
  RangeCutter(tensor.axes(), boxes).cut(0, first, first + count);
  return boxes;
}

// Appends the part of `piece` inside `box`, if there is any. `first` is where the run starts.
void add_part(const Piece& piece, const Box& box, const Extents& dst_steps, int64_t first,
              std::vector<Part>& out) {
  Part part{piece.source, piece.offset, -first, {}};
  for (size_t a = 0; a < dst_steps.size(); ++a) {
    const int64_t lo = std::max(piece.start[a], box.start[a]);
    const int64_t hi = std::min(piece.start[a] + piece.count[a], box.start[a] + box.count[a]);
    if (hi <= lo) return;
    part.src += (lo - piece.start[a]) * piece.stride[a];
    part.dst += lo * dst_steps[a];
    if (hi - lo > 1) part.axes.push_back({hi - lo, piece.stride[a], dst_steps[a]});
  }
  out.push_back(std::move(part));
}

// The same where the run is the whole tensor, as most are: without a box.
Part whole_part(const Piece& piece, const Extents& dst_steps) {
  Part part{piece.source, piece.offset, 0, {}};
  part.axes.reserve(dst_steps.size());
  for (size_t a = 0; a < dst_steps.size(); ++a) {
    part.dst += piece.start[a] * dst_steps[a];
    if (piece.count[a] > 1) part.axes.push_back({piece.count[a], piece.stride[a], dst_steps[a]});
  }
  return part;
}

}  // namespace

int64_t Part::elements() const {
  int64_t n = 1;
  for (const CopyAxis& axis : axes) n *= axis.count;
  return n;
}

std::vector<Part> parts_of(const Tensor& tensor, int64_t first, int64_t count) {
  std::vector<Part> parts;
  if (count == 0) return parts;
  const Extents steps = row_major_steps(tensor.axes());
  if (first == 0 && count == tensor.elements()) {
    parts.reserve(tensor.pieces().size());
    for (const Piece& piece : tensor.pieces()) parts.push_back(whole_part(piece, steps));
    return parts;
  }
  const std::vector<Box> boxes = boxes_of(tensor, first, count);
  for (const Piece& piece : tensor.pieces())
    for (const Box& box : boxes) add_part(piece, box, steps, first, parts);
  return parts;
}

SourceRange range_of(const Source& source, Run run) {
  const auto width = static_cast<uint64_t>(dtype_bytes(source.dtype()));
  const uint64_t begin = static_cast<uint64_t>(run.begin) * width;
  const uint64_t end = static_cast<uint64_t>(run.end) * width;
  if (const FileRange* file = file_range(source))
    return {file->file, file->begin + begin, file->begin + end};
  return {&source, begin, end};
}

std::vector<Run> runs_of(const Part& part, int64_t gap, size_t most) {
  std::vector<CopyAxis> axes = part.axes;
  int64_t begin = part.src;
  for (CopyAxis& axis : axes) {
    if (axis.src_step < 0) begin += (axis.count - 1) * axis.src_step;
    axis.src_step = std::abs(axis.src_step);
  }
  std::sort(axes.begin(), axes.end(),
            [](const CopyAxis& a, const CopyAxis& b) { return a.src_step < b.src_step; });
  int64_t run = 1, span = 1;
  size_t joined = 0, runs = 1;
  for (const CopyAxis& axis : axes) {
    span += (axis.count - 1) * axis.src_step;
    if (runs == 1 && axis.src_step <= run + gap)
      run = span, ++joined;
    else
      runs *= static_cast<size_t>(axis.count);
  }
  if (runs > most) return {{begin, begin + span}};
  std::vector<Run> out = {{begin, begin + run}};
  for (size_t a = joined; a < axes.size(); ++a) {
    const size_t n = out.size();
    for (int64_t i = 1; i < axes[a].count; ++i)
      for (size_t k = 0; k < n; ++k)
        out.push_back({out[k].begin + i * axes[a].src_step, out[k].end + i * axes[a].src_step});
  }
  return out;
}

// ---- what is held ----

namespace {

constexpr uint64_t kAlign = 64;

// Anything but a plain file range is read in whole granules.
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
  const auto near = static_cast<int64_t>(gap) / dtype_bytes(source.dtype());
  for (const Run& run : runs_of(part, near, ~size_t{0}))
    ranges_.push_back({range_of(source, whole_granules(source, run)), &source, 0});
}

void HeldSources::merge(uint64_t gap) {
  std::vector<Range> merged;
  for_each_chain(ranges_, gap + 1, [&](auto first, auto, uint64_t end) {
    merged.push_back(*first);
    merged.back().range.end = end;
  });
  ranges_ = std::move(merged);
}

void HeldSources::read(std::span<std::byte> buffer) {
  buffer_ = buffer.data();
  for (const Range& held : ranges_) read_range(*held.source, held.range, buffer.data() + held.at);
}

const std::byte* HeldSources::find(const Source& source, int64_t begin, int64_t end) const {
  const SourceRange wanted = range_of(source, {begin, end});
  auto at = std::upper_bound(ranges_.begin(), ranges_.end(), wanted,
                             [](const SourceRange& a, const Range& b) { return a < b.range; });
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
