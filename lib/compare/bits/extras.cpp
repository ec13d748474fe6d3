#include "lib/compare/bits/extras.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "lib/base/utf8.h"
#include "lib/compare/bits/rounding.h"

namespace moelora::packed {
namespace {

constexpr int64_t kChunk = 1 << 18;  // elements; a multiple of every granule

int64_t elements_of(const Stored& t) { return t.source == nullptr ? 0 : t.source->elements(); }

size_t bytes_of(DType dtype, int64_t elements) {
  return (static_cast<size_t>(elements) * static_cast<size_t>(dtype_bits(dtype)) + 7) / 8;
}

std::vector<std::byte> chunk_of(const Stored& t, int64_t first, int64_t count) {
  std::vector<std::byte> out(bytes_of(t.dtype, count));
  t.source->read(t.offset + first, count, out.data());
  return out;
}

bool same_values(const Stored& packed, const Stored& source) {
  const int64_t count =
      std::accumulate(packed.shape.begin(), packed.shape.end(), int64_t{1}, std::multiplies<>());
  if (elements_of(packed) == 0 || elements_of(source) == 0)
    return elements_of(packed) == elements_of(source);
  const bool cast_needed = packed.dtype != source.dtype;
  if (cast_needed && !(is_float(packed.dtype) && is_float(source.dtype))) return false;
  for (int64_t at = 0; at < count; at += kChunk) {
    const int64_t n = std::min(kChunk, count - at);
    const std::vector<std::byte> found = chunk_of(packed, at, n);
    std::vector<std::byte> expected = chunk_of(source, at, n);
    if (cast_needed) {
      std::vector<std::byte> values(bytes_of(packed.dtype, n));
      cast(source.dtype, packed.dtype, n, expected.data(), values.data());
      expected.swap(values);
    }
    if (found == expected) continue;
    const int bytes = cast_needed ? dtype_bytes(packed.dtype) : 0;
    for (int64_t i = 0; i < n; ++i) {
      if (!cast_needed) return false;
      const uint64_t f = element(found.data(), bytes, i), e = element(expected.data(), bytes, i);
      if (f != e && !(is_nan(packed.dtype, f) && is_nan(packed.dtype, e))) return false;
    }
  }
  return true;
}

bool is_frozen_copy(std::string_view name, const Shape& shape, const ModelSpec& spec) {
  constexpr std::string_view kEnd = ".base_layer.weight";
  if (!name.ends_with(kEnd)) return false;
  const LinearSpec* linear = spec.find_linear(name.substr(0, name.size() - kEnd.size()));
  if (linear == nullptr) return false;
  return shape == (linear->role == Role::embedding ? Shape{linear->in, linear->out}
                                                   : Shape{linear->out, linear->in});
}

void add(std::vector<Fault>& out, FaultKind kind, const std::string& name, std::string detail) {
  auto at = std::find_if(out.begin(), out.end(), [&](const Fault& f) { return f.kind == kind; });
  if (at == out.end()) {
    out.push_back({});
    at = out.end() - 1;
    at->kind = kind;
    at->first = printable(name);
    at->detail = std::move(detail);
  }
  at->modules.push_back(name);
  at->tensors.push_back(name);
  ++at->pairs;
}

}  // namespace

std::vector<Fault> compare_extras(const Table& packed, const Table& source, const ModelSpec* spec) {
  std::vector<Fault> out;
  for (const auto& [name, index] : source.extras) {
    const auto found = packed.extras.find(name);
    const Stored& s = source.tensors[index];
    if (found == packed.extras.end()) {
      if (spec == nullptr || !is_frozen_copy(name, s.shape, *spec))
        add(out, FaultKind::missing, name, {});
      continue;
    }
    const Stored& p = packed.tensors[found->second];
    if (p.shape != s.shape)
      add(out, FaultKind::width, name,
          fmt::format("{}, expected {}", moelora::to_string(p.shape), moelora::to_string(s.shape)));
    else if (!same_values(p, s))
      add(out, FaultKind::unknown, name, {});
  }
  for (const auto& [name, index] : packed.extras)
    if (!source.extras.count(name)) add(out, FaultKind::not_in_source, name, {});
  return out;
}

}  // namespace moelora::packed
