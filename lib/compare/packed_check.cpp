#include "lib/compare/packed_check.h"

#include <set>

#include "lib/compare/bits/bit_pass.h"
#include "lib/compare/bits/diagnosis.h"
#include "lib/compare/bits/extras.h"
#include "lib/compare/bits/pairing.h"
#include "lib/compare/bits/products.h"

namespace moelora::packed {
namespace {

Table table_of(const AdapterInput& in, const CheckOptions& options) {
  return make_table(in.tensors, in.config, in.where, {options.spec, in.reading});
}

bool has_pair(const Unit* unit, int64_t expert) {
  return unit != nullptr && (unit->side(Side::A).slab_of(expert) != nullptr ||
                             unit->side(Side::B).slab_of(expert) != nullptr);
}

class Judge {
 public:
  Judge(const Table& packed, const Table& source, const Pairings& pairings, const BitPass& bits,
        bool fold, Report& report)
      : packed_(packed),
        source_(source),
        pairings_(pairings),
        bits_(bits),
        fold_(fold),
        report_(report) {}

  // The pairs that bits leave open.
  std::set<PairId> open() {
    std::set<PairId> out;
    for (size_t i = 0; i < pairings_.all.size(); ++i)
      for (int64_t e = 0; e < experts_of(pairings_.all[i]); ++e)
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
    const bool equal_scales = scale_ratio(p, e) == 1;
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
      const Slab *to = p.packed->side(side).slab_of(e), *from = p.source->side(side).slab_of(e);
      if (to != nullptr && from != nullptr &&
          packed_.tensors[to->tensor].dtype != source_.tensors[from->tensor].dtype)
        return true;
    }
    return false;
  }

  const Table &packed_, &source_;
  const Pairings& pairings_;
  const BitPass& bits_;
  const bool fold_;
  Report& report_;
};

}  // namespace

Report check_packed(const AdapterInput& packed_in, const AdapterInput& source_in,
                    const CheckOptions& options) {
  const Table packed = table_of(packed_in, options), source = table_of(source_in, options);
  const Pairings pairings = pair_up(packed, source);
  PassOptions pass;
  pass.threads = options.threads;
  pass.window = options.window;
  const BitPass bits = compare_bits(packed, source, pairings, pass);

  Report out;
  out.elements = bits.elements;
  out.bytes = bits.bytes;
  std::set<PairId> open = Judge(packed, source, pairings, bits, options.fitted, out).open();
  if (options.products && !open.empty()) {
    const ProductPass products = compare_products(packed, source, pairings, open, pass);
    out.bytes += products.bytes;
    out.same_product = static_cast<int64_t>(products.equal.size());
    for (const PairId& pair : products.equal) open.erase(pair);
  }
  out.different = static_cast<int64_t>(open.size());
  if (!open.empty()) out.faults = diagnose(packed, source, pairings, bits, open, options.rounding);
  out.factors += static_cast<int64_t>(packed.extras.size());
  const ModelSpec* may_leave = options.fitted ? options.spec : nullptr;
  for (Fault& fault : compare_extras(packed, source, may_leave))
    out.faults.push_back(std::move(fault));
  return out;
}

}  // namespace moelora::packed
