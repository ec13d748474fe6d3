#include "lib/model/base_convert.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <limits>
#include <set>
#include <string_view>

#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/base/progress_meter.h"
#include "lib/io/conversion_report.h"
#include "lib/io/output.h"
#include "lib/io/tensor_writer.h"
#include "lib/io/weights.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

constexpr uint64_t kMaxCarriedBytes = 256u << 20;

bool is_weights(std::string_view name) {
  constexpr std::string_view kEndings[] = {".safetensors", ".safetensors.index.json",
                                           ".bin",         ".bin.index.json",
                                           ".pt",          ".pth",
                                           ".gguf",        ".h5",
                                           ".msgpack"};
  return std::any_of(std::begin(kEndings), std::end(kEndings),
                     [&](std::string_view end) { return name.ends_with(end); });
}

// The files of `folder` that go along unchanged (tokenizer, chat template, license), in order of
// name. What else is neither config.json, nor converted, nor a report on how the input was made
// (other weights, folders, files above kMaxCarriedBytes, hidden files) is added to the report's
// `left_out`; links that leave the folder are noted in it.
std::vector<std::string> other_files(const std::string& folder, BaseConversionReport& report) {
  std::vector<std::string> out;
  for (const std::string& name : names_in(folder)) {
    const bool converted = name == "config.json" || name == kConversionName ||
                           name.ends_with(".safetensors") ||
                           name.ends_with(".safetensors.index.json");
    if (converted) continue;
    const size_t notes = report.notes.size();
    const bool may_go = name[0] != '.' && !is_weights(name);
    const FilePtr file = may_go ? open_side_file(folder, name, report.notes) : nullptr;
    if (file != nullptr && file->size() <= kMaxCarriedBytes)
      out.push_back(name);
    else if (report.notes.size() == notes)
      report.left_out.push_back(name);
  }
  return out;
}

// Tensors that a cast to BF16 passes by: a router's correction bias, which models keep in F32
// (transformers' _keep_in_fp32_modules_strict) because rounding it changes which experts are
// chosen.
bool stays_as_it_is(const std::string& tensor_name) {
  return tensor_name.ends_with("e_score_correction_bias");
}

std::string_view form_name(ExpertForm form) {
  return form == ExpertForm::per_expert ? "per-expert" : "fused";
}

std::string found_form(const ExpertLayer& experts) {
  if (experts.mxfp4) return "MXFP4";
  return experts.numbered ? "per expert" : "batched";
}

// What of the model is written: layers, both inclusive, and what is in none.
struct Cut {
  int first = 0, last = std::numeric_limits<int>::max();  // behind the model's last layer too
  bool rest = true;

  bool keeps(int layer) const { return layer < 0 ? rest : layer >= first && layer <= last; }
};

Cut cut_of(const std::pair<int, int>& layers, int64_t count) {
  const auto [first, last] = layers;
  if (first < 0 || first > last || last >= count)
    throw Error(Option::layers, fmt::format("{}-{} is not a range of the model's layers 0-{}",
                                            first, last, count - 1));
  return {first, last, true};
}

Cut cut_of(const WhichPart& part, int64_t layers) {
  const int64_t number = part.number, count = part.count;
  const Location where = at_option(Option::part, fmt::format("{}/{}", number, count));
  if (count < 1 || number < 1 || number > count)
    throw Error(where, "there is no such part: of N parts the first is 1/N and the last N/N");
  if (count > layers)
    throw Error(where, fmt::format("the model has {} layers, and a part has one at least", layers),
                fmt::format("make at most {} parts", layers));
  Cut out;
  out.first = static_cast<int>((number - 1) * layers / count);
  if (number < count) out.last = static_cast<int>(number * layers / count) - 1;
  out.rest = number == 1;
  return out;
}

Cut cut_of(const BaseConversion& options, int64_t layers) {
  if (options.layers && options.part)
    throw Error(Option::part, "shares out all layers, not some of them",
                {"leave ", Option::part, " or ", Option::layers, " out"});
  if (options.layers) return cut_of(*options.layers, layers);
  return options.part ? cut_of(*options.part, layers) : Cut{};
}

