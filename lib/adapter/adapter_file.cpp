#include "lib/adapter/adapter_file.h"

#include <fmt/core.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <typeinfo>

#include "lib/adapter/adapter_folder.h"
#include "lib/adapter/dialect.h"
#include "lib/adapter/expert_collector.h"
#include "lib/adapter/foreign/automodel_stamp.h"
#include "lib/adapter/foreign/whole_state.h"
#include "lib/adapter/names/config_kinds.h"
#include "lib/adapter/names/text_names.h"
#include "lib/base/cast.h"
#include "lib/base/dotted_path.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

std::string plain_normalised(std::string module) {
  if (module == "model.unembed_tokens" || module == "unembed_tokens" || module == "model.lm_head")
    return "lm_head";
  return module;
}

ExtraKind extra_kind(TensorPart part, const std::string& module, const AdapterConfig& config) {
  constexpr std::pair<TensorPart, ExtraKind> kKinds[] = {
      {TensorPart::embedding_a, ExtraKind::embedding_factor},
      {TensorPart::embedding_b, ExtraKind::embedding_factor},
      {TensorPart::lora_bias, ExtraKind::lora_bias},
      {TensorPart::magnitude, ExtraKind::magnitude},
      {TensorPart::base_weight, ExtraKind::base_weight}};
  for (const auto& [known, kind] : kKinds)
    if (known == part) return kind;
  for (const std::string& saved : config.modules_to_save)
    if (module.find(saved + ".") != std::string::npos) return ExtraKind::saved_module;
  return ExtraKind::other;
}

// "", ".q_proj", "layers..q_proj" and "layers." have one; torch refuses to give a module such a
// name.
bool has_empty_part(std::string_view name) {
  return name.empty() || name.front() == '.' || name.back() == '.' ||
         name.find("..") != std::string_view::npos;
}

// Everything but routed-expert factors: pairs by module, and extras.
class DenseReader {
 public:
  DenseReader(const ModelSpec* spec, Adapter& adapter, std::vector<std::string>& twins)
      : spec_(spec), adapter_(adapter), twins_(twins) {}

  void add(const std::string& name, const TensorName& parsed, const Tensor& tensor) {
    if (has_empty_part(parsed.module))
      throw Error(name, "has an empty part between its dots, which no module of a model has",
                  "save the adapter again with model.save_pretrained");
    if (parsed.part == TensorPart::lora_a || parsed.part == TensorPart::lora_b) {
      add_factor(name, normalised(parsed.module),
                 parsed.part == TensorPart::lora_a ? Side::A : Side::B, tensor);
      return;
    }
    if (parse_expert_path(parsed.module))
      throw Error(
          name,
          "belongs to a routed expert but is neither lora_A nor lora_B: no layout can hold it",
          "train without lora_bias, DoRA and saved modules on the experts");
    std::string bare = without_wrappers(name);
    if (bare.starts_with(kPeftPrefix)) bare.erase(0, kPeftPrefix.size());
    const Extra extra{extra_kind(parsed.part, bare, adapter_.config), tensor};
    if (!adapter_.extras.emplace(bare, extra).second)
      throw Error(name, "is there with and without \"base_model.model.\"", "keep one of them");
  }

  void finish() {
    const std::vector<std::string>& parameters = adapter_.config.target_parameters;
    parameters_ = {parameters.begin(), parameters.end()};
    for (auto& [module, names] : names_) {
      DensePair& pair = adapter_.dense[module];
      for (Side side : {Side::A, Side::B})
        if (names[static_cast<size_t>(side)].empty())
          throw orphan(names[1 - static_cast<size_t>(side)], side);
      check(module, names, pair);
    }
  }

 private:
  std::string normalised(const std::string& module) const {
    return spec_ != nullptr ? spec_->normalised(module) : plain_normalised(module);
  }

