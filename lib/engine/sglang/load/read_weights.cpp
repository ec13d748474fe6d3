#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/load/read_adapter.h"
#include "lib/engine/sglang/names.h"

namespace moelora::sglang {
namespace {

// Files of a training run that the loader leaves out.
constexpr std::array<std::string_view, 4> kTrainingFiles = {"training_args.bin", "optimizer.bin",
                                                            "optimizer.pt", "scheduler.pt"};

bool is_training_file(const std::string& name) {
  return std::find(kTrainingFiles.begin(), kTrainingFiles.end(), name) != kTrainingFiles.end();
}

// An extent may be anything where another is zero: bounded, so that sums of four stay exact.
Shape bounded(Shape shape) {
  constexpr int64_t kMost = int64_t{1} << 56;
  for (int64_t& extent : shape)
    if (extent < 0 || extent > kMost) extent = kMost;
  return shape;
}

// All files of the first ending that there are any of.
std::vector<const WeightFile*> files_to_read(const ServedAdapter& served) {
  for (std::string_view ending : {".safetensors", ".bin", ".pt"}) {
    std::vector<const WeightFile*> found;
    for (const WeightFile& file : served.files)
      if (file.name.ends_with(ending) && !is_training_file(file.name)) found.push_back(&file);
    if (!found.empty()) return found;
  }
  return {};
}

class WeightReader {
 public:
  WeightReader(CpuAdapter& adapter, const ModelClass& model) : adapter_(adapter), model_(model) {}

  void read(const ServedAdapter& served) {
    const auto files = files_to_read(served);
    if (files.empty()) return no_weights(served);
    for (const WeightFile* file : files) list_file(*file);
    adapter_.refused.resize(adapter_.sources.size());
    adapter_.lost.resize(adapter_.sources.size());
    adapter_.layers.resize(static_cast<size_t>(model_.layers()));
    if (!has_targets()) return;
    for (size_t i = 0; i < adapter_.sources.size(); ++i) place(static_cast<int32_t>(i));
  }

 private:
  void no_weights(const ServedAdapter& served) {
    adapter_.alive = false;
    adapter_.raise({&cause::no_weights, stage::kRead, "RuntimeError",
                    fmt::format("Cannot find any model weights with `{}`", in_text(served.folder)),
                    "no weights file was found"});
  }

  void list_file(const WeightFile& file) {
    adapter_.files.push_back(file.name);
    const auto index = static_cast<uint32_t>(adapter_.files.size() - 1);
    for (const TensorHeader& tensor : file.tensors)
      adapter_.sources.push_back({tensor.name, index, tensor.dtype, bounded(tensor.shape)});
  }

  // get_normalized_target_modules() runs for every tensor, and raises for the first.
  bool has_targets() {
    if (adapter_.sources.empty()) return true;
    const Json& targets = *adapter_.config.find("target_modules");
    CpuAdapter::Raise raise{&cause::missing_field, stage::kRead, "TypeError", "", ""};
    if (targets.is(Json::Kind::string) && !adapter_.all_targets) {
      raise = {&cause::regex_targets, stage::kRead, "ValueError",
               "Only 'all' or 'all-linear' can be used as the string for target module",
               fmt::format("target_modules is the string {}", py_repr(targets.as_string()))};
    } else if (targets.is(Json::Kind::null)) {
      raise.text = "'NoneType' object is not iterable";
      raise.detail = "target_modules is null, expected a list";
    } else if (targets.is_number() || targets.is(Json::Kind::boolean)) {
      raise.text = targets.is(Json::Kind::boolean)   ? "'bool' object is not iterable"
                   : targets.is(Json::Kind::integer) ? "'int' object is not iterable"
                                                     : "'float' object is not iterable";
      raise.detail = fmt::format("target_modules is {}, expected a list", targets.kind_name());
    } else {
      return true;
    }
    adapter_.alive = false;
    adapter_.raise(raise);
    return false;
  }

  void place(int32_t id) {
    const Source& tensor = adapter_.sources[static_cast<size_t>(id)];
    Staged staged{tensor.name, tensor.shape, {}};
    const int64_t rows = tensor.shape.empty()       ? 1
                         : tensor.shape.size() == 1 ? tensor.shape[0]
                                                    : tensor.shape[tensor.shape.size() - 2];
    staged.blocks.push_back({id, rows});
    if (contains(staged.name, "unembed_tokens"))
      staged.name = replaced(staged.name, "unembed_tokens", "lm_head");
    const auto layer = layer_of(staged.name);
    if (layer)
      place_in_layer(*layer, std::move(staged));
    else if (contains(staged.name, "embed_tokens") || contains(staged.name, "lm_head"))
      place_embedding(id, std::move(staged));
    else if (contains(staged.name, "input_embeddings") ||
             contains(staged.name, "output_embeddings"))
      refuse_added(id, tensor);
    else
      adapter_.lose(std::vector<int32_t>{id}, &cause::ignored_tensors,
                    "its name has no layers.N: SGLang reads it and drops it");
  }

  void place_in_layer(int64_t layer, Staged staged) {
    const std::vector<int32_t> ids = staged.sources();
    if (layer >= model_.layers())
      return adapter_.raise(
          {&cause::layer_out_of_range, stage::kRead, "IndexError",
           fmt::format("index {} is out of range", layer),
           fmt::format("layer {} of a model of {} layers", layer, model_.layers())},
          ids);
    const auto before = adapter_.layers[static_cast<size_t>(layer)].set(std::move(staged));
    adapter_.lose(before, &cause::stray_weight_file,
                  "another file of the folder has a tensor of this name, and that one is served");
  }

  void place_embedding(int32_t id, Staged staged) {
    const std::string_view module =
        contains(staged.name, "embed_tokens") ? "embed_tokens" : "lm_head";
    if (adapter_.all_targets || adapter_.targets.count(module) != 0) {
      const auto before = adapter_.embeddings.set(std::move(staged));
      return adapter_.lose(before, &cause::stray_weight_file,
                           "another file of the folder has a tensor of this name");
    }
    const bool factor = is_factor(staged.name);
    adapter_.lose(std::vector<int32_t>{id},
                  factor ? &cause::undeclared_embeddings : &cause::ignored_tensors,
                  factor ? "target_modules does not name its module: SGLang drops it"
                         : "SGLang serves no saved module: it drops the tensor");
  }

  void refuse_added(int32_t id, const Source& tensor) {
    const int64_t rows = tensor.shape.empty() ? 0 : tensor.shape[0];
    if (rows == 0) return;
    adapter_.raise(
        {&cause::added_tokens, stage::kRead, "AssertionError",
         fmt::format(
             "LoRA adapter {} has lora_added_tokens_size 0 specified in the config, but the "
             "loaded weight '{}' has shape {} in first dimension",
             in_text(adapter_.name), in_text(tensor.name), rows),
         "embeddings of added tokens cannot be served"},
        {id});
  }

  CpuAdapter& adapter_;
  const ModelClass& model_;
};

}  // namespace

void read_weights(CpuAdapter& adapter, const ServedAdapter& served, const ModelClass& model) {
  WeightReader(adapter, model).read(served);
}

}  // namespace moelora::sglang
