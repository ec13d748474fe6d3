// No false alarm: whatever lib/adapter converts soundly, the packed check, which shares no code
// with it, finds sound. Random adapters (families, dims, ranks, types, absent experts and halves)
// from random layouts to random layouts; and every golden adapter of a real peer to every layout.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <filesystem>
#include <random>

#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/compare/bits/diagnosis.h"
#include "lib/compare/verify_conversion.h"
#include "lib/model/base_model.h"
#include "tests/adapter/made_adapter.h"
#include "tests/compare/made_pair.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const std::vector<std::string> kLayouts = {"peft-linear",   "peft-params",  "stacked",
                                           "stacked-fused", "linear-fused", "shared-outer"};

class Dice {
 public:
  explicit Dice(uint64_t seed) : rng_(seed) {}
  int64_t between(int64_t least, int64_t most) {
    return least + static_cast<int64_t>(rng_() % static_cast<uint64_t>(most - least + 1));
  }
  bool one_in(int64_t n) { return between(1, n) == 1; }
  template <class T>
  const T& of(const std::vector<T>& list) {
    return list[static_cast<size_t>(between(0, static_cast<int64_t>(list.size()) - 1))];
  }

 private:
  std::mt19937_64 rng_;
};

struct Random {
  BaseModel base;
  Held source;
  std::string text;  // what it is, for a failure
};

void drop(Held& held, const std::string& part) {
  std::erase_if(held.tensors,
                [&](const auto& entry) { return entry.first.find(part) != std::string::npos; });
}

// One expert of every layer with one rank less and the same scale, as rank_pattern allows. REQUIRES
// an alpha that is a multiple of the rank.
void shrink(Held& held, int64_t expert, int64_t rank, double scale) {
  const std::string part = fmt::format(".experts.{}.", expert);
  for (auto& [name, tensor] : held.tensors) {
    if (name.find(part) == std::string::npos) continue;
    const Tensor less = tensor.slice(name.find("lora_A") != std::string::npos ? 0 : 1, 0, rank - 1);
    tensor = Tensor(std::make_shared<MemorySource>(less.dtype(), less.read()), less.shape());
  }
  Json::Members ranks, alphas;
  for (const char* word : {"gate_proj", "up_proj", "down_proj"}) {
    const std::string key = fmt::format("experts.{}.{}", expert, word);
    ranks.emplace_back(key, Json(rank - 1));
    alphas.emplace_back(key, Json(scale * static_cast<double>(rank - 1)));
  }
  held.config.set("rank_pattern", Json::object(std::move(ranks)));
  held.config.set("alpha_pattern", Json::object(std::move(alphas)));
}

Random random_source(Dice& dice) {
  Random out;
  const std::string family = dice.of<std::string>(
      {"qwen3_moe", "gpt_oss", "mixtral", "deepseek_v3", "glm4_moe", "nemotron_h", "qwen2_moe",
       "olmoe", "granitemoe", "llama4_text", "phimoe", "lfm2_moe", "jamba", "dbrx"});
  Dims dims;
  dims.layers = dice.between(1, 3);
  dims.experts = dice.between(2, 14);
  dims.hidden = 4 * dice.between(2, 9);
  dims.intermediate = dice.one_in(5) ? dims.hidden : 2 * dice.between(3, 14);
  MadeOptions made;
  made.rank = dice.between(1, 9);
  made.alpha = static_cast<double>(dice.between(1, 40)) / (dice.one_in(2) ? 1 : 3);
  const bool shrunk = made.rank > 1 && dice.one_in(5);
  const auto scale = static_cast<double>(dice.between(1, 5));
  if (shrunk) made.alpha = scale * static_cast<double>(made.rank);
  made.same_a = dice.one_in(2);
  made.shared_outer = dice.one_in(3);
  made.attention = dice.one_in(2);
  made.dtype = dice.of<DType>({DType::F32, DType::F16, DType::BF16});
  made.seed = static_cast<uint64_t>(dice.between(0, 1 << 30));
  out.base = made_base(family, dims);
  out.source = made_experts(out.base.spec, made);
  const bool absent = dice.one_in(3), halved = dice.one_in(6);
  if (absent) drop(out.source, fmt::format(".experts.{}.", dice.between(0, dims.experts - 1)));
  if (halved) drop(out.source, dice.one_in(2) ? ".up_proj." : ".down_proj.");
  if (shrunk) shrink(out.source, dice.between(0, dims.experts - 1), made.rank, scale);
  if (!shrunk && dice.one_in(4)) out.source.config.set("use_rslora", Json(true));
  out.text = fmt::format(
      "{} L{} E{} H{} I{} r{} a{} same {} shared {} absent {} halved {} "
      "shrunk {}",
      family, dims.layers, dims.experts, dims.hidden, dims.intermediate, made.rank, made.alpha,
      made.same_a, made.shared_outer, absent, halved, shrunk);
  return out;
}

