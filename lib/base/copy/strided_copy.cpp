#include "lib/base/copy/strided_copy.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "lib/base/copy/copy_box.h"
#include "lib/base/copy/copy_kernels.h"

namespace moelora {
namespace {

using Axes = std::vector<CopyAxis>;

constexpr int64_t kNearCache = 256 << 10;  // what one block of a copy may touch of the slow side

// Calls f(source offset, destination offset) for every index of `axes`.
template <class F>
void for_each(std::span<const CopyAxis> axes, int64_t src, int64_t dst, F&& f) {
  if (axes.empty()) return f(src, dst);
  const CopyAxis& axis = axes.front();
  for (int64_t i = 0; i < axis.count; ++i)
    for_each(axes.subspan(1), src + i * axis.src_step, dst + i * axis.dst_step, f);
}

Axes without(const Axes& axes, size_t a) {
  Axes out = axes;
  out.erase(out.begin() + static_cast<std::ptrdiff_t>(a));
  return out;
}

constexpr size_t kNone = ~size_t{0};

template <class Test>
size_t find_axis(const Axes& axes, Test&& test) {
  const auto at = std::find_if(axes.begin(), axes.end(), test);
  return at == axes.end() ? kNone : static_cast<size_t>(at - axes.begin());
}

template <class Byte>
std::vector<Byte*> rows_along(Byte* base, int64_t count, int64_t step) {
  std::vector<Byte*> rows(static_cast<size_t>(count));
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = base + static_cast<int64_t>(i) * step;
  return rows;
}

// A transposition: source rows run along the destination's rows' index and the other way round;
// the other axes repeat it. Rows shorter than kRun go on along another axis: its first steps join
// the table of the other side's rows, so that whole cache lines are read and written.
class Plane {
 public:
  Plane(int width, std::vector<const std::byte*> src_rows, std::vector<std::byte*> dst_rows,
        Axes rest)
      : width_(width),
        src_rows_(std::move(src_rows)),
        dst_rows_(std::move(dst_rows)),
        outer_(std::move(rest)) {
    dst_more_ = lengthen(src_rows_, &CopyAxis::dst_step, &CopyAxis::src_step);
    src_more_ = lengthen(dst_rows_, &CopyAxis::src_step, &CopyAxis::dst_step);
    const int64_t gap = dst_rows_.size() > 1 ? dst_rows_[1] - dst_rows_[0] : 0;
    staged_ = std::abs(gap) >= kFar;
  }

  void copy() const {
    for_each(outer_, 0, 0, [&](int64_t src, int64_t dst) {
      for (int64_t a = 0; a < dst_more_.axis.count; a += dst_more_.block)
        for (int64_t b = 0; b < src_more_.axis.count; b += src_more_.block)
          copy_part(dst_more_.rows(a), src_more_.rows(b),
                    src + a * dst_more_.axis.src_step + b * src_more_.axis.src_step,
                    dst + a * dst_more_.axis.dst_step + b * src_more_.axis.dst_step);
    });
  }

 private:
  static constexpr int64_t kRun = 256;      // bytes of a destination row written at once
  static constexpr int64_t kColumns = 128;  // bytes of a source row read at once
  static constexpr int64_t kFar = 512;      // rows that far apart fall on few cache sets

  // An axis whose steps, `block` at a time, were added to a table of rows.
  struct More {
    CopyAxis axis{1, 0, 0};
    int64_t block = 1;
    int64_t table_rows = 0;  // of one step
    int64_t rows(int64_t at) const { return std::min(block, axis.count - at) * table_rows; }
  };

  template <class Byte>
  More lengthen(std::vector<Byte*>& rows, int64_t CopyAxis::*along, int64_t CopyAxis::*across) {
    More more;
    more.table_rows = static_cast<int64_t>(rows.size());
    const int64_t bytes = more.table_rows * width_;
    const size_t a = find_axis(outer_, [&](const CopyAxis& axis) { return axis.*along == bytes; });
    if (bytes >= kRun || a == kNone) return more;
    more.axis = outer_[a];
    more.block = std::min(more.axis.count, (kRun + bytes - 1) / bytes);
    outer_ = without(outer_, a);
    rows.reserve(rows.size() * static_cast<size_t>(more.block));
    for (int64_t i = 1; i < more.block; ++i)
      for (int64_t row = 0; row < more.table_rows; ++row)
        rows.push_back(rows[static_cast<size_t>(row)] + i * more.axis.*across);
    return more;
  }

  void copy_part(int64_t src_count, int64_t dst_count, int64_t src, int64_t dst) const {
    const int64_t rows = kRun / width_, columns = kColumns / width_;
    for (int64_t j = 0; j < src_count; j += rows)
      for (int64_t i = 0; i < dst_count; i += columns) {
        const RowTable block{src_rows_.data() + j, std::min(rows, src_count - j),
                             dst_rows_.data() + i, std::min(columns, dst_count - i)};
        if (staged_)
          copy_staged(block, src + i * width_, dst + j * width_);
        else
          transpose_rows(width_, block, src + i * width_, dst + j * width_);
      }
  }

  // Far rows share few cache sets: transposed in a near buffer first, each is then written whole.
  void copy_staged(const RowTable& block, int64_t src, int64_t dst) const {
    alignas(64) std::byte near[kColumns * kRun];
    std::byte* near_rows[kColumns];
    for (int64_t i = 0; i < block.dst_count; ++i) near_rows[i] = near + i * kRun;
    transpose_rows(width_, {block.src_rows, block.src_count, near_rows, block.dst_count}, src, 0);
    for (int64_t i = 0; i < block.dst_count; ++i)
      stream_run(near_rows[i], block.dst_rows[i] + dst, block.src_count * width_);
  }

