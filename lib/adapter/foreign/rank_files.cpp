#include "lib/adapter/foreign/rank_files.h"

#include <fmt/core.h>

#include <array>
#include <map>
#include <set>

#include "lib/adapter/foreign/name_parts.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/utf8.h"
#include "lib/io/torch/torch_file.h"

namespace moelora {
namespace {

// mp_rank_TT[_PPP][_EEE]_adapter.pt (verl, utils/megatron_peft_utils.py).
std::optional<RankFile> verl_rank(std::string_view name) {
  if (!take_prefix(name, "mp_rank_")) return std::nullopt;
  std::vector<int64_t> numbers = {take_number(name)};
  while (numbers.back() >= 0 && !name.starts_with("_adapter") && take_prefix(name, "_"))
    numbers.push_back(take_number(name));
  if (name != "_adapter.pt" || numbers.back() < 0 || numbers.size() > 3) return std::nullopt;
  RankFile out{.tensor = numbers[0]};
  if (numbers.size() > 1) out.expert = numbers.back();
  if (numbers.size() > 2) out.pipeline = numbers[1];
  out.names_expert_rank = numbers.size() > 1;
  out.may_be_pipeline = numbers.size() == 2;
  return out;
}

// adapter_megatron_tpT_ppP[_epE].pt (miles, backends/megatron_utils/lora_utils.py).
std::optional<RankFile> miles_rank(std::string_view name) {
  RankFile out;
  if (!take_prefix(name, "adapter_megatron_tp") || (out.tensor = take_number(name)) < 0) return {};
  if (!take_prefix(name, "_pp") || (out.pipeline = take_number(name)) < 0) return {};
  out.names_expert_rank = take_prefix(name, "_ep");
  if (out.names_expert_rank && (out.expert = take_number(name)) < 0) return {};
  return name == ".pt" ? std::optional(out) : std::nullopt;
}

// adapter_megatron_rankN.pt (miles, newer): the rank of the whole training, which says nothing of
// the part; -1 for another name.
int64_t global_rank(std::string_view name) {
  if (!take_prefix(name, "adapter_megatron_rank")) return -1;
  const int64_t rank = take_number(name);
  return name == ".pt" ? rank : -1;
}

// ---- a set of them ----

constexpr std::string_view kExport =
    "Let the trainer export it in Hugging Face names (miles writes adapter_model.bin beside these "
    "files; Megatron-Bridge: export_adapter_ckpt) and give that folder.";

// Of 0, 1, 3: 2.
std::optional<int64_t> gap_in(const std::set<int64_t>& numbers) {
  int64_t next = 0;
  for (const int64_t number : numbers)
    if (number != next++) return next - 1;
  return std::nullopt;
}

class RankFiles {
 public:
  RankFiles(const std::string& folder, std::vector<std::string> names, const InputOptions& options)
      : folder_(folder), names_(std::move(names)), options_(options) {}

  Weights open() {
    check();
    for (const std::string& name : names_) add(name);
    out_.pickled = true;
    return std::move(out_);
  }

 private:
  void check() const {
    if (names_.size() > 1 && global_rank(names_.front()) >= 0)
      throw Error(
          in_file(folder_),
          fmt::format("holds the files of {} ranks whose names do not say which part of the "
                      "adapter each has: {}",
                      names_.size(), list_some(names_)),
          std::string(kExport));
    std::set<int64_t> tensor, expert;
    std::map<std::array<int64_t, 2>, std::string> seen;
    for (const std::string& name : names_) {
      const RankFile rank = parse_rank_file(name).value();
      if (rank.pipeline > 0)
        throw Error(in_file(join_path(folder_, name)),
                    fmt::format("is of pipeline stage {}, and a stage numbers its layers from 0: "
                                "which layers of the model they are is not known",
                                rank.pipeline),
                    std::string(kExport));
      const auto [twin, is_new] = seen.try_emplace({rank.tensor, rank.expert}, name);
      if (!is_new)
        throw Error(in_file(join_path(folder_, name)),
                    fmt::format("is of the same rank as {}", twin->second),
                    "Keep the files of one training in the folder.");
      tensor.insert(rank.tensor);
      expert.insert(rank.expert);
    }
    refuse_gap("tensor-parallel", tensor);
    refuse_gap("expert-parallel", expert);
  }

  void refuse_gap(std::string_view kind, const std::set<int64_t>& ranks) const {
    if (const auto gap = gap_in(ranks))
      throw Error(
          in_file(folder_),
          fmt::format("lacks the file of {} rank {}: it has {}", kind, *gap, list_some(names_)),
          std::string(kCopyAllRanks));
  }

  void add(const std::string& name) {
    TorchFile file = open_torch_file({folder_, name, options_.links}, {options_.ignore_zip_crc});
    for (auto& [tensor, value] : file.tensors) {
      const std::string bare = fmt::format("{}:{}", name, without_wrappers(tensor));
      if (!out_.tensors.emplace(bare, std::move(value)).second)
        throw Error(in_file(join_path(folder_, name), printable(tensor)),
                    "is there twice once the wrappers of training are left out",
                    "Keep the one that was trained.");
    }
    out_.files.push_back({std::move(file.file), {}, {}});
    out_.warnings.insert(out_.warnings.end(), file.warnings.begin(), file.warnings.end());
  }

  const std::string& folder_;
  std::vector<std::string> names_;
  const InputOptions& options_;
  Weights out_;
};

}  // namespace

std::optional<RankFile> parse_rank_file(std::string_view name) {
  if (const auto rank = verl_rank(name)) return rank;
  if (const auto rank = miles_rank(name)) return rank;
  return global_rank(name) >= 0 ? std::optional(RankFile{}) : std::nullopt;
}

RankTensorName split_rank_name(std::string_view name) {
  const size_t colon = name.find(':');  // no rank file's own name has one
  return {name.substr(0, colon), name.substr(colon + 1)};
}

Weights open_rank_files(const std::string& folder, std::vector<std::string> names,
                        const InputOptions& options) {
  return RankFiles(folder, std::move(names), options).open();
}

}  // namespace moelora
