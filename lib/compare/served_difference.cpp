#include "lib/compare/served_difference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>

#include "lib/base/parallel.h"
#include "lib/base/scale.h"
#include "lib/compare/held_factors.h"
#include "lib/compare/meant_deltas.h"
#include "lib/numeric/tensor_batch.h"

namespace moelora {
namespace {

constexpr double kSums = 1e-6;  // relative: sums in double, and what they cancel

struct Cell {
  const Delta* meant = nullptr;            // null: the server adds what nobody trained
  std::vector<const ServedBlock*> blocks;  // at places of their own
};
using Cells = std::map<DeltaKey, Cell>;

bool same_place(const ServedBlock& x, const ServedBlock& y) {
  return std::tie(x.out_first, x.in_first, x.out_step) ==
             std::tie(y.out_first, y.in_first, y.out_step) &&
         x.a.dim(1) == y.a.dim(1) && x.b.dim(0) == y.b.dim(0);
}

Cells cells_of(const Deltas& meant, const ModelSpec& spec, std::span<const ServedBlock> blocks) {
  Cells out;
  for (const auto& [key, delta] : meant) out[key].meant = &delta;
  const ModuleNames names(spec);
  for (const ServedBlock& block : blocks) {
    DeltaKey key{block.module, block.layer, block.expert};
    if (block.expert < 0) key = {names.of(block.module), -1, -1};
    std::vector<const ServedBlock*>& places = out[key].blocks;
    if (std::none_of(places.begin(), places.end(),
                     [&](const ServedBlock* other) { return same_place(*other, block); }))
      places.push_back(&block);
  }
  return out;
}

// Half a step of a type at 1.
double unit_roundoff(DType dtype) {
  return dtype == DType::BF16 ? 0x1p-8 : dtype == DType::F16 ? 0x1p-11 : 0x1p-24;
}

// What the server's type rounds of the meant factors, relative to each element; a scale that it
// multiplies into lora_B is one rounding more.
struct Rounded {
  Rounded(const Delta& meant, const ServedBlock& block) {
    const double unit = unit_roundoff(block.a.dtype());
    if (meant.a.dtype() != block.a.dtype()) a = unit;
    if (meant.b.dtype() != block.b.dtype()) b = unit;
    if (!is_power_of_two(meant.scale / block.scale)) b += unit * (1 + b);
  }
  double a = 0, b = 0;
};

// One cell while its factors are in memory.
class Measure {
 public:
  Measure(const DeltaKey& key, const Cell& cell, std::span<const size_t> factors,
          const TensorBatch& held)
      : cell_(cell), factors_(factors), held_(held) {
    out_.key = key;
  }

  ServedDelta run() {
    out_.same = is_same_but_rounded();
    if (!out_.same) measure();
    return std::move(out_);
  }

 private:
  void measure() {
    double apart = 0, served = 0;
    if (cell_.meant != nullptr) apart = meant();
    for (size_t i = 0; i < cell_.blocks.size(); ++i) {
      const auto [own, inner] = block(i);
      served += own;
      apart += own - 2 * inner;
    }
    out_.served = served < 0 ? 0 : std::sqrt(served);  // a NaN stays one
    const double noise = kSums * std::max(out_.meant, out_.served);
    out_.apart = apart <= noise * noise ? 0 : std::sqrt(apart);
    out_.rounding += noise;
  }

  HeldMatrix factor(size_t index, const Tensor& tensor) const {
    return HeldMatrix::of(tensor, held_.at(factors_[index]));
  }
  HeldMatrix meant_a() const { return factor(0, cell_.meant->a); }
  HeldMatrix meant_b() const { return factor(1, cell_.meant->b); }

  bool is_same_but_rounded() const {
    if (cell_.meant == nullptr) return false;
    int64_t covered = 0;
    for (size_t i = 0; i < cell_.blocks.size(); ++i) {
      if (!is_same_but_rounded(i)) return false;
      covered += cell_.blocks[i]->a.dim(1) * cell_.blocks[i]->b.dim(0);
    }
    return covered == cell_.meant->a.dim(1) * cell_.meant->b.dim(0);
  }

  bool is_same_but_rounded(size_t i) const {
    const Delta& delta = *cell_.meant;
    const ServedBlock& served = *cell_.blocks[i];
    const HeldMatrix a = factor(2 + 2 * i, served.a), b = factor(3 + 2 * i, served.b);
    const HeldMatrix ma = meant_a(), mb = meant_b();
    const Window m_a(ma, 0, 1, ma.rows, served.in_first, a.columns);
    const Window m_b(mb, served.out_first, served.out_step, b.rows, 0, mb.columns);
    const Rounded rounded(delta, served);
    return is_same(m_a.matrix(), 1, a, 1, rounded.a) &&
           is_same(m_b.matrix(), delta.scale, b, served.scale, rounded.b);
  }

