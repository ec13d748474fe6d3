#pragma once

#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/check/rule_context.h"

namespace moelora {

// How the servers that the user chose bear on findings: on the severity of the rules of no engine
// (FMT, CFG, MOD), and what several rules of engines report of a plan.

// Whether what was chosen is newer than all that is known of the engine: NUM003 says so, and errors
// about it become warnings.
bool is_later(const EngineChoice& choice);
// How that goes on: "is later than its rules are known to: 0.5.23, 2026-10-30; ..".
std::string later_text(const EngineChoice& choice);

// Whether there are chosen engines, and `is_so` of all.
bool all_chosen(const RuleContext& context, const std::function<bool(const EngineRun&)>& is_so);

// The chosen runs of one engine.
std::vector<const EngineRun*> chosen(const RuleContext& context, const Engine& engine);

// For what only some engines refuse, "E (sglang)" in the catalogue: an error of the chosen one that
// refuses it; a warning where no engine was chosen, since one of them may serve it; information
// where only others were.
void set_severity_by_engine(Finding& finding, const RuleContext& context,
                            std::initializer_list<const Engine*> engines);

// The same where only some releases refuse it: `refusing` are the chosen runs that do.
void set_severity_by_engine(Finding& finding, const RuleContext& context,
                            std::span<const EngineRun* const> refusing);

// For what is wrong with the files for any reader: an error becomes a warning where engines
// were chosen and each of them has a plan that refuses nothing and puts all of finding.names where
// they belong (without names: that has no event at all). What a server serves whole is not an
// error, though another one, or PEFT, may stumble over it.
void downgrade_if_served(Finding& finding, const RuleContext& context);

// Whether PEFT alone was chosen, and puts every tensor where it belongs: what it loads whole is no
// more than information, whatever its config says beside and whatever servers or lora-convert make
// of it.
bool is_whole_for_peft(const RuleContext& context);

// For the rules about a server's memory: a finding where its LoRA slots are larger than the GPU
// that --gpu-memory names.
void report_slot_memory(RuleContext& context);

// For rules of plans that say "gate and up have an A each": reports the pairs whose two A differ,
// with the event's detail. Where all are equal, the server computes what was trained.
void report_differing_a(RuleContext& context);

}  // namespace moelora
