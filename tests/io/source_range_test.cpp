#include "lib/io/source_range.h"

#include <doctest/doctest.h>

#include <cstring>

#include "lib/base/copy/strided_copy.h"

using namespace moelora;

namespace {

Tensor numbered(const Shape& shape) {
  std::vector<std::byte> bytes(Tensor::zeros(DType::U16, shape).bytes());
  for (size_t i = 0; i < bytes.size() / 2; ++i) {
    const auto value = static_cast<uint16_t>(i);
    std::memcpy(bytes.data() + 2 * i, &value, 2);
  }
  return Tensor(std::make_shared<MemorySource>(DType::U16, std::move(bytes)), shape);
}

using Runs = std::vector<std::pair<int64_t, int64_t>>;

Runs runs(const Part& part, int64_t gap, size_t most = 100) {
  Runs out;
  for (const Run& run : runs_of(part, gap, most)) out.emplace_back(run.begin, run.end);
  return out;
}

}  // namespace

TEST_CASE("any range of a tensor is filled by its parts") {
  const Tensor t = numbered({3, 4, 5}).transpose(0, 2);
  const auto whole = t.read();
  for (int64_t first = 0; first < 60; ++first)
    for (int64_t count = 1; first + count <= 60; ++count) {
      std::vector<uint16_t> got(static_cast<size_t>(count), 999);
      int64_t filled = 0;
      for (const Part& part : parts_of(t, first, count)) {
        filled += part.elements();
        std::vector<std::byte> source(120);
        part.source->read(0, 60, source.data());
        strided_copy(2, part.axes, source.data() + 2 * part.src,
                     reinterpret_cast<std::byte*>(got.data()) + 2 * part.dst);
      }
      REQUIRE(filled == count);
      REQUIRE(std::memcmp(got.data(), whole.data() + 2 * first, static_cast<size_t>(2 * count)) ==
              0);
    }
}

TEST_CASE("a part's source runs are joined over gaps up to the limit, and not beyond") {
  const Part columns = parts_of(numbered({3, 10}).slice(1, 2, 4), 0, 12)[0];  // gaps of 6
  CHECK(runs(columns, 5) == Runs{{2, 6}, {12, 16}, {22, 26}});
  CHECK(runs(columns, 6) == Runs{{2, 26}});
  CHECK(runs(columns, 0, 2) == Runs{{2, 26}});
  CHECK(runs(columns, 0, 3) == Runs{{2, 6}, {12, 16}, {22, 26}});
  const Part strided = parts_of(numbered({4, 3}).select(1, 1), 0, 4)[0];  // 1, 4, 7, 10
  CHECK(runs(strided, 1) == Runs{{1, 2}, {4, 5}, {7, 8}, {10, 11}});
  CHECK(runs(strided, 2) == Runs{{1, 11}});
  const Part constant = parts_of(numbered({1, 2}).broadcast(0, 5), 0, 10)[0];
  CHECK(runs(constant, 0) == Runs{{0, 2}});
}

TEST_CASE("held ranges no further apart than the gap are one, and are found again") {
  const Tensor t = numbered({100});
  const Part a = parts_of(t.slice(0, 10, 10), 0, 10)[0];
  const Part b = parts_of(t.slice(0, 30, 10), 0, 10)[0];  // 10 elements, 20 bytes, further on
  const std::vector<const Part*> both = {&b, &a};
  const auto bytes = [](const HeldSources& held) { return held.bytes(); };
  CHECK(bytes(HeldSources(both, 19)) == 2 * 64);
  CHECK(bytes(HeldSources(both, 20)) == 64);
  for (const uint64_t gap : {0u, 20u}) {
    HeldSources held(both, gap);
    std::vector<std::byte> buffer(held.bytes());
    held.read(buffer);
    const Source& source = *a.source;
    for (const int64_t at : {10, 19, 30, 39}) {
      const std::byte* const found = held.find(source, at, at + 1);
      REQUIRE(found != nullptr);
      uint16_t value = 0;
      std::memcpy(&value, found, 2);
      CHECK(value == at);
    }
    CHECK(held.find(source, 9, 10) == nullptr);
    CHECK(held.find(source, 39, 41) == nullptr);
    CHECK((held.find(source, 15, 35) == nullptr) == (gap == 0));
  }
}
