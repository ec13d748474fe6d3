// The oracle's scenarios: several adapters, command lines, dynamic loads, an empty start.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>

#include "tests/engine/served_from_folder.h"
#include "tests/engine/sglang_compare.h"
#include "tests/engine/sglang_scenario_pools.h"

using namespace moelora;
using namespace moelora::test;
using sglang::Launch;
using sglang::Server;

namespace {

// One scenario: a command line, what it starts with, and what is loaded later.
struct Scenario {
  std::string name;
  std::vector<std::string> start;
  std::vector<std::string> later = {};
  bool command_line = false;  // --max-lora-rank and --lora-target-modules as the record has them
  NameSet targets = {};       // else these targets
  std::optional<bool> shared_outer = {};
  std::optional<int64_t> max_rank = {};
  bool strict = false;
};

const std::vector<Scenario>& scenarios() {
  const NameSet all = {"all"}, attention = {"q_proj", "k_proj", "v_proj", "o_proj"};
  static const std::vector<Scenario> kAll = {
      {.name = "override_shared_true_on_per_expert",
       .start = {"hand.stacked3d"},
       .shared_outer = true},
      {.name = "override_shared_true_on_numbered", .start = {"per_expert"}, .shared_outer = true},
      {.name = "override_shared_true_on_fused_3d",
       .start = {"hand.fused_3d"},
       .shared_outer = true},
      {.name = "override_shared_true_half_gate_a", .start = {"half_gate_a"}, .shared_outer = true},
      {.name = "override_shared_true_half_down_b",
       .start = {"hand.half_shared_down_b_only"},
       .shared_outer = true},
      {.name = "override_shared_true_single_numbered",
       .start = {"hand.single_numbered_expert_0"},
       .shared_outer = true},
      {.name = "override_shared_false_on_shared",
       .start = {"hand.shared_outer"},
       .shared_outer = false},
      {.name = "mixed_per_expert_then_shared", .start = {"per_expert", "hand.shared_outer"}},
      {.name = "mixed_shared_then_stacked", .start = {"hand.shared_outer", "hand.stacked3d"}},
      {.name = "mixed_shared_then_attention", .start = {"hand.shared_outer", "attention_only"}},
      {.name = "two_per_expert_r4_r3", .start = {"hand.stacked3d", "hand.r3"}},
      {.name = "empty_start_then_shared",
       .start = {},
       .later = {"hand.shared_outer"},
       .command_line = true},
      {.name = "shared_start_then_dynamic_stacked",
       .start = {"hand.shared_outer"},
       .later = {"hand.stacked3d"}},
      {.name = "stacked_start_then_dynamic_shared",
       .start = {"hand.stacked3d"},
       .later = {"hand.shared_outer"}},
      {.name = "attention_start_then_dynamic_experts",
       .start = {"attention_only"},
       .later = {"hand.stacked3d"}},
      {.name = "slot_reuse_rank_8_then_2",
       .start = {"attention_only", "hand.attn_r2"},
       .max_rank = 8},
      {.name = "from_tensors_file_order",
       .start = {"attention_only"},
       .later = {"hand.lora_bias_o"},
       .max_rank = 8},
      {.name = "from_tensors_reverse_order",
       .start = {"attention_only"},
       .later = {"reversed"},
       .max_rank = 8},
      {.name = "empty_start_then_stacked",
       .start = {},
       .later = {"hand.stacked3d"},
       .command_line = true},
      {.name = "empty_start_then_all_linear",
       .start = {},
       .later = {"hand.all_linear_attention"},
       .command_line = true},
      {.name = "empty_start_rank_too_small",
       .start = {},
       .later = {"hand.stacked3d"},
       .command_line = true},
      {.name = "empty_start_target_missing",
       .start = {},
       .later = {"hand.stacked3d_attn"},
       .command_line = true},
      {.name = "empty_start_no_arguments", .start = {}},
      {.name = "cli_targets_all_attention", .start = {"attention_only"}, .targets = all},
      {.name = "cli_targets_all_w123", .start = {"hand.stacked3d_w123"}, .targets = all},
      {.name = "cli_targets_all_per_expert", .start = {"per_expert"}, .targets = all},
      {.name = "cli_targets_all_all_linear", .start = {"all_linear"}, .targets = all},
      {.name = "cli_targets_all_peft_params", .start = {"peft_params"}, .targets = all},
      {.name = "cli_targets_attention_on_experts", .start = {"per_expert"}, .targets = attention},
      {.name = "cli_targets_gate_up_only_gate_up",
       .start = {"hand.gate_up_no_down"},
       .command_line = true},
      {.name = "cli_rank_smaller_than_adapter", .start = {"hand.stacked3d"}, .max_rank = 2},
      {.name = "strict_peft_params", .start = {"peft_params"}, .strict = true},
      {.name = "strict_router_undeclared",
       .start = {"hand.router_tensors_undeclared"},
       .strict = true},
      {.name = "no_shared_experts_but_dense_layer", .start = {"hand.stacked3d"}},
      {.name = "no_shared_experts_but_dense_layer_attention", .start = {"attention_only"}},
      {.name = "same_adapter_twice_two_names", .start = {"attention_only", "attention_only"}},
      {.name = "reload_after_evict_slot_reuse",
       .start = {"hand.stacked3d_attn", "attention_only", "hand.stacked3d_attn"}},
  };
  return kAll;
}

// The archive lacks some adapters: one is made of another's headers, one is another's in the order
// in which a trainer may hand tensors over, and of two families another one does.
ServedAdapter adapter_of(const std::string& family, const std::string& name, size_t id) {
  const bool half = name == "half_gate_a", reversed = name == "reversed";
  std::string source = half ? "hand.stacked3d" : reversed ? "hand.lora_bias_o" : name;
  if (!has_sglang_adapter(family, source)) source = "hand.all_linear_numbered";
  ServedAdapter out = served_from_folder(sglang_folder(family, source));
  for (WeightFile& file : out.files) {
    if (reversed) std::reverse(file.tensors.begin(), file.tensors.end());
    for (TensorHeader& tensor : file.tensors)
      if (half && tensor.name.find("down_proj") == std::string::npos &&
          tensor.name.find("lora_A") != std::string::npos)
        tensor.shape[0] = 1;
  }
  // What the oracle's script called them: a message of the server that is about an id has that.
  if (id > 0 && name == "attention_only") out.name += "_again";
  return out;
}

Launch launch_of(const Scenario& scenario, const Json& record) {
  Launch out;
  out.shared_outer = scenario.shared_outer;
  out.strict = scenario.strict;
  out.max_lora_rank = scenario.max_rank;
  if (!scenario.targets.empty()) out.target_modules = scenario.targets;
  if (!scenario.command_line) return out;
  NameSet targets;
  for (const Json& target : record.find("target_modules")->items())
    targets.insert(target.as_string());
  out.target_modules = targets;
  out.max_lora_rank = record.find("max_lora_rank")->as_int();
  return out;
}

// Whether the archive has other values than the oracle had: another adapter of the same shapes
// stands in, or its values are constants.
bool is_stand_in(const std::string& scenario, size_t id) {
  return (scenario == "from_tensors_file_order" && id == 0) ||
         (scenario == "reload_after_evict_slot_reuse" && id == 2) ||
         scenario == "empty_start_then_all_linear";
}

// The buffers of every adapter that is in the archive as the oracle had it. A lower rank in a slot
// that was used before is left out: SGLang leaves the old values beyond it.
size_t compare_pools(const Server& server, const Scenario& scenario, const OracleRecord& record) {
  if (scenario.name == "slot_reuse_rank_8_then_2") return 0;
  std::vector<std::string> names = scenario.start;
  names.insert(names.end(), scenario.later.begin(), scenario.later.end());
  size_t compared = 0;
  for (size_t i = 0; i < names.size() && i < server.count(); ++i) {
    if (!has_sglang_adapter(record.family, names[i]) || is_stand_in(scenario.name, i)) continue;
    const std::string folder = sglang_folder(record.family, names[i]);
    const ScenarioPool pool = compare_scenario_pool(server, i, folder, record.label());
    CHECK_MESSAGE(pool.difference.empty(), record.label() << ": " << pool.difference);
    compared += pool.buffers;
  }
  return compared;
}

// "id1" of the oracle's words is the second adapter.
OracleRecord with_names(OracleRecord record, const Server& server) {
  std::string text = record.text("text");
  for (size_t i = 0; i < server.count(); ++i) {
    const std::string id = fmt::format("'id{}'", i);
    if (const size_t at = text.find(id); at != std::string::npos)
      text.replace(at, id.size(), "'" + server.adapter(i).name + "'");
  }
  if (!text.empty()) record.json.set("text", text);
  return record;
}

// Returns how many buffers were compared.
size_t run(const Scenario& scenario, const OracleRecord& record) {
  const std::string variant = scenario.name.starts_with("no_shared_experts") ? "no_shared" : "";
  const OracleBase& base = sglang_base(record.family, variant);
  Server server(sglang::make_model_class(base.spec, base.config), record.features(),
                launch_of(scenario, record.json));
  std::vector<ServedAdapter> start;
  for (const std::string& name : scenario.start)
    start.push_back(adapter_of(record.family, name, start.size()));
  const bool started = server.start(start);
  for (size_t i = 0; i < server.count(); ++i) server.use(i);
  for (const std::string& name : scenario.later)
    if (started) server.use(server.load(adapter_of(record.family, name, 0)));
  std::string difference = refusal_difference(server, with_names(record, server));
  if (difference.empty() && !server.pools().empty())
    difference = state_difference(server, 0, record.json);
  CHECK_MESSAGE(difference.empty(), record.label() << ": " << difference);
  return record.text("stage").empty() ? compare_pools(server, scenario, record) : 0;
}

}  // namespace

TEST_CASE("every scenario of SGLang's oracle ends as SGLang's did") {
  for (const std::string_view release : kOracleReleases) {
    CAPTURE(release);
    int records = 0;
    size_t buffers = 0;
    for (const OracleRecord& record : sglang_records(release)) {
      const std::string name = record.text("scenario");
      if (name.empty() || sglang_disagreements().count(record.label()) != 0) continue;
      const auto scenario = std::find_if(scenarios().begin(), scenarios().end(),
                                         [&](const Scenario& s) { return s.name == name; });
      REQUIRE_MESSAGE(scenario != scenarios().end(), name);
      buffers += run(*scenario, record);
      ++records;
    }
    CHECK(records == 208);
    CHECK(buffers == 1360);
  }
}
