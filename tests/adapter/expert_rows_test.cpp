// PEFT's target_parameters on DBRX, whose experts are rows of one matrix of two dims: to PEFT each
// of w1, v1 and w2 [E*I, H] is one Linear with W += s B A, A [r, H] and B [E*I, r]. The deltas of
// single experts are worked out here from that, in fp64, by plain loops over the literal names.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "lib/base/error.h"
#include "tests/adapter/goldens.h"
#include "tests/adapter/made_adapter.h"

using namespace moelora;
using namespace moelora::test;

namespace {

namespace fs = std::filesystem;

struct Sizes {
  int64_t experts, intermediate, hidden, rank;
};
// All of other sizes, and experts that are square.
constexpr Sizes kSizes[] = {{7, 26, 60, 3}, {4, 12, 12, 12}};

constexpr double kScale = 5.0 / 3.0;

std::string config_of(const Sizes& s, const std::string& more = "") {
  return fmt::format(R"({{"r": {}, "lora_alpha": {}, "peft_type": "LORA", "target_modules": [],
      "target_parameters": ["mlp.w1", "mlp.v1", "mlp.w2"]{}}})",
                     s.rank, kScale * static_cast<double>(s.rank), more);
}

std::string base_of(const TempFolder& temp, const Sizes& s) {
  const std::string folder = temp.path + "/base";
  fs::create_directories(folder);
  std::ofstream(folder + "/config.json") << fmt::format(
      R"({{"architectures": ["DbrxForCausalLM"], "model_type": "dbrx", "d_model": {},
          "n_layers": 2, "n_heads": 2, "vocab_size": 104, "attn_config": {{"kv_n_heads": 1}},
          "ffn_config": {{"ffn_hidden_size": {}, "moe_num_experts": {}, "moe_top_k": 2}}}})",
      s.hidden, s.intermediate, s.experts);
  return folder;
}

std::string stem_of_layer(int layer) {
  return fmt::format("transformer.blocks.{}.ffn.experts", layer);
}

// The names PEFT gives the pairs of w1, v1 and w2: the first of the class is the innermost.
const std::map<std::string, std::string> kModules = {
    {"gate", ".mlp.base_layer.base_layer"}, {"up", ".mlp.base_layer"}, {"down", ".mlp"}};

MadeAdapter peft_adapter(const Sizes& s) {
  MadeAdapter out(config_of(s));
  for (int layer = 0; layer < 2; ++layer)
    for (const auto& entry : kModules)
      out.pair(stem_of_layer(layer) + entry.second, {s.rank, s.hidden},
               {s.experts * s.intermediate, s.rank});
  return out;
}

std::vector<double> product(const Tensor& a, const Tensor& b) {
  const std::vector<float> av = floats(a), bv = floats(b);
  const int64_t rank = a.dim(0), in = a.dim(1), out = b.dim(0);
  std::vector<double> delta(static_cast<size_t>(in * out));
  for (int64_t o = 0; o < out; ++o)
    for (int64_t i = 0; i < in; ++i)
      for (int64_t k = 0; k < rank; ++k)
        delta[static_cast<size_t>(o * in + i)] +=
            static_cast<double>(bv[static_cast<size_t>(o * rank + k)]) *
            static_cast<double>(av[static_cast<size_t>(k * in + i)]);
  return delta;
}

using Deltas = std::map<std::string, std::vector<double>>;  // "layer 1 expert 3 down": [out, in]

