#include "lib/io/run_job.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "lib/base/copy/strided_copy.h"
#include "lib/io/source_range.h"

namespace moelora {
namespace {

constexpr uint64_t kReadGap = 4 << 10;      // read rather than seek over
constexpr int64_t kDirectBytes = 16 << 10;  // runs this long are read straight into place
constexpr size_t kAlign = 64;

struct Placed {
  Part part;
  int width;
  size_t dst;  // where its first element goes, in bytes from the first block
  bool shared = false;
};

// One piece of a part that is contiguous on both sides.
struct DirectRead {
  const Source* source;
  SourceRange range;
  size_t dst;
};

// A part's loops without its contiguous inner run.
struct Lines {
  int64_t run = 1;  // elements
  std::vector<CopyAxis> outer;
};

Lines lines_of(const Part& part) {
  Lines lines;
  lines.outer = part.axes;
  std::sort(lines.outer.begin(), lines.outer.end(),
            [](const CopyAxis& a, const CopyAxis& b) { return a.dst_step > b.dst_step; });
  while (!lines.outer.empty() && lines.outer.back().dst_step == lines.run &&
         lines.outer.back().src_step == lines.run) {
    lines.run *= lines.outer.back().count;
    lines.outer.pop_back();
  }
  return lines;
}

class JobRun {
 public:
  JobRun(TensorList tensors, const Job& job, Arena& arena)
      : tensors_(tensors), job_(job), arena_(arena) {}

  std::span<const std::byte> run() {
    place_blocks();
    mark_shared();
    for (Placed& placed : parts_)
      if (!add_direct(placed)) moved_.push_back(&placed);
    HeldSources held = plan_held();
    const size_t held_at = (result_bytes_ + kAlign - 1) / kAlign * kAlign;
    const std::span<std::byte> room = arena_.take(held_at + held.bytes());
    result_ = room.first(result_bytes_);
    for (const auto& [at, bytes] : holes_) std::memset(result_.data() + at, 0, bytes);
    read_direct();
    held.read(room.subspan(held_at));
    move(held);
    return result_;
  }

 private:
  int width_of(const Block& block) const { return dtype_bytes(tensors_[block.item]->dtype()); }
  size_t bytes_of(const Block& block) const {
    return static_cast<size_t>(block.count) * static_cast<size_t>(width_of(block));
  }

  void place_blocks() {
    for (const Block& block : job_.blocks) {
      const int width = width_of(block);
      int64_t filled = 0;
      for (Part& part : parts_of(*tensors_[block.item], block.first, block.count)) {
        filled += part.elements();
        const size_t dst = result_bytes_ + static_cast<size_t>(part.dst * width);
        parts_.push_back({std::move(part), width, dst});
      }
      if (filled < block.count) holes_.push_back({result_bytes_, bytes_of(block)});
      result_bytes_ += bytes_of(block);
    }
  }

  // Parts that overlap in the source are held, so that its bytes are read once.
  void mark_shared() {
    struct Span {
      SourceRange range;
      Placed* part;
    };
    std::vector<Span> spans;
    for (Placed& placed : parts_)
      spans.push_back({range_of(*placed.part.source, runs_of(placed.part, 0, 0).front()), &placed});
    for_each_chain(spans, 0, [](auto first, auto last, uint64_t) {
      for (auto at = first; last - first > 1 && at != last; ++at) at->part->shared = true;
    });
  }

  bool add_direct(const Placed& placed) {
    const Source& source = *placed.part.source;
    const Lines lines = lines_of(placed.part);
    const bool repeats = std::any_of(lines.outer.begin(), lines.outer.end(), [&](const auto& axis) {
      return std::abs(axis.src_step) < lines.run;
    });
    if (placed.shared || repeats || source.granule() != 1) return false;
    if (lines.run * placed.width < kDirectBytes) return false;
    for_each_index(lines.outer, placed.part.src, 0, [&](int64_t src, int64_t dst) {
      direct_.push_back({&source, range_of(source, {src, src + lines.run}),
                         placed.dst + static_cast<size_t>(dst * placed.width)});
    });
    return true;
  }

  // Neighbours on both sides, even of different tensors of a file, are one read.
  void read_direct() {
    std::sort(direct_.begin(), direct_.end(),
              [](const DirectRead& a, const DirectRead& b) { return a.dst < b.dst; });
    for (size_t i = 0; i < direct_.size();) {
      SourceRange range = direct_[i].range;
      size_t next = i + 1;
      while (next < direct_.size() && direct_[next].range.space == range.space &&
             direct_[next].range.begin == range.end &&
             direct_[next].dst == direct_[i].dst + (range.end - range.begin))
        range.end = direct_[next++].range.end;
      read_range(*direct_[i].source, range, result_.data() + direct_[i].dst);
      i = next;
    }
  }

  HeldSources plan_held() const {
    std::vector<const Part*> parts;
    for (const Placed* placed : moved_) parts.push_back(&placed->part);
    HeldSources held(parts, kReadGap);
    if (result_bytes_ + held.bytes() <= job_.cost) return held;
    return HeldSources(parts, 0);
  }

  void move(const HeldSources& held) const {
    std::map<int, std::vector<CopyBox>> boxes;
    for (const Placed* placed : moved_)
      add_boxes(held, placed->part, placed->width, result_.data() + placed->dst,
                boxes[placed->width]);
    for (auto& [width, of_width] : boxes) copy_boxes(width, std::move(of_width));
  }

  // A part whose source is held in several ranges is cut along its slowest source axis.
  static void add_boxes(const HeldSources& held, const Part& part, int width, std::byte* dst,
                        std::vector<CopyBox>& out) {
    const Run all = runs_of(part, 0, 0).front();
    if (const std::byte* const at = held.find(*part.source, all.begin, all.end)) {
      out.push_back({at + (part.src - all.begin) * width, dst, part.axes});
      return;
    }
    const auto slowest = std::max_element(part.axes.begin(), part.axes.end(),
                                          [](const CopyAxis& a, const CopyAxis& b) {
                                            return std::abs(a.src_step) < std::abs(b.src_step);
                                          });
    Part row = part;
    row.axes.erase(row.axes.begin() + (slowest - part.axes.begin()));
    for (int64_t i = 0; i < slowest->count; ++i) {
      row.src = part.src + i * slowest->src_step;
      add_boxes(held, row, width, dst + i * slowest->dst_step * width, out);
    }
  }

  TensorList tensors_;
  const Job& job_;
  Arena& arena_;
  std::span<std::byte> result_;
  size_t result_bytes_ = 0;
  std::vector<Placed> parts_;
  std::vector<const Placed*> moved_;
  std::vector<DirectRead> direct_;
  std::vector<std::pair<size_t, size_t>> holes_;  // offset and bytes of blocks to clear first
};

}  // namespace

std::span<const std::byte> run_job(TensorList tensors, const Job& job, Arena& arena) {
  return JobRun(tensors, job, arena).run();
}

}  // namespace moelora
