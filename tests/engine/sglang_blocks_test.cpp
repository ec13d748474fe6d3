// The blocks of all ranks of a server put together: the delta that the adapter means, where SGLang
// is right; and what its versions and options do to it, where it is not.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "lib/adapter/adapter_file.h"
#include "lib/adapter/gate_up.h"
#include "lib/base/cast.h"
#include "lib/engine/buffers.h"
#include "lib/model/model_builder.h"
#include "tests/engine/served_from_folder.h"
#include "tests/engine/sglang_oracle.h"

using namespace moelora;
using namespace moelora::test;

namespace {

struct Case {
  Case(std::string family_, std::string adapter_)
      : family(std::move(family_)), adapter(std::move(adapter_)) {}

  std::string family, adapter, version = "0.5.18";
  ServerOptions options;
  int64_t top_k = 0;  // of the base, where it is not the golden's
  bool rslora = false;
};

std::string label(const Case& c) {
  return fmt::format("{} {} tp {} ep {} {}", c.family, c.adapter, c.options.tp, c.options.ep,
                     c.version);
}

// scale * B A of one module or expert, dense.
struct Delta {
  int64_t out = 0, in = 0;
  std::vector<double> values;
};
using Deltas = std::map<std::string, Delta>;

std::string name_of(const ServedBlock& block) {
  return block.layer < 0 ? block.module
                         : fmt::format("{} {} {}", block.layer, block.expert, block.module);
}

void grow(Delta& delta, int64_t out, int64_t in) {
  Delta larger{std::max(out, delta.out), std::max(in, delta.in), {}};
  larger.values.assign(static_cast<size_t>(larger.out * larger.in), 0.0);
  for (int64_t i = 0; i < delta.out; ++i)
    std::copy_n(delta.values.begin() + i * delta.in, delta.in,
                larger.values.begin() + i * larger.in);
  delta = std::move(larger);
}

void put(const ServedBlock& block, Delta& delta) {
  const std::vector<double> a = read_double(block.a), b = read_double(block.b);
  const int64_t r = block.a.dim(0), in = block.a.dim(1), out = block.b.dim(0);
  grow(delta, block.out_first + (out - 1) * block.out_step + 1, block.in_first + in);
  for (int64_t i = 0; i < out; ++i)
    for (int64_t j = 0; j < in; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < r; ++k)
        sum += b[static_cast<size_t>(i * r + k)] * a[static_cast<size_t>(k * in + j)];
      const int64_t row = block.out_first + i * block.out_step;
      delta.values[static_cast<size_t>(row * delta.in + block.in_first + j)] = block.scale * sum;
    }
}

OracleBase base_of(const Case& c) {
  OracleBase base = sglang_base(c.family);
  if (c.top_k == 0) return base;
  base.config.set("num_experts_per_tok", c.top_k);
  base.spec = make_model_spec(base.config, c.family);
  return base;
}

std::vector<ServedBlock> blocks(const Case& c) {
  const std::string folder = sglang_folder(c.family, c.adapter);
  const OracleBase base = base_of(c);
  ServedAdapter adapter = served_from_folder(folder);
  if (c.rslora) adapter.config.set("use_rslora", true);
  const std::vector<TensorMap> values = values_from_folder(folder);
  const Engine& engine = *find_engine("sglang");
  const auto version = EngineVersion::parse(c.version);
  std::vector<ServedBlock> out;
  for (int64_t rank = 0; rank < c.options.tp; ++rank) {
    const BufferRequest request{adapter, values, base.spec, base.config, c.options, *version, rank};
    const RankBuffers held = engine.fill(request);
    REQUIRE_MESSAGE(!held.refused, refusal_text(held.refused.value_or(Refusal{})));
    for (ServedBlock& block : engine.blocks(request, held)) out.push_back(std::move(block));
  }
  return out;
}

Deltas together(const std::vector<ServedBlock>& blocks) {
  Deltas out;
  for (const ServedBlock& block : blocks) put(block, out[name_of(block)]);
  return out;
}

ServedBlock dense_block(const std::string& module, const Tensor& a, const Tensor& b, double scale) {
  ServedBlock block;
  block.module = module;
  block.a = a, block.b = b, block.scale = scale;
  return block;
}

