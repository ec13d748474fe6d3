// The simulation of vLLM against vLLM: every adapter, mode and rank of the oracle.

#include "tests/engine/vllm_oracle.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <fstream>
#include <map>
#include <set>

#include "lib/base/dotted_path.h"
#include "lib/engine/vllm/load/load.h"

using namespace moelora;
using namespace moelora::test;
using vllm::Adapter;
using vllm::RankLoad;
using vllm::Server;
using vllm::Use;

namespace {

Server server_of(const VllmRun& run) {
  const VllmBase& base = vllm_base(run.family);
  return vllm::make_server(
      {{}, base.spec, base.config, run.options(), *EngineVersion::parse(run.version)});
}

// One server a family, version and mode; it outlives the adapters opened on it.
const Server& cached_server(const VllmRun& run) {
  static std::map<std::string, Server> servers;
  const std::string key =
      fmt::format("{} {} {} {} {}", run.version, run.family, run.mode, run.tp, run.max_rank);
  if (const auto at = servers.find(key); at != servers.end()) return at->second;
  return servers.emplace(key, server_of(run)).first->second;
}

const ServedAdapter& cached_adapter(const VllmRun& run) {
  static std::map<std::string, ServedAdapter> adapters;
  const std::string folder = run.folder();
  if (const auto at = adapters.find(folder); at != adapters.end()) return at->second;
  return adapters.emplace(folder, vllm_adapter(folder)).first->second;
}

// What the loader did with single tensors is not known of 0.32 and later: it parses each name
// twice.
VllmOutcome comparable(VllmOutcome outcome, const VllmRun& run) {
  if (!EngineVersion::parse(run.version)->has(vllm::release("0.32"))) return outcome;
  for (auto* tensors : {&outcome.unused, &outcome.unpaired, &outcome.skipped}) tensors->clear();
  return outcome;
}

std::string in_words(const VllmOutcome& outcome) {
  if (!outcome.served())
    return fmt::format("{}: {}({})", outcome.stage, outcome.type, outcome.text);
  return fmt::format("served; unused {}; unpaired {}; skipped {}; set {}; zero {}",
                     fmt::join(outcome.unused, " "), fmt::join(outcome.unpaired, " "),
                     fmt::join(outcome.skipped, " "), fmt::join(outcome.set, " "),
                     fmt::join(outcome.zero, " "));
}

VllmOutcome ours(const Server& server, const ServedAdapter& served, int64_t rank) {
  const Adapter adapter = vllm::open_adapter(server, served);
  const RankLoad load = vllm::load_on_rank(server, adapter, rank);
  VllmOutcome out;
  if (const vllm::LoadEvent* event = load.refusal()) {
    const Refusal& refusal = *event->refusal;
    out.stage = refusal.stage;
    out.type = refusal.type;
    out.text = without_sets(refusal.text);
    return out;
  }
  out.stage = "served";
  for (size_t i = 0; i < load.states.size(); ++i) {
    const std::string& name = adapter.file->tensors[i].name;
    const Use use = load.states[i].use;
    if (use == Use::loaded) out.unused.push_back(name);
    if (use == Use::half) out.unpaired.push_back(name);
    if (use == Use::skipped) out.skipped.push_back(name);
  }
  std::set<std::string> set;
  for (const vllm::Buffer& buffer : load.buffers)  // MODULE.lora_a_stacked.0
    set.emplace(parent_of(parent_of(buffer.name)));
  out.set.assign(set.begin(), set.end());
  for (const vllm::Module& module : server.modules)
    if (!std::binary_search(out.set.begin(), out.set.end(), module.name))
      out.zero.push_back(module.name);
  std::sort(out.zero.begin(), out.zero.end());
  return out;
}

}  // namespace

