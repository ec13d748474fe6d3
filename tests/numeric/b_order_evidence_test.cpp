#include "lib/numeric/stats/b_order_evidence.h"

#include <doctest/doctest.h>

#include "lib/adapter/adapter_file.h"
#include "lib/adapter/stacked_pairs.h"
#include "lib/base/cast.h"
#include "tests/numeric/made_profile.h"

using namespace moelora;
using namespace moelora::test;
using Confidence = BOrderEvidence::Confidence;

namespace {

Tensor as(DType dtype, const Tensor& f32) {
  return f32.map_sources(dtype,
                         [&](const SourcePtr& source) { return cast_source(source, dtype); });
}

// Small whole numbers, which every float type holds.
Tensor numbers(const Shape& shape, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<float> values(static_cast<size_t>(shape[0] * shape[1]));
  for (float& value : values) value = static_cast<float>(random() % 17) - 8;
  return Tensor::of_f32(shape, values);
}

double sum_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

MadeProfile made(int64_t experts, int64_t rank, double expert = 0.2) {
  MadeProfile out;
  out.experts = experts;
  out.rank = rank;
  out.expert = expert;
  return out;
}

std::vector<StackedPair> pairs_of(std::span<const ExpertTensor> experts) {
  return pair_up(experts);
}

}  // namespace

TEST_CASE("a profile holds the norms of lora_A's rows and lora_B's columns") {
  // Sizes with and without whole vectors, and of more rows than one block.
  for (const auto& [rows, in, out_dim] :
       {std::tuple(8, 5, 3), std::tuple(64, 96, 2100), std::tuple(70, 33, 4100)}) {
    const Tensor a = numbers({rows, in}, 1), b = numbers({out_dim, rows}, 2);
    const std::vector<double> a_values = read_double(a), b_values = read_double(b);
    for (const DType dtype : {DType::F32, DType::BF16, DType::F16, DType::F64}) {
      CAPTURE(dtype_name(dtype));
      const StackedProfile p = profile_stacked_pair(as(dtype, a), as(dtype, b), 2);
      CHECK(p.rank == rows / 2);
      CHECK(p.finite);
      for (int r = 0; r < rows; ++r) {
        double row = 0, column = 0;
        for (int i = 0; i < in; ++i) row += std::pow(a_values[static_cast<size_t>(r * in + i)], 2);
        for (int o = 0; o < out_dim; ++o)
          column += std::pow(b_values[static_cast<size_t>(o * rows + r)], 2);
        REQUIRE(p.row_squares[static_cast<size_t>(r)] == row);
        REQUIRE(p.column_squares[static_cast<size_t>(r)] == column);
      }
    }
  }
}

TEST_CASE("a profile knows zero columns, initial rows and what is not finite") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto profile = [](std::vector<float> b_values) {
    const std::vector<float> a_values = {0.5F, -0.5F, 0.5F, 0.5F, 0.6F, 0, 0, 0,
                                         0,    0,     0,    0,    -1,   1, 1, 1};
    return profile_stacked_pair(Tensor::of_f32({4, 4}, a_values), Tensor::of_f32({2, 4}, b_values),
                                2);
  };
  const StackedProfile p = profile({0, 1, -0.0F, 1e-30F, 0, 0, 0, 0});
  CHECK(p.column_is_zero == std::vector<char>{1, 0, 1, 0});
  CHECK(p.row_is_initial == std::vector<char>{1, 0, 1, 0});  // up to 1/sqrt(4)
  CHECK(p.finite);
  CHECK_FALSE(profile({0, 1, 1, 1, 0, 0, 0, nan}).finite);
  CHECK_FALSE(profile({0, 1, 1, 1, 0, INFINITY, 0, 0}).finite);
}