// By the definition: the parameter's delta, cut into experts, down's transposed.
Deltas meant(const TensorMap& tensors, const Sizes& s) {
  Deltas out;
  for (int layer = 0; layer < 2; ++layer)
    for (const auto& [projection, module] : kModules) {
      const std::string path = stem_of_layer(layer) + module;
      if (tensors.count(a_name(path)) == 0) continue;
      const auto whole = product(tensors.at(a_name(path)), tensors.at(b_name(path)));
      for (int64_t e = 0; e < s.experts; ++e) {
        auto& delta = out[fmt::format("layer {} expert {} {}", layer, e, projection)];
        delta.resize(static_cast<size_t>(s.intermediate * s.hidden));
        for (int64_t i = 0; i < s.intermediate; ++i)
          for (int64_t h = 0; h < s.hidden; ++h)
            delta[static_cast<size_t>(projection == "down" ? h * s.intermediate + i
                                                           : i * s.hidden + h)] =
                whole[static_cast<size_t>((e * s.intermediate + i) * s.hidden + h)];
      }
    }
  return out;
}

// Of a written peft-linear: one pair for each expert.
Deltas of_numbered(const TensorMap& tensors, const Sizes& s) {
  Deltas out;
  for (int layer = 0; layer < 2; ++layer)
    for (int64_t e = 0; e < s.experts; ++e)
      for (const auto& entry : kModules) {
        const std::string& projection = entry.first;
        const std::string module =
            fmt::format("{}.{}.{}_proj", stem_of_layer(layer), e, projection);
        if (tensors.count(a_name(module)) != 0)
          out[fmt::format("layer {} expert {} {}", layer, e, projection)] =
              product(tensors.at(a_name(module)), tensors.at(b_name(module)));
      }
  return out;
}

using Words = std::map<std::string, std::string>;
const Words kShort = {{"gate", "w1"}, {"up", "w3"}, {"down", "w2"}};
const Words kLong = {{"gate", "gate_proj"}, {"up", "up_proj"}, {"down", "down_proj"}};

// Of 3-D tensors; a leading 1 is one for all.
Deltas of_stacked(const TensorMap& tensors, const Sizes& s, const Words& words) {
  Deltas out;
  for (int layer = 0; layer < 2; ++layer)
    for (const auto& [projection, word] : words) {
      const std::string module = stem_of_layer(layer) + "." + word;
      const Tensor &a = tensors.at(a_name(module)), &b = tensors.at(b_name(module));
      for (int64_t e = 0; e < s.experts; ++e)
        out[fmt::format("layer {} expert {} {}", layer, e, projection)] =
            product(a.select(0, a.dim(0) == 1 ? 0 : e), b.select(0, b.dim(0) == 1 ? 0 : e));
    }
  return out;
}

Conversion convert(const std::string& folder, const std::string& base, const std::string& to) {
  PlanOptions options;
  options.to = to;
  options.load.base = base;
  return plan_conversion(folder, options);
}

std::string error_of(const std::string& folder, const std::string& base, const std::string& to) {
  try {
    convert(folder, base, to);
  } catch (const Error& error) {
    return std::string(error.what()) + " | " + error.hint();
  }
  return "no error";
}

std::string error_of(const MadeAdapter& made, const std::string& to = "peft-linear",
                     const Sizes& s = kSizes[0]) {
  const TempFolder temp;
  made.write(temp.path + "/in");
  return error_of(temp.path + "/in", base_of(temp, s), to);
}

bool holds(const std::string& text, const std::string& part) {
  const bool found = text.find(part) != std::string::npos;
  if (!found) MESSAGE(text);
  return found;
}

std::string difference(const TensorMap& a, const TensorMap& b) {
  if (a.size() != b.size()) return fmt::format("{} and {} tensors", a.size(), b.size());
  for (const auto& [name, tensor] : a)
    if (b.count(name) == 0 || !identical(tensor, b.at(name))) return name;
  return "";
}

}  // namespace

