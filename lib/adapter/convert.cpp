#include "lib/adapter/convert.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <tuple>

#include "lib/adapter/dialect.h"
#include "lib/adapter/expert_biases.h"
#include "lib/adapter/gate_up.h"
#include "lib/adapter/joined_modules.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/io/conversion_report.h"
#include "lib/io/json_build.h"
#include "lib/io/weights.h"

namespace moelora {
namespace {

bool gated(const Conversion& c, const ModelSpec* spec) {
  return spec != nullptr ? spec->gated
                         : c.adapter.has(Projection::gate) || c.adapter.has(Projection::gate_up);
}

void fuse_for(Conversion& c, const ModelSpec* spec, int threads) {
  if (!gated(c, spec)) {
    if (c.adapter.has(Projection::up) && !c.to->one_parameter)
      throw Error(std::string(c.to->id),
                  "cannot hold experts without a gate: there is no gate_up_proj",
                  {"use ", Option::to, " peft-linear, stacked or peft-params"});
    return;
  }
  const bool separate = c.adapter.has(Projection::gate) || c.adapter.has(Projection::up);
  if (c.to->gate_up_order) return fuse_gate_up(c.adapter, *c.to->gate_up_order, threads);
  if (spec != nullptr) return fuse_gate_up(c.adapter, required_gate_up_order(*spec), threads);
  if (!separate && !c.adapter.gate_up_order)
    return;  // PEFT's form in and out: the order stays as it is
  throw Error(
      std::string(c.to->id),
      "whether gate and up rows are halves or interleaved in the base parameter depends on the "
      "model family, and no base model is known",
      {"name it with ", Option::base});
}

// A module that the other names have as a part of one, or in parts, in an order of rows that is not
// known: what is known was brought to the layout's form before (joined_modules.h).
[[noreturn]] void refuse_one_form(const LinearSpec& linear, const ModelSpec& spec, Form form) {
  throw Error(form == Form::hub ? linear.memory : linear.hub,
              fmt::format("is a module of {} only: {} of {} have others in its place",
                          form == Form::hub ? "transformers 5" : "the hub's files",
                          form == Form::hub ? "the hub's files" : "the classes", spec.model_type),
              {"leave it out of the adapter, or use a layout with the same names (", Option::to,
               form == Form::hub ? " peft-params)" : " peft-linear)"});
}

// In which form a layout has dense modules.
Form dense_form(const ModelSpec& spec, const Layout& layout) {
  return in_hub_names(spec, layout.form) ? Form::hub : Form::memory;
}

// The place of a dense pair in a layout; of one that was fitted for an engine the form is that
// engine's. A router is a Linear in transformers 4 and a bare Parameter in 5, where PEFT finds it
// by target_parameters only.
ExpertTarget dense_target(const std::string& module, const DensePair& pair, const ModelSpec* spec,
                          const Layout* to, bool fitted) {
  const LinearSpec* linear = spec != nullptr && to != nullptr ? spec->find_linear(module) : nullptr;
  if (linear == nullptr) return {module, pair.parameter, pair.scaling};
  const Form form = dense_form(*spec, *to);
  if (!linear->is_in(form) && fitted) return {linear->hub, pair.parameter, pair.scaling};
  if (!linear->is_in(form)) refuse_one_form(*linear, *spec, form);
  const bool hub = form == Form::hub;
  return {hub ? linear->hub : linear->memory,
          pair.parameter || !(hub ? linear->hub_linear : linear->memory_linear), pair.scaling};
}

// What is neither a factor nor named by the config is written as it is: nothing here knows its use.
void note_others(Conversion& c) {
  std::vector<std::string> names;
  for (const auto& [name, extra] : c.adapter.extras)
    if (extra.kind == ExtraKind::other) names.push_back(name);
  if (!names.empty())
    c.notes.push_back(
        fmt::format("{} tensors are no low-rank factors, and the config names them "
                    "nowhere: written as they are ({})",
                    names.size(), list_some(names, 2)));
}

void write_extras(const Adapter& adapter, TensorMap& tensors, std::vector<ExpertTarget>& targets) {
  for (const auto& [name, extra] : adapter.extras) {
    if (is_expert_bias(name)) continue;  // the layout's
    tensors[std::string(kPeftPrefix) + name] = extra.tensor;
    if (extra.kind != ExtraKind::embedding_factor || !name.ends_with("_A")) continue;
    const std::string module = name.substr(0, name.rfind(".lora_embedding_"));
    targets.push_back({module, false, adapter.config.scaling(module)});
  }
}

std::vector<ExpertTarget> write_dense(const Conversion& c, const ModelSpec* spec, const Layout* to,
                                      TensorMap& tensors) {
  std::vector<ExpertTarget> targets;
  for (const auto& [module, pair] : c.adapter.dense) {
    ExpertTarget& target =
        targets.emplace_back(dense_target(module, pair, spec, to, c.changes.has_value()));
    tensors[lora_name(target.path, Side::A)] = pair.a;
    tensors[lora_name(target.path, Side::B)] = pair.b;
    if (target.parameter) target.path += ".weight";
  }
  write_extras(c.adapter, tensors, targets);
  return targets;
}

// --b-order and --roles are about the side that has them: the input's stacked pairs, else the
// output's.
LayoutWriteOptions written_form(const Conversion& c, const PlanOptions& options) {
  LayoutWriteOptions out = options.layout;
  const ReadOptions& said = options.load.read;
  const bool in = c.input.layout != nullptr && c.input.layout->one_parameter;
  const bool to = c.to != nullptr && c.to->one_parameter;
  if (in || (!said.b_order && !said.roles)) return out;
  if (!to)
    throw Error(
        said.b_order ? Option::b_order : Option::roles,
        fmt::format("only peft-params has it, and neither the input ({}) nor the output ({}) is of "
                    "that layout",
                    c.input.layout != nullptr ? c.input.layout->id : "no experts", options.to),
        "leave it out");
  out.b_order = said.b_order.value_or(out.b_order);
  out.roles = said.roles.value_or(out.roles);
  return out;
}

// Numbered files do not say how many experts there are; a tensor of all experts does.
void check_expert_count(Conversion& c, const ModelSpec* spec) {
  if (spec != nullptr || c.to->numbered) return;
  const bool counted = !c.input.layout->numbered;
  if (c.adapter.expert_count == 1 && !(counted && c.to->one_parameter))
    throw Error("expert 0",
                "is the only one with LoRA, and how many experts there are is not known: one slice "
                "would mean one matrix for all of them",
                {"name the base model with ", Option::base});
  if (counted) return;
  c.notes.push_back(
      fmt::format("without a base model, the highest number says that there are {} experts: "
                  "whether the last ones are missing is not checked",
                  c.adapter.expert_count));
}

void check_expert_biases(const Conversion& c) {
  if (c.to->one_parameter) return;
  for (const auto& [name, extra] : c.adapter.extras)
    if (is_expert_bias(name))
      throw Error(name, fmt::format("adapts the experts' biases, which {} cannot hold", c.to->id),
                  {"use ", Option::to, " peft-params"});
}

void note_ranks(Conversion& c) {
  for (const auto& [key, pair] : c.adapter.experts) {
    if (key.projection != Projection::gate_up) continue;
    const auto gate = c.input.adapter.experts.find({key.layer, Projection::gate});
    if (gate == c.input.adapter.experts.end() || max_rank(pair) <= max_rank(gate->second)) continue;
    c.notes.push_back(
        fmt::format("gate and up have A factors of their own: fused block-diagonally, rank {} "
                    "becomes {} for gate_up, scale unchanged",
                    max_rank(gate->second), max_rank(pair)));
    return;
  }
}

// Factors that one tensor will hold are of one type: those of all experts where they are not
// numbered, those of gate and up where they are fused.
void check_types(const Conversion& c) {
  const bool joins = joins_gate_up(*c.to, c.input.base ? &c.input.base->spec : nullptr);
  if (c.to->numbered && !joins) return;
  struct First {
    DType dtype;
    std::string name;
  };
  std::map<std::tuple<int, Projection, size_t, Side>, First> first;
  for (const auto& [key, pair] : c.adapter.experts)
    for (const Side side : {Side::A, Side::B}) {
      const Factor& factor = side == Side::A ? pair.a : pair.b;
      for (size_t e = 0; e < factor.parts.size(); ++e) {
        if (factor.parts[e].rank() == 0) continue;
        const std::string name =
            fmt::format("{}.{}.{}.lora_{}", c.adapter.stem(key.layer), e,
                        projection_name(key.projection), side == Side::A ? "A" : "B");
        const DType dtype = factor.parts[e].dtype();
        const bool joined = joins && key.projection != Projection::down;
        const First& other =
            first
                .try_emplace({key.layer, joined ? Projection::gate_up : key.projection,
                              c.to->numbered ? e : 0, side},
                             First{dtype, name})
                .first->second;
        if (other.dtype == dtype) continue;
        throw Error(
            name,
            fmt::format("is of {} and {} is of {}: {} holds them in one tensor", dtype_name(dtype),
                        other.name, dtype_name(other.dtype), c.to->id),
            {"make them one type with ", Option::dtype, " f32, which changes no value of 16 bits"});
      }
    }
}

// The output would be the base model, and the value that was lost cannot be guessed.
void refuse_no_scale(const LoadedAdapter& input) {
  const auto is_zero = [](const Scaling& scaling) { return scaling.value() == 0; };
  const Adapter& adapter = input.adapter;
  const bool dense = std::all_of(adapter.dense.begin(), adapter.dense.end(),
                                 [&](const auto& entry) { return is_zero(entry.second.scaling); });
  const bool experts =
      std::all_of(adapter.experts.begin(), adapter.experts.end(), [&](const auto& entry) {
        return std::all_of(entry.second.scaling.begin(), entry.second.scaling.end(), is_zero);
      });
  if (!dense || !experts || (adapter.dense.empty() && adapter.experts.empty())) return;
  if (input.files.dialect != nullptr)
    throw Error(input.files.config.where, "the scale of every low-rank pair is zero",
                fmt::format("set what {} calls alpha or scale to the value of the training",
                            input.files.dialect->whose));
  throw Error(input.files.config.where, "lora_alpha makes the scale of every low-rank pair zero",
              "set it to the value of the training (verl: actor_rollout_ref.model.lora_alpha)");
}

// What --to names: a layout, or another trainer's dialect and the layout from which it is written.
struct Target {
  const Layout& layout;
  const Dialect* dialect = nullptr;
};

Target target_of(const std::string& to) {
  const Dialect* dialect = dialect_named(to, Option::to);
  return {layout_by_id(dialect == nullptr ? to : dialect->through), dialect};
}

void put_in_dialect(Conversion& c, const ModelSpec* spec) {
  const AdapterConfig config = parse_adapter_config(std::move(c.config), std::string(kConfigName));
  ForeignFiles written = c.dialect->write({c.tensors, config, spec});
  c.tensors = std::move(written.tensors);
  c.config = std::move(written.config);
}

// Everything that follows from what is read (c.input) and what is to be written (c.adapter).
// Without experts dense modules keep their names, unless `named`: then they take the layout's.
bool has_linear_experts(const Adapter& adapter) {
  return std::any_of(adapter.dense.begin(), adapter.dense.end(),
                     [](const auto& entry) { return find_linear_expert(entry.first).has_value(); });
}

Conversion planned(Conversion c, const PlanOptions& options, bool named) {
  refuse_no_scale(c.input);
  c.notes = c.input.notes;
  const ModelSpec* spec = c.input.base ? &c.input.base->spec : nullptr;
  const Target target = target_of(options.to);
  const Layout& layout = target.layout;
  c.dialect = target.dialect;
  if (!c.adapter.experts.empty()) c.to = &layout;
  const LayoutWriteOptions form = written_form(c, options);
  const Layout* names = named ? &layout : c.to;
  // What an engine's repairs made is in the right form.
  if (spec != nullptr && names != nullptr && !c.changes)
    for (std::string& note :
         join_or_part(*spec, c.adapter, options.threads, [&](const JoinedModule& module) {
           return joining_of(module, dense_form(*spec, *names));
         }))
      c.notes.push_back(std::move(note));

  const std::vector<ExpertTarget> dense = write_dense(c, spec, names, c.tensors);
  WrittenExperts experts;
  if (c.to != nullptr) {
    check_types(c);
    if (joins_gate_up(*c.to, spec))
      fuse_for(c, spec, options.threads);
    else
      split_gate_up(c.adapter);
    if (!c.changes) note_ranks(c);
    check_expert_count(c, spec);
    check_expert_biases(c);
    experts = c.to->write({c.adapter, spec, form});
  } else if (!c.changes && c.dialect == nullptr) {
    c.notes.push_back(has_linear_experts(c.adapter)
                          ? "its experts are Linears of their own: every layout writes the same"
                          : "no routed-expert factors: every layout writes the same");
  }
  for (auto& [name, tensor] : experts.tensors) c.tensors[name] = std::move(tensor);
  note_others(c);
  if (c.changes) {
    for (const Change& change : c.changes->made) c.notes.push_back(change.note);
    c.notes.insert(c.notes.end(), c.changes->notes.begin(), c.changes->notes.end());
  }
  c.config = write_config({c.adapter.config, spec, c.to, form, c.adapter.gate_up_order, dense,
                           experts.targets, c.changes ? &*c.changes : nullptr});
  if (c.dialect != nullptr) put_in_dialect(c, spec);
  return c;
}

}  // namespace

Conversion plan_conversion(const std::string& in, const PlanOptions& options) {
  return plan_conversion(load_adapter(in, options.load, options.dtype), options);
}

Conversion plan_conversion(LoadedAdapter input, const PlanOptions& options) {
  Conversion c;
  c.input = std::move(input);
  c.adapter = c.input.adapter;
  return planned(std::move(c), options, false);
}

Conversion plan_conversion(LoadedAdapter input, Adapter fitted, Changes changes,
                           const PlanOptions& options) {
  Conversion c;
  c.input = std::move(input);
  c.adapter = std::move(fitted);
  c.changes = std::move(changes);
  return planned(std::move(c), options, true);
}

Conversion plan_conversion(Adapter made, const ModelSpec& spec, const PlanOptions& options) {
  Conversion c;
  c.input.base.emplace().spec = spec;
  c.input.adapter = c.adapter = std::move(made);
  return planned(std::move(c), options, true);
}

namespace {

// Files that belong to an adapter's user, not to its weights. Unknown files stay behind: SGLang
// loads every weight file it finds in the folder.
bool is_carried(const std::string& name) {
  constexpr std::array<std::string_view, 10> kStarts = {
      "README",       "LICENSE", "NOTICE", "tokenizer",     "special_tokens_map",
      "added_tokens", "vocab",   "merges", "chat_template", "generation_config"};
  return std::any_of(kStarts.begin(), kStarts.end(),
                     [&](std::string_view start) { return name.starts_with(start); });
}

std::string stem_of(const Conversion& c) {
  return std::string(c.dialect != nullptr ? c.dialect->stem : "adapter_model");
}

// The output as it lies in the temporary folder; its config is written last and is not there yet.
AdapterFiles staged_files(const Conversion& c, OutputFolder& folder) {
  AdapterFiles out;
  out.folder = folder.staged();
  out.tensors = open_weights(out.folder, {stem_of(c)}).tensors;
  Json config = parse_json(c.config.dump(), "adapter_config.json");
  if (c.dialect == nullptr) {
    out.config = parse_adapter_config(std::move(config), folder.path() + "/adapter_config.json");
    return out;
  }
  read_config(std::move(config), out, std::string(c.dialect->id));
  translate(out, c.input.base ? &c.input.base->spec : nullptr);
  return out;
}

WrittenWeights write_tensors(const Conversion& c, OutputFolder& folder, WriteOptions options) {
  if (c.dialect != nullptr) options.metadata.clear();  // says that they are PyTorch's
  WrittenWeights out = write_weights(folder, stem_of(c), c.tensors, options);
  if (c.dialect != nullptr && out.files.size() > 1)
    throw Error(Option::max_shard_size,
                fmt::format("cuts the weights into {} files, and {} reads one",
                            out.files.size() - 1, c.dialect->whose),
                "leave it out");
  return out;
}

Json change_json(const Change& change) {
  return Json::object({{"name", change.name}, {"note", change.note}});
}

Json left_out_json(const LeftOut& part) {
  return Json::object({{"kind", part.kind},
                       {"modules", Json::strings(part.modules)},
                       {"norm", or_null(part.norm)},
                       {"whole", part.whole}});
}

void add_changes(const Changes& changes, Json::Members& head) {
  head.emplace_back("for", changes.engine);
  head.emplace_back("server_options", Json::strings(changes.options));
  head.emplace_back("repairs", json_list(changes.made, change_json));
  head.emplace_back("dropped", json_list(changes.left_out, left_out_json));
}

// A dialect, or a layout; null for neither.
Json form_id(const Dialect* dialect, const Layout* layout) {
  if (dialect != nullptr) return Json(dialect->id);
  return layout != nullptr ? Json(layout->id) : Json();
}

void write_report(const Conversion& c, const WrittenConversion& written, int threads,
                  OutputFolder& folder) {
  Json::Members head{{"from", form_id(c.input.files.dialect, c.input.layout)},
                     {"to", form_id(c.dialect, c.to)}};
  if (c.changes) add_changes(*c.changes, head);
  std::vector<std::string> notes = c.notes;
  notes.insert(notes.end(), written.notes.begin(), written.notes.end());
  head.emplace_back("notes", Json::strings(notes));
  head.emplace_back("files", Json::strings(folder.names_with({kConversionName, kConfigName})));
  folder.write_text(kConversionName, report_text(head, c.tensors, written.weights, threads));
}

// What no output may replace. A dialect's config may be another file (mistral-finetune's
// params.json), or none; an adapter made in memory has no file.
std::vector<FilePtr> input_files(const AdapterFiles& input) {
  std::vector<FilePtr> out = input.weights;
  if (input.folder.empty()) return out;
  if (const InputPath config = input.config_path(); !is_absent(config.path))
    out.push_back(File::open(config));
  return out;
}

void carry_along(const Conversion& c, OutputFolder& folder, std::vector<std::string>& notes) {
  const std::string& from = c.input.files.folder;
  if (from.empty()) return;
  for (const std::string& name : names_in(from)) {
    if (!is_carried(name) || (c.changes && c.changes->left_files.count(name) != 0)) continue;
    if (const FilePtr file = open_side_file(from, name, notes)) folder.copy_file(name, *file);
  }
}

void commit(const Conversion& c, OutputFolder& folder, const WriteFolderOptions& options,
            WrittenConversion& written) {
  const auto ready = [&] {
    if (options.ready) options.ready(written);
  };
  written.left_behind = folder.commit(std::string(kConfigName), c.config.dump() + "\n", ready);
}

}  // namespace

WrittenConversion write_conversion(const Conversion& c, const std::string& out,
                                   const WriteFolderOptions& options) {
  OutputFolder folder(out, input_files(c.input.files), options.output);
  WrittenConversion written;
  written.weights = write_tensors(c, folder, options.weights);
  carry_along(c, folder, written.notes);
  if (options.verify && c.dialect != nullptr)
    written.notes.push_back(
        fmt::format("written for {}: --verify compares what is read back of it as dialect {}",
                    c.dialect->whose, c.dialect->id));
  write_report(c, written, options.weights.threads, folder);
  if (options.verify) {
    const Verified verified = options.verify(c, staged_files(c, folder));
    written.verified = verified.factors;
    written.same_product = verified.same_product;
  }
  commit(c, folder, options, written);
  return written;
}

}  // namespace moelora