  int width_;
  std::vector<const std::byte*> src_rows_;
  std::vector<std::byte*> dst_rows_;
  Axes outer_;
  More dst_more_, src_more_;
  bool staged_ = false;
};

class BundleCopy {
 public:
  BundleCopy(int width, Bundle bundle) : width_(width), bundle_(std::move(bundle)) {
    src_axis_ = find_axis(axes(), [&](const CopyAxis& a) { return a.src_step == width; });
    dst_axis_ = find_axis(axes(), [&](const CopyAxis& a) { return a.dst_step == width; });
  }

  void copy() const {
    if (bundle_.kind == Bundle::Kind::split && dst_axis_ != kNone) return copy_split();
    if (bundle_.kind == Bundle::Kind::join && src_axis_ != kNone) return copy_join();
    copy_loose();
  }

 private:
  const Axes& axes() const { return bundle_.axes; }
  size_t members() const { return bundle_.src.size(); }

  void copy_split() const {
    const CopyAxis& d = axes()[dst_axis_];
    const Axes rest = without(axes(), dst_axis_);
    if (members() == 2 && d.src_step == 2 * width_)
      return for_each(rest, 0, 0, [&](int64_t src, int64_t dst) {
        split_pairs(width_, d.count, bundle_.src[0] + src, bundle_.dst[0] + dst,
                    bundle_.dst[1] + dst);
      });
    Plane(width_, rows_along(bundle_.src[0], d.count, d.src_step), bundle_.dst, rest).copy();
  }

  void copy_join() const {
    const CopyAxis& s = axes()[src_axis_];
    const Axes rest = without(axes(), src_axis_);
    if (members() == 2 && s.dst_step == 2 * width_)
      return for_each(rest, 0, 0, [&](int64_t src, int64_t dst) {
        join_pairs(width_, s.count, bundle_.src[0] + src, bundle_.src[1] + src,
                   bundle_.dst[0] + dst);
      });
    Plane(width_, bundle_.src, rows_along(bundle_.dst[0], s.count, s.dst_step), rest).copy();
  }

  // Members side by side in blocks of the slowest axis: their source lines are often the same.
  void copy_loose() const {
    if (axes().empty() || members() == 1) {
      for (size_t m = 0; m < members(); ++m) copy_one(axes(), bundle_.src[m], bundle_.dst[m]);
      return;
    }
    const CopyAxis& slow = axes().front();
    const int64_t step = std::max<int64_t>(1, std::abs(slow.src_step));
    const int64_t block = std::max<int64_t>(1, kNearCache / step);
    Axes part = axes();
    for (int64_t at = 0; at < slow.count; at += block) {
      part.front().count = std::min(block, slow.count - at);
      for (size_t m = 0; m < members(); ++m)
        copy_one(part, bundle_.src[m] + at * slow.src_step, bundle_.dst[m] + at * slow.dst_step);
    }
  }

  void copy_one(const Axes& part, const std::byte* src, std::byte* dst) const {
    if (src_axis_ == kNone || dst_axis_ == kNone) return copy_scattered(part, src, dst);
    if (src_axis_ == dst_axis_) return copy_straight(part, src, dst);
    const CopyAxis &s = part[src_axis_], &d = part[dst_axis_];
    Axes rest = without(part, std::max(src_axis_, dst_axis_));
    rest = without(rest, std::min(src_axis_, dst_axis_));
    Plane(width_, rows_along(src, d.count, d.src_step), rows_along(dst, s.count, s.dst_step), rest)
        .copy();
  }

  // Runs of bytes that are contiguous on both sides, two loops at a time.
  void copy_straight(const Axes& part, const std::byte* src, std::byte* dst) const {
    const int64_t bytes = part[src_axis_].count * width_;
    Axes rest = without(part, src_axis_);
    const CopyAxis line = take_last(rest);
    for_each(rest, 0, 0, [&](int64_t s, int64_t d) {
      copy_runs(line.count, bytes, src + s, line.src_step, dst + d, line.dst_step);
    });
  }

  void copy_scattered(Axes part, const std::byte* src, std::byte* dst) const {
    const CopyAxis line = take_last(part);
    for_each(part, 0, 0, [&](int64_t s, int64_t d) {
      copy_elements(width_, line.count, src + s, line.src_step, dst + d, line.dst_step);
    });
  }

  static CopyAxis take_last(Axes& part) {
    if (part.empty()) return {1, 0, 0};
    const CopyAxis last = part.back();
    part.pop_back();
    return last;
  }

  int width_;
  Bundle bundle_;
  size_t src_axis_, dst_axis_;
};

}  // namespace

void strided_copy(int element_bytes, std::span<const CopyAxis> axes, const std::byte* src,
                  std::byte* dst) {
  copy_boxes(element_bytes, {{src, dst, Axes(axes.begin(), axes.end())}});
}

void copy_boxes(int element_bytes, std::vector<CopyBox> boxes) {
  for (Bundle& bundle : fuse_boxes(element_bytes, std::move(boxes)))
    BundleCopy(element_bytes, std::move(bundle)).copy();
  end_streams();
}

}  // namespace moelora