  void add_factor(const std::string& name, const std::string& module, Side side,
                  const Tensor& tensor) {
    check_factor(name, tensor);
    std::string& seen = names_[module][static_cast<size_t>(side)];
    Tensor& slot = side == Side::A ? adapter_.dense[module].a : adapter_.dense[module].b;
    if (!seen.empty()) {
      if (!identical(slot, tensor))
        throw Error(name, fmt::format("names the same factor as {}", seen), "keep one of them");
      return twins_.push_back(name);
    }
    seen = name;
    slot = tensor;
  }

  void check(const std::string& module, const std::array<std::string, 2>& names, DensePair& pair) {
    check_ranks(names[0], pair.a, pair.b);
    pair.parameter = ends_in_any(module + ".weight", parameters_);
    pair.scaling = adapter_.config.scaling(pair.parameter ? module + ".weight" : module);
    const int64_t rank = pair.a.dim(0);
    check_config_rank(names[0], fmt::format("has rank {}", rank), rank, pair.scaling);
    const LinearSpec* linear = spec_ != nullptr ? spec_->find_linear(module) : nullptr;
    if (linear != nullptr && (linear->in != pair.a.dim(1) || linear->out != pair.b.dim(0)))
      throw Error(names[0],
                  fmt::format("adapts {} -> {}, but {} of this base model is {} -> {}",
                              pair.a.dim(1), pair.b.dim(0), module, linear->in, linear->out),
                  check_base());
  }

  const ModelSpec* spec_;
  Adapter& adapter_;
  std::vector<std::string>& twins_;
  std::map<std::string, std::array<std::string, 2>> names_;  // by module: names of A and B
  PathEnds parameters_;                                      // target_parameters
};

void note_config(const AdapterConfig& config, std::vector<std::string>& notes) {
  if (config.lora_alpha == 0)
    notes.push_back(
        "lora_alpha is 0: every delta is zero but for alpha_pattern's, and a server "
        "answers as the base model does");
  const std::string& init = config.init_lora_weights;
  for (const char* mutating : {"pissa", "olora", "corda", "loftq", "lora_ga"})
    if (init.starts_with(mutating))
      notes.push_back(fmt::format(
          "init_lora_weights is \"{}\": B·A is not a delta to the hub base, whose weights "
          "that training changed; the conversion keeps the factors as they are",
          init));
}

// Factors that would be carried along as if they were saved modules, and be lost at the server.
void refuse_foreign(const TensorMap& tensors) {
  for (const ForeignFactors& found : foreign_factors(tensors))
    throw Error(found.names.front(), describe(found, tensors.size()),
                std::string(found.dialect->advice));
}

// Of what nothing reads (LyCORIS' LoHa, LitGPT's files) no config would help.
void refuse_unread(const TensorMap& tensors) {
  for (const ForeignFactors& found : foreign_factors(tensors))
    if (found.dialect->read == nullptr && found.dialect != &unknown_dialect)
      throw Error(found.names.front(), describe(found, tensors.size()),
                  std::string(found.dialect->advice));
}

void refuse_without_factor(const Adapter& adapter, size_t tensors) {
  const bool embedding = std::any_of(adapter.extras.begin(), adapter.extras.end(), [](auto& entry) {
    return entry.second.kind == ExtraKind::embedding_factor;
  });
  if (!adapter.dense.empty() || embedding) return;
  throw Error("weights", fmt::format("hold {} tensors, none of them a low-rank factor", tensors),
              "an adapter has tensors whose names end in lora_A.weight and lora_B.weight");
}

void note_twins(Interpretation& meaning) {
  if (meaning.twins.empty()) return;
  meaning.notes.push_back(fmt::format(
      "{} tensors are there in a second spelling with the same bytes and left out: {}{}",
      meaning.twins.size(), meaning.twins.front(), meaning.twins.size() > 1 ? " ..." : ""));
}

