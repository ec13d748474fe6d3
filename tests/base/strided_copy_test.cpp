#include "lib/base/copy/strided_copy.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

#include "lib/base/copy/copy_box.h"

using namespace moelora;

namespace {

using Bytes = std::vector<std::byte>;

Bytes noise(size_t n, uint32_t seed) {
  std::mt19937 rng(seed);
  Bytes out(n);
  for (std::byte& b : out) b = static_cast<std::byte>(rng());
  return out;
}

// The definition, one element at a time.
void copy_slowly(int width, const CopyBox& box) {
  std::vector<int64_t> index(box.axes.size(), 0);
  int64_t total = 1;
  for (const CopyAxis& axis : box.axes) total *= axis.count;
  for (int64_t n = 0; n < total; ++n) {
    int64_t rest = n, src = 0, dst = 0;
    for (const CopyAxis& axis : box.axes) {
      src += rest % axis.count * axis.src_step;
      dst += rest % axis.count * axis.dst_step;
      rest /= axis.count;
    }
    std::memcpy(box.dst + dst * width, box.src + src * width, static_cast<size_t>(width));
  }
}

// Two destinations of the same boxes, one filled each way, must agree in every byte.
struct Trial {
  Bytes src, fast, slow;
  std::vector<CopyBox> boxes;  // into `fast`

  explicit Trial(size_t bytes) : src(noise(bytes, 1)), fast(bytes), slow(bytes) {}
  void add(int width, int64_t src_at, int64_t dst_at, std::vector<CopyAxis> axes) {
    boxes.push_back({src.data() + src_at * width, fast.data() + dst_at * width, std::move(axes)});
  }
  bool agrees(int width) {
    for (CopyBox box : boxes) {
      box.dst = slow.data() + (box.dst - fast.data());
      copy_slowly(width, box);
    }
    copy_boxes(width, boxes);
    return fast == slow;
  }
};

}  // namespace

TEST_CASE("one box is copied whatever its axes") {
  std::mt19937 rng(3);
  for (int round = 0; round < 3000; ++round) {
    const int width = 1 << (rng() % 4);
    // Two random orders of the same extents give the steps of source and destination.
    const size_t rank = 1 + rng() % 4;
    std::vector<CopyAxis> axes(rank);
    for (CopyAxis& axis : axes) axis.count = 1 + static_cast<int64_t>(rng() % (rank < 3 ? 90 : 12));
    int64_t reach = 0;  // elements of the larger side
    for (auto step : {&CopyAxis::src_step, &CopyAxis::dst_step}) {
      std::vector<size_t> order(rank);
      std::iota(order.begin(), order.end(), size_t{0});
      std::shuffle(order.begin(), order.end(), rng);
      int64_t total = 1;
      for (const size_t a : order) {
        axes[a].*step = total;
        total *= axes[a].count + static_cast<int64_t>(rng() % 3 == 0 ? rng() % 3 : 0);
      }
      reach = std::max(reach, total);
    }
    CAPTURE(round);
    Trial trial(static_cast<size_t>((reach + 100) * width));
    trial.add(width, 0, 0, axes);
    REQUIRE(trial.agrees(width));
  }
}

TEST_CASE("a broadcast, a reversal and an empty box are copied") {
  SUBCASE("broadcast") {
    Trial trial(4096);
    trial.add(2, 5, 0, {{8, 0, 16}, {16, 1, 1}});
    CHECK(trial.agrees(2));
  }
  SUBCASE("reversal") {
    Trial trial(4096);
    trial.add(4, 99, 0, {{100, -1, 1}});
    CHECK(trial.agrees(4));
  }
  SUBCASE("empty") {
    Trial trial(64);
    trial.add(2, 0, 0, {{8, 1, 1}, {0, 8, 8}});
    CHECK(trial.agrees(2));
    CHECK(
        std::all_of(trial.fast.begin(), trial.fast.end(), [](auto b) { return b == std::byte{}; }));
  }
}

TEST_CASE("experts' columns are split and joined for every rank and expert count") {
  std::mt19937 rng(5);
  for (const int width : {1, 2, 4, 8})
    for (const int64_t r : {1, 3, 8, 16, 20})
      for (const int64_t experts : {1, 2, 5, 8, 33, 64}) {
        const int64_t out = 37;
        std::vector<int64_t> order(static_cast<size_t>(experts));
        std::iota(order.begin(), order.end(), 0);
        std::shuffle(order.begin(), order.end(), rng);
        CAPTURE(width);
        CAPTURE(r);
        CAPTURE(experts);
        const auto bytes = static_cast<size_t>(out * r * experts * width);
        Trial split(bytes), join(bytes);
        for (int64_t e = 0; e < experts; ++e) {
          const int64_t slot = order[static_cast<size_t>(e)] * out * r;
          split.add(width, e, slot, {{out, r * experts, r}, {r, experts, 1}});
          join.add(width, slot, e, {{out, r, r * experts}, {r, 1, experts}});
        }
        REQUIRE(split.agrees(width));
        REQUIRE(join.agrees(width));
      }
}

TEST_CASE("gate and up are interleaved and taken apart, rows or columns") {
  const int64_t rows = 31, columns = 50;
  for (const int width : {1, 2, 4, 8}) {
    CAPTURE(width);
    Trial apart(80'000), together(80'000), transposed(80'000), by_rows(80'000);
    for (int64_t half = 0; half < 2; ++half) {
      const int64_t whole = half * rows * columns;
      apart.add(width, half, whole, {{rows, 2 * columns, columns}, {columns, 2, 1}});
      together.add(width, whole, half, {{rows, columns, 2 * columns}, {columns, 1, 2}});
      transposed.add(width, half, whole, {{rows, 2 * columns, 1}, {columns, 2, rows}});
      by_rows.add(width, half * columns, whole, {{rows, 2 * columns, columns}, {columns, 1, 1}});
    }
    CHECK(apart.agrees(width));
    CHECK(together.agrees(width));
    CHECK(transposed.agrees(width));
    CHECK(by_rows.agrees(width));
  }
}

TEST_CASE("only boxes one element apart are fused") {
  Trial trial(4096);
  trial.add(2, 0, 0, {{10, 8, 1}});
  trial.add(2, 1, 10, {{10, 8, 1}});
  trial.add(2, 2, 20, {{10, 8, 1}});
  trial.add(2, 5, 30, {{10, 8, 1}});  // a gap
  trial.add(2, 3, 40, {{9, 8, 1}});   // another extent
  const std::vector<Bundle> bundles = fuse_boxes(2, trial.boxes);
  REQUIRE(bundles.size() == 3);
  const auto count = [&](Bundle::Kind kind, size_t members) {
    return std::count_if(bundles.begin(), bundles.end(), [&](const Bundle& b) {
      return b.kind == kind && b.src.size() == members;
    });
  };
  CHECK(count(Bundle::Kind::split, 3) == 1);
  CHECK(count(Bundle::Kind::loose, 1) == 2);
  CHECK(trial.agrees(2));
}