LayoutWriteOptions random_form(Dice& dice) {
  LayoutWriteOptions out;
  out.b_order = dice.one_in(2) ? BOrder::rank_major : BOrder::expert_major;
  out.roles = dice.one_in(2) ? Roles::natural : Roles::swapped;
  out.canonical_names = dice.one_in(2);
  return out;
}

}  // namespace

TEST_CASE("a thousand random sound conversions raise no alarm") {
  Dice dice(20261121);
  int sound = 0, refused = 0, casts = 0, tried = 0;
  while (sound < 1000 && ++tried < 4000) {
    const Random made = random_source(dice);
    if (made.source.tensors.empty()) continue;  // all layers of this small model are dense
    const std::string from = dice.of(kLayouts), to = dice.of(kLayouts);
    std::optional<DType> dtype;
    if (dice.one_in(4)) dtype = dice.of<DType>({DType::F32, DType::F16, DType::BF16});
    const std::string text = fmt::format("{}: {} to {}", made.text, from, to);
    Held source, packed;
    try {
      source = converted(made.source, made.base, from, random_form(dice));
      packed = converted(source, made.base, to, random_form(dice), dtype);
    } catch (const Error&) {  // what that layout cannot say
      ++refused;
      continue;
    }
    INFO(text);
    const packed::Report report = checked(packed, source, &made.base.spec, false);
    for (const packed::Fault& fault : report.faults) FAIL_CHECK(fault.text());
    CHECK(report.factors > 0);
    CHECK(report.different == 0);
    ++sound;
    casts += report.cast > 0 ? 1 : 0;
  }
  MESSAGE(sound << " conversions, " << casts << " of them with casts; " << refused
                << " that lib/adapter refuses");
  CHECK(sound == 1000);
  CHECK(casts > 50);
}

namespace {

namespace fs = std::filesystem;

struct Golden {
  std::string family, name;
  ReadOptions read;
};

std::vector<Golden> goldens() {
  std::vector<Golden> out;
  for (const char* family : {"gpt_oss", "gpt_oss_square", "qwen3_moe", "mixtral", "deepseek_v3",
                             "glm4_moe", "qwen2_moe"})
    for (const auto& entry :
         fs::directory_iterator(std::string(MOELORA_TEST_DATA) + "/" + family)) {
      const std::string name = entry.path().filename().string();
      if (!fs::exists(entry.path() / "adapter_config.json") || name == "base") continue;
      Golden golden{family, name, {}};
      if (name.ends_with("grouped_b_unmarked")) golden.read.b_order = BOrder::expert_major;
      if (std::string(family) == "gpt_oss_square" && name == "peft_params_down_only")
        golden.read.roles = Roles::natural;
      out.push_back(golden);
    }
  return out;
}

packed::Reading reading_of(const ReadOptions& read) {
  packed::Reading out;
  if (read.b_order) out.expert_major = *read.b_order == BOrder::expert_major;
  if (read.roles) out.swapped = *read.roles == Roles::swapped;
  return out;
}

// There and back: the second conversion's source is the first one's result.
void check_golden(const Golden& golden, const std::string& layout, int& sound) {
  const std::string folder = std::string(MOELORA_TEST_DATA) + "/" + golden.family;
  const BaseModel base = open_base(folder + "/base");
  AdapterFiles files = open_adapter(folder + "/" + golden.name);
  const Held source{files.tensors, files.config.json};
  PlanOptions options;
  options.to = layout;
  Held packed;
  try {
    const Conversion c =
        plan_conversion(interpret_adapter(std::move(files), base, "", golden.read), options);
    packed = {c.tensors, c.config};
  } catch (const Error&) {
    return;
  }
  CAPTURE(golden.family);
  CAPTURE(golden.name);
  CAPTURE(layout);
  const packed::Report there = checked(packed, source, &base.spec, false, reading_of(golden.read));
  for (const packed::Fault& fault : there.faults) FAIL_CHECK(fault.text());
  packed::CheckOptions check;
  check.spec = &base.spec;  // with products: what was fused block-diagonally has other factors now
  const packed::Report back =
      packed::check_packed({source.tensors, source.config, "source", reading_of(golden.read)},
                           {packed.tensors, packed.config, "packed", {}}, check);
  for (const packed::Fault& fault : back.faults) FAIL_CHECK(fault.text());
  ++sound;
}

}  // namespace

TEST_CASE("every golden adapter in every layout is what it was, and the reverse") {
  int sound = 0;
  for (const Golden& golden : goldens())
    for (const std::string& layout : kLayouts) check_golden(golden, layout, sound);
  MESSAGE(sound << " conversions of golden adapters, both ways");
  CHECK(sound > 200);
}