// The tensors under names without wrappers, so that all that follows knows none.
void take_wrappers_out(AdapterFiles& files) {
  if (std::none_of(files.tensors.begin(), files.tensors.end(),
                   [](const auto& entry) { return !wrapper_in(entry.first).empty(); }))
    return;
  std::string_view whose;
  TensorMap out;
  size_t count = 0;
  for (auto& [name, tensor] : files.tensors) {
    const std::string_view here = wrapper_in(name);
    if (!here.empty()) {
      whose = here;
      ++count;
    }
    const auto [at, added] = out.emplace(here.empty() ? name : without_wrappers(name), tensor);
    if (!added && !identical(at->second, tensor))
      throw Error(name,
                  fmt::format("is {} once the wrappers of training are left out, and that is "
                              "there with other values",
                              at->first),
                  "keep the one that was trained");
  }
  files.tensors = std::move(out);
  files.notes.push_back(
      fmt::format("{} what {} wraps modules in: left out",
                  count == 1 ? "1 name holds" : fmt::format("{} names hold", count), whose));
}

// Weights that were read say themselves what their config must say.
Error without_config(const ReadProblem& problem, const TensorMap& tensors) {
  const std::string advice =
      problem.kind == ReadProblem::Kind::no_config ? config_to_write(tensors) : "";
  return advice.empty() ? problem.error
                        : Error(problem.error.location(), problem.error.text(), advice);
}

}  // namespace

AdapterFiles open_adapter(const std::string& path, const InputOptions& options,
                          const std::string& from) {
  AdapterFolder found = read_adapter_folder(path, false, options);
  AdapterFiles out;
  out.folder = found.folder;
  out.how = options;
  out.tensors = found.take_tensors();
  out.set = found.set;
  for (const FolderFile& file : found.files) out.weights.push_back(file.file);
  out.warnings = std::move(found.warnings);
  take_wrappers_out(out);
  take_factors_out(out);
  std::erase_if(found.problems, [&](const ReadProblem& p) {
    return p.kind == ReadProblem::Kind::no_config && needs_no_config(out.tensors);
  });
  if (found.config.find("peft_type") == nullptr) refuse_unread(out.tensors);
  // Whose config it is, only weights tell.
  const bool may_be_foreign = out.tensors.empty() && !has_peft_keys(found.config);
  if (!found.problems.empty() && (!found.has_config || may_be_foreign))
    throw without_config(found.problems.front(), out.tensors);
  read_config(std::move(found.config), out, from);
  if (!found.problems.empty()) throw Error(found.problems.front().error);
  read_automodel_stamp(found, options.links, out.config, out.notes);
  if (out.tensors.empty())
    throw Error(path, "holds no tensor", "the training saved no LoRA weights");
  return out;
}

AdapterFiles adapter_in_memory(TensorMap tensors, Json config, const std::string& from) {
  AdapterFiles out;
  out.tensors = std::move(tensors);
  if (out.tensors.empty())
    throw Error("tensors", "hold no tensor", "give the adapter's state dict, by name");
  take_wrappers_out(out);
  take_factors_out(out);
  read_config(std::move(config), out, from);
  return out;
}

std::optional<BaseModel> base_for(const AdapterConfig& config, const LoadOptions& options,
                                  std::vector<std::string>& notes) {
  return base_or_hint(options.base, config.base_model, options.model_specs, options.follow_base,
                      notes, options.links);
}

