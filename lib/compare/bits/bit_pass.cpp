#include "lib/compare/bits/bit_pass.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>

#include "lib/base/parallel.h"

namespace moelora::packed {
namespace {

// What one thread works with.
struct Worker {
  Worker(const Table& packed_table, const Table& source_table)
      : packed(packed_table), source(source_table) {}
  Loader packed, source;
  std::vector<std::byte> scratch;
};

class Pass {
 public:
  Pass(const Table& packed, const Table& source, const Pairings& pairings)
      : packed_(packed), source_(source), pairings_(pairings) {
    for (const Pairing& p : pairings.all)
      out_.match.emplace_back(static_cast<size_t>(2 * experts_of(p)), kAnyMatch);
  }

  BitPass run(const PassOptions& options) {
    std::vector<Window> windows;
    for (size_t g = 0; g < pairings_.groups.size(); ++g)
      for (const Side side : {Side::A, Side::B})
        for (const Window& w :
             windows_of(packed_, source_, pairings_, g, side, options.window, options.most()))
          windows.push_back(w);
    const int threads = options.threads > 0 ? options.threads : available_threads();
    std::vector<std::unique_ptr<Worker>> workers(static_cast<size_t>(threads));
    parallel_for(static_cast<int64_t>(windows.size()), threads, [&](int64_t item, int worker) {
      auto& mine = workers[static_cast<size_t>(worker)];
      if (!mine) mine = std::make_unique<Worker>(packed_, source_);
      compare(windows[static_cast<size_t>(item)], *mine);
    });
    out_.elements = elements_;
    for (const auto& worker : workers)
      if (worker) out_.bytes += worker->packed.bytes_loaded() + worker->source.bytes_loaded();
    return std::move(out_);
  }

 private:
  void compare(const Window& window, Worker& worker) {
    for (const size_t i : pairings_.groups[window.group])
      compare(i, pairings_.all[i], window, worker);
  }

  static Box within(const Window& window, const Factor& factor) {
    Box box = window.box;
    box.x1 = std::min(box.x1, factor.width);
    box.x0 = std::min(box.x0, box.x1);
    return box;
  }

  static std::span<const Part> load(Loader& loader, const Factor* factor, Side side,
                                    const Box& box) {
    if (factor == nullptr || factor->slabs.empty()) return {};
    return loader.load(*factor, side, box);
  }

  void compare(size_t index, const Pairing& p, const Window& window, Worker& worker) {
    const Factor *packed = p.packed_side(window.side), *source = p.source_side(window.side);
    const bool has_packed = packed != nullptr && !packed->slabs.empty();
    const bool has_source = source != nullptr && !source->slabs.empty();
    if (!has_packed && !has_source) return;
    if (has_packed && has_source && packed->width != source->width)
      return refuse(index, window, experts_of(p));
    const Box box = within(window, has_packed ? *packed : *source);
    if (box.width() == 0) return;
    const auto found = load(worker.packed, packed, window.side, box);
    const auto expected = load(worker.source, source, window.side, box);
    const int64_t end = std::min(box.e1, experts_of(p));
    for (int64_t e = box.e0; e < end; ++e) {
      const auto at = static_cast<size_t>(e - box.e0);
      FactorCheck check{found.empty() ? Part{} : found[at],
                        expected.empty() ? Part{} : expected[at],
                        window.side,
                        box.width(),
                        {},
                        {},
                        scale_ratio(p, e)};
      check.own = p.own_ranks(e, check.packed.rank);
      check.sibling = p.sibling_ranks(e, check.packed.rank);
      if (check.packed.data != nullptr)
        elements_ += static_cast<uint64_t>(check.packed.rank * box.width());
      note(index, e, window, check_factor(check, worker.scratch));
    }
  }

  // Widths differ: no element can be compared.
  void refuse(size_t index, const Window& window, int64_t experts) {
    for (int64_t e = 0; e < experts; ++e)
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

  const Table &packed_, &source_;
  const Pairings& pairings_;
  BitPass out_;
  std::mutex mutex_;
  std::atomic<uint64_t> elements_ = 0;
};

}  // namespace

BitPass compare_bits(const Table& packed, const Table& source, const Pairings& pairings,
                     const PassOptions& options) {
  return Pass(packed, source, pairings).run(options);
}

int64_t experts_of(const Pairing& pairing) {
  return std::max(pairing.packed != nullptr ? pairing.packed->experts : 0,
                  pairing.source != nullptr ? pairing.source->experts : 0);
}

double scale_ratio(const Pairing& pairing, int64_t expert) {
  if (pairing.packed == nullptr || pairing.source == nullptr) return 1;
  if (expert >= pairing.packed->experts || expert >= pairing.source->experts) return 1;
  const double packed = pairing.packed->scale(expert).value();
  const double source = pairing.source->scale(expert).value();
  return packed == source ? 1 : source / packed;
}

}  // namespace moelora::packed
