#include "lib/compare/bits/bits.h"

#include <algorithm>
#include <cstring>

#include "lib/compare/bits/rounding.h"

namespace moelora::packed {
namespace {

bool all_zero_bytes(const std::byte* data, int64_t bytes) {
  const auto n = static_cast<size_t>(bytes);
  return n == 0 || (data[0] == std::byte{0} && std::memcmp(data, data + 1, n - 1) == 0);
}

// Zeros of either sign.
bool all_zero_values(const Part& part, int64_t elements) {
  if (all_zero_bytes(part.data, elements * part.bytes())) return true;
  const uint64_t sign = uint64_t{1} << (8 * part.bytes() - 1);
  for (int64_t i = 0; i < elements; ++i)
    if ((element(part.data, part.bytes(), i) & ~sign) != 0) return false;
  return true;
}

class Checker {
 public:
  Checker(const FactorCheck& check, std::vector<std::byte>& scratch)
      : check_(check), packed_(check.packed), bytes_(check.packed.bytes()) {
    source_ = check.source.data;
    cast_ = check.source.dtype != packed_.dtype;
    if (!cast_) return;
    const int64_t elements = check.source.rank * check.width;
    scratch.resize(static_cast<size_t>(elements * bytes_));
    castable_ = is_float(check.source.dtype) && is_float(packed_.dtype);
    if (castable_) cast(check.source.dtype, packed_.dtype, elements, source_, scratch.data());
    source_ = scratch.data();
  }

  FactorVerdict verdict() {
    FactorVerdict out;
    if (same()) out.match |= kSame;
    if (check_.side == Side::B && check_.fold != 1 && is_float(packed_.dtype)) {
      for (const Match match : {kFoldTorch, kFoldOnce, kFoldDirect})
        if (folds(match)) out.match |= match;
    }
    if ((out.match & kSame) == 0) out.difference = first_;
    return out;
  }

 private:
  bool same() {
    const int64_t own = check_.own.end - check_.own.begin;
    if (!castable_ || own != check_.source.rank || check_.own.end > packed_.rank) {
      first_ = Difference{0, 0, element(packed_.data, bytes_, 0), 0, false, kCountedDifferences};
      return false;
    }
    if (own == packed_.rank) {
      compare(0, 0, packed_.rank * check_.width);
    } else if (check_.side == Side::A) {
      compare(check_.own.begin * check_.width, 0, own * check_.width);
      for (int64_t k = 0; k < packed_.rank; ++k)
        if (!in(check_.own, k) && !in(check_.sibling, k)) zeros(k * check_.width, check_.width);
    } else {
      for (int64_t x = 0; x < check_.width; ++x) {
        const int64_t row = x * packed_.rank;
        compare(row + check_.own.begin, x * own, own);
        zeros(row, check_.own.begin);
        zeros(row + check_.own.end, packed_.rank - check_.own.end);
      }
    }
    return !first_;
  }

  static bool in(const Pairing::Ranks& ranks, int64_t k) {
    return k >= ranks.begin && k < ranks.end;
  }

  uint64_t raw(int64_t index) const {
    return element(check_.source.data, check_.source.bytes(), index);
  }

  bool overflowed(uint64_t found, int64_t from) const {
    return is_infinite(packed_.dtype, found) && !is_infinite(check_.source.dtype, raw(from));
  }

  bool any_overflow(int64_t at, int64_t from, int64_t count) const {
    for (int64_t i = 0; i < count; ++i)
      if (overflowed(element(packed_.data, bytes_, at + i), from + i)) return true;
    return false;
  }

  // Elements [at, at + count) of the packed part against [from, ..) of the source's.
  void compare(int64_t at, int64_t from, int64_t count) {
    const auto n = static_cast<size_t>(count * bytes_);
    if (std::memcmp(packed_.data + at * bytes_, source_ + from * bytes_, n) == 0 &&
        !(cast_ && any_overflow(at, from, count)))
      return;
    for (int64_t i = 0; i < count && !enough(); ++i) {
      const uint64_t found = element(packed_.data, bytes_, at + i);
      const uint64_t expected = element(source_, bytes_, from + i);
      const bool nans = cast_ && is_nan(packed_.dtype, found) && is_nan(packed_.dtype, expected);
      if ((found != expected && !nans) || (cast_ && overflowed(found, from + i)))
        note(at + i, found, expected, false);
    }
  }

  void zeros(int64_t at, int64_t count) {
    if (count == 0 || all_zero_bytes(packed_.data + at * bytes_, count * bytes_)) return;
    for (int64_t i = at; i < at + count && !enough(); ++i)
      if (const uint64_t found = element(packed_.data, bytes_, i); found != 0)
        note(i, found, 0, true);
  }

  bool enough() const { return first_ && first_->count >= kCountedDifferences; }

  void note(int64_t index, uint64_t found, uint64_t expected, bool padding) {
    const int64_t before = first_ ? first_->count : 0;
    if (first_) ++first_->count;
    if (first_ && (padding || !first_->padding)) return;
    const int64_t row = check_.side == Side::A ? check_.width : packed_.rank;
    const int64_t major = index / row, minor = index % row;
    first_ = check_.side == Side::A
                 ? Difference{major, minor, found, expected, padding, before + 1}
                 : Difference{minor, major, found, expected, padding, before + 1};
  }

  uint64_t fold(int64_t index, Match match) const {
    if (match == kFoldDirect)
      return bits_of(packed_.dtype, value_of(check_.source.dtype, raw(index)) * check_.fold);
    return folded(packed_.dtype, element(source_, bytes_, index), check_.fold,
                  match == kFoldTorch ? FoldRounding::torch : FoldRounding::once);
  }

  bool folds(Match match) const {
    const int64_t rank = check_.source.rank;
    if (!castable_ || check_.own.end > packed_.rank) return false;
    for (int64_t x = 0; x < check_.width; ++x)
      for (int64_t k = 0; k < packed_.rank; ++k) {
        const uint64_t found = element(packed_.data, bytes_, x * packed_.rank + k);
        const uint64_t expected =
            in(check_.own, k) ? fold(x * rank + k - check_.own.begin, match) : 0;
        const bool nans = is_nan(packed_.dtype, found) && is_nan(packed_.dtype, expected);
        if (found != expected && !nans) return false;
        if (in(check_.own, k) && overflowed(found, x * rank + k - check_.own.begin)) return false;
      }
    return true;
  }

  const FactorCheck& check_;
  const Part& packed_;
  const int bytes_;
  const std::byte* source_ = nullptr;
  bool cast_ = false, castable_ = true;
  std::optional<Difference> first_;
};

}  // namespace

FactorVerdict check_factor(const FactorCheck& check, std::vector<std::byte>& scratch) {
  const Part &packed = check.packed, &source = check.source;
  if (packed.data != nullptr && source.data != nullptr) return Checker(check, scratch).verdict();
  FactorVerdict out;
  if (packed.data == nullptr && source.data == nullptr) return {kAnyMatch, {}};
  if (packed.data != nullptr
          ? all_zero_bytes(packed.data, packed.rank * check.width * packed.bytes())
          : all_zero_values(source, source.rank * check.width))
    out.match = kZero;
  else
    out.difference = Difference{};
  return out;
}

}  // namespace moelora::packed