TEST_CASE(
    "one Linear to PEFT, cut into its experts, is in every layout what PEFT computes in fp64") {
  for (const Sizes& s : kSizes) {
    CAPTURE(s.hidden);
    const TempFolder temp;
    const MadeAdapter made = peft_adapter(s);
    made.write(temp.path + "/in");
    const std::string base = base_of(temp, s);
    const Deltas expected = meant(made.tensors(), s);
    REQUIRE(expected.size() == static_cast<size_t>(2 * 3 * s.experts));

    const Conversion linear = convert(temp.path + "/in", base, "peft-linear");
    CHECK(of_numbered(linear.tensors, s) == expected);
    CHECK(linear.tensors.size() == static_cast<size_t>(2 * 2 * 3 * s.experts));
    for (const auto& entry : linear.adapter.experts)
      CHECK(entry.second.scaling_of(0).value() == doctest::Approx(kScale));
    CHECK(of_stacked(convert(temp.path + "/in", base, "stacked").tensors, s, kLong) == expected);
    const Conversion outer = convert(temp.path + "/in", base, "shared-outer");
    CHECK(of_stacked(outer.tensors, s, kShort) == expected);
    CHECK(outer.tensors.at(a_name(stem_of_layer(1) + ".w1")).shape() == Shape{1, s.rank, s.hidden});
    CHECK(outer.tensors.at(b_name(stem_of_layer(1) + ".w2")).shape() == Shape{1, s.hidden, s.rank});
  }
}

TEST_CASE("what is written for DBRX again from any layout has PEFT's names and the same bytes") {
  for (const Sizes& s : kSizes) {
    const TempFolder temp;
    const MadeAdapter made = peft_adapter(s);
    made.write(temp.path + "/in");
    const std::string base = base_of(temp, s);
    for (const char* layout : {"peft-linear", "stacked", "shared-outer"}) {
      CAPTURE(layout);
      const std::string there = temp.path + "/" + layout;
      WriteFolderOptions write;
      write.output.durable = false;
      write_conversion(convert(temp.path + "/in", base, layout), there, write);
      const Conversion back = convert(there, base, "peft-params");
      CHECK(difference(back.tensors, made.tensors()) == "");
      CHECK(back.config.find("target_parameters")->items().size() == 3);
      for (const Json& target : back.config.find("target_parameters")->items())
        CHECK(target.as_string().starts_with("ffn.experts.mlp."));
    }
    CHECK(difference(convert(temp.path + "/in", base, "peft-params").tensors, made.tensors()) ==
          "");
  }
}

TEST_CASE("of fewer pairs than parameters target_parameters says which they are") {
  const Sizes s = kSizes[0];
  const auto pair_of = [&](const std::string& targets, int pairs) {
    MadeAdapter out(fmt::format(R"({{"r": 3, "lora_alpha": 5, "peft_type": "LORA",
        "target_parameters": [{}]}})",
                                targets));
    std::string module = stem_of_layer(0) + ".mlp";
    for (int i = 0; i < pairs; ++i, module += ".base_layer")
      out.pair(module, {s.rank, s.hidden}, {s.experts * s.intermediate, s.rank});
    return out;
  };
  const TempFolder temp;
  const std::string base = base_of(temp, s);
  const MadeAdapter lone = pair_of(R"("ffn.experts.mlp.v1")", 1);
  lone.write(temp.path + "/in");
  const Conversion read = convert(temp.path + "/in", base, "peft-linear");
  CHECK(read.adapter.has(Projection::up));
  CHECK(read.adapter.experts.size() == 1);
  CHECK(difference(convert(temp.path + "/in", base, "peft-params").tensors, lone.tensors()) == "");
  const MadeAdapter two = pair_of(R"("mlp.w2", "mlp.w1")", 2);
  two.write(temp.path + "/two");
  const Conversion both = convert(temp.path + "/two", base, "peft-linear");
  CHECK(both.adapter.has(Projection::gate));
  CHECK(both.adapter.has(Projection::down));
  CHECK(of_numbered(both.tensors, s).at("layer 0 expert 5 gate")[7] ==
        product(two.tensors().at(a_name(stem_of_layer(0) + ".mlp.base_layer")),
                two.tensors().at(b_name(
                    stem_of_layer(0) +
                    ".mlp.base_layer")))[static_cast<size_t>(5 * s.intermediate * s.hidden + 7)]);
  CHECK(holds(
      error_of(pair_of(R"("mlp.w1", "mlp.v1")", 1)),
      "layer 0 has pairs of 1 of its experts' parameters, and target_parameters names 2 of mlp.w1, "
      "mlp.v1, mlp.w2: shapes do not tell which they are"));
}

