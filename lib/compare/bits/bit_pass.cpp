#include "lib/compare/bits/bit_pass.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>

#include "lib/base/parallel.h"
#include "lib/compare/bits/rounding.h"

namespace moelora::packed {
namespace {

// One expert's packed factor, or a part of its x, and the source's.
struct FactorCheck {
  Part packed, source;  // either may have no data
  Side side;
  int64_t width;  // x of the parts
  Pairing::Ranks own, sibling;
  double fold = 1;  // scale of the source / scale of the packed
};

struct FactorVerdict {
  uint8_t match = 0;
  std::optional<Difference> difference;  // the first, where kSame is not among the matches
};

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

// `scratch` is for casts.
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

// What one thread works with.
struct Worker {
  explicit Worker(const Pairings& pairings) : reader(pairings) {}
  WindowReader reader;
  std::vector<std::byte> scratch;
};

class Pass {
 public:
  explicit Pass(const Pairings& pairings) : pairings_(pairings) {
    for (const Pairing& p : pairings.all)
      out_.match.emplace_back(static_cast<size_t>(2 * p.experts()), kAnyMatch);
  }

  BitPass run(const PassOptions& options) {
    std::vector<Window> windows;
    for (size_t g = 0; g < pairings_.groups.size(); ++g)
      for (const Window& w : windows_of(pairings_, g, options)) windows.push_back(w);
    const int threads = options.threads > 0 ? options.threads : available_threads();
    std::vector<std::unique_ptr<Worker>> workers(static_cast<size_t>(threads));
    parallel_for(static_cast<int64_t>(windows.size()), threads, [&](int64_t item, int worker) {
      const Window& window = windows[static_cast<size_t>(item)];
      auto& mine = workers[static_cast<size_t>(worker)];
      if (!mine) mine = std::make_unique<Worker>(pairings_);
      for (const size_t i : pairings_.groups[window.group]) compare(i, window, *mine);
    });
    return std::move(out_);
  }

 private:
  void compare(size_t index, const Window& window, Worker& worker) {
    const Pairing& p = pairings_.all[index];
    if (!p.same_width(window.side)) return refuse(index, window);
    const Box box = worker.reader.load(p, window);
    if (box.width() == 0) return;
    const int64_t end = std::min(box.e1, p.experts());
    for (int64_t e = box.e0; e < end; ++e) {
      const Part packed = worker.reader.packed(e);
      const FactorCheck check{
          packed,          worker.reader.source(e),     window.side,
          box.width(),     p.own_ranks(e, packed.rank), p.sibling_ranks(e, packed.rank),
          p.scale_ratio(e)};
      note(index, e, window, check_factor(check, worker.scratch));
    }
  }

  // Widths differ: no element can be compared.
  void refuse(size_t index, const Window& window) {
    for (int64_t e = 0; e < pairings_.all[index].experts(); ++e)
      note(index, e, window, {0, Difference{0, 0, 0, 0, false, kCountedDifferences}});
  }

  void note(size_t index, int64_t e, const Window& window, const FactorVerdict& verdict) {
    if (verdict.match == kAnyMatch) return;
    uint8_t& slot =
        out_.match[index][static_cast<size_t>(2 * e) + static_cast<size_t>(window.side)];
    std::atomic_ref<uint8_t>(slot).fetch_and(verdict.match, std::memory_order_relaxed);
    if (!verdict.difference) return;
    Difference here = *verdict.difference;
    here.x += window.box.x0;
    const std::lock_guard lock(mutex_);
    const auto [at, fresh] = out_.differences.emplace(FactorId{index, e, window.side}, here);
    if (fresh) return;
    Difference& known = at->second;
    const int64_t count = std::min(known.count + here.count, kCountedDifferences);
    const bool padding = known.padding && here.padding;  // padding alone is another fault
    if (here.x < known.x || (known.padding && !here.padding)) known = here;
    known.count = count;
    known.padding = padding;
  }

  const Pairings& pairings_;
  BitPass out_;
  std::mutex mutex_;
};

}  // namespace

BitPass compare_bits(const Pairings& pairings, const PassOptions& options) {
  return Pass(pairings).run(options);
}

}  // namespace moelora::packed
