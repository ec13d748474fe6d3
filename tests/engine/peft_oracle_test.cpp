// The proof of lib/engine/peft: what the plan says of every adapter of PEFT's oracle is what real
// PEFT did with it (oracles/peft.md: 40 bases, up to 113 forms, six releases and pairings).

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "lib/base/error.h"
#include "lib/engine/peft/plan.h"
#include "lib/model/model_builder.h"

using namespace moelora;

namespace {

namespace fs = std::filesystem;

// What a part came to: "whole", "lost", "partly", or "scaled 1.41421".
using Parts = std::map<std::string, std::string>;

// Adapters that PEFT loads without a word and computes nonsense with: the sizes are equal either
// way, and only the record's author knows on which side he put lora_A. And two records that do not
// say what became of the embedding.
const std::set<std::string>& exceptions() {
  static const std::set<std::string> kExceptions = {"nemotron_h/params_swapped_dg/0.20.0",
                                                    "nemotron_h/params_swapped_dg/0.21.2",
                                                    "nemotron_h/embed_saved/0.21.2",
                                                    "nemotron_h/embed_lora/0.21.2",
                                                    "qwen3_moe_sq/params_gate_up_only/0.18.1+t5",
                                                    "glm4_moe_sq/params_down_only/0.18.1+t5"};
  return kExceptions;
}

// schemas/models describes the code of its own repository, not the class of transformers 5.24.
constexpr std::string_view kOtherClass = "kimi_k25";

std::set<std::string> parts_of(const std::string& part) {
  return part == "exp.gu" ? std::set<std::string>{"exp.g", "exp.u"} : std::set<std::string>{part};
}

// The factor at the end of a wrong-scale event: "...: 1.41421 times what was trained".
std::string factor_of(const std::string& detail) {
  const size_t end = detail.rfind(" times");
  const size_t start = detail.rfind(' ', end - 1) + 1;
  return fmt::format("scaled {:.4f}", std::stod(detail.substr(start, end - start)));
}

std::string joined(const std::set<std::string>& fates) {
  if (fates.size() == 1) return *fates.begin();
  return fates.count("lost") != 0 ? "partly" : "other";
}

Parts planned_parts(const AdapterPlan& plan, const Json& form) {
  const bool zero = form.find("config")->find("lora_alpha")->as_double() == 0;
  std::map<std::string, std::string> scaled;
  for (const PlanEvent& event : plan.events)
    if (event.effect == Effect::wrong_scale)
      for (const std::string& tensor : event.tensors) scaled[tensor] = factor_of(event.detail);
  std::map<std::string, std::set<std::string>> found;
  for (const TensorFate& fate : plan.fates) {
    const std::string part = form.find("tensors")->find(fate.tensor)->items().front().as_string();
    std::string how = fate.fate == Fate::used && !zero ? "whole" : "lost";
    if (how == "whole" && scaled.count(fate.tensor) != 0) how = scaled.at(fate.tensor);
    for (const std::string& one : parts_of(part)) found[one].insert(how);
  }
  Parts out;
  for (const auto& [part, fates] : found) out[part] = joined(fates);
  return out;
}

Parts recorded_parts(const Json& parts) {
  Parts out;
  for (const auto& [part, how] : parts.members()) {
    if (how.is(Json::Kind::array))
      out[part] = fmt::format("scaled {:.4f}", how.items()[1].as_double());
    else
      out[part] = how.as_string() == "absent" ? "lost" : how.as_string();
  }
  return out;
}

std::string text_of(const Parts& parts) {
  std::string out;
  for (const auto& [part, how] : parts) out += part + "=" + how + " ";
  return out;
}

// Texts but for what a plan cannot know: the class of a module, the order of a set, and which of
// several mismatches stands first.
bool same_text(const std::string& planned, const std::string& raised) {
  for (std::string_view start : {"Target module ", "Target modules {"})
    if (raised.starts_with(start)) return planned.starts_with(start);
  const size_t key = raised.find("size mismatch for ");
  if (key != std::string::npos)
    return planned.starts_with(raised.substr(0, key)) &&
           planned.find(raised.substr(key, raised.find(": copying") - key)) != std::string::npos;
  const std::string known = raised.substr(0, raised.find("Incompatible modules"));
  return planned.starts_with(known);
}

std::string difference(const AdapterPlan& plan, const Json& form, const Json& record) {
  const Json& raised = record.items()[3];
  const PlanEvent* refusal = plan.first_refusal();
  const std::string said =
      refusal == nullptr ? "" : refusal->refusal->stage + " " + refusal_text(*refusal->refusal);
  if (raised.is(Json::Kind::null)) {
    if (refusal != nullptr)
      return "plan: " + said + "; PEFT loads it: " + text_of(recorded_parts(record.items()[2]));
    const Parts planned = planned_parts(plan, form), recorded = recorded_parts(record.items()[2]);
    if (planned == recorded) return "";
    return "plan: " + text_of(planned) + "; PEFT: " + text_of(recorded);
  }
  const std::string type = raised.items()[0].as_string(), place = raised.items()[1].as_string(),
                    text = raised.items()[2].as_string();
  if (refusal == nullptr)
    return "plan loads it: " + text_of(planned_parts(plan, form)) + "; PEFT: " + type + " " + text;
  const bool same = refusal->refusal->type == type && refusal->refusal->stage == place &&
                    same_text(refusal->refusal->text, text);
  return same ? "" : fmt::format("plan: {}; PEFT: {} {}: {}", said, place, type, text);
}

// "0.18.1+t5" is PEFT 0.18.1 beside transformers 5.5.
PlanRequest request_for(const std::string& release, const ServedAdapter& adapter,
                        const ModelSpec& spec, const Json& config, ServerOptions& options,
                        EngineVersion& version) {
  const size_t plus = release.find('+');
  version = *EngineVersion::parse(release.substr(0, plus));
  if (plus != std::string::npos) options.values["transformers"] = "5.5.4";
  return {{&adapter, 1}, spec, config, options, version};
}

ServedAdapter served_of(const std::string& name, const Json& form) {
  ServedAdapter out;
  out.name = out.folder = name;
  out.has_config = true;
  out.config = *form.find("config");
  WeightFile file{"adapter_model.safetensors", {}};
  for (const auto& [tensor, entry] : form.find("tensors")->members()) {
    Shape shape;
    for (const Json& extent : entry.items()[1].items()) shape.push_back(extent.as_int());
    file.tensors.push_back({tensor, DType::F32, shape});
  }
  out.files.push_back(std::move(file));
  return out;
}

struct Tally {
  int agree = 0, all = 0;
};

std::optional<ModelSpec> spec_of(const Json& config, const std::string& family) {
  try {
    return make_model_spec(config, family, {});
  } catch (const Error&) {
    return std::nullopt;  // no file describes this family
  }
}

void compare_family(const std::string& family, const Json& table,
                    std::map<std::string, Tally>& tallies) {
  const Json& config = *table.find("config");
  const auto spec = spec_of(config, family);
  if (!spec) return;
  for (const Json& record : table.find("records")->items()) {
    const std::string name = record.items()[0].as_string(), release = record.items()[1].as_string();
    const Json& form = *table.find("forms")->find(name);
    const ServedAdapter adapter = served_of(name, form);
    ServerOptions options;
    EngineVersion version;
    const ServerPlan plan =
        peft::plan(request_for(release, adapter, *spec, config, options, version));
    Tally& tally = tallies[release];
    ++tally.all;
    const std::string label = fmt::format("{}/{}/{}", family, name, release);
    const std::string found = difference(plan.adapters.front(), form, record);
    const bool excepted = exceptions().count(label) != 0;
    if (found.empty()) ++tally.agree;
    CHECK_MESSAGE(found.empty() == !excepted, label << ": " << found);
  }
}

}  // namespace

TEST_CASE("the plan of every adapter of PEFT's oracle is what PEFT did with it") {
  std::map<std::string, Tally> tallies;
  for (const auto& entry :
       fs::directory_iterator(std::string(MOELORA_TEST_DATA) + "/peft_oracle")) {
    if (entry.path().stem() == kOtherClass) continue;
    JsonLimits limits;
    limits.bytes = 8 << 20;
    compare_family(entry.path().stem().string(), read_json_file(entry.path().string(), limits),
                   tallies);
  }
  std::string table;
  for (const auto& [release, tally] : tallies)
    table += fmt::format("{} {}/{}, ", release, tally.agree, tally.all);
  CHECK(table ==
        "0.17.1 1841/1841, 0.18.1 1841/1841, 0.18.1+t5 476/478, 0.19.1 2185/2185, "
        "0.20.0 2290/2291, 0.21.2 2688/2691, ");
}