TEST_CASE("normal scores depend on the order of values alone") {
  const std::vector<double> values = {1, 100, 3, -5, 3};
  const std::vector<double> scores = normal_scores(values);
  CHECK(scores[3] < scores[0]);
  CHECK(scores[0] < scores[2]);
  CHECK(scores[2] == scores[4]);
  CHECK(scores[2] < scores[1]);
  CHECK(sum_of(scores) == doctest::Approx(0));
  double squares = 0;
  for (const double score : scores) squares += score * score;
  CHECK(squares == doctest::Approx(5));
  CHECK(sum_of(normal_scores(std::vector<double>(7, 4.0))) == 0);
  std::vector<double> many(1001);
  std::iota(many.begin(), many.end(), 0);
  const std::vector<double> of_many = normal_scores(many);
  CHECK(of_many[841] == doctest::Approx(0.9982).epsilon(0.01));  // quantile of 841.5/1001
  CHECK(of_many[159] == doctest::Approx(-of_many[841]));
}

TEST_CASE("experts, components and the rest share out the sum of squares") {
  const MadeProfile shape = made(12, 5);
  const std::vector<double> scores = normal_scores(shape.make(3).column_squares);
  for (const bool expert_major : {false, true}) {
    std::vector<double> rest;
    const TwoWayFit fit = two_way_fit(scores, {12, 5, expert_major}, &rest);
    double left = 0;
    for (const double value : rest) left += value * value;
    CHECK(fit.both() + left == doctest::Approx(60));
  }
}

TEST_CASE("where there is no structure, the statistics are standard normal") {
  for (const auto& size : {std::pair(32, 8), std::pair(12, 5), std::pair(8, 16)}) {
    CAPTURE(size.first);
    std::array<double, 3> squares{};
    constexpr int kAdapters = 1500;
    for (int i = 0; i < kAdapters; ++i) {
      const BOrderEvidence e =
          b_order_evidence(made(size.first, size.second, 0).make(static_cast<uint64_t>(i)));
      squares[0] += e.grouping * e.grouping;
      squares[1] += e.strict * e.strict;
      squares[2] += e.pairing * e.pairing;
    }
    for (const double sum : squares) CHECK(sum / kAdapters == doctest::Approx(1).epsilon(0.15));
  }
}

TEST_CASE("the order is found where experts differ") {
  // Of one pair alone, at the least that is promised: E 32, r 8, column sd 0.3, expert sd 0.2.
  for (const auto& size : {std::pair(32, 8), std::pair(32, 16), std::pair(32, 32), std::pair(64, 8),
                           std::pair(128, 8), std::pair(128, 16), std::pair(60, 12)})
    for (const double expert : {0.2, 0.5}) {
      CAPTURE(size.first);
      CAPTURE(size.second);
      const HitRate rate = hit_rate(made(size.first, size.second, expert), 200);
      CHECK(rate.percent(rate.right) >= 95);
      CHECK(rate.certain_wrong == 0);
    }
}

TEST_CASE("many pairs of little evidence are much evidence") {
  CHECK(hit_rate(made(8, 4), 60).right < 30);
  const HitRate joined = hit_rate(made(8, 4), 60, 24);
  CHECK(joined.right == 60);
  CHECK(joined.certain_wrong == 0);
}

TEST_CASE("without evidence, nothing is certain") {
  for (const auto& [experts, rank] : {std::pair(4, 4), std::pair(8, 2), std::pair(128, 16)}) {
    const HitRate rate = hit_rate(made(experts, rank, 0), 400);
    CHECK(rate.certain == 0);
    CHECK(rate.percent(rate.unknown) > 90);
  }
}

TEST_CASE("rank components that differ do not pose as experts") {
  MadeProfile svd = made(32, 8, 0);
  svd.component = 1;
  HitRate rate = hit_rate(svd, 200);
  CHECK(rate.percent(rate.unknown) > 90);
  SUBCASE("nor when both sizes are the same, as lora_A shows") {
    svd.rank = 32;
    svd.rows_fall = true;
    rate = hit_rate(svd, 200);
    CHECK(rate.percent(rate.unknown) > 90);
    CHECK(rate.certain == 0);
  }
  SUBCASE("and experts are found beside them") {
    svd.experts = 128;
    svd.rows_fall = true;
    svd.expert = 0.2;
    rate = hit_rate(svd, 200);
    CHECK(rate.percent(rate.right) > 90);
  }
}

