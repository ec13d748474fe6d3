#include "lib/numeric/stats/b_order_evidence.h"

#include <fmt/format.h>

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "lib/base/cast.h"
#include "lib/base/parallel.h"

namespace moelora {
namespace {

// ---- norms of rows and columns ----

using Floats = Eigen::Array<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using FloatRow = Eigen::Array<float, 1, Eigen::Dynamic>;

constexpr int64_t kBlockValues = 64 << 10;

// Calls f(first row, values) for a [rows, columns] matrix as floats, some rows at a time.
template <class F>
void for_blocks(const Tensor& matrix, F&& f) {
  const int64_t rows = matrix.dim(0), columns = matrix.dim(1);
  const int64_t most = std::max<int64_t>(1, kBlockValues / std::max<int64_t>(1, columns));
  std::vector<std::byte> stored(static_cast<size_t>(most * columns * dtype_bytes(matrix.dtype())));
  Floats values;
  for (int64_t first = 0; first < rows; first += most) {
    const Tensor block = matrix.slice(0, first, std::min(most, rows - first));
    values.resize(block.dim(0), columns);
    block.read(stored.data());
    cast_elements(block.dtype(), DType::F32, block.elements(), stored.data(),
                  reinterpret_cast<std::byte*>(values.data()));
    f(first, values);
  }
}

void profile_rows(const Tensor& a, StackedProfile& out) {
  // A BF16 may have been rounded up.
  const auto bound = static_cast<float>(1.004 / std::sqrt(static_cast<double>(a.dim(1))));
  for_blocks(a, [&](int64_t, const Floats& values) {
    for (const auto& row : values.rowwise()) {
      out.row_squares.push_back(static_cast<double>(row.square().sum()));
      out.row_is_initial.push_back(row.size() == 0 || row.abs().maxCoeff() <= bound);
    }
  });
}

// Sums within a block are of single precision: a value above 2^63 makes its sum infinite, as an
// infinity does; a NaN makes it NaN.
void profile_columns(const Tensor& b, StackedProfile& out) {
  const int64_t columns = b.dim(1);
  FloatRow largest = FloatRow::Zero(columns);
  out.column_squares.assign(static_cast<size_t>(columns), 0);
  for_blocks(b, [&](int64_t, const Floats& values) {
    FloatRow squares = FloatRow::Zero(columns);
    for (const auto& row : values.rowwise()) {
      squares += row.square();
      largest = largest.max(row.abs());
    }
    std::transform(squares.begin(), squares.end(), out.column_squares.begin(),
                   out.column_squares.begin(),
                   [](float here, double sum) { return sum + static_cast<double>(here); });
  });
  for (const float value : largest) out.column_is_zero.push_back(value == 0);
}

// ---- statistics ----

// The normal quantile (Acklam's rational form would do as well): Newton steps on erfc from a guess.
double normal_quantile(double p) {
  const double q = std::min(p, 1 - p);
  const double t = std::sqrt(-2 * std::log(q));
  double x = t - (2.30753 + 0.27061 * t) / (1 + t * (0.99229 + 0.04481 * t));
  for (int i = 0; i < 2; ++i) {
    const double error = 0.5 * std::erfc(x / std::sqrt(2.0)) - q;
    x += error * std::sqrt(2 * M_PI) * std::exp(x * x / 2);
  }
  return p < 0.5 ? -x : x;
}

// What position i of an arrangement belongs to, an expert or a component, and how many there are.
struct Label {
  const Arrangement& in;
  bool is_expert;

