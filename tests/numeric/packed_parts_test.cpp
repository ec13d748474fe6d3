// The parts of the packed check, each against literal values or a plain loop.

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>

#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/numeric/packed/field.h"
#include "lib/numeric/packed/gather.h"
#include "lib/numeric/packed/hypotheses.h"
#include "lib/numeric/packed/names.h"
#include "lib/numeric/packed/pattern_key.h"
#include "lib/numeric/packed/probes.h"
#include "lib/numeric/packed/rounding.h"
#include "lib/numeric/packed/scales.h"

using namespace moelora;
using namespace moelora::packed;

TEST_CASE("factor names of every spelling are taken apart") {
  struct Row {
    const char *name, *module, *stem, *rest;
    Side side;
    int layer;
  };
  const std::vector<Row> rows = {
      {"base_model.model.model.layers.3.mlp.experts.7.gate_proj.lora_A.weight",
       "model.layers.3.mlp.experts.7.gate_proj", "model.layers.3.mlp.experts", "7.gate_proj",
       Side::A, 3},
      {"base_model.model.base_model.model.model.layers.12.mlp.experts.lora_B",
       "model.layers.12.mlp.experts", "model.layers.12.mlp.experts", "", Side::B, 12},
      {"model.layers.0.mlp.experts.base_layer.lora_A.default.weight",
       "model.layers.0.mlp.experts.base_layer", "model.layers.0.mlp.experts", "base_layer", Side::A,
       0},
      {"layers.5.block_sparse_moe.experts.w2.lora_B.weight", "layers.5.block_sparse_moe.experts.w2",
       "layers.5.block_sparse_moe.experts", "w2", Side::B, 5},
      {"model.layers.1.self_attn.q_proj.lora_A.weight", "model.layers.1.self_attn.q_proj", "", "",
       Side::A, -1},
      {"model.layers.1.mlp.shared_experts.up_proj.lora_A.weight",
       "model.layers.1.mlp.shared_experts.up_proj", "", "", Side::A, -1},
      {"model.layers.01.mlp.experts.w1.lora_A.weight", "model.layers.01.mlp.experts.w1", "", "",
       Side::A, -1},
  };
  for (const Row& row : rows) {
    CAPTURE(row.name);
    const auto name = parse_factor_name(row.name);
    REQUIRE(name);
    CHECK(name->module == row.module);
    CHECK(name->side == row.side);
    CHECK(name->expert == (row.layer >= 0));
    CHECK(name->layer == row.layer);
    if (row.layer >= 0) CHECK(name->stem == row.stem);
    if (row.layer >= 0) CHECK(name->rest == row.rest);
  }
  for (const char* other :
       {"lm_head.weight", "a.lora_B.bias", "a.lora_magnitude_vector", "lora_A.weight", ""})
    CHECK_FALSE(parse_factor_name(other));
}

TEST_CASE("what stands below experts says layout, projection and expert") {
  using Form = ExpertRest::Form;
  struct Row {
    const char* rest;
    Form form;
    Projection projection;
    int64_t expert;
    int nesting;
  };
  for (const Row& row : std::vector<Row>{
           {"7.gate_proj", Form::numbered, Projection::gate, 7, 0},
           {"11.w2", Form::numbered, Projection::down, 11, 0},
           {"0.gate_up_proj", Form::numbered, Projection::gate_up, 0, 0},
           {"gate_up_projs.30", Form::plural, Projection::gate_up, 30, 0},
           {"w3", Form::all, Projection::up, -1, 0},
           {"down_proj", Form::all, Projection::down, -1, 0},
           {"", Form::parameter, Projection::down, -1, 0},
           {"base_layer", Form::parameter, Projection::down, -1, 1},
           {"base_layer.base_layer", Form::parameter, Projection::down, -1, 2},
       }) {
    CAPTURE(row.rest);
    const auto rest = parse_expert_rest(row.rest);
    REQUIRE(rest);
    CHECK(rest->form == row.form);
    if (row.form != Form::parameter) CHECK(rest->projection == row.projection);
    CHECK(rest->expert == row.expert);
    CHECK(rest->nesting == row.nesting);
  }
  for (const char* other : {"7", "7.q_proj", "shared.gate_proj", "up_projs.1", "-1.w1", "w4",
                            "base_layer.", "7.gate_proj.x", "01.w1"})
    CHECK_FALSE(parse_expert_rest(other));
}