  double meant() {
    const Delta& delta = *cell_.meant;
    const HeldMatrix a = meant_a(), b = meant_b();
    const RankOneParts parts({Window(a).a()}, {Window(b).b()});
    const double squares = delta.scale * delta.scale * parts.all();
    out_.meant = std::sqrt(std::max(0.0, squares));
    out_.measured = std::isfinite(squares);
    double rounded = 0;
    for (const ServedBlock* served : cell_.blocks) {
      const Rounded of(delta, *served);
      rounded = std::max(rounded, of.a + of.b);
    }
    out_.rounding =
        rounded * std::max(out_.meant, std::fabs(delta.scale) * std::sqrt(parts.diagonal()));
    return squares;
  }

  struct Block {
    double own, inner;  // |j|^2 and <m, j>
  };
  Block block(size_t i) {
    const ServedBlock& served = *cell_.blocks[i];
    if (out_.defect.empty()) out_.defect = served.defect;
    const size_t first = (cell_.meant == nullptr ? 0 : 2) + 2 * i;
    const HeldMatrix a = factor(first, served.a), b = factor(first + 1, served.b);
    const Window own_a(a), own_b(b);
    const double square = served.scale * served.scale;
    if (cell_.meant == nullptr) return {square * RankOneParts({own_a.a()}, {own_b.b()}).all(), 0};
    const HeldMatrix ma = meant_a(), mb = meant_b();
    const Window m_a(ma, 0, 1, ma.rows, served.in_first, a.columns);
    const Window m_b(mb, served.out_first, served.out_step, b.rows, 0, mb.columns);
    const RankOneParts parts({m_a.a(), own_a.a()}, {m_b.b(), own_b.b()});
    return {square * parts.sum(ma.rows, parts.size(), ma.rows, parts.size()),
            served.scale * cell_.meant->scale * parts.sum(0, ma.rows, ma.rows, parts.size())};
  }

  const Cell& cell_;
  std::span<const size_t> factors_;
  const TensorBatch& held_;
  ServedDelta out_;
};

// Cells whose factors are read together.
class Batch {
 public:
  void add(const DeltaKey& key, const Cell& cell) {
    Item item{&key, &cell, {}};
    const auto hold = [&](const Tensor& tensor) { item.factors.push_back(held_.add(tensor)); };
    if (cell.meant != nullptr) hold(cell.meant->a), hold(cell.meant->b);
    for (const ServedBlock* block : cell.blocks) hold(block->a), hold(block->b);
    items_.push_back(std::move(item));
  }
  uint64_t bytes() const { return held_.bytes(); }

  void measure(int threads, std::vector<ServedDelta>& out) {
    held_.read(threads);
    const size_t before = out.size();
    out.resize(before + items_.size());
    parallel_for(static_cast<int64_t>(items_.size()), threads, [&](int64_t i, int) {
      const Item& item = items_[static_cast<size_t>(i)];
      out[before + static_cast<size_t>(i)] =
          Measure(*item.key, *item.cell, item.factors, held_).run();
    });
    items_.clear();
    held_.clear();
  }

 private:
  struct Item {
    const DeltaKey* key;
    const Cell* cell;
    std::vector<size_t> factors;
  };
  std::vector<Item> items_;
  TensorBatch held_;
};

// Matrices of a float type that belong together. An adapter in FP8 or integers means what its
// reader takes it for.
bool is_readable(const Cell& cell) {
  const Delta* delta = cell.meant;
  return delta == nullptr ||
         (is_float(delta->a.dtype()) && is_float(delta->b.dtype()) && delta->a.rank() == 2 &&
          delta->b.rank() == 2 && delta->a.dim(0) == delta->b.dim(1));
}

// Experts of one projection and layer lie together in stacked files.
std::vector<const Cells::value_type*> in_reading_order(const Cells& cells) {
  std::vector<const Cells::value_type*> out;
  for (const auto& entry : cells) out.push_back(&entry);
  std::stable_sort(out.begin(), out.end(), [](const auto* x, const auto* y) {
    return std::tie(x->first.layer, x->first.module) < std::tie(y->first.layer, y->first.module);
  });
  return out;
}

}  // namespace

double ServedDelta::relative() const {
  if (meant > 0) return apart / meant;
  return apart == 0 ? 0 : std::numeric_limits<double>::infinity();
}

bool ServedDelta::is_wrong() const { return measured && !(apart <= rounding); }
bool ServedDelta::is_lost() const { return is_wrong() && served == 0; }

std::vector<ServedDelta> served_differences(const Deltas& meant, const ModelSpec& spec,
                                            std::span<const ServedBlock> blocks, int threads) {
  const Cells cells = cells_of(meant, spec, blocks);
  std::vector<ServedDelta> out;
  Batch batch;
  const DeltaKey* last = nullptr;
  for (const auto* entry : in_reading_order(cells)) {
    const DeltaKey& key = entry->first;
    if (!is_readable(entry->second)) {
      ServedDelta& unknown = out.emplace_back();
      unknown.key = key;
      unknown.measured = false;
      continue;
    }
    const bool next = last != nullptr && (last->layer != key.layer || last->module != key.module);
    if (batch.bytes() >= (next ? kGoodBatch : kFullBatch)) batch.measure(threads, out);
    last = &key;
    batch.add(key, entry->second);
  }
  batch.measure(threads, out);
  std::sort(out.begin(), out.end(),
            [](const ServedDelta& x, const ServedDelta& y) { return x.key < y.key; });
  return out;
}

}  // namespace moelora