  int64_t groups() const { return is_expert ? in.experts : in.rank; }
  int64_t of(int64_t i) const { return is_expert ? in.expert(i) : in.component(i); }
};

// tr(P Q) of the projections onto the effects of two labels of n positions, the mean taken out.
double overlap(int64_t n, const Label& a, const Label& b) {
  std::vector<int32_t> counts(static_cast<size_t>(a.groups() * b.groups()), 0);
  for (int64_t i = 0; i < n; ++i) ++counts[static_cast<size_t>(a.of(i) * b.groups() + b.of(i))];
  double squares = 0;
  for (const int32_t count : counts) squares += static_cast<double>(count) * count;
  return squares / static_cast<double>(n / a.groups() * (n / b.groups())) - 1;
}

// Turns sums over groups of `size` values into their means; what these explain.
double sum_of_squares(std::vector<double>& sums, int64_t size) {
  double out = 0;
  for (double& sum : sums) {
    sum /= static_cast<double>(size);
    out += sum * sum * static_cast<double>(size);
  }
  return out;
}

}  // namespace

StackedProfile profile_stacked_pair(const Tensor& a, const Tensor& b, int64_t experts) {
  StackedProfile out;
  out.experts = experts;
  out.rank = a.dim(0) / experts;
  profile_rows(a, out);
  profile_columns(b, out);
  const auto finite = [](double sum) { return std::isfinite(sum); };
  out.finite = std::all_of(out.row_squares.begin(), out.row_squares.end(), finite) &&
               std::all_of(out.column_squares.begin(), out.column_squares.end(), finite);
  return out;
}

std::vector<double> normal_scores(std::span<const double> values) {
  const size_t n = values.size();
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> out(n);
  double sum = 0, squares = 0;
  for (size_t i = 0; i < n;) {
    size_t end = i + 1;
    while (end < n && values[order[end]] == values[order[i]]) ++end;
    const double middle = (static_cast<double>(i + end)) / 2;
    const double score = normal_quantile(middle / static_cast<double>(n));
    for (size_t at = i; at < end; ++at) out[order[at]] = score;
    sum += score * static_cast<double>(end - i);
    squares += score * score * static_cast<double>(end - i);
    i = end;
  }
  const double mean = sum / static_cast<double>(n);
  const double deviation = std::sqrt(std::max(0.0, squares / static_cast<double>(n) - mean * mean));
  for (double& score : out) score = deviation > 1e-9 ? (score - mean) / deviation : 0;
  return out;
}

TwoWayFit two_way_fit(std::span<const double> scores, const Arrangement& in,
                      std::vector<double>* rest) {
  std::vector<double> experts(static_cast<size_t>(in.experts), 0);
  std::vector<double> components(static_cast<size_t>(in.rank), 0);
  const auto n = static_cast<int64_t>(scores.size());
  for (int64_t at = 0; at < n; ++at) {
    experts[static_cast<size_t>(in.expert(at))] += scores[static_cast<size_t>(at)];
    components[static_cast<size_t>(in.component(at))] += scores[static_cast<size_t>(at)];
  }
  const TwoWayFit fit{sum_of_squares(experts, in.rank), sum_of_squares(components, in.experts)};
  if (rest == nullptr) return fit;
  rest->assign(scores.size(), 0);
  for (int64_t at = 0; at < n; ++at)
    (*rest)[static_cast<size_t>(in.cell(at))] = scores[static_cast<size_t>(at)] -
                                                experts[static_cast<size_t>(in.expert(at))] -
                                                components[static_cast<size_t>(in.component(at))];
  return fit;
}

FitDeviations fit_deviations(int64_t experts, int64_t rank) {
  const int64_t n = experts * rank;
  const Arrangement a{experts, rank, false}, b{experts, rank, true};
  const Label expert_a{a, true}, component_a{a, false}, expert_b{b, true}, component_b{b, false};
  const double experts_experts = overlap(n, expert_a, expert_b);
  const double crossed = overlap(n, expert_a, component_b) + overlap(n, component_a, expert_b);
  const double all = experts_experts + crossed + overlap(n, component_a, component_b);
  const auto deviation = [](int64_t freedom, double common) {
    const double differing = static_cast<double>(freedom) - common;
    return differing > 1e-6 ? std::sqrt(4 * differing) : 0;
  };
  FitDeviations out{deviation(experts - 1, experts_experts), deviation(experts + rank - 2, all)};
  // What of the experts' effect the other order does not explain, without and with its components.
  const double left_of_one = static_cast<double>(experts - 1) - experts_experts;
  const double left_of_both = left_of_one - crossed / 2;
  if (out.both > 0 && left_of_both > 1e-6)
    out.share = left_of_both / out.both / (left_of_one / out.experts);
  return out;
}

namespace {

using Confidence = BOrderEvidence::Confidence;

// In standard deviations.
constexpr double kLikely = 2.5;  // one in a hundred, where there is nothing to see
constexpr double kOpposed = 3;   // what contradicts
constexpr double kCertain = 8;   // and at least kCertainStrict of what cannot be feigned
constexpr double kCertainStrict = 6;
constexpr double kComponents = 5;     // from here on lora_A's components differ
constexpr double kLeastRest = 1e-6;   // of the variance, where hardly anything is unexplained
constexpr double kZerosCertain = -9;  // log10 of a chance

Arrangement arrangement(const StackedProfile& p, BOrder order) {
  return {p.experts, p.rank, order == BOrder::expert_major};
}

// ---- norms ----

double correlation(const std::vector<double>& a, const std::vector<double>& b) {
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    ab += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return aa > 1e-9 && bb > 1e-9 ? ab / std::sqrt(aa * bb) : 0;
}

void weigh_norms(const StackedProfile& p, BOrderEvidence& out) {
  const std::vector<double> columns = normal_scores(p.column_squares);
  const std::vector<double> rows = normal_scores(p.row_squares);
  std::vector<double> of_rows, rank_major, expert_major;
  // lora_A has but one order.
  const TwoWayFit a = two_way_fit(rows, arrangement(p, BOrder::expert_major), &of_rows);
  const auto components = static_cast<double>(p.rank - 1);
  out.components = (a.components - components) / std::sqrt(2 * components);
  const TwoWayFit r = two_way_fit(columns, arrangement(p, BOrder::rank_major), &rank_major);
  const TwoWayFit e = two_way_fit(columns, arrangement(p, BOrder::expert_major), &expert_major);
  const FitDeviations one = fit_deviations(p.experts, p.rank);
  if (one.experts > 0) out.grouping = (r.experts - e.experts) / one.experts;
  out.strict_share = one.share;
  // In units of what the worse fit leaves: beside strong components little is left to experts.
  const auto freedom = static_cast<double>((p.experts - 1) * (p.rank - 1));
  const double rest = (static_cast<double>(p.count()) - std::min(r.both(), e.both())) / freedom;
  if (one.both > 0 && rest > kLeastRest) out.strict = (r.both() - e.both()) / one.both / rest;
  out.pairing = (correlation(of_rows, rank_major) - correlation(of_rows, expert_major)) *
                std::sqrt(freedom / 2);
}

// ---- zeros ----

// Zero columns read in one order.
struct Zeros {
  int64_t experts = 0;           // that are zero as a whole
  bool whole = true;             // no other zero columns
  bool whole_components = true;  // each is zero for all experts or for none: a padded rank
  bool rows_are_initial = true;  // lora_A's rows of these experts, and of no other
};

Zeros read_zeros(const StackedProfile& p, BOrder order) {
  const Arrangement in = arrangement(p, order);
  std::vector<int64_t> zeros(static_cast<size_t>(p.experts), 0), initial = zeros;
  std::vector<int64_t> of_component(static_cast<size_t>(p.rank), 0);
  for (int64_t at = 0; at < p.count(); ++at) {
    const char zero = p.column_is_zero[static_cast<size_t>(at)];
    zeros[static_cast<size_t>(in.expert(at))] += zero;
    of_component[static_cast<size_t>(in.component(at))] += zero;
    initial[static_cast<size_t>(at / p.rank)] += p.row_is_initial[static_cast<size_t>(at)];
  }
  Zeros out;
  for (size_t e = 0; e < zeros.size(); ++e) {
    if (zeros[e] == p.rank) ++out.experts;
    if (zeros[e] != 0 && zeros[e] != p.rank) out.whole = false;
    if ((zeros[e] == p.rank) != (initial[e] == p.rank)) out.rows_are_initial = false;
  }
  for (const int64_t count : of_component)
    if (count != 0 && count != p.experts) out.whole_components = false;
  return out;
}

// log10 of "this many whole experts" over "this many columns anywhere".
double zeros_chance(const StackedProfile& p, int64_t experts) {
  const auto choose = [](int64_t n, int64_t k) {
    const auto gamma = [](int64_t i) { return std::lgamma(static_cast<double>(i) + 1); };
    return (gamma(n) - gamma(k) - gamma(n - k)) / std::log(10.0);
  };
  return choose(p.experts, experts) - choose(p.count(), experts * p.rank);
}

// Is this reading the only one, or the one that lora_A confirms?
bool holds(const Zeros& read, const Zeros& other) {
  if (!read.whole) return false;
  return read.rows_are_initial || (!other.whole && !other.whole_components);
}

bool in_one_block(const std::vector<char>& zeros) {
  const auto first = std::find(zeros.begin(), zeros.end(), 1);
  const auto last = std::find(zeros.rbegin(), zeros.rend(), 1).base();
  return std::count(first, last, 0) == 0;
}

void weigh_zeros(const StackedProfile& p, BOrderEvidence& out) {
  if (std::count(p.column_is_zero.begin(), p.column_is_zero.end(), 1) == 0) return;
  const Zeros r = read_zeros(p, BOrder::rank_major), e = read_zeros(p, BOrder::expert_major);
  const bool as_r = holds(r, e), as_e = holds(e, r);
  if (as_r == as_e) return;
  const Zeros& read = as_r ? r : e;
  (as_r ? out.zeros_rank_major : out.zeros_expert_major) = 1;
  out.zeros_with_initial_rows = read.rows_are_initial ? 1 : 0;
  if (read.rows_are_initial || !in_one_block(p.column_is_zero))
    out.zeros_chance = zeros_chance(p, read.experts);
}

// ---- the verdict ----

BOrder order_of(double z) { return z > 0 ? BOrder::rank_major : BOrder::expert_major; }

// Components, not experts, are the reason for the grouping: lora_A's components differ too, or the
// grouping vanishes once components may explain it.
bool components_pose(const BOrderEvidence& e) {
  const double sign = e.grouping > 0 ? 1 : -1;
  const double expected = sign * e.grouping * e.strict_share;
  return e.components >= kComponents || sign * e.strict < 0.4 * expected - kOpposed;
}

// The strongest of what the norms say, unless something else clearly says the opposite.
void decide_by_norms(BOrderEvidence& e) {
  const double grouping = components_pose(e) ? e.strict : e.grouping;
  const double main = std::abs(grouping) >= std::abs(e.pairing) ? grouping : e.pairing;
  const double sign = main > 0 ? 1 : -1;
  const double least = std::min({sign * grouping, sign * e.strict, sign * e.pairing});
  if (std::abs(main) < kLikely || least < -kOpposed - std::abs(main) / 10) return;
  e.verdict = order_of(main);
  e.confidence = Confidence::likely;
  const bool unfeigned = std::max(sign * e.strict, sign * e.pairing) >= kCertainStrict;
  if (sign * grouping >= kCertain && unfeigned && 10 * e.against < e.pairs)
    e.confidence = Confidence::certain;
}

void decide(BOrderEvidence& e) {
  decide_by_norms(e);
  const int64_t r = e.zeros_rank_major, x = e.zeros_expert_major;
  if (r == 0 && x == 0) return;
  const std::optional<BOrder> norms = e.verdict;
  const BOrder zeros = r > 0 ? BOrder::rank_major : BOrder::expert_major;
  if ((r > 0 && x > 0) || (norms && *norms != zeros)) {
    e.verdict.reset();
    e.confidence = Confidence::unknown;
    return;
  }
  e.verdict = zeros;
  if (e.zeros_chance <= kZerosCertain) e.confidence = Confidence::certain;
  if (e.confidence == Confidence::unknown) e.confidence = Confidence::likely;
}

// ---- words ----

std::string of_pairs(int64_t count) {
  return fmt::format("{} pair{}", count, count == 1 ? "" : "s");
}

// What the norms say for the verdict, where it is more than noise.
void add_reasons(const BOrderEvidence& e, std::vector<std::string>& reasons) {
  const double sign = e.verdict == BOrder::rank_major ? 1 : -1;
  if (sign * e.grouping >= kLikely)
    reasons.push_back(fmt::format(
        "the columns of an expert have similar norms ({:.1f} standard deviations over {})",
        sign * e.grouping, of_pairs(e.pairs)));
  if (sign * e.pairing >= kLikely)
    reasons.push_back(
        fmt::format("their norms go with those of lora_A's rows ({:.1f} standard deviations)",
                    sign * e.pairing));
}

void add_zero_reasons(const BOrderEvidence& e, std::vector<std::string>& reasons) {
  const int64_t zeros = e.zeros_rank_major + e.zeros_expert_major;
  if (zeros == 0) return;
  std::string text =
      fmt::format("the columns that are exactly 0 are whole experts in {}", of_pairs(zeros));
  if (e.zeros_with_initial_rows > 0)
    text += fmt::format(", and in {} lora_A's rows of the same experts are as initialised",
                        of_pairs(e.zeros_with_initial_rows));
  reasons.push_back(std::move(text));
}

std::string describe_unknown(const BOrderEvidence& e) {
  std::string reason = fmt::format("neither order stands out in {}", of_pairs(e.pairs));
  if (e.pairs == 0) reason = "lora_B is 0 or not finite, or both orders are the same";
  if (e.zeros_rank_major > 0 && e.zeros_expert_major > 0)
    reason = "pairs whose columns are exactly 0 contradict each other";
  else if (e.zeros_rank_major + e.zeros_expert_major > 0)
    reason = "norms and columns that are exactly 0 contradict each other";
  return "the values do not say: " + reason;
}

}  // namespace

BOrderEvidence b_order_evidence(const StackedProfile& profile) {
  BOrderEvidence out;
  if (!profile.finite || profile.experts < 2 || profile.rank < 2) return out;
  if (std::count(profile.column_is_zero.begin(), profile.column_is_zero.end(), 0) == 0) return out;
  out.pairs = 1;
  weigh_norms(profile, out);
  weigh_zeros(profile, out);
  decide(out);
  return out;
}

BOrderEvidence join_b_order_evidence(std::span<const BOrderEvidence> pairs) {
  BOrderEvidence out;
  for (const BOrderEvidence& pair : pairs) {
    out.strict_share = std::max(out.strict_share, pair.strict_share);
    out.pairs += pair.pairs;
    out.grouping += pair.grouping;
    out.strict += pair.strict;
    out.pairing += pair.pairing;
    out.components += pair.components;
    out.zeros_rank_major += pair.zeros_rank_major;
    out.zeros_expert_major += pair.zeros_expert_major;
    out.zeros_with_initial_rows += pair.zeros_with_initial_rows;
    out.zeros_chance += pair.zeros_chance;
  }
  if (out.pairs == 0) return out;
  const double root = std::sqrt(static_cast<double>(out.pairs));
  for (double* value : {&out.grouping, &out.strict, &out.pairing, &out.components}) *value /= root;
  for (const BOrderEvidence& pair : pairs)
    if (std::abs(pair.strict) > kOpposed && order_of(pair.strict) != order_of(out.strict))
      ++out.against;
  decide(out);
  return out;
}

BOrderEvidence b_order_evidence(std::span<const StackedPair> pairs, int64_t experts, int threads) {
  std::vector<BOrderEvidence> each(pairs.size());
  parallel_for(static_cast<int64_t>(pairs.size()), threads, [&](int64_t item, int) {
    const auto i = static_cast<size_t>(item);
    const Tensor &a = pairs[i].a->tensor, &b = pairs[i].b->tensor;
    if (experts > 1 && a.dim(0) > experts && a.dim(0) % experts == 0 && is_float(a.dtype()) &&
        is_float(b.dtype()))
      each[i] = b_order_evidence(profile_stacked_pair(a, b, experts));
  });
  return join_b_order_evidence(each);
}

std::string describe(const BOrderEvidence& e) {
  if (!e.verdict) return describe_unknown(e);
  std::vector<std::string> reasons;
  add_reasons(e, reasons);
  add_zero_reasons(e, reasons);
  return fmt::format("the values speak for {} ({}): {}", b_order_name(*e.verdict),
                     e.confidence == Confidence::certain ? "certain" : "likely",
                     fmt::join(reasons, "; "));
}

}  // namespace moelora
