// The proof of lib/engine/peft: what the plan says of every adapter of PEFT's oracle is what real
// PEFT did with it (oracles/peft.md: 40 bases, up to 113 forms, six releases and pairings).

#include "tests/engine/peft_oracle.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <set>

#include "lib/engine/peft/plan.h"
#include "tests/adapter/readme_section.h"

using namespace moelora;
using namespace moelora::test;

namespace {

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

PeftParts planned_parts(const AdapterPlan& plan, const Json& form) {
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
  PeftParts out;
  for (const auto& [part, fates] : found) out[part] = joined(fates);
  return out;
}

std::string text_of(const PeftParts& parts) {
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

std::string difference(const AdapterPlan& plan, const Json& form, const PeftRecord& record) {
  const PlanEvent* refusal = plan.first_refusal();
  const std::string said =
      refusal == nullptr ? "" : refusal->refusal->stage + " " + refusal_text(*refusal->refusal);
  if (!record.raised) {
    if (refusal != nullptr) return "plan: " + said + "; PEFT loads it: " + text_of(record.parts);
    const PeftParts planned = planned_parts(plan, form);
    if (planned == record.parts) return "";
    return "plan: " + text_of(planned) + "; PEFT: " + text_of(record.parts);
  }
  const Refusal& raised = *record.raised;
  if (refusal == nullptr)
    return "plan loads it: " + text_of(planned_parts(plan, form)) +
           "; PEFT: " + refusal_text(raised);
  const bool same = refusal->refusal->type == raised.type &&
                    refusal->refusal->stage == raised.stage &&
                    same_text(refusal->refusal->text, raised.text);
  return same ? "" : fmt::format("plan: {}; PEFT: {} {}", said, raised.stage, refusal_text(raised));
}

// "0.18.1+t5" is PEFT 0.18.1 beside transformers 5.5.
AdapterPlan plan_of(const PeftFamily& family, const PeftRecord& record) {
  const size_t plus = record.release.find('+');
  const EngineVersion version = *EngineVersion::parse(record.release.substr(0, plus));
  ServerOptions options;
  if (plus != std::string::npos) options.values["transformers"] = "5.5.4";
  const ServedAdapter adapter = family.adapter(record.form);
  return peft::plan({{&adapter, 1}, family.spec, family.config(), options, version})
      .adapters.front();
}

struct Tally {
  int raised = 0, same_raised = 0, loaded = 0, same_loaded = 0;
};

std::string table(const std::map<std::string, Tally>& tallies) {
  std::string out =
      "| PEFT | raised | same exception, place and text | loaded | same fate of every part |\n"
      "|---|---|---|---|---|\n";
  for (const auto& [release, tally] : tallies)
    out += fmt::format("| {} | {} | {} | {} | {} |\n", release, tally.raised, tally.same_raised,
                       tally.loaded, tally.same_loaded);
  return out;
}

}  // namespace

TEST_CASE("the plan of every adapter of PEFT's oracle is what PEFT did with it") {
  std::map<std::string, Tally> tallies;
  each_peft_family([&](const PeftFamily& family) {
    for (const PeftRecord& record : family.records()) {
      const std::string label = fmt::format("{}/{}/{}", family.name, record.form, record.release);
      const std::string found =
          difference(plan_of(family, record), family.form(record.form), record);
      const bool excepted = exceptions().count(label) != 0;
      Tally& tally = tallies[record.release];
      ++(record.raised ? tally.raised : tally.loaded);
      if (found.empty()) ++(record.raised ? tally.same_raised : tally.same_loaded);
      CHECK_MESSAGE(found.empty() == !excepted, label << ": " << found);
    }
  });
  check_results_section("peft_agreement", table(tallies));
}