TEST_CASE("vLLM's own loader and its simulation agree on every adapter, mode and rank") {
  size_t golden = 0, hand = 0;
  for (const VllmRun& run : vllm_oracle().runs) {
    (run.golden ? golden : hand) += 1;
    if (of_the_cpu(run)) continue;
    const VllmOutcome mine = ours(cached_server(run), cached_adapter(run), run.rank);
    INFO(run.text());
    CHECK(in_words(comparable(mine, run)) == in_words(comparable(*run.outcome, run)));
  }
  CHECK(golden > 3000);
  CHECK(hand > 3000);
}

namespace {

// The wrapper class vLLM's catalogue names for a module of this kind.
std::string wrapper_of(const vllm::Module& module, const Server& server) {
  switch (module.kind) {
    case vllm::Kind::replicated:
      return "ReplicatedLinearWithLoRA";
    case vllm::Kind::column:
      return "ColumnParallelLinearWithLoRA";
    case vllm::Kind::row:
      return "RowParallelLinearWithLoRA";
    case vllm::Kind::merged:
      return module.children.size() == 3 ? "MergedQKVParallelLinearWithLoRA"
                                         : "MergedColumnParallelLinearWithLoRA";
    case vllm::Kind::variable:
      return "MergedColumnParallelLinearVariableSliceWithLoRA";
    case vllm::Kind::joined:
      return module.slices.size() == 3 ? "QKVParallelLinearWithLoRA"
                                       : "ColumnParallelLinearWithLoRA";
    case vllm::Kind::unknown:
      return server.model.name == "NemotronHForCausalLM"
                 ? "MergedColumnParallelLinearVariableSliceWithLoRA"
                 : "ColumnParallelLinearWithLoRA";
    case vllm::Kind::embedding:
      return "VocabParallelEmbeddingWithLoRA";
    case vllm::Kind::logits:
      return "LogitsProcessorWithLoRA";
    case vllm::Kind::experts:
      return "FusedMoEWithLoRA";
    case vllm::Kind::stacked_experts:
      return "FusedMoE3DWithLoRA";
  }
  return "";
}

void check_class(const std::string& version, const std::string& family, const VllmClass& entry) {
  const VllmBase& base = vllm_base(family);
  const Server server =
      vllm::make_server({{}, base.spec, base.config, {}, *EngineVersion::parse(version)});
  if (!entry.error.empty()) {
    REQUIRE(server.events.size() == 1);
    CHECK(refusal_text(*server.events[0].refusal) == entry.error);
    return;
  }
  CHECK(server.events.empty());
  CHECK(server.model.name == entry.name);
  CHECK(server.model.stacked == entry.stacked);
  CHECK(!base.spec.gated == entry.non_gated);
  std::vector<std::string> accepted(server.accepted.begin(), server.accepted.end());
  std::sort(accepted.begin(), accepted.end());
  CHECK(accepted == entry.accepted);
  std::vector<std::pair<std::string, std::string>> wrappers;
  for (const vllm::Module& module : server.modules)
    wrappers.emplace_back(module.name, wrapper_of(module, server));
  CHECK(wrappers == entry.wrappers);
}

}  // namespace

namespace {

// What the machine that ran it lacked, not the release: torchvision, the configs that transformers
// had dropped, the modules of the Transformers backend. The fork of 0.27 has no Dots1.
bool not_run(const std::string& version, const std::string& family) {
  const auto has = [&](const char* since) {
    return EngineVersion::parse(version)->has(vllm::release(since));
  };
  if (family == "dots1") return has("0.27");
  if (family == "qwen3_5_moe_text") return version != "0.22" && version != "0.27";
  return (family == "flex_olmo" || family == "hunyuan_v1_moe") && has("0.29");
}

}  // namespace

TEST_CASE("what each model class accepts and wraps, and in which order, is vLLM's own") {
  size_t checked = 0;
  for (const auto& of_version : vllm_oracle().catalogue)
    for (const auto& of_family : of_version.second) {
      const std::string &version = of_version.first, &family = of_family.first;
      const auto& entry = of_family.second;
      if (not_run(version, family)) continue;
      CAPTURE(version);
      CAPTURE(family);
      check_class(version, family, entry);
      ++checked;
    }
  CHECK(checked == 153);
}