TEST_CASE("pattern keys name what PEFT's re.match names") {
  const auto names = [](const char* key, const char* path) {
    return PatternKey(key, "config").names(path);
  };
  CHECK(names("q_proj", "model.layers.0.self_attn.q_proj"));
  CHECK_FALSE(names("q_proj", "model.layers.0.self_attn.xq_proj"));
  CHECK(names("(q|v)_proj", "model.layers.0.self_attn.v_proj"));
  CHECK(names(R"(layers\.\d+\.mlp\.experts\.gate_up_proj)",
              "model.layers.31.mlp.experts.gate_up_proj"));
  CHECK_FALSE(names(R"(layers\.[0-4]\.mlp)", "model.layers.5.mlp"));
  CHECK(names(R"(.*\.gate_up_proj)", "model.layers.1.mlp.experts.gate_up_proj"));
  CHECK(names("^model.layers.1.mlp$", "model.layers.1.mlp"));
  CHECK(names(R"(layers\.\d{2}\.mlp)", "model.layers.17.mlp"));
  CHECK_FALSE(names(R"(layers\.\d{2}\.mlp)", "model.layers.7.mlp"));
  CHECK(names(R"(a(b|c)*?d{1,3})", "x.abcbd"));
  CHECK(names("experts.[^.]+.w1", "model.experts.11.w1"));
  CHECK_FALSE(names("experts.[^.]+.w1", "model.experts.11.2.w1"));
  CHECK(names("((a*)*)*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"));
  CHECK_FALSE(names("((a*)*)*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
  for (const char* bad :
       {"(", "a)", "[a", "(?=a)", R"(\b)", "a{3", "a{2,1}", "*a", "x{64}{64}{64}"})
    CHECK_THROWS_AS(PatternKey(bad, "config"), Error);
}

TEST_CASE("the first pattern in the file's order gives rank and alpha") {
  const Json config = parse_json(R"({"r": 8, "lora_alpha": 16, "rank_pattern":
      {"experts\\.1\\.w1": 4, "w1": 2, "gate_up_proj": 32}, "alpha_pattern": {"w1": 6.5}})",
                                 "c");
  const Scales scales(config, "c");
  CHECK(scales.of({"model.layers.0.mlp.experts.1.w1"}) == Scale{6.5, 4, false});
  CHECK(scales.of({"model.layers.0.mlp.experts.2.w1"}) == Scale{6.5, 2, false});
  CHECK(scales.of({"model.layers.0.mlp.experts.2.w2"}) == Scale{16, 8, false});
  CHECK(scales.of({"experts.w9", "experts.gate_up_proj"}) == Scale{16, 32, false});
  CHECK(Scale{12, 9, true}.value() == 4);
  CHECK_THROWS_AS(Scales(parse_json(R"({"r": 0, "lora_alpha": 1})", "c"), "c"), Error);
  CHECK_THROWS_AS(Scales(parse_json(R"({"lora_alpha": 1})", "c"), "c"), Error);
}

