#include "lib/engine/peft/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "lib/adapter/b_order.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/engine/peft/causes.h"
#include "lib/engine/peft/loss.h"
#include "lib/engine/peft/wrap.h"
#include "lib/engine/python_text.h"

namespace moelora::peft {

namespace {

constexpr std::string_view kLoad = "peft/utils/save_and_load.py set_peft_model_state_dict";

// The file that PEFT reads: safetensors first.
const WeightFile* weights_of(const ServedAdapter& adapter) {
  for (const char* name : {"adapter_model.safetensors", "adapter_model.bin"})
    for (const WeightFile& file : adapter.files)
      if (file.name == name) return &file;
  return nullptr;
}

std::string model_class(const std::string& task) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kClasses = {
      {{"CAUSAL_LM", "ForCausalLM"},
       {"SEQ_CLS", "ForSequenceClassification"},
       {"SEQ_2_SEQ_LM", "ForSeq2SeqLM"},
       {"TOKEN_CLS", "ForTokenClassification"},
       {"QUESTION_ANS", "ForQuestionAnswering"},
       {"FEATURE_EXTRACTION", "ForFeatureExtraction"}}};
  for (const auto& [name, suffix] : kClasses)
    if (task == name) return "PeftModel" + std::string(suffix);
  return "PeftModel";
}

std::optional<BOrder> told_order(const Json& config, const ModelSpec& spec,
                                 const std::string& parameter) try {
  return told_b_order(parse_adapter_config(config, ""), &spec, parameter, false).order;
} catch (const Error&) {
  return std::nullopt;  // PEFT itself reads it
}

class AdapterLoad {
 public:
  AdapterLoad(const Host& host, const Modules& modules, const ServedAdapter& adapter)
      : host_(host), modules_(modules), adapter_(adapter) {}

  AdapterPlan run() {
    const WeightFile* file = weights_of(adapter_);
    if (!adapter_.has_config)
      refuse_folder(cause::unreadable_adapter, "peft/config.py _get_peft_type",
                    "Can't find 'adapter_config.json' at '{}'");
    else if (file == nullptr)
      refuse_folder(cause::no_weights, "peft/utils/save_and_load.py load_peft_weights",
                    "Can't find weights for {}: no adapter_model.safetensors or adapter_model.bin");
    else
      load(*file);
    std::stable_sort(out_.events.begin(), out_.events.end(),
                     [](const PlanEvent& a, const PlanEvent& b) {
                       return a.refusal.has_value() > b.refusal.has_value();
                     });
    return std::move(out_);
  }

 private:
  // ---- events -------------------------------------------------------------------------------

  PlanEvent& event(const Cause& cause, Effect effect, const std::string& detail) {
    for (PlanEvent& known : out_.events)
      if (known.cause == &cause && known.effect == effect && known.detail == detail) return known;
    out_.events.push_back({&cause, effect, {}, detail, std::nullopt});
    return out_.events.back();
  }

  void lose(const Cause& cause, const std::vector<std::string>& tensors,
            const std::string& detail) {
    PlanEvent& lost = event(cause, Effect::unused, detail);
    lost.tensors.insert(lost.tensors.end(), tensors.begin(), tensors.end());
  }

  void refuse(const Cause& cause, Refusal refusal, std::vector<std::string> tensors,
              const std::string& detail) {
    PlanEvent& refused = event(cause, Effect::refused, detail);
    refused.tensors.insert(refused.tensors.end(), tensors.begin(), tensors.end());
    refused.refusal = std::move(refusal);
  }

  void refuse_folder(const Cause& cause, std::string place, fmt::format_string<std::string&> text) {
    std::string folder = adapter_.folder;
    const std::string words = fmt::format(text, folder);
    refuse(cause, {std::move(place), "ValueError", words}, {}, words);
  }

  // ---- the load -----------------------------------------------------------------------------

  void load(const WeightFile& file) {
    declared_ = config_ = read_config(adapter_.config);
    if (auto refusal = resolve_targets(config_, host_, modules_)) {
      const std::string text = refusal->text;
      refuse(cause::half_of_gate_up, std::move(*refusal), {}, text);
    } else {
      wrapped_ = wrap(config_, host_, modules_);
      if (wrapped_.refusal) refuse_injection(file);
      if (!wrapped_.refusal) load_tensors(file);
    }
    set_fates(file);
  }

  void load_tensors(const WeightFile& file) {
    const std::vector<std::string> saved(wrapped_.saved.begin(), wrapped_.saved.end());
    Renamed renamed = rename_tensors(file.tensors, host_, saved);
    if (renamed.refusal)
      refuse(cause::half_of_gate_up, std::move(*renamed.refusal), std::move(renamed.refused),
             "PEFT joins the experts' gate and up, and one of them is not there for all");
    for (const Incoming& incoming : renamed.incoming) place(incoming);
    refuse_mismatches();
  }

