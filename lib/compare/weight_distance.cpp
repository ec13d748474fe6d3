#include "lib/compare/weight_distance.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "lib/base/parallel.h"
#include "lib/base/progress.h"
#include "lib/compare/gram.h"
#include "lib/numeric/tensor_batch.h"

namespace moelora {
namespace {

// Sums over blocks of Gram matrices of both sides: rows [0, r1) are the first delta's.
struct Grams {
  std::vector<double> p, q;  // of lora_A and of lora_B, n x n
  int64_t n = 0, r1 = 0;

  double block(int64_t i0, int64_t i1, int64_t j0, int64_t j1) const {
    double sum = 0;
    for (int64_t i = i0; i < i1; ++i)
      for (int64_t j = j0; j < j1; ++j)
        sum += q[static_cast<size_t>(i * n + j)] * p[static_cast<size_t>(i * n + j)];
    return sum;
  }

  // The sum of squares of all entries of (Q P) restricted to one delta, as trace((Q P)^2): the sum
  // of the fourth powers of its singular values, without the scale.
  double fourth_powers(int64_t first, int64_t end) const {
    const int64_t r = end - first;
    std::vector<double> product(static_cast<size_t>(r * r));
    for (int64_t i = 0; i < r; ++i)
      for (int64_t k = 0; k < r; ++k) {
        const double value = q[static_cast<size_t>((first + i) * n + first + k)];
        for (int64_t j = 0; j < r; ++j)
          product[static_cast<size_t>(i * r + j)] +=
              value * p[static_cast<size_t>((first + k) * n + first + j)];
      }
    double trace = 0;
    for (int64_t i = 0; i < r; ++i)
      for (int64_t j = 0; j < r; ++j)
        trace += product[static_cast<size_t>(i * r + j)] * product[static_cast<size_t>(j * r + i)];
    return trace;
  }
};

double effective_rank(double squares, double fourths) {
  return squares <= 0 || fourths <= 0 ? 0 : squares * squares / fourths;
}

// The four factors of one place, in memory.
struct Values {
  const Delta *first, *second;
  const std::byte *a1, *b1, *a2, *b2;

  FactorValues a(const Delta& delta, const std::byte* data) const {
    return {delta.a.dtype(), data, delta.a.dim(0), delta.a.dim(1), false};
  }
  FactorValues b(const Delta& delta, const std::byte* data) const {
    return {delta.b.dtype(), data, delta.b.dim(1), delta.b.dim(0), true};
  }
};

bool same_bytes(const Tensor& x, const std::byte* x_data, const Tensor& y,
                const std::byte* y_data) {
  return x.dtype() == y.dtype() && x.shape() == y.shape() &&
         (x.bytes() == 0 || std::memcmp(x_data, y_data, x.bytes()) == 0);
}

Distance distance_of(const DeltaKey& key, const Values& v) {
  Distance out;
  out.key = key;
  out.identical = v.first->scale == v.second->scale &&
                  same_bytes(v.first->a, v.a1, v.second->a, v.a2) &&
                  same_bytes(v.first->b, v.b1, v.second->b, v.b2);
  std::vector<FactorValues> a{v.a(*v.first, v.a1)}, b{v.b(*v.first, v.b1)};
  if (!out.identical) {
    a.push_back(v.a(*v.second, v.a2));
    b.push_back(v.b(*v.second, v.b2));
  }
  Grams g;
  g.r1 = v.first->a.dim(0);
  g.n = g.r1 + (out.identical ? 0 : v.second->a.dim(0));
  g.p = gram_matrix(a);
  g.q = gram_matrix(b);
  const double s1 = v.first->scale, s2 = v.second->scale;
  const double squares = g.block(0, g.r1, 0, g.r1);
  out.norm_a = std::fabs(s1) * std::sqrt(std::max(0.0, squares));
  out.effective_rank_a = effective_rank(squares, g.fourth_powers(0, g.r1));
  if (out.identical) {
    out.norm_b = out.norm_a;
    out.effective_rank_b = out.effective_rank_a;
    out.inner = out.norm_a * out.norm_a;
    return out;
  }
  const double squares_b = g.block(g.r1, g.n, g.r1, g.n);
  out.norm_b = std::fabs(s2) * std::sqrt(std::max(0.0, squares_b));
  out.effective_rank_b = effective_rank(squares_b, g.fourth_powers(g.r1, g.n));
  out.inner = s1 * s2 * g.block(0, g.r1, g.r1, g.n);
  const double apart = out.norm_a * out.norm_a + out.norm_b * out.norm_b - 2 * out.inner;
  const double noise = kResolution * std::max(out.norm_a, out.norm_b);
  // NaN, where a factor holds one, must not pass for 0.
  out.apart = apart <= noise * noise ? 0 : std::sqrt(apart);
  return out;
}

// A run of places whose factors are read together.
class Batch {
 public:
  void add(const DeltaKey& key, const Delta& a, const Delta& b) {
    items_.push_back(
        {key, &a, &b, {held_.add(a.a), held_.add(a.b), held_.add(b.a), held_.add(b.b)}});
  }

