#include "lib/compare/packed_check.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <set>

#include "lib/base/utf8.h"
#include "lib/compare/bits/bit_pass.h"
#include "lib/compare/bits/pairing.h"
#include "lib/compare/bits/plain_names.h"
#include "lib/compare/bits/products.h"
#include "lib/compare/bits/rounding.h"
#include "lib/compare/bits/table.h"

namespace moelora::packed {
namespace {

Table table_of(const AdapterInput& in, const CheckOptions& options) {
  return make_table(with_plain_names(in.tensors), in.config, in.where, {options.spec, in.reading});
}

bool has_pair(const ProjectionFactors* unit, int64_t expert) {
  return block_of(unit, Side::A, expert) != nullptr || block_of(unit, Side::B, expert) != nullptr;
}

class OpenPairs {
 public:
  OpenPairs(const Pairings& pairings, const BitPass& bits, bool fold, Report& report)
      : pairings_(pairings), bits_(bits), fold_(fold), report_(report) {}

  // The pairs that bits leave open.
  std::set<PairId> find() {
    std::set<PairId> out;
    for (size_t i = 0; i < pairings_.all.size(); ++i)
      for (int64_t e = 0; e < pairings_.all[i].experts(); ++e)
        if (!settled(i, e)) out.insert({i, e});
    return out;
  }

 private:
  bool settled(size_t i, int64_t e) {
    const Pairing& p = pairings_.all[i];
    const bool packed = has_pair(p.packed, e), source = has_pair(p.source, e);
    if (!packed && !source) return true;
    // The up half of a fused factor was counted with gate's.
    if (packed && !(p.key.projection == Projection::up && p.shares_packed_a)) report_.factors += 2;
    const uint8_t a = bits_.of(i, e, Side::A), b = bits_.of(i, e, Side::B);
    if (packed != source) return one_sided(p, e, packed, a, b);
    const bool equal_scales = p.scale_ratio(e) == 1;
    const bool folded = fold_ && !equal_scales && (b & kAnyFold) != 0;
    if ((a & kSame) == 0 || !(folded || (equal_scales && (b & kSame) != 0))) return false;
    ++report_.same_bits;
    report_.folded += folded ? 1 : 0;
    report_.cast += is_cast(p, e) ? 1 : 0;
    return true;
  }

  // What only one of them has must be zero; the A that a zero half shares with its sibling need
  // not.
  bool one_sided(const Pairing& p, int64_t e, bool packed, uint8_t a, uint8_t b) {
    const bool zero_a = (a & kZero) != 0, zero_b = (b & kZero) != 0;
    const bool siblings_a = p.shares_packed_a && has_pair(p.source_sibling, e);
    const bool settled = packed ? zero_b && (zero_a || siblings_a) : zero_a || zero_b;
    report_.same_bits += settled ? 1 : 0;
    return settled;
  }

  bool is_cast(const Pairing& p, int64_t e) const {
    for (const Side side : {Side::A, Side::B}) {
      const StridedBlock *to = block_of(p.packed, side, e), *from = block_of(p.source, side, e);
      if (to != nullptr && from != nullptr &&
          pairings_.packed.tensors[to->tensor].dtype !=
              pairings_.source.tensors[from->tensor].dtype)
        return true;
    }
    return false;
  }

  const Pairings& pairings_;
  const BitPass& bits_;
  const bool fold_;
  Report& report_;
};

// ---- what is not a factor ----

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

void add(std::vector<Fault>& out, Mistake mistake, const std::string& name, std::string detail) {
  auto at =
      std::find_if(out.begin(), out.end(), [&](const Fault& f) { return f.mistake == mistake; });
  if (at == out.end()) {
    out.push_back({});
    at = out.end() - 1;
    at->mistake = mistake;
    at->first = printable(name);
    at->detail = std::move(detail);
  }
  at->modules.push_back(name);
  at->tensors.push_back(name);
  ++at->pairs;
}

// What is not a low-rank factor (embedding factors, saved modules, biases, magnitudes) must be
// there under its name, with its shape and its values, cast where the packed type is another. With
// the base model's `spec` (null: not known, or nothing may be left out) one thing need not be
// there: the frozen weight that PEFT saves beside the factors of an embedding,
// MODULE.base_layer.weight, where its dims are the base's own.
std::vector<Fault> compare_extras(const Table& packed, const Table& source, const ModelSpec* spec) {
  std::vector<Fault> out;
  for (const auto& [name, index] : source.extras) {
    const auto found = packed.extras.find(name);
    const Stored& s = source.tensors[index];
    if (found == packed.extras.end()) {
      if (spec == nullptr || !is_frozen_copy(name, s.shape, *spec))
        add(out, Mistake::missing, name, {});
      continue;
    }
    const Stored& p = packed.tensors[found->second];
    if (p.shape != s.shape)
      add(out, Mistake::width, name,
          fmt::format("{}, expected {}", moelora::to_string(p.shape), moelora::to_string(s.shape)));
    else if (!same_values(p, s))
      add(out, Mistake::unknown, name, {});
  }
  for (const auto& [name, index] : packed.extras)
    if (!source.extras.count(name)) add(out, Mistake::not_in_source, name, {});
  return out;
}

}  // namespace

Report check_packed(const AdapterInput& packed_in, const AdapterInput& source_in,
                    const CheckOptions& options) {
  const Table packed = table_of(packed_in, options), source = table_of(source_in, options);
  const Pairings pairings = pair_up(packed, source);
  PassOptions pass;
  pass.threads = options.threads;
  pass.window = options.window;
  const BitPass bits = compare_bits(pairings, pass);

  Report out;
  std::set<PairId> open = OpenPairs(pairings, bits, options.fitted, out).find();
  if (options.products && !open.empty()) {
    const std::set<PairId> equal = compare_products(pairings, bits, open, pass);
    out.same_product = static_cast<int64_t>(equal.size());
    for (const PairId& pair : equal) open.erase(pair);
  }
  out.different = static_cast<int64_t>(open.size());
  if (!open.empty()) out.faults = diagnose(pairings, bits, open, options.rounding);
  out.factors += static_cast<int64_t>(packed.extras.size());
  const ModelSpec* may_leave = options.fitted ? options.spec : nullptr;
  for (Fault& fault : compare_extras(packed, source, may_leave))
    out.faults.push_back(std::move(fault));
  return out;
}

}  // namespace moelora::packed