TEST_CASE("factors that DBRX's one matrix cannot hold are refused, and nothing is written") {
  const Sizes s = kSizes[0];
  const TempFolder temp;
  const std::string base = base_of(temp, s);
  for (const bool down : {false, true}) {
    MadeAdapter made(R"({"r": 3, "lora_alpha": 5, "peft_type": "LORA",
                         "target_modules": ["gate_proj", "up_proj", "down_proj"]})");
    for (int64_t e = 0; e < s.experts; ++e) {
      const std::string module = fmt::format("{}.{}.", stem_of_layer(0), e);
      if (down)
        made.pair(module + "down_proj", {s.rank, s.intermediate}, {s.hidden, s.rank});
      else
        made.pair(module + "gate_proj", {s.rank, s.hidden}, {s.intermediate, s.rank});
    }
    const std::string in = temp.path + (down ? "/down" : "/gate"), out = in + "_out";
    made.write(in);
    const std::string error = error_of(in, base, "peft-params");
    CHECK(holds(error,
                fmt::format("layer 0 {}: differs between experts 0 and 1; dbrx has all experts as "
                            "rows of one matrix, so that one lora_A of PEFT's serves all",
                            down ? "down_proj lora_B" : "gate_proj lora_A")));
    CHECK(holds(error, "--to stacked"));
    CHECK_FALSE(fs::exists(out));
  }
}

TEST_CASE("pairs that are not those of this base are refused by name") {
  const Sizes s = kSizes[0];
  const std::string module = stem_of_layer(0) + ".mlp";
  const TempFolder temp;
  peft_adapter(s).write(temp.path + "/in");
  CHECK(holds(error_of(temp.path + "/in", "", "peft-linear"),
              "is of experts that are rows of one matrix, and how many experts these are is not "
              "known | name the base model with --base"));
  CHECK(holds(error_of(temp.path + "/in", catalogue_base("mixtral").folder, "peft-linear"),
              "is no parameter of the experts of this base model, a mixtral"));
  MadeAdapter short_one(config_of(s));
  for (const auto& entry : kModules)
    short_one.pair(stem_of_layer(0) + entry.second, {s.rank, s.hidden},
                   {(s.experts - 1) * s.intermediate, s.rank});
  CHECK(holds(error_of(short_one),
              "adapt a matrix [156, 60], but mlp.w1 of this base model is [182, 60]"));
  MadeAdapter stacked(config_of(s));
  stacked.pair(stem_of_layer(0), {s.experts * s.rank, s.hidden},
               {s.intermediate, s.experts * s.rank});
  CHECK(holds(error_of(stacked), "is no parameter of the experts of this base model, a dbrx"));
  MadeAdapter other_rank(config_of({s.experts, s.intermediate, s.hidden, 4}));
  for (const auto& entry : kModules)
    other_rank.pair(stem_of_layer(0) + entry.second, {s.rank, s.hidden},
                    {s.experts * s.intermediate, s.rank});
  CHECK(holds(error_of(other_rank),
              "rank 3 for transformer.blocks.0.ffn.experts.mlp.w1, but "
              "adapter_config.json says 4"));
  MadeAdapter gap = peft_adapter(s);
  gap.remove(a_name(module + ".base_layer")).remove(b_name(module + ".base_layer"));
  CHECK(holds(error_of(gap),
              "stands in 2 base_layer, and the pairs of layer 0 are 2: one of "
              "another depth is missing"));
  MadeAdapter four = peft_adapter(s);
  four.pair(module + ".base_layer.base_layer.base_layer", {s.rank, s.hidden},
            {s.experts * s.intermediate, s.rank});
  CHECK(holds(error_of(four), "layer 0 has pairs of 4 of its experts' parameters"));
}