TEST_CASE("what tinker-cookbook made of a Tinker file is what the file says") {
  for (const char* family : {"gpt_oss", "qwen3_moe"}) {
    CAPTURE(family);
    const std::string folder = std::string(MOELORA_TEST_DATA) + "/" + family;
    const BaseModel base = open_base(folder + "/base");
    const AdapterFiles from = open_adapter(folder + "/tinker"),
                       to = open_adapter(folder + "/tinker.build_lora_adapter");
    packed::CheckOptions check;
    check.spec = &base.spec;
    const packed::Report report =
        packed::check_packed({to.tensors, to.config.json, "packed", {}},
                             {from.tensors, from.config.json, "source", {}}, check);
    for (const packed::Fault& fault : report.faults) FAIL_CHECK(fault.text());
    CHECK(report.same_bits > 0);
    CHECK(report.same_product == 0);
  }
}

TEST_CASE("forms of one adapter in which peers save it are one adapter") {
  const std::string folder = std::string(MOELORA_TEST_DATA "/gpt_oss");
  const BaseModel base = open_base(folder + "/base");
  const AdapterFiles one = open_adapter(folder + "/peft_params");
  for (const char* form : {"peft_params_swapped_roles", "peft_params_grouped_b",
                           "peft_params_alphabetical", "peft_params_grouped_b_unmarked"}) {
    CAPTURE(form);
    const AdapterFiles other = open_adapter(folder + "/" + form);
    packed::CheckOptions check;
    check.spec = &base.spec;
    packed::Reading reading;
    if (std::string(form).ends_with("unmarked")) reading.expert_major = true;
    const packed::Report report =
        packed::check_packed({other.tensors, other.config.json, "packed", reading},
                             {one.tensors, one.config.json, "source", {}}, check);
    for (const packed::Fault& fault : report.faults) FAIL_CHECK(fault.text());
    if (reading.expert_major) {
      const packed::Report misread =
          packed::check_packed({other.tensors, other.config.json, "packed", {}},
                               {one.tensors, one.config.json, "source", {}}, check);
      CHECK(fault_names(misread) == std::vector<std::string>{"b-order-expert-major"});
    }
  }
}

namespace {

// gate_up with PEFT's columns and down with Unsloth's older ones, and what the config says of each.
Held mixed_orders(const AdapterFiles& rank, const AdapterFiles& grouped, const char* gate_up,
                  const char* down) {
  Held out{rank.tensors, rank.config.json};
  for (auto& [name, tensor] : out.tensors)
    if (name.ends_with(".experts.lora_B.weight")) tensor = grouped.tensors.at(name);
  out.config.set("lora_B_layout", Json());
  out.config.erase("lora_B_layout");
  out.config.set("unsloth_fused_expert_lora",
                 parse_json(fmt::format(R"({{"lora_B_layout": "mixed", "parameters": {{
          "mlp.experts.gate_up_proj": {{"lora_B_layout": "{}"}},
          "mlp.experts.down_proj": {{"lora_B_layout": "{}"}}}}}})",
                                        gate_up, down),
                            "config"));
  return out;
}

}  // namespace

TEST_CASE("columns that differ by parameter are read as each is marked") {
  const std::string folder = std::string(MOELORA_TEST_DATA "/gpt_oss");
  const BaseModel base = open_base(folder + "/base");
  const AdapterFiles one = open_adapter(folder + "/peft_params"),
                     grouped = open_adapter(folder + "/peft_params_grouped_b");
  packed::CheckOptions check;
  check.spec = &base.spec;
  const auto faults = [&](const Held& mixed, const packed::Reading& reading) {
    return fault_names(packed::check_packed({mixed.tensors, mixed.config, "mixed", reading},
                                            {one.tensors, one.config.json, "source", {}}, check));
  };
  const auto as_read = [&](const Held& mixed) {
    AdapterFiles files = one;
    files.tensors = mixed.tensors;
    files.config = parse_adapter_config(mixed.config, "mixed");
    return interpret_adapter(std::move(files), base, "", {}).adapter;
  };
  const Held right = mixed_orders(one, grouped, "rank_major", "grouped_by_expert");
  CHECK(faults(right, {}).empty());
  CHECK(as_read(right).stacked->b_orders.size() == 4);  // two layers
  CHECK(faults(right, reading_of(as_read(right))).empty());
  const Held wrong = mixed_orders(one, grouped, "grouped_by_expert", "rank_major");
  CHECK(!faults(wrong, {}).empty());
  CHECK(!faults(wrong, reading_of(as_read(wrong))).empty());
}