void add_embeddings(const Adapter& adapter, std::vector<ServedBlock>& out) {
  const std::string end = ".lora_embedding_A";
  for (const auto& [name, extra] : adapter.extras) {
    if (!name.ends_with(end)) continue;
    const std::string module = name.substr(0, name.size() - end.size());
    const Tensor& b = adapter.extras.at(module + ".lora_embedding_B").tensor;
    out.push_back(dense_block(module, extra.tensor, b, adapter.config.scaling(module).value()));
  }
}

Deltas meant(const Case& c) {
  LoadOptions load;
  load.base = MOELORA_TEST_DATA "/" + c.family + "/base";
  LoadedAdapter loaded = load_adapter(sglang_folder(c.family, c.adapter), load);
  split_gate_up(loaded.adapter);
  std::vector<ServedBlock> out;
  for (const auto& [module, pair] : loaded.adapter.dense)
    out.push_back(dense_block(module, pair.a, pair.b, pair.scaling.value()));
  add_embeddings(loaded.adapter, out);
  for (const auto& [key, pair] : loaded.adapter.experts)
    for (int64_t e = 0; e < loaded.adapter.expert_count; ++e) {
      ServedBlock block = dense_block(std::string(projection_name(key.projection)), pair.a.at(e),
                                      pair.b.at(e), pair.scaling_of(e).value());
      block.layer = key.layer, block.expert = e;
      out.push_back(std::move(block));
    }
  return together(out);
}

// The largest difference relative to the largest value; infinite where the shapes differ.
double error(const Delta& a, const Delta& b) {
  if (a.out != b.out || a.in != b.in) return INFINITY;
  double most = 0, largest = 0;
  for (size_t i = 0; i < a.values.size(); ++i) {
    most = std::max(most, std::abs(a.values[i] - b.values[i]));
    largest = std::max(largest, std::abs(b.values[i]));
  }
  return most / largest;
}

// Modules whose delta is not the one meant.
std::vector<std::string> wrong(const Deltas& ours, const Deltas& meant) {
  std::vector<std::string> out;
  for (const auto& [name, delta] : meant) {
    const auto found = ours.find(name);
    if (found == ours.end() || !(error(found->second, delta) < 1e-2)) out.push_back(name);
  }
  for (const auto& entry : ours)
    if (meant.count(entry.first) == 0) out.push_back(entry.first);
  return out;
}

// The projections and modules, layers and experts left out, that are wrong, each once.
std::set<std::string> wrong_projections(const Case& c) {
  std::set<std::string> out;
  for (const std::string& name : wrong(together(blocks(c)), meant(c)))
    out.insert(name.substr(name.find_last_of(" .") + 1));
  return out;
}

std::set<std::string> defects(const Case& c) {
  std::set<std::string> out;
  for (const ServedBlock& block : blocks(c))
    if (!block.defect.empty()) out.emplace(block.defect);
  return out;
}

}  // namespace

TEST_CASE("the blocks of all ranks together are the delta that the adapter means") {
  const std::vector<std::pair<std::string, std::string>> sound = {
      {"qwen3_moe", "hand.stacked3d_attn"},
      {"qwen3_moe", "hand.shared_outer"},
      {"mixtral", "hand.stacked3d_attn"},
      {"deepseek_v3", "hand.stacked3d_attn"},
      {"deepseek_v3", "hand.shared_outer"},
      {"glm4_moe", "hand.shared_experts_and_routed"},
      {"gpt_oss", "attention_only"},
      {"gpt_oss", "hand.fused_3d"},
      {"qwen3_moe", "per_expert"},
      {"qwen3_moe", "hand.embed_lm_head"},
      {"deepseek_v3", "hand.shared_experts_2d"},
      {"deepseek_v3", "hand.mla_full"},
      {"qwen3_moe", "hand.gate_up_no_down_declared_all"}};
  size_t modules = 0;
  for (const auto& [family, adapter] : sound)
    for (const auto& [tp, ep] : {std::pair<int64_t, int64_t>{1, 1}, {2, 1}, {2, 2}, {4, 2}}) {
      Case c{family, adapter};
      c.options.tp = tp, c.options.ep = ep;
      c.options.max_lora_rank = tp == 4 ? std::optional<int64_t>(8) : std::nullopt;
      const Deltas ours = together(blocks(c)), right = meant(c);
      CHECK_MESSAGE(wrong(ours, right) == std::vector<std::string>{}, label(c));
      modules += right.size();
    }
  CHECK(modules == 1456);
}

