#include "lib/model/base_convert.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <set>
#include <string_view>

#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/base/progress_meter.h"
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
// name. What else is neither config.json nor converted (other weights, folders, files above
// kMaxCarriedBytes, hidden files) is added to the report's `left_out`; links that leave the folder
// are noted in it.
std::vector<std::string> other_files(const std::string& folder, BaseConversionReport& report) {
  std::vector<std::string> out;
  for (const std::string& name : names_in(folder)) {
    const bool converted = name == "config.json" || name.ends_with(".safetensors") ||
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

class Converter {
 public:
  explicit Converter(const BaseConversion& options)
      : options_(options),
        base_(open_base(options.in, options.model_specs, options.links)),
        weights_(open()) {}

  BaseConversionReport run() {
    SplitExperts split = split_experts(weights_.tensors, base_.spec, base_.folder);
    if (split.experts.empty()) throw Error(base_.folder, "no tensor of routed experts was found");
    keep_layers(split);
    describe(split);
    const TensorMap tensors = output(split);
    refuse_no_change(tensors);
    const std::vector<std::string> files = other_files(base_.folder, report_);
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

  bool keeps(int layer) const {
    return layer < 0 || !options_.layers ||
           (layer >= options_.layers->first && layer <= options_.layers->second);
  }

  void keep_layers(SplitExperts& split) const {
    if (!options_.layers) return;
    const auto [first, last] = *options_.layers;
    if (first < 0 || first > last || last >= base_.spec.layers) {
      throw Error(Option::layers, fmt::format("{}-{} is not a range of the model's layers 0-{}",
                                              first, last, base_.spec.layers - 1));
    }
    const std::string stem = layer_stem(base_.spec);
    std::erase_if(split.rest,
                  [&](const auto& entry) { return !keeps(split_stem(entry.first, stem).first); });
    std::erase_if(split.experts, [&](const ExpertLayer& experts) { return !keeps(experts.layer); });
  }

  void describe(const SplitExperts& split) {
    std::set<std::string> forms;
    for (const ExpertLayer& experts : split.experts) forms.insert(found_form(experts));
    report_.family = base_.spec.family;
    report_.warnings = weights_.warnings;
    report_.from = fmt::format("{}", fmt::join(forms, ", "));
    report_.to = form_name(options_.to);
    report_.expert_layers = static_cast<int64_t>(split.experts.size());
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

  TensorMap output(const SplitExperts& split) {
    const ExpertStorage storage = options_.to == ExpertForm::per_expert
                                      ? per_expert_storage(base_.spec)
                                      : fused_storage(base_.spec);
    TensorMap out = split.rest;
    for (const ExpertLayer& experts : split.experts) add_experts(experts, base_.spec, storage, out);
    if (options_.to_bf16) out = cast(out);
    std::set<std::string> changes;
    for (const auto& [name, tensor] : out) {
      report_.bytes += tensor.bytes();
      for (const Piece& piece : tensor.pieces()) changes.insert(piece.source->change());
    }
    changes.erase("");
    report_.changes.assign(changes.begin(), changes.end());
    report_.tensors = static_cast<int64_t>(out.size());
    return out;
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
    report_.files = write_weights(folder, "model", tensors, write_options).files;
    for (const std::string& name : files) {
      const FilePtr file = open_side_file(base_.folder, name, report_.notes);
      if (file == nullptr) continue;  // it was there a moment ago
      folder.copy_file(name, *file);
      report_.files.push_back(name);
    }
    if (options_.verify) verify(folder.staged());
    report_.files.push_back("config.json");
    const auto ready = [&] {
      if (options_.ready) options_.ready(report_);
    };
    report_.left_behind = folder.commit(
        "config.json", config(folder.names_with({"config.json"})).dump() + "\n", ready);
  }

  void verify(const std::string& staged) {
    begin_stage("verifying", options_.job);
    const Weights written = open_weights(staged, {"model"});
    report_.verified =
        verify_base(weights_.tensors, written.tensors, base_.spec, options_.threads, options_.out);
  }

  const BaseConversion& options_;
  BaseModel base_;
  Weights weights_;
  BaseConversionReport report_;
  bool decodes_ = false;
};

}  // namespace

BaseConversionReport convert_base(const BaseConversion& conversion) {
  return Converter(conversion).run();
}

}  // namespace moelora