  uint64_t bytes() const { return held_.bytes(); }
  bool empty() const { return items_.empty(); }

  void measure(int threads, std::vector<Distance>& out) {
    held_.read(threads);
    const size_t before = out.size();
    out.resize(before + items_.size());
    parallel_for(static_cast<int64_t>(items_.size()), threads, [&](int64_t i, int) {
      const Item& item = items_[static_cast<size_t>(i)];
      const auto at = [&](int k) { return held_.at(item.factor[k]); };
      out[before + static_cast<size_t>(i)] =
          distance_of(item.key, {item.a, item.b, at(0), at(1), at(2), at(3)});
    });
    items_.clear();
    held_.clear();
  }

 private:
  struct Item {
    DeltaKey key;
    const Delta *a, *b;
    size_t factor[4];
  };
  std::vector<Item> items_;
  TensorBatch held_;
};

bool same_shape(const Delta& a, const Delta& b) {
  return a.a.dim(1) == b.a.dim(1) && a.b.dim(0) == b.b.dim(0);
}

std::string shapes_text(const DeltaKey& key, const Delta& a, const Delta& b) {
  return fmt::format("{}: {} -> {} against {} -> {}", to_string(key), a.a.dim(1), a.b.dim(0),
                     b.a.dim(1), b.b.dim(0));
}

// Places of a stacked file lie together when they are of one layer and projection; so do their
// bytes.
std::vector<const Deltas::value_type*> in_reading_order(const Deltas& deltas) {
  std::vector<const Deltas::value_type*> out;
  for (const auto& entry : deltas) out.push_back(&entry);
  std::stable_sort(out.begin(), out.end(), [](const auto* x, const auto* y) {
    return std::tie(x->first.layer, x->first.module) < std::tie(y->first.layer, y->first.module);
  });
  return out;
}

uint64_t bytes_of(const Deltas& deltas) {
  uint64_t sum = 0;
  for (const auto& entry : deltas) sum += entry.second.a.bytes() + entry.second.b.bytes();
  return sum;
}

}  // namespace

double Distance::relative() const {
  if (norm_a > 0) return apart / norm_a;
  return apart == 0 ? 0 : std::numeric_limits<double>::infinity();
}

double Distance::cosine() const {
  if (norm_a == 0 && norm_b == 0) return 1;
  return norm_a == 0 || norm_b == 0 ? 0 : inner / (norm_a * norm_b);
}

WeightDiff weight_distances(const Deltas& a, const Deltas& b, const DistanceOptions& options) {
  WeightDiff out;
  ProgressMeter progress("comparing", bytes_of(a) + bytes_of(b), options.job);
  // A batch ends with a projection of a layer once it is worth reading, and in any case when full.
  Batch batch;
  const auto measure = [&] {
    const uint64_t bytes = batch.bytes();
    batch.measure(options.threads, out.pairs);
    progress.add(bytes);
  };
  const DeltaKey* last = nullptr;
  for (const auto* entry : in_reading_order(a)) {
    const DeltaKey& key = entry->first;
    const bool new_group =
        last != nullptr && (last->layer != key.layer || last->module != key.module);
    if (batch.bytes() >= (new_group ? kGoodBatch : kFullBatch)) measure();
    last = &key;
    const auto other = b.find(key);
    if (other == b.end())
      out.only_a.push_back(key);
    else if (!same_shape(entry->second, other->second))
      out.shapes_differ.push_back(shapes_text(key, entry->second, other->second));
    else
      batch.add(key, entry->second, other->second);
  }
  if (!batch.empty()) measure();
  for (const auto& entry : b)
    if (a.count(entry.first) == 0) out.only_b.push_back(entry.first);
  std::sort(out.pairs.begin(), out.pairs.end(),
            [](const Distance& x, const Distance& y) { return x.key < y.key; });
  return out;
}

}  // namespace moelora