  void refuse_injection(const WeightFile& file) {
    const Refusal& refusal = *wrapped_.refusal;
    std::vector<std::string> tensors;
    for (const TensorHeader& tensor : file.tensors)
      if (const auto name = parse_tensor_name(tensor.name);
          !wrapped_.refused.empty() &&
          (name.module == wrapped_.refused || ends_in(wrapped_.refused, last_name(name.module))))
        tensors.push_back(tensor.name);
    const Cause* why = &cause::nothing_targeted;
    if (refusal.text.starts_with("lora.ParamWrapper"))
      why = &cause::wrapper_limits;
    else if (!wrapped_.refused.empty())
      why = &cause::module_not_supported;
    refuse(*why, refusal, std::move(tensors), refusal.text);
  }

  void place(const Incoming& incoming) {
    if (const Slot* slot = wrapped_.find(incoming.key)) {
      if (slot->shape != incoming.shape)
        return mismatches_.push_back({incoming, slot->shape, slot});
      for (const std::string& tensor : incoming.tensors) check_scale(tensor, incoming, *slot);
      check_order(incoming, *slot);
      keep(incoming);
    } else if (const auto shape = base_shape(incoming.key)) {
      if (*shape != incoming.shape) return mismatches_.push_back({incoming, *shape, nullptr});
      keep(incoming);
    } else if (is_beside_modules(incoming.key)) {
      keep(incoming);
    } else {
      const Loss loss = why_lost(incoming, {host_, modules_, wrapped_, declared_, config_});
      lose(*loss.cause, incoming.tensors, loss.detail);
    }
  }

  // Whole weights of norms, and of modules that modules_to_save names, whose list is not known
  // here, replace the base's, as do the rows of an embedding that trainable_token_indices trains.
  bool is_beside_modules(std::string_view key) const {
    constexpr std::string_view kRows = ".token_adapter.trainable_tokens_delta";
    if (key.ends_with(kRows)) {
      const Json* rows = adapter_.config.find("trainable_token_indices");
      return rows != nullptr && !rows->is(Json::Kind::null);
    }
    const std::string_view module = parent_of(key), parameter = leaf_of(key);
    if ((parameter != "weight" && parameter != "bias") || modules_.find(module) != nullptr)
      return false;
    return leaf_of(module).ends_with("norm") ||
           std::any_of(config_.modules_to_save.begin(), config_.modules_to_save.end(),
                       [&](const std::string& name) { return module.ends_with(name); });
  }

  void keep(const Incoming& incoming) {
    for (const std::string& tensor : incoming.tensors) buffers_[tensor] = incoming.key;
  }

  // The base model's own parameter of this name, where PEFT has left it.
  std::optional<Shape> base_shape(std::string_view key) const {
    const size_t dot = key.rfind('.');
    if (dot == std::string_view::npos) return std::nullopt;
    std::string_view path = key.substr(0, dot);
    int layers = 0;
    while (path.ends_with(".base_layer")) {
      path.remove_suffix(std::string_view(".base_layer").size());
      ++layers;
    }
    const Module* module = modules_.find(path);
    const auto around = wrapped_.layers.find(path);
    const int expected = around == wrapped_.layers.end() ? 0 : around->second;
    if (module == nullptr || layers != expected) return std::nullopt;
    for (const auto& [name, shape] : module->parameters)
      if (name == key.substr(dot + 1)) return shape;
    return std::nullopt;
  }

  // Column k * experts + e of a stacked lora_B is rank k of expert e, whatever the config says.
  void check_order(const Incoming& incoming, const Slot& slot) {
    const bool b = incoming.key.ends_with("lora_B.default.weight");
    if (!b || !slot.batched || incoming.joined || config_.rank(slot.target) == 1) return;
    if (told_order(adapter_.config, host_.spec, slot.target) != BOrder::expert_major) return;
    PlanEvent& wrong =
        event(cause::other_b_order, Effect::wrong_values,
              "has each expert's columns together, says the config; PEFT reads column k*E + e");
    wrong.tensors.insert(wrong.tensors.end(), incoming.tensors.begin(), incoming.tensors.end());
  }

  // Numbered experts that become one parameter: its scale is worked out anew.
  void check_scale(const std::string& tensor, const Incoming& incoming, const Slot& slot) {
    if (!incoming.joined) return;
    const double meant = declared_.scaling(parse_tensor_name(tensor).module);
    const double given = config_.scaling(slot.target);
    if (std::abs(given - meant) <= 1e-9 * std::abs(meant)) return;
    PlanEvent& scaled =
        event(cause::other_scale, Effect::wrong_scale,
              fmt::format("scaled by {:.6g} instead of {:.6g}: {:.6g} times what was trained",
                          given, meant, given / meant));
    scaled.tensors.push_back(tensor);
  }

  // ---- sizes --------------------------------------------------------------------------------

  struct Mismatch {
    Incoming incoming;
    Shape expected;
    const Slot* slot;  // null: a parameter of the base
  };

  std::string mismatch_text() const {
    std::string out =
        fmt::format("Error(s) in loading state_dict for {}:", model_class(config_.task_type));
    for (const Mismatch& m : mismatches_)
      out += fmt::format(
          "\n\tsize mismatch for base_model.model.{}: copying a param with shape {} from "
          "checkpoint, the shape in current model is {}.",
          m.incoming.key, py_size(m.incoming.shape), py_size(m.expected));
    return out;
  }