class Converter {
 public:
  explicit Converter(const BaseConversion& options)
      : options_(options),
        base_(open_base(options.in, options.model_specs, options.links)),
        weights_(open()) {}

  BaseConversionReport run() {
    cut_ = cut_of(options_, base_.spec.layers);
    SplitExperts split = split_experts(weights_.tensors, base_.spec, base_.folder);
    if (split.experts.empty()) throw Error(base_.folder, "no tensor of routed experts was found");
    describe(split);
    if (options_.part) refuse_no_change(output(split));  // no part is the whole input
    cut(split);
    const TensorMap tensors = output(split);
    refuse_no_change(tensors);
    count(split, tensors);
    std::vector<std::string> files;
    if (cut_.rest) files = other_files(base_.folder, report_);
    if (!options_.dry_run) write(tensors, files);
    return std::move(report_);
  }

 private:
  Weights open() const {
    if (base_.spec.has_linear_experts())
      throw Error(
          options_.in,
          fmt::format("each expert of this model ({}) is a module of its own wherever it is held: "
                      "there is no other form to write",
                      base_.spec.model_type),
          "use the model as it is");
    if (base_.folder.empty()) {
      throw Error(options_.in,
                  fmt::format("found {} only, expected a folder with weights", base_.origin),
                  "name the folder that holds config.json and the .safetensors files");
    }
    return open_weights(base_.folder, {"model"}, {false, options_.links});
  }

  int layer_of(const std::string& name) const {
    return split_stem(name, layer_stem(base_.spec)).first;
  }

  void cut(SplitExperts& split) const {
    std::erase_if(split.rest,
                  [&](const auto& entry) { return !cut_.keeps(layer_of(entry.first)); });
    std::erase_if(split.experts,
                  [&](const ExpertLayer& experts) { return !cut_.keeps(experts.layer); });
  }

  void describe(const SplitExperts& split) {
    std::set<std::string> forms;
    for (const ExpertLayer& experts : split.experts) forms.insert(found_form(experts));
    report_.family = base_.spec.family;
    report_.warnings = weights_.warnings;
    report_.from = fmt::format("{}", fmt::join(forms, ", "));
    report_.to = form_name(options_.to);
    if (options_.to == ExpertForm::per_expert && !base_.spec.hub.numbered)
      report_.notes.push_back(fmt::format(
          "transformers does not load this form: its {} has batched experts alone, takes weights "
          "of other names for unexpected ones and starts the experts anew, with no more than a "
          "warning",
          base_.spec.model_type));
    if (base_.spec.idle_experts > 0)
      report_.notes.push_back(fmt::format(
          "the {} experts of a layer that are never run {}", base_.spec.idle_experts,
          options_.to == ExpertForm::per_expert ? "are left out" : "get zeros for gate and up"));
    decodes_ = forms.count("MXFP4") != 0;
  }

  TensorMap output(const SplitExperts& split) const {
    const ExpertStorage storage = options_.to == ExpertForm::per_expert
                                      ? per_expert_storage(base_.spec)
                                      : fused_storage(base_.spec);
    TensorMap out = split.rest;
    for (const ExpertLayer& experts : split.experts) add_experts(experts, base_.spec, storage, out);
    return options_.to_bf16 ? cast(out) : out;
  }

  void count(const SplitExperts& split, const TensorMap& out) {
    std::set<std::string> changes;
    for (const auto& [name, tensor] : out) {
      report_.bytes += tensor.bytes();
      for (const Piece& piece : tensor.pieces()) changes.insert(piece.source->change());
    }
    changes.erase("");
    report_.changes.assign(changes.begin(), changes.end());
    report_.tensors = static_cast<int64_t>(out.size());
    report_.expert_layers = static_cast<int64_t>(split.experts.size());
  }