// ---- JetMoe ----

namespace {

const std::string kJetMoe = MOELORA_TEST_DATA "/families/jetmoe";

}  // namespace

TEST_CASE("JetMoe's parameters stand in modules of their own, and its factors below mlp.experts") {
  // E 7, I 26, H 60; [7, 52, 60] and [7, 60, 26].
  MadeAdapter made(R"({"r": 3, "lora_alpha": 6, "peft_type": "LORA", "rank_pattern": {},
      "target_parameters": ["mlp.input_linear.weight", "mlp.output_linear.weight"]})");
  const std::string mlp = "model.layers.1.mlp.";
  made.pair(mlp + "input_linear", {7 * 3, 60}, {52, 7 * 3});
  made.pair(mlp + "output_linear", {7 * 3, 26}, {60, 7 * 3});
  const TempFolder temp;
  made.write(temp.path + "/in");
  const Conversion linear = convert(temp.path + "/in", kJetMoe, "peft-linear");
  CHECK(linear.tensors.size() == 2 * 3 * 7);
  // Expert e: rows e*r + k of A, columns k*E + e of B; gate is the first half of B's rows.
  const std::vector<float> a = floats(made.tensors().at(a_name(mlp + "input_linear"))),
                           b = floats(made.tensors().at(b_name(mlp + "input_linear")));
  const int e = 4;
  const auto delta = [&](int row, int column) {
    double out = 0;
    for (int k = 0; k < 3; ++k)
      out += static_cast<double>(b[static_cast<size_t>(row * 21 + k * 7 + e)]) *
             static_cast<double>(a[static_cast<size_t>((e * 3 + k) * 60 + column)]);
    return out;
  };
  for (const bool up : {false, true}) {
    const std::string module =
        "model.layers.1.mlp.experts.4." + std::string(up ? "up_proj" : "gate_proj");
    REQUIRE(linear.tensors.count(a_name(module)) == 1);
    const auto found =
        product(linear.tensors.at(a_name(module)), linear.tensors.at(b_name(module)));
    for (const int row : {0, 11, 25})
      for (const int column : {0, 59})
        CHECK(found[static_cast<size_t>(row * 60 + column)] == delta(row + (up ? 26 : 0), column));
  }
  // What was written is read again.
  WriteFolderOptions write;
  write.output.durable = false;
  write_conversion(linear, temp.path + "/linear", write);
  CHECK(difference(convert(temp.path + "/linear", kJetMoe, "peft-linear").tensors,
                   linear.tensors) == "");
  CHECK(holds(error_of(temp.path + "/in", kJetMoe, "peft-params"),
              "jetmoe: holds the parameters of its experts in modules of their own (input_linear, "
              "output_linear), and peft-params nests them below one | use --to peft-linear"));
}

TEST_CASE("the experts of JetMoe's attention are refused by name, and their router is a Linear") {
  const std::string attention = "model.layers.0.self_attention.experts.";
  const TempFolder temp;
  MadeAdapter made(R"({"r": 2, "lora_alpha": 6, "peft_type": "LORA", "target_modules": ["layer"],
      "target_parameters": ["self_attention.experts.input_linear.weight"]})");
  made.pair(attention + "router.layer", {2, 60}, {7, 2});
  made.write(temp.path + "/router");
  const Conversion router = convert(temp.path + "/router", kJetMoe, "peft-linear");
  CHECK(router.adapter.dense.count(attention + "router.layer") == 1);
  CHECK(difference(router.tensors, made.tensors()) == "");
  made.pair(attention + "input_linear", {7 * 2, 60}, {24, 7 * 2});
  made.write(temp.path + "/in");
  const std::string error = error_of(temp.path + "/in", kJetMoe, "peft-linear");
  CHECK(holds(error, attention + "input_linear.lora_A.weight"));
  CHECK(holds(error, "of PEFT on the experts of JetMoe's attention"));
  CHECK(holds(error, "No layout has a place for a second group of experts"));
}
