#include "lib/compare/bits/gather.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace moelora::packed {
namespace {

constexpr int64_t kTile = 16;

template <class T>
T get(const std::byte* in, int64_t index) {
  T out;
  std::memcpy(&out, in + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return out;
}

template <class T>
void put(std::byte* out, int64_t index, T value) {
  std::memcpy(out + index * static_cast<int64_t>(sizeof(T)), &value, sizeof(T));
}

// A tile of known size: rows of `in` are columns of `out`.
template <class T>
void transpose_tile(const std::byte* in, int64_t in_row, std::byte* out, int64_t out_row) {
  std::array<T, kTile * kTile> tile;
  for (int64_t r = 0; r < kTile; ++r)
    std::memcpy(&tile[static_cast<size_t>(r * kTile)],
                in + r * in_row * static_cast<int64_t>(sizeof(T)), kTile * sizeof(T));
  for (int64_t c = 0; c < kTile; ++c) {
    std::array<T, kTile> row;
    for (size_t r = 0; r < kTile; ++r) row[r] = tile[r * kTile + static_cast<size_t>(c)];
    std::memcpy(out + c * out_row * static_cast<int64_t>(sizeof(T)), row.data(), sizeof row);
  }
}

// `near` has the smallest step in `in`, `far` the smallest in `out`.
template <class T>
void transpose(const GatherAxis& near, const GatherAxis& far, const std::byte* in, std::byte* out) {
  const auto at = [](int64_t index) { return index * static_cast<int64_t>(sizeof(T)); };
  for (int64_t f = 0; f < far.count; f += kTile)
    for (int64_t n = 0; n < near.count; n += kTile) {
      const std::byte* from = in + at(f * far.from + n * near.from);
      std::byte* to = out + at(f * far.to + n * near.to);
      const int64_t rows = std::min(kTile, far.count - f), cols = std::min(kTile, near.count - n);
      if (rows == kTile && cols == kTile && near.from == 1 && far.to == 1) {
        transpose_tile<T>(from, far.from, to, near.to);
        continue;
      }
      for (int64_t c = 0; c < cols; ++c)
        for (int64_t r = 0; r < rows; ++r)
          put<T>(to, c * near.to + r * far.to, get<T>(from, c * near.from + r * far.from));
    }
}

template <class T>
void copy_run(const GatherAxis& axis, const std::byte* in, std::byte* out) {
  if (axis.from == 1 && axis.to == 1) {
    std::memcpy(out, in, static_cast<size_t>(axis.count) * sizeof(T));
    return;
  }
  for (int64_t i = 0; i < axis.count; ++i) put<T>(out, i * axis.to, get<T>(in, i * axis.from));
}

template <class T>
void gather_as(std::array<GatherAxis, 3> axes, const std::byte* in, std::byte* out) {
  // The innermost loop goes along the axis with the smallest step in `out`, the one around it along
  // that with the smallest step in `in`.
  std::sort(axes.begin(), axes.end(),
            [](const GatherAxis& a, const GatherAxis& b) { return a.to > b.to; });
  if (axes[0].from < axes[1].from) std::swap(axes[0], axes[1]);
  const bool same = axes[2].from <= axes[1].from;
  const auto at = [](int64_t index) { return index * static_cast<int64_t>(sizeof(T)); };
  for (int64_t i = 0; i < axes[0].count; ++i) {
    const std::byte* from = in + at(i * axes[0].from);
    std::byte* to = out + at(i * axes[0].to);
    if (!same) {
      transpose<T>(axes[1], axes[2], from, to);
      continue;
    }
    for (int64_t j = 0; j < axes[1].count; ++j)
      copy_run<T>(axes[2], from + at(j * axes[1].from), to + at(j * axes[1].to));
  }
}

}  // namespace

void gather(int element_bytes, std::span<const GatherAxis> axes, const std::byte* in,
            std::byte* out) {
  std::array<GatherAxis, 3> all = {{{1, 1, 1}, {1, 1, 1}, {1, 1, 1}}};
  constexpr int64_t kOutermost = int64_t{1} << 62;
  for (size_t i = 0; i < all.size(); ++i) {
    if (i < axes.size()) all[i] = axes[i];
    if (all[i].count == 1) all[i].from = all[i].to = kOutermost;
  }
  switch (element_bytes) {
    case 1:
      return gather_as<uint8_t>(all, in, out);
    case 2:
      return gather_as<uint16_t>(all, in, out);
    case 4:
      return gather_as<uint32_t>(all, in, out);
    default:
      return gather_as<uint64_t>(all, in, out);
  }
}

}  // namespace moelora::packed