  bool is_swapped(const Mismatch& m) const {
    if (m.slot == nullptr || !m.slot->batched || m.incoming.joined) return false;
    const bool a = m.incoming.key.ends_with("lora_A.default.weight");
    std::string twin = m.incoming.key;
    twin.replace(twin.rfind("lora_") + 5, 1, a ? "B" : "A");
    const Slot* other = wrapped_.find(twin);
    if (other == nullptr || m.incoming.shape.size() != 2) return false;
    const size_t rank = a ? 0 : 1, side = 1 - rank;
    return m.incoming.shape[rank] == m.expected[rank] &&
           m.incoming.shape[side] == other->shape[rank];
  }

  const Cause& cause_of(const Mismatch& m) const {
    if (m.incoming.joined && is_short(m.incoming)) return cause::missing_experts;
    if (is_swapped(m)) return cause::other_roles;
    const size_t rank = m.incoming.key.ends_with("lora_A.default.weight") ? 0 : 1;
    const bool doubled = m.slot != nullptr && m.slot->batched && config_.doubles_rank &&
                         ends_in(m.slot->target, "gate_up_proj") && m.incoming.shape.size() == 2 &&
                         2 * m.incoming.shape[rank] == m.expected[rank];
    return doubled ? cause::doubled_rank : cause::size_mismatch;
  }

  bool is_short(const Incoming& incoming) const {
    const bool down = incoming.key.find(".base_layer.") == std::string::npos;
    return static_cast<int64_t>(incoming.tensors.size()) < host_.spec.experts * (down ? 1 : 2);
  }

  void refuse_mismatches() {
    if (mismatches_.empty()) return;
    std::stable_sort(mismatches_.begin(), mismatches_.end(),
                     [](const Mismatch& a, const Mismatch& b) {
                       return a.slot != nullptr && b.slot != nullptr && a.slot < b.slot;
                     });
    const Refusal refusal{std::string(kLoad), "RuntimeError", mismatch_text()};
    std::map<const Cause*, std::string> said;  // of the first of each kind
    for (const Mismatch& m : mismatches_) {
      const Cause& why = cause_of(m);
      refuse(why, refusal, m.incoming.tensors,
             said.try_emplace(&why, text_of(why, m)).first->second);
    }
  }

  std::string text_of(const Cause& why, const Mismatch& m) const {
    const std::string sizes =
        fmt::format("is {} where PEFT's is {}", to_string(m.incoming.shape), to_string(m.expected));
    if (&why != &cause::other_roles) return sizes;
    return fmt::format("has lora_A on the other side than PEFT {}'s: {}", host_.peft.text(), sizes);
  }

  // ---- fates --------------------------------------------------------------------------------

  void set_fates(const WeightFile& file) {
    const bool refused = out_.first_refusal() != nullptr;
    for (const TensorHeader& tensor : file.tensors) {
      const auto buffer = buffers_.find(tensor.name);
      const bool used = buffer != buffers_.end();
      const Fate fate = refused ? Fate::refused : used ? Fate::used : Fate::unused;
      out_.fates.push_back({tensor.name, file.name, fate, used ? buffer->second : ""});
    }
    for (PlanEvent& event : out_.events) {
      std::sort(event.tensors.begin(), event.tensors.end());
      event.tensors.erase(std::unique(event.tensors.begin(), event.tensors.end()),
                          event.tensors.end());
    }
  }

  const Host& host_;
  const Modules& modules_;
  const ServedAdapter& adapter_;
  Config declared_, config_;
  Wrapped wrapped_;
  std::vector<Mismatch> mismatches_;
  std::map<std::string, std::string> buffers_;  // of tensors that are used: the key
  AdapterPlan out_;
};

bool adapts_experts(const AdapterPlan& plan) {
  return std::any_of(plan.fates.begin(), plan.fates.end(), [](const TensorFate& fate) {
    return parse_expert_path(parse_tensor_name(fate.tensor).module).has_value();
  });
}

}  // namespace

ServerPlan plan(const PlanRequest& request) {
  ServerPlan out;
  if (request.spec.peft.unknown) {
    out.not_known = fmt::format(
        "what PEFT does with the modules of a {}, of which some are renamed or not described here "
        "(a tower's, or experts of attention), is not known",
        request.spec.model_type);
    return out;
  }
  if (request.spec.derived || (request.spec.experts > 0 && request.spec.memory.numbered)) {
    out.not_known = fmt::format("how transformers holds the modules of a {} is not known",
                                request.spec.model_type);
    return out;
  }
  const Host host = host_of(request.spec, request.version, request.options);
  const Modules modules = modules_of(host);
  for (const ServedAdapter& adapter : request.adapters)
    out.adapters.push_back(AdapterLoad(host, modules, adapter).run());
  std::string note = assumed_transformers(host, request.options);
  if (!note.empty() && std::any_of(out.adapters.begin(), out.adapters.end(), adapts_experts))
    out.notes.push_back(std::move(note));
  return out;
}

}  // namespace moelora::peft
