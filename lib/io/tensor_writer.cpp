#include "lib/io/tensor_writer.h"

#include "lib/base/progress.h"
#include "lib/io/evaluate.h"
#include "lib/io/header_plan.h"
#include "lib/io/json.h"
#include "lib/io/shard_split.h"

namespace moelora {
namespace {

// All shards of one call: planned and created first, then filled together.
class WeightsWriter {
 public:
  WeightsWriter(OutputFolder& out, const WriteOptions& options) : out_(out), options_(options) {}

  void create(const Shard& shard) {
    const HeaderPlan plan = plan_header(shard.tensors, options_.metadata);
    files_.push_back(out_.create(shard.file, plan.file_size));
    files_.back()->write(0, std::as_bytes(std::span(plan.header)));
    written_.files.push_back(shard.file);
    for (size_t i = 0; i < plan.tensors.size(); ++i) {
      names_.push_back(&plan.tensors[i]->first);
      tensors_.push_back(&plan.tensors[i]->second);
      places_.push_back({files_.size() - 1, plan.begin[i]});
      written_.bytes += tensors_.back()->bytes();
    }
  }

  WrittenWeights fill() {
    ProgressMeter progress("writing", written_.bytes, options_.job);
    std::vector<std::string> digests =
        evaluate_tensors(tensors_, places_, {options_.threads, options_.memory, options_.digests},
                         [&](size_t file, uint64_t offset, std::span<const std::byte> bytes) {
                           files_[file]->write(offset, bytes);
                           progress.add(bytes.size());
                         });
    for (size_t i = 0; i < names_.size(); ++i)
      written_.tensors.emplace_hint(
          written_.tensors.end(), *names_[i],
          WrittenTensor{written_.files[places_[i].file], std::move(digests[i])});
    return std::move(written_);
  }

 private:
  OutputFolder& out_;
  const WriteOptions& options_;
  std::vector<std::unique_ptr<OutputFile>> files_;
  std::vector<const std::string*> names_;  // of all shards, in the order of the files
  std::vector<const Tensor*> tensors_;
  std::vector<Place> places_;
  WrittenWeights written_;
};

void write_index(OutputFolder& out, const std::string& name, const WrittenWeights& written) {
  Json::Members map;
  for (const auto& [tensor, where] : written.tensors) map.emplace_back(tensor, where.file);
  const Json index = Json::object(
      {{"metadata", Json::object({{"total_size", static_cast<int64_t>(written.bytes)}})},
       {"weight_map", Json::object(std::move(map))}});
  out.write_text(name, index.dump() + "\n");
}

}  // namespace

WrittenWeights write_weights(OutputFolder& out, const std::string& stem, const TensorMap& tensors,
                             const WriteOptions& options) {
  WeightsWriter writer(out, options);
  const std::vector<Shard> shards = split_shards(stem, tensors, options.max_shard_size);
  for (const Shard& shard : shards) writer.create(shard);
  WrittenWeights written = writer.fill();
  if (shards.size() > 1) {
    const std::string index = stem + ".safetensors.index.json";
    write_index(out, index, written);
    written.files.push_back(index);
  }
  return written;
}

}  // namespace moelora