TEST_CASE("virtual experts use gate's lora_A for up before 0.5.23") {
  Case c{"qwen3_moe", "per_expert"};
  c.options.values["lora-use-virtual-experts"] = "on";
  CHECK(wrong_projections(c) == std::set<std::string>{"up_proj"});
  CHECK(defects(c).size() == 1);
  c.options.values["moe-runner-backend"] = "experimental_sgl_marlin";
  CHECK(wrong_projections(c).empty());
  CHECK(defects(c).empty());
  Case tied{"qwen3_moe", "hand.fused_3d"};
  tied.options.values["lora-use-virtual-experts"] = "on";
  CHECK(wrong_projections(tied).empty());
  CHECK(defects(tied).empty());
}

// Measured: the kernels of 0.5.18, 0.5.22 and 0.5.23 under Triton's interpreter.
TEST_CASE("virtual experts of 0.5.23 use up's own lora_A, and gpt-oss's halves of the rows") {
  for (const auto& [version, wrong] :
       {std::pair<const char*, std::set<std::string>>{"0.5.22", {"up_proj"}}, {"0.5.23", {}}}) {
    Case c{"qwen3_moe", "per_expert"};
    c.options.values["lora-use-virtual-experts"] = "on";
    c.version = version;
    CHECK(wrong_projections(c) == wrong);
    c.family = "gpt_oss";
    CHECK(wrong_projections(c) ==
          (wrong.empty() ? std::set<std::string>{"gate_proj", "up_proj"} : wrong));
  }
}

TEST_CASE("the classic path splits gpt-oss's interleaved rows by halves, on every rank") {
  for (const int64_t tp : {1, 2}) {
    Case c{"gpt_oss", "per_expert"};
    c.options.tp = tp;
    CHECK(wrong_projections(c) == std::set<std::string>{"gate_proj", "up_proj"});
    CHECK(defects(c).size() == 2);
    for (const ServedBlock& block : blocks(c))
      CHECK((block.b.dim(0) == 24 / tp || block.b.dim(0) == 64));
  }
}

TEST_CASE("a fused sum over experts loses down's delta where a token has more than two") {
  Case c{"qwen3_moe", "per_expert"};
  c.options.values["enable-fused-moe-sum-all-reduce"] = "on";
  CHECK(wrong_projections(c).empty());
  c.top_k = 3;
  CHECK(wrong_projections(c) == std::set<std::string>{"down_proj"});
}

TEST_CASE("before 0.5.11 a rank below the server's takes up's rows from the wrong place") {
  Case c{"qwen3_moe", "per_expert"};
  c.version = "0.5.10";
  CHECK(wrong_projections(c).empty());
  c.options.max_lora_rank = 8;
  CHECK(wrong_projections(c) == std::set<std::string>{"up_proj"});
  c.version = "0.5.11";
  CHECK(wrong_projections(c).empty());
}

TEST_CASE("before 0.5.11 gpt-oss's rows are interleaved at tp 2 or more only") {
  Case c{"gpt_oss", "hand.fused_3d"};
  c.version = "0.5.10";
  CHECK(wrong_projections(c) == std::set<std::string>{"gate_proj", "up_proj"});
  c.options.tp = 2;
  CHECK(wrong_projections(c).empty());
}

TEST_CASE("a --lora-backend without expert LoRA computes none") {
  Case c{"qwen3_moe", "per_expert"};
  c.version = "0.5.11";
  c.options.values["lora-backend"] = "csgmv";
  CHECK(wrong_projections(c) == std::set<std::string>{"down_proj", "gate_proj", "up_proj"});
  c.version = "0.5.12";
  CHECK(wrong_projections(c).empty());
}

TEST_CASE("rsLoRA changes nothing: the kernels go by lora_alpha / r") {
  Case c{"qwen3_moe", "hand.stacked3d_attn"};
  c.rslora = true;
  CHECK(wrong_projections(c).empty());
}

TEST_CASE("a shared outer adapter on a server with a factor for each expert reaches expert 0") {
  Case c{"qwen3_moe", "hand.shared_outer"};
  c.options.values["experts-shared-outer-loras"] = "off";
  const Deltas ours = together(blocks(c)), right = meant(c);
  for (const auto& entry : right) {
    const auto found = ours.find(entry.first);
    const bool same = found != ours.end() && error(found->second, entry.second) < 1e-2;
    CHECK_MESSAGE(same == (entry.first.find(" 0 ") != std::string::npos), entry.first);
  }
}