  static TensorMap cast(const TensorMap& tensors) {
    TensorMap out = cast_tensors(tensors, DType::BF16);
    for (const auto& [name, tensor] : tensors)
      if (stays_as_it_is(name)) out[name] = tensor;
    return out;
  }

  void refuse_no_change(const TensorMap& out) const {
    const auto same = [](const auto& a, const auto& b) {
      return a.first == b.first && a.second.dtype() == b.second.dtype() &&
             a.second.shape() == b.second.shape();
    };
    const TensorMap& in = weights_.tensors;
    if (!std::equal(in.begin(), in.end(), out.begin(), out.end(), same)) return;
    throw Error(base_.folder,
                fmt::format("the experts are {} already: there is nothing to convert", report_.to));
  }

  Json part() const { return Json::array({options_.part->number, options_.part->count}); }

  Json config(const std::vector<std::string>& files) const {
    Json out = base_.config;
    if (decodes_) out.erase("quantization_config");
    if (decodes_ || options_.to_bf16) {
      for (const char* key : {"dtype", "torch_dtype"})
        if (out.find(key) != nullptr) out.set(key, "bfloat16");
    }
    Json about = Json::object({{"experts", std::string(form_name(options_.to))}});
    if (options_.layers)
      about.set("layers", Json::array({options_.layers->first, options_.layers->second}));
    if (options_.part) about.set("part", part());
    about.set("files", Json::strings(files));
    out.set("moelora", std::move(about));
    return out;
  }

  void write(const TensorMap& tensors, const std::vector<std::string>& files) {
    std::vector<FilePtr> inputs;
    for (const SafetensorsFile& file : weights_.files) inputs.push_back(file.file);
    OutputFolder folder(options_.out, inputs, {options_.force, options_.durable});
    WriteOptions write_options;
    write_options.max_shard_size = options_.max_shard_size;
    write_options.threads = options_.threads;
    write_options.job = options_.job;
    const WrittenWeights weights = write_weights(folder, "model", tensors, write_options);
    report_.files = weights.files;
    for (const std::string& name : files) {
      const FilePtr file = open_side_file(base_.folder, name, report_.notes);
      if (file == nullptr) continue;  // it was there a moment ago
      folder.copy_file(name, *file);
      report_.files.push_back(name);
    }
    if (options_.verify) verify(folder.staged());
    if (options_.part) write_part_report(folder, tensors, weights);
    report_.files.push_back("config.json");
    const auto ready = [&] {
      if (options_.ready) options_.ready(report_);
    };
    report_.left_behind = folder.commit(
        "config.json", config(folder.names_with({"config.json"})).dump() + "\n", ready);
  }

  void write_part_report(OutputFolder& folder, const TensorMap& tensors,
                         const WrittenWeights& weights) {
    const Json::Members head{
        {"from", report_.from},
        {"to", report_.to},
        {"part", part()},
        {"notes", Json::strings(report_.notes)},
        {"files", Json::strings(folder.names_with({kConversionName, "config.json"}))}};
    folder.write_text(kConversionName, report_text(head, tensors, weights, options_.threads));
    report_.files.emplace_back(kConversionName);
  }

  // What the output is to be compared with: what is in no layer is another part's.
  TensorMap expected() const {
    TensorMap out = weights_.tensors;
    if (cut_.rest) return out;
    const SplitExperts split = split_experts(out, base_.spec, base_.folder);
    for (const auto& [name, tensor] : split.rest)
      if (layer_of(name) < 0) out.erase(name);
    return out;
  }

  void verify(const std::string& staged) {
    begin_stage("verifying", options_.job);
    const Weights written = open_weights(staged, {"model"});
    report_.verified =
        verify_base(expected(), written.tensors, base_.spec, options_.threads, options_.out);
  }

  const BaseConversion& options_;
  BaseModel base_;
  Weights weights_;
  Cut cut_;
  BaseConversionReport report_;
  bool decodes_ = false;
};

}  // namespace

BaseConversionReport convert_base(const BaseConversion& conversion) {
  return Converter(conversion).run();
}

}  // namespace moelora