TEST_CASE("every 16-bit value has the value lib/base gives it, and every cast its bits") {
  for (const DType type : {DType::F16, DType::BF16}) {
    std::vector<std::byte> bits(2 << 16), wide(4 << 16), back(2 << 16);
    for (uint32_t i = 0; i < 65536; ++i) {
      const auto word = static_cast<uint16_t>(i);
      std::memcpy(bits.data() + 2 * i, &word, 2);
    }
    packed::cast(type, DType::F32, 65536, bits.data(), wide.data());
    std::vector<std::byte> expected(4 << 16);
    cast_elements(type, DType::F32, 65536, bits.data(), expected.data());
    int wrong = 0;
    for (int64_t i = 0; i < 65536; ++i) {
      const uint64_t found = element(wide.data(), 4, i), want = element(expected.data(), 4, i);
      const bool nan = is_nan(DType::F32, want);
      wrong += nan ? !is_nan(DType::F32, found) : found != want;
      const double value = value_of(type, static_cast<uint64_t>(i));
      if (!nan) wrong += bits_of(type, value) != static_cast<uint64_t>(i);
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("narrowing rounds to nearest, ties to even, as lib/base does for a million values") {
  std::mt19937_64 rng(5);
  std::vector<uint32_t> in(1 << 20);
  for (uint32_t& v : in) v = static_cast<uint32_t>(rng());
  for (uint32_t i = 0; i < 4096; ++i) in[i] = 0x3F800000U + (i << 12U);  // many ties
  const auto* from = reinterpret_cast<const std::byte*>(in.data());
  const auto count = static_cast<int64_t>(in.size());
  for (const DType to : {DType::F16, DType::BF16}) {
    std::vector<std::byte> found(in.size() * 2), expected(in.size() * 2);
    packed::cast(DType::F32, to, count, from, found.data());
    cast_elements(DType::F32, to, count, from, expected.data());
    int wrong = 0;
    for (int64_t i = 0; i < count; ++i) {
      const uint64_t a = element(found.data(), 2, i), b = element(expected.data(), 2, i);
      wrong += is_nan(to, b) ? !is_nan(to, a) : a != b;
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("a scale folded into lora_B is rounded as torch does, or once") {
  // 1.0078125 * 1.7: torch goes through F32.
  const uint64_t b = bits_of(DType::BF16, 1.0078125);
  CHECK(value_of(DType::BF16, folded(DType::BF16, b, 1.7, FoldRounding::once)) == 1.7109375);
  CHECK(folded(DType::BF16, b, 2, FoldRounding::torch) == bits_of(DType::BF16, 2.015625));
  CHECK(is_infinite(DType::BF16,
                    folded(DType::BF16, bits_of(DType::BF16, 3e38), 2, FoldRounding::torch)));
  int different = 0;
  for (uint64_t bits = 0x3F80; bits < 0x4000; ++bits)
    for (double s : {1.7, 0.1, 1.0 / 3})
      different += folded(DType::BF16, bits, s, FoldRounding::once) !=
                   folded(DType::BF16, bits, s, FoldRounding::torch);
  CHECK(different < 8);  // the two are rarely not the same
}

TEST_CASE("gather moves any three axes as a plain loop does") {
  std::mt19937_64 rng(9);
  for (int round = 0; round < 300; ++round) {
    const std::array<int64_t, 3> count = {1 + static_cast<int64_t>(rng() % 40),
                                          1 + static_cast<int64_t>(rng() % 40),
                                          1 + static_cast<int64_t>(rng() % 40)};
    std::array<size_t, 3> from = {0, 1, 2}, to = {0, 1, 2};
    std::shuffle(from.begin(), from.end(), rng);
    std::shuffle(to.begin(), to.end(), rng);
    std::array<GatherAxis, 3> axes = {};
    int64_t step = 1 + static_cast<int64_t>(rng() % 2);
    for (const size_t a : from) {
      axes[a].count = count[a];
      axes[a].from = step;
      step *= count[a];
    }
    const int64_t span = step + 1;
    step = 1;
    for (const size_t a : to) {
      axes[a].to = step;
      step *= count[a];
    }
    for (const int bytes : {1, 2, 4, 8}) {
      std::vector<std::byte> in(static_cast<size_t>(2 * span * bytes));
      for (std::byte& b : in) b = static_cast<std::byte>(rng());
      std::vector<std::byte> out(static_cast<size_t>(step * bytes)), expected(out.size());
      gather(bytes, axes, in.data(), out.data());
      for (int64_t i = 0; i < count[0]; ++i)
        for (int64_t j = 0; j < count[1]; ++j)
          for (int64_t k = 0; k < count[2]; ++k)
            std::memcpy(
                expected.data() + (i * axes[0].to + j * axes[1].to + k * axes[2].to) * bytes,
                in.data() + (i * axes[0].from + j * axes[1].from + k * axes[2].from) * bytes,
                static_cast<size_t>(bytes));
      REQUIRE(out == expected);
    }
  }
}

namespace {

uint64_t power(uint64_t base, uint64_t exponent) {
  Field out = Field::of(int64_t{1}), b = Field::of(static_cast<int64_t>(base));
  for (; exponent != 0; exponent >>= 1U) {
    if ((exponent & 1U) != 0) out = out * b;
    b = b * b;
  }
  return out.residue();
}

}  // namespace

TEST_CASE("the field's prime is prime, and 2 generates all of it") {
  const uint64_t p = Field::kPrime, q = (p - 1) / 2;
  for (const uint64_t base : {2U, 3U, 5U, 7U, 11U, 13U, 17U, 19U, 23U, 29U, 31U, 37U})
    CHECK(power(base, p - 1) == 1);  // Fermat; p was found prime by Miller-Rabin for all these
  CHECK(power(2, q) == p - 1);       // p - 1 = 2q with q prime: the order of 2 is p - 1
  CHECK(power(2, 2) == 4);
  CHECK(q % 2 == 1);
}

TEST_CASE("numbers keep their sums and products in the field") {
  std::mt19937_64 rng(4);
  std::uniform_real_distribution<double> mantissa(-1, 1);
  for (int i = 0; i < 1000; ++i) {
    const auto small = [&] {
      return std::ldexp(std::nearbyint(mantissa(rng) * 65536), static_cast<int>(rng() % 10) - 130);
    };
    const double a = small(), b = small(), c = small();
    CHECK(Field::of(a + b) == Field::of(a) + Field::of(b));
    CHECK(Field::of(a - b) == Field::of(a) - Field::of(b));
    CHECK(Field::of(a * c * 0x1p200) == Field::of(a) * Field::of(c) * Field::power_of_two(200));
  }
  const Field third = Field::of(int64_t{3}).inverse();
  CHECK(third * Field::of(int64_t{3}) == Field::of(int64_t{1}));
  CHECK(Field::of(int64_t{-5}) + Field::of(int64_t{5}) == Field());
  CHECK(Field::of(0x1p-1074) * Field::power_of_two(1074) == Field::of(int64_t{1}));
}

namespace {

ProbeSums sums_of(DType dtype, Side side, int64_t rank, int64_t width,
                  const std::vector<double>& values) {  // in the part's order
  std::vector<std::byte> bytes(values.size() * static_cast<size_t>(dtype_bytes(dtype)));
  for (size_t i = 0; i < values.size(); ++i) {
    const uint64_t b = bits_of(dtype, values[i]);
    std::memcpy(bytes.data() + i * static_cast<size_t>(dtype_bytes(dtype)), &b,
                static_cast<size_t>(dtype_bytes(dtype)));
  }
  ProbeSums out;
  add_probes({bytes.data(), rank, dtype}, side, width, 0, out);
  return out;
}

}  // namespace

TEST_CASE("probe sums are exact in double and in the field alike") {
  std::mt19937_64 rng(8);
  std::normal_distribution<double> normal;
  const int64_t rank = 5, width = 3000;
  std::vector<double> values(static_cast<size_t>(rank * width));
  for (double& v : values) v = value_of(DType::BF16, bits_of(DType::BF16, normal(rng)));
  for (const Side side : {Side::A, Side::B}) {
    const ProbeSums fast = sums_of(DType::BF16, side, rank, width, values);
    const ProbeSums slow = sums_of(DType::F32, side, rank, width, values);
    CHECK(fast.by_doubles);
    CHECK_FALSE(slow.by_doubles);  // F32 may have bits that double has no room for
    CHECK(fast.of == slow.of);
  }
  values[7] = 0x1p100;  // a spread that no double holds
  CHECK_FALSE(sums_of(DType::BF16, Side::A, rank, width, values).by_doubles);
  CHECK(sums_of(DType::BF16, Side::A, rank, width, values).of ==
        sums_of(DType::F32, Side::A, rank, width, values).of);
  values[7] = HUGE_VAL;
  CHECK_FALSE(sums_of(DType::BF16, Side::A, rank, width, values).finite);
}

TEST_CASE("windows of x add up to the whole") {
  std::mt19937_64 rng(2);
  const int64_t rank = 3, width = 2500;
  std::vector<std::byte> bytes(static_cast<size_t>(rank * width * 2));
  for (size_t i = 0; i < bytes.size(); i += 2) {
    const auto b = static_cast<uint16_t>(0x3F00U + rng() % 256 + (rng() % 2 << 15U));
    std::memcpy(bytes.data() + i, &b, 2);
  }
  ProbeSums whole, parts;  // B: [x][k], so that a window of x is one run
  add_probes({bytes.data(), rank, DType::BF16}, Side::B, width, 0, whole);
  for (int64_t x = 0; x < width; x += 700)
    add_probes({bytes.data() + x * rank * 2, rank, DType::BF16}, Side::B,
               std::min<int64_t>(700, width - x), x, parts);
  CHECK(whole.of == parts.of);
}

TEST_CASE("the certificate is what the widest sum needs") {
  // One element of 8 bits times 6 bits: 14 bits and the spread.
  CHECK(exact_in_double(DType::BF16, 1, 1, 1));
  CHECK(exact_in_double(DType::BF16, 0x1p-20, 0x1p7, 2048));
  CHECK_FALSE(exact_in_double(DType::BF16, 0x1p-20, 0x1p20, 2048));
  CHECK_FALSE(exact_in_double(DType::F32, 0x1p-20, 1, 2048));
}

TEST_CASE("a scale's fault has the name of what was done") {
  CHECK(scale_fault(0.25, 4, 16, 16) == FaultKind::scale_missing);
  CHECK(scale_fault(4, 4, 9, 9) == FaultKind::scale_twice);
  CHECK(scale_fault(3, 2, 9, 9) == FaultKind::scale_rslora);
  CHECK(scale_fault(0.5, 3, 8, 16) == FaultKind::scale_of_padded_rank);
  CHECK(scale_fault(0.7, 2, 9, 9) == FaultKind::scale_other);
}

TEST_CASE("orders of experts have names") {
  CHECK(order_of({{2, 5}, {5, 2}}, 12, true) == FaultKind::experts_exchanged);
  CHECK(order_of({{0, 2}, {1, 3}, {2, 0}, {3, 1}}, 4, true) == FaultKind::experts_rotated);
  CHECK(order_of({{1, 0}, {2, 0}, {3, 0}}, 4, true) == FaultKind::one_for_all);
  CHECK(order_of({{1, 0}, {2, 0}, {3, 0}}, 4, false) == FaultKind::wrong_side_shared);
  CHECK(order_of({{0, 3}, {3, 1}, {1, 0}}, 4, true) == FaultKind::experts_permuted);
}