Interpretation interpret_tensors(const TensorMap& tensors, std::span<const ExpertTensor> experts,
                                 const AdapterConfig& config, const ModelSpec* spec,
                                 const std::string& from, const ReadOptions& read) {
  Interpretation out;
  out.adapter.config = config;
  note_config(config, out.notes);
  if (from.empty() || find_dialect(from) != nullptr) refuse_foreign(tensors);
  const std::set<std::string> twins = text_twins(tensors, spec);
  out.twins.assign(twins.begin(), twins.end());
  std::vector<ExpertTensor> kept;
  if (!twins.empty()) {
    std::copy_if(experts.begin(), experts.end(), std::back_inserter(kept),
                 [&](const ExpertTensor& t) { return twins.count(t.name) == 0; });
    experts = kept;
  }
  DenseReader dense(spec, out.adapter, out.twins);
  auto expert = experts.begin();  // in the order of `tensors`
  for (const auto& [name, tensor] : tensors) {
    if (expert != experts.end() && expert->name == name)
      ++expert;
    else if (twins.count(name) == 0)
      dense.add(name, parse_tensor_name(name), tensor);
  }
  dense.finish();
  if (experts.empty()) {
    note_twins(out);
    refuse_without_factor(out.adapter, tensors.size());
    return out;
  }
  if (spec != nullptr && spec->experts == 0)
    throw Error(experts.front().name,
                fmt::format("is of routed experts, and the base model is a dense {}", spec->family),
                {"name the model that the adapter was trained on with ", Option::base});

  const bool detect = from.empty() || find_dialect(from) != nullptr;
  out.layout = detect ? detect_layout(experts) : &layout_by_id(from, Option::from);
  for (const ExpertTensor& t : experts)
    if (!detect && out.layout->claim(t) == Claim::no)
      throw Error(t.name + " " + to_string(t.tensor.shape()),
                  fmt::format("is not a tensor of the layout {}", out.layout->id),
                  {"leave ", Option::from, " out to detect it"});
  out.layout->read(experts, {spec, out.adapter.config, read, out.notes, &out.twins}, out.adapter);
  note_twins(out);
  return out;
}

Interpretation interpret_files(const AdapterFiles& files, const ModelSpec* spec,
                               const std::string& from, const ReadOptions& read) try {
  return interpret_tensors(files.tensors, expert_tensors(files.tensors), files.config, spec, from,
                           read);
} catch (const Error& error) {
  if (typeid(error) != typeid(Error)) throw;
  Location where = error.location();
  const auto own = files.own_names.find(where.item.substr(0, where.item.find(' ')));
  if (own == files.own_names.end()) throw;
  where.item = fmt::format("{} (read as {})", own->second, where.item);
  throw Error(where, error.text(), error.advice());
}

LoadedAdapter interpret_adapter(AdapterFiles files, std::optional<BaseModel> base,
                                const std::string& from, const ReadOptions& read) {
  Interpretation meaning = interpret_files(files, base ? &base->spec : nullptr, from, read);
  meaning.notes.insert(meaning.notes.begin(), files.notes.begin(), files.notes.end());
  for (const std::string& twin : meaning.twins) files.tensors.erase(twin);
  return {std::move(meaning), std::move(files), std::move(base)};
}

void refuse_codes(const TensorMap& tensors, DType to) {
  for (const auto& [name, tensor] : tensors) {
    const TensorPart part = parse_tensor_name(name).part;
    if (is_float(tensor.dtype()) || part > TensorPart::embedding_b) continue;
    throw Error(
        name,
        fmt::format("is {}, which cannot be cast to {}: only F64, F32, F16 and BF16 factors "
                    "convert into each other",
                    dtype_name(tensor.dtype()), dtype_name(to)),
        "save the adapter again without quantizing it");
  }
}

LoadedAdapter load_adapter(const std::string& path, const LoadOptions& options,
                           std::optional<DType> dtype) {
  return load_adapter(open_adapter(path, options.input(), options.from), options, dtype);
}

LoadedAdapter load_adapter(AdapterFiles files, const LoadOptions& options,
                           std::optional<DType> dtype) {
  std::vector<std::string> notes;
  std::optional<BaseModel> base = base_for(files.config, options, notes);
  translate(files, base ? &base->spec : nullptr);
  if (dtype) {
    refuse_codes(files.tensors, *dtype);
    files.tensors = cast_tensors(files.tensors, *dtype);
    notes.push_back(fmt::format("factors are cast to {}", dtype_name(*dtype)));
  }
  LoadedAdapter out =
      interpret_adapter(std::move(files), std::move(base), options.from, options.read);
  out.notes.insert(out.notes.begin(), notes.begin(), notes.end());
  return out;
}

}  // namespace moelora
