#include "lib/engine/fit/layout_choice.h"

#include <array>

#include "lib/engine/vllm/server/model_class.h"

namespace moelora {

bool needs_one_a(const Situation& s) {
  if (s.engine.engine->id != "sglang" || !s.spec.gated) return false;
  return s.spec.activation == "gpt_oss_swiglu" || s.server.on("lora-use-virtual-experts");
}

namespace {

bool always(const Situation&) { return true; }

bool lacks(const Situation& s, std::string_view release) {
  return !s.engine.version.has(s.engine.engine->release(release));
}

bool numbered_only(const Situation& s) { return lacks(s, "0.5.10"); }

// A server that starts without adapters takes none to be shared outer.
bool shared_outer_kept(const Situation& s) {
  const bool detected = s.shared_outer && !s.server.on("empty-start");
  return s.server.flag("experts-shared-outer-loras").value_or(detected);
}

bool shared_outer_server(const Situation& s) { return s.server.on("enable-moe-shared-loras"); }

bool mixed_server(const Situation& s) { return s.server.on("enable-mixed-moe-lora-format"); }

bool stacked_class(const Situation& s) {
  const auto model = vllm::find_model_class(s.spec);
  return model && model->stacked;
}

// PEFT adapts what transformers holds: 4.x numbered Linears, where the hub has them; 5 parameters.
bool before_transformers_5(const Situation& s) { return lacks(s, "0.19.0") && s.spec.hub.numbered; }

bool batched(const Situation& s) { return !s.spec.memory.numbered; }

bool shared_one_a(const Situation& s) { return needs_one_a(s) && shared_outer_kept(s); }

constexpr std::array<LayoutChoice, 12> kChoices = {{
    {"sglang", "before 0.5.10", numbered_only, &layouts::peft_linear, "the one form it loads"},
    {"sglang", "gpt-oss, or virtual-experts=on, with shared outer factors", shared_one_a,
     &layouts::stacked_fused, "one lora_A for gate and up, written once for all experts"},
    {"sglang", "shared outer factors, unless experts-shared-outer-loras=off or empty-start=on",
     shared_outer_kept, &layouts::shared_outer, "its pool then holds each of them once"},
    {"sglang", "gpt-oss, or virtual-experts=on", needs_one_a, &layouts::stacked_fused,
     "one lora_A for gate and up, which it takes for both"},
    {"sglang", "else", always, &layouts::stacked, "every expert in four or six tensors a layer"},
    {"vllm", "moe-shared-loras=on", shared_outer_server, &layouts::shared_outer,
     "the one form it loads"},
    {"vllm", "mixed-moe-lora-format=on", mixed_server, &layouts::peft_linear,
     "read alike whether or not the adapter is declared 3-D"},
    {"vllm", "classes with 3-D experts (gpt-oss, Qwen3-VL, Qwen3.5)", stacked_class,
     &layouts::peft_params, "the one form it loads"},
    {"vllm", "else", always, &layouts::peft_linear,
     "the one form it loads, in the class's own words"},
    {"peft", "before 0.19, numbered experts in hub files", before_transformers_5,
     &layouts::peft_linear, "transformers 4 holds one Linear an expert"},
    {"peft", "experts that transformers 5 holds batched", batched, &layouts::peft_params,
     "sides as this release and base have them"},
    {"peft", "else", always, &layouts::peft_linear, "one Linear an expert"},
}};

// Which side of a stacked pair PEFT puts A on (facts: peft.md 1.4). Up to 0.18 the first axis after
// the experts counts as input; 0.19.0 turned gpt-oss alone, whose class says is_transposed; since
// 0.19.1 the last axis is the input but for that class.
Roles peft_roles(const Situation& s) {
  const bool in_out = s.spec.memory.axes == ExpertAxes::in_out;
  const bool is_transposed = s.spec.family == "gpt_oss";
  const bool first_is_input =
      lacks(s, "0.19.0") || (lacks(s, "0.19.1") ? !is_transposed : is_transposed);
  return first_is_input == in_out ? Roles::natural : Roles::swapped;
}

}  // namespace

std::span<const LayoutChoice> layout_choices() { return kChoices; }

const LayoutChoice& choose_layout(const Situation& situation) {
  for (const LayoutChoice& choice : kChoices)
    if (choice.engine == situation.engine.engine->id && choice.applies(situation)) return choice;
  return kChoices.back();
}

LayoutWriteOptions write_options(const Situation& s) {
  LayoutWriteOptions out;
  const std::string_view engine = s.engine.engine->id;
  out.canonical_names = out.up_as_gate = engine == "sglang";
  out.shared_outer = engine == "sglang" && shared_outer_kept(s);
  if (engine == "peft") out.roles = peft_roles(s);
  if (engine == "vllm") {
    const auto model = vllm::find_model_class(s.spec);
    if (lacks(s, "0.14")) out.b_order = BOrder::expert_major;
    out.short_names = model && model->expert_names.gate == "w1";
  }
  return out;
}

}  // namespace moelora