TEST_CASE("columns that grew with their rows of lora_A give the order away") {
  MadeProfile trained = made(128, 16, 0);
  trained.together = 0.3;
  const HitRate rate = hit_rate(trained, 100);
  CHECK(rate.right == 100);
  CHECK(rate.certain == 0);  // of this alone
}

TEST_CASE("experts that no token reached decide") {
  for (const BOrder order : {BOrder::rank_major, BOrder::expert_major}) {
    MadeProfile dead = made(32, 8, 0);
    dead.order = order;
    dead.dead = 4;
    const BOrderEvidence e = b_order_evidence(dead.make(5));
    CHECK(e.verdict == order);
    CHECK(e.confidence == Confidence::certain);
    CHECK(e.zeros_with_initial_rows == 1);
    CHECK(e.zeros_rank_major + e.zeros_expert_major == 1);
    SUBCASE("also where lora_A says nothing") {
      StackedProfile quiet = dead.make(5);
      quiet.row_is_initial.assign(quiet.row_is_initial.size(), 0);
      const BOrderEvidence of_quiet = b_order_evidence(quiet);
      CHECK(of_quiet.verdict == order);
      CHECK(of_quiet.confidence == Confidence::certain);
      CHECK(of_quiet.zeros_with_initial_rows == 0);
    }
  }
}

TEST_CASE("zero columns that something else explains decide nothing") {
  SUBCASE("a rank that was padded") {
    for (const BOrder order : {BOrder::rank_major, BOrder::expert_major}) {
      MadeProfile padded = made(32, 8, 0);
      padded.order = order;
      padded.padding = 4;
      const BOrderEvidence e = b_order_evidence(padded.make(1));
      CHECK(e.zeros_rank_major + e.zeros_expert_major == 0);
      CHECK(e.confidence != Confidence::certain);
    }
  }
  SUBCASE("columns here and there") {
    StackedProfile p = made(32, 8, 0).make(1);
    for (const size_t at : {3U, 77U, 130U}) p.column_is_zero[at] = 1, p.column_squares[at] = 0;
    const BOrderEvidence e = b_order_evidence(p);
    CHECK(e.zeros_rank_major + e.zeros_expert_major == 0);
  }
  SUBCASE("a block at the end is not certain without lora_A") {
    StackedProfile p = made(32, 8, 0).make(1);
    for (size_t at = 216; at < 256; ++at) p.column_is_zero[at] = 1, p.column_squares[at] = 0;
    const BOrderEvidence e = b_order_evidence(p);
    CHECK(e.zeros_expert_major == 1);
    CHECK(e.zeros_chance == 0);
    CHECK(e.confidence == Confidence::likely);
  }
  SUBCASE("pairs that contradict each other") {
    MadeProfile dead = made(32, 8, 0);
    dead.dead = 4;
    std::vector<BOrderEvidence> pairs = {b_order_evidence(dead.make(1))};
    dead.order = BOrder::expert_major;
    pairs.push_back(b_order_evidence(dead.make(2)));
    const BOrderEvidence joined = join_b_order_evidence(pairs);
    CHECK_FALSE(joined.verdict);
    CHECK(describe(joined) ==
          "the values do not say: pairs whose columns are exactly 0 contradict each other");
  }
}

