#include "lib/base/copy/strided_copy.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace moelora {
namespace {

// ---- the inner loops: steps and offsets in bytes, `width` (1, 2, 4 or 8) the bytes of an element

// Calls f with a zero of the unsigned type of `width` bytes.
template <class F>
void with_type(int width, F&& f) {
  switch (width) {
    case 1:
      return f(uint8_t{});
    case 2:
      return f(uint16_t{});
    case 4:
      return f(uint32_t{});
    default:
      return f(uint64_t{});
  }
}

template <class T>
T load(const std::byte* p) {
  T x;
  std::memcpy(&x, p, sizeof x);
  return x;
}

template <class T>
void store(std::byte* p, T x) {
  std::memcpy(p, &x, sizeof x);
}

constexpr int kVectorBytes = 16;

template <class T>
struct Lanes {
  static constexpr int kCount = kVectorBytes / static_cast<int>(sizeof(T));
  using Vector [[gnu::vector_size(kVectorBytes)]] = T;
};

// a0 b0 a1 b1 ... of the first (from = 0) or second (from = kCount / 2) halves.
template <class T, int kFrom, int... kLane>
auto interleave(typename Lanes<T>::Vector a, typename Lanes<T>::Vector b,
                std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(a, b, (kLane % 2 * Lanes<T>::kCount + kLane / 2 + kFrom)...);
}

// A square tile of registers: log2(n) perfect shuffles of the rows transpose it.
template <class T>
void transpose_tile(const std::byte* const* src_rows, int64_t src_offset,
                    std::byte* const* dst_rows, int64_t dst_offset) {
  constexpr int kN = Lanes<T>::kCount;
  using Vector = typename Lanes<T>::Vector;
  constexpr std::make_integer_sequence<int, kN> kLanes;
  Vector a[kN], b[kN];
  for (int j = 0; j < kN; ++j) a[j] = load<Vector>(src_rows[j] + src_offset);
  for (int round = 1; round < kN; round *= 2) {
    for (int j = 0; j < kN / 2; ++j) {
      b[2 * j] = interleave<T, 0>(a[j], a[j + kN / 2], kLanes);
      b[2 * j + 1] = interleave<T, kN / 2>(a[j], a[j + kN / 2], kLanes);
    }
    std::memcpy(a, b, sizeof a);
  }
  for (int i = 0; i < kN; ++i) store(dst_rows[i] + dst_offset, a[i]);
}

// A transposition given by its rows: element (i, j) goes from src_rows[j] + src_offset + i * width
// to dst_rows[i] + dst_offset + j * width, for i < dst_count and j < src_count. Rows may lie
// anywhere: they may be the rows of one matrix, or one row in each of many tensors.
struct RowTable {
  const std::byte* const* src_rows;
  int64_t src_count;
  std::byte* const* dst_rows;
  int64_t dst_count;
};

template <class T>
void transpose_edge(const RowTable& rows, int64_t src_offset, int64_t dst_offset, int64_t src_from,
                    int64_t src_to, int64_t dst_from, int64_t dst_to) {
  constexpr int64_t kW = sizeof(T);
  for (int64_t i = dst_from; i < dst_to; ++i)
    for (int64_t j = src_from; j < src_to; ++j)
      store(rows.dst_rows[i] + dst_offset + j * kW,
            load<T>(rows.src_rows[j] + src_offset + i * kW));
}

template <class T>
void transpose(const RowTable& rows, int64_t src_offset, int64_t dst_offset) {
  constexpr int64_t kN = Lanes<T>::kCount, kW = sizeof(T);
  const int64_t src_tiled = rows.src_count / kN * kN, dst_tiled = rows.dst_count / kN * kN;
  for (int64_t j = 0; j < src_tiled; j += kN)
    for (int64_t i = 0; i < dst_tiled; i += kN)
      transpose_tile<T>(rows.src_rows + j, src_offset + i * kW, rows.dst_rows + i,
                        dst_offset + j * kW);
  transpose_edge<T>(rows, src_offset, dst_offset, src_tiled, rows.src_count, 0, dst_tiled);
  transpose_edge<T>(rows, src_offset, dst_offset, 0, rows.src_count, dst_tiled, rows.dst_count);
}

void transpose_rows(int width, const RowTable& rows, int64_t src_offset, int64_t dst_offset) {
  with_type(width, [&](auto t) { transpose<decltype(t)>(rows, src_offset, dst_offset); });
}

// Copies the runs if they are of kBytes bytes each: a copy of a known size takes few instructions.
template <int64_t kBytes>
bool copy_fixed_runs(int64_t count, int64_t bytes, const std::byte* src, int64_t src_step,
                     std::byte* dst, int64_t dst_step) {
  if (bytes != kBytes) return false;
  for (int64_t i = 0; i < count; ++i) std::memcpy(dst + i * dst_step, src + i * src_step, kBytes);
  return true;
}

// `count` runs of `bytes` contiguous bytes each.
void copy_runs(int64_t count, int64_t bytes, const std::byte* src, int64_t src_step, std::byte* dst,
               int64_t dst_step) {
  const auto any_of = [&]<int64_t... kBytes>(std::integer_sequence<int64_t, kBytes...>) {
    return (copy_fixed_runs<kBytes>(count, bytes, src, src_step, dst, dst_step) || ...);
  };
  if (any_of(std::integer_sequence<int64_t, 1, 2, 4, 8, 16, 32, 64, 128>())) return;
  for (int64_t i = 0; i < count; ++i)
    std::memcpy(dst + i * dst_step, src + i * src_step, static_cast<size_t>(bytes));
}

// A run that is not read again soon: past the caches where the processor can and `dst` and `bytes`
// are multiples of 16. end_streams() before another thread may look.
#ifdef __SSE2__
void stream_run(const std::byte* src, std::byte* dst, int64_t bytes) {
  if ((reinterpret_cast<uintptr_t>(dst) | static_cast<uintptr_t>(bytes)) % sizeof(__m128i) != 0) {
    std::memcpy(dst, src, static_cast<size_t>(bytes));
    return;
  }
  for (int64_t at = 0; at < bytes; at += static_cast<int64_t>(sizeof(__m128i)))
    _mm_stream_si128(reinterpret_cast<__m128i*>(dst + at), load<__m128i>(src + at));
}
void end_streams() { _mm_sfence(); }
#else
void stream_run(const std::byte* src, std::byte* dst, int64_t bytes) {
  std::memcpy(dst, src, static_cast<size_t>(bytes));
}
void end_streams() {}
#endif

// One row whose elements go to two rows in turn, and back: gate and up columns interleaved.
// `count` elements a row of the pair.
void split_pairs(int width, int64_t count, const std::byte* src, std::byte* even, std::byte* odd) {
  with_type(width, [&](auto t) {
    using T = decltype(t);
    constexpr int64_t kW = sizeof(T);
    for (int64_t i = 0; i < count; ++i) {
      store(even + i * kW, load<T>(src + 2 * i * kW));
      store(odd + i * kW, load<T>(src + (2 * i + 1) * kW));
    }
  });
}

void join_pairs(int width, int64_t count, const std::byte* even, const std::byte* odd,
                std::byte* dst) {
  with_type(width, [&](auto t) {
    using T = decltype(t);
    constexpr int64_t kW = sizeof(T);
    for (int64_t i = 0; i < count; ++i) {
      store(dst + 2 * i * kW, load<T>(even + i * kW));
      store(dst + (2 * i + 1) * kW, load<T>(odd + i * kW));
    }
  });
}

// ---- bundles of boxes ----

using Axes = std::vector<CopyAxis>;

constexpr int64_t kNearCache = 256 << 10;  // what one block of a copy may touch of the slow side

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
    for_each_index(outer_, 0, 0, [&](int64_t src, int64_t dst) {
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
      return for_each_index(rest, 0, 0, [&](int64_t src, int64_t dst) {
        split_pairs(width_, d.count, bundle_.src[0] + src, bundle_.dst[0] + dst,
                    bundle_.dst[1] + dst);
      });
    Plane(width_, rows_along(bundle_.src[0], d.count, d.src_step), bundle_.dst, rest).copy();
  }

  void copy_join() const {
    const CopyAxis& s = axes()[src_axis_];
    const Axes rest = without(axes(), src_axis_);
    if (members() == 2 && s.dst_step == 2 * width_)
      return for_each_index(rest, 0, 0, [&](int64_t src, int64_t dst) {
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
    if (src_axis_ == kNone || dst_axis_ == kNone || src_axis_ == dst_axis_)
      return copy_lines(part, src, dst);
    const CopyAxis &s = part[src_axis_], &d = part[dst_axis_];
    Axes rest = without(part, std::max(src_axis_, dst_axis_));
    rest = without(rest, std::min(src_axis_, dst_axis_));
    Plane(width_, rows_along(src, d.count, d.src_step), rows_along(dst, s.count, s.dst_step), rest)
        .copy();
  }

  // Runs of bytes that are contiguous on both sides, single elements where no axis is: two loops at
  // a time.
  void copy_lines(Axes part, const std::byte* src, std::byte* dst) const {
    int64_t bytes = width_;
    if (src_axis_ == dst_axis_ && src_axis_ != kNone) {
      bytes *= part[src_axis_].count;
      part = without(part, src_axis_);
    }
    CopyAxis line{1, 0, 0};
    if (!part.empty()) {
      line = part.back();
      part.pop_back();
    }
    for_each_index(part, 0, 0, [&](int64_t s, int64_t d) {
      copy_runs(line.count, bytes, src + s, line.src_step, dst + d, line.dst_step);
    });
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