TEST_CASE("pairs that cannot show the order are left out") {
  StackedProfile p = made(32, 8, 0.5).make(1);
  SUBCASE("lora_B is zero") { p.column_is_zero.assign(256, 1); }
  SUBCASE("a value is not finite") { p.finite = false; }
  SUBCASE("there is one expert") { p.experts = 1, p.rank = 256; }
  SUBCASE("the rank is one") { p.experts = 256, p.rank = 1; }
  const BOrderEvidence e = b_order_evidence(p);
  CHECK(e.pairs == 0);
  CHECK_FALSE(e.verdict);
  const std::vector<BOrderEvidence> pairs = {e, b_order_evidence(made(32, 8, 0.5).make(1))};
  CHECK(join_b_order_evidence(pairs).grouping == pairs[1].grouping);
}

TEST_CASE("the evidence is described in words") {
  BOrderEvidence e = b_order_evidence(made(128, 16, 0.5).make(1));
  e.grouping = 61.23;
  CHECK(describe(e) ==
        "the values speak for rank-major (certain): the columns of an expert have similar norms "
        "(61.2 standard deviations over 1 pair)");
  MadeProfile dead = made(32, 8, 0);
  dead.order = BOrder::expert_major;
  dead.dead = 4;
  e = b_order_evidence(dead.make(1));
  e.grouping = e.pairing = 0;
  CHECK(describe(e) ==
        "the values speak for expert-major (certain): the columns that are exactly 0 are whole "
        "experts in 1 pair, and in 1 pair lora_A's rows of the same experts are as initialised");
  CHECK(describe(b_order_evidence(made(128, 16, 0).make(1))) ==
        "the values do not say: neither order stands out in 1 pair");
  CHECK(describe(BOrderEvidence{}) ==
        "the values do not say: lora_B is 0 or not finite, or both orders are the same");
}

TEST_CASE("the golden adapters, which nobody trained, are never certain and wrong") {
  const std::pair<const char*, BOrder> forms[] = {
      {"peft_params", BOrder::rank_major},
      {"peft_params_grouped_b", BOrder::expert_major},
      {"peft_params_grouped_b_unmarked", BOrder::expert_major}};
  for (const char* const family : {"gpt_oss", "qwen3_moe"})
    for (const auto& form : forms) {
      CAPTURE(form.first);
      const std::string name = std::string(family) + "/" + form.first;
      const std::string path = std::string(MOELORA_TEST_DATA) + "/" + name;
      const AdapterFiles files = open_adapter(path);
      const std::vector<ExpertTensor> experts = expert_tensors(files.tensors);
      const std::vector<StackedPair> pairs = pairs_of(experts);
      REQUIRE_FALSE(pairs.empty());
      const BOrderEvidence e =
          b_order_evidence(pairs, pairs[0].a->tensor.dim(0) / files.config.r, 1);
      CHECK(e.pairs == static_cast<int64_t>(pairs.size()));
      if (e.confidence == Confidence::certain) CHECK(e.verdict == form.second);
      MESSAGE(name, ": ", describe(e));
    }
}

TEST_CASE("tensors that were written in a known order are read so") {
  constexpr int64_t kExperts = 32, kRank = 8, kIn = 64, kOut = 48;
  for (const BOrder order : {BOrder::rank_major, BOrder::expert_major}) {
    MadeProfile profile = made(kExperts, kRank, 0.5);
    profile.order = order;
    const StackedProfile norms = profile.make(9);
    std::mt19937_64 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> a(kExperts * kRank * kIn), b(kOut * kExperts * kRank);
    for (float& value : a) value = normal(random);
    for (size_t i = 0; i < b.size(); ++i)
      b[i] = normal(random) *
             static_cast<float>(std::sqrt(norms.column_squares[i % (kExperts * kRank)]));
    const BOrderEvidence e = b_order_evidence(profile_stacked_pair(
        as(DType::BF16, Tensor::of_f32({kExperts * kRank, kIn}, a)),
        as(DType::BF16, Tensor::of_f32({kOut, kExperts * kRank}, b)), kExperts));
    CHECK(e.verdict == order);
    CHECK(e.confidence == Confidence::certain);
  }
}
