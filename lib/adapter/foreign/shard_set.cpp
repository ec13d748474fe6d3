#include "lib/adapter/foreign/shard_set.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "lib/adapter/config_reader.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/checked.h"
#include "lib/base/utf8.h"
#include "lib/io/file.h"
#include "lib/io/json.h"
#include "lib/io/safetensors_header.h"
#include "lib/io/torch/torch_file.h"

namespace moelora {
namespace {

using Names = std::vector<std::string>;

// ---- names ----

bool take(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

// Digits, leading zeros among them; -1 for none.
int64_t take_number(std::string_view& text) {
  constexpr size_t kMostDigits = 9;
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  if (digits == 0 || digits > kMostDigits) return -1;
  int64_t value = 0;
  for (const char c : text.substr(0, digits)) value = value * 10 + (c - '0');
  text.remove_prefix(digits);
  return value;
}

// mp_rank_TT[_PPP][_EEE]_adapter.pt (verl, utils/megatron_peft_utils.py).
std::optional<RankFile> verl_rank(std::string_view name) {
  if (!take(name, "mp_rank_")) return std::nullopt;
  std::vector<int64_t> numbers = {take_number(name)};
  while (numbers.back() >= 0 && !name.starts_with("_adapter") && take(name, "_"))
    numbers.push_back(take_number(name));
  if (name != "_adapter.pt" || numbers.back() < 0 || numbers.size() > 3) return std::nullopt;
  RankFile out{.tensor = numbers[0]};
  if (numbers.size() > 1) out.expert = numbers.back();
  if (numbers.size() > 2) out.pipeline = numbers[1];
  out.names_expert_rank = numbers.size() > 2;
  out.may_be_pipeline = numbers.size() == 2;
  return out;
}

// adapter_megatron_tpT_ppP[_epE].pt (miles, backends/megatron_utils/lora_utils.py).
std::optional<RankFile> miles_rank(std::string_view name) {
  RankFile out;
  if (!take(name, "adapter_megatron_tp") || (out.tensor = take_number(name)) < 0) return {};
  if (!take(name, "_pp") || (out.pipeline = take_number(name)) < 0) return {};
  out.names_expert_rank = take(name, "_ep");
  if (out.names_expert_rank && (out.expert = take_number(name)) < 0) return {};
  return name == ".pt" ? std::optional(out) : std::nullopt;
}

// adapter_megatron_rankN.pt (miles, newer): the rank of the whole training, which says nothing of
// the part; -1 for another name.
int64_t global_rank(std::string_view name) {
  if (!take(name, "adapter_megatron_rank")) return -1;
  const int64_t rank = take_number(name);
  return name == ".pt" ? rank : -1;
}

// ---- the ranks of Megatron ----

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
  RankFiles(const std::string& folder, Names names, const InputOptions& options)
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
          "Copy the files of all ranks into the folder.");
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
  Names names_;
  const InputOptions& options_;
  Weights out_;
};

// ---- OpenPipe/ART ----

constexpr std::string_view kArtStem = "adapter_model-", kArtManifest = "adapter_manifest-";

struct ArtName {
  std::string suffix;  // "01-of-02"
  int64_t number, count;
};

// Of adapter_model-01-of-02.safetensors. Those of huggingface have five digits and an index.
std::optional<ArtName> art_name(std::string_view name) {
  if (!take(name, kArtStem) || !name.ends_with(kSafetensorsEnding)) return std::nullopt;
  name.remove_suffix(kSafetensorsEnding.size());
  ArtName out{std::string(name), take_number(name), 0};
  if (out.number < 0 || !take(name, "-of-")) return std::nullopt;
  out.count = take_number(name);
  return name.empty() && out.count > 0 ? std::optional(out) : std::nullopt;
}

bool is_manifest(std::string_view name) { return name.starts_with(kArtManifest); }

// What a manifest says of one tensor of its file.
struct ArtPart {
  bool sharded;
  int64_t ranks, rank;
  int axis;
  bool componentwise;
  std::vector<int64_t> components;  // rows of each in the whole tensor
  Tensor tensor;
  std::string file;
};

class ArtShards {
 public:
  ArtShards(const std::string& folder, const Names& listing, const InputOptions& options)
      : folder_(folder), listing_(listing), options_(options) {}

  Weights open(const std::vector<ArtName>& shards) {
    check_present(shards);
    for (const ArtName& shard : shards) add(shard.suffix);
    for (const auto& [name, parts] : parts_)
      out_.tensors.emplace(name + std::string(kArtShard), join(name, parts));
    return std::move(out_);
  }

 private:
  std::string path(const std::string& name) const { return join_path(folder_, name); }

  // Every rank writes both of its files, though it holds no tensor.
  void check_present(const std::vector<ArtName>& shards) const {
    std::set<int64_t> numbers;
    for (const ArtName& shard : shards) {
      if (shard.count != shards.front().count)
        throw Error(
            in_file(folder_),
            fmt::format("holds shards of {} files and of {}", shards.front().count, shard.count),
            "Keep the files of one training in the folder.");
      if (!numbers.insert(shard.number).second)
        throw Error(in_file(folder_), fmt::format("holds shard {} twice", shard.number),
                    "Keep the files of one training in the folder.");
    }
    for (int64_t number = 1; number <= shards.front().count; ++number)
      if (numbers.count(number) == 0)
        throw Error(in_file(folder_),
                    fmt::format("lacks shard {} of {}", number, shards.front().count),
                    "Copy the files of all ranks into the folder.");
    if (*numbers.rbegin() > shards.front().count || *numbers.begin() < 1)
      throw Error(in_file(folder_),
                  fmt::format("numbers a shard {} of {}",
                              *numbers.begin() < 1 ? *numbers.begin() : *numbers.rbegin(),
                              shards.front().count),
                  "Keep the files of one training in the folder.");
  }

  void add(const std::string& suffix) {
    const std::string shard = fmt::format("{}{}{}", kArtStem, suffix, kSafetensorsEnding);
    const std::string manifest = fmt::format("{}{}.json", kArtManifest, suffix);
    if (!std::binary_search(listing_.begin(), listing_.end(), manifest))
      throw Error(in_file(path(shard)),
                  fmt::format("has no {} beside it, which says how its tensors are cut", manifest),
                  "Copy it into the folder.");
    SafetensorsFile file = open_safetensors({folder_, shard, options_.links});
    const Json entries = read_json_file({folder_, manifest, options_.links}, {kMaxHeaderBytes, 8});
    read_manifest(entries, manifest, shard, file.tensors);
    file.tensors.clear();
    out_.files.push_back(std::move(file));
  }

  void read_manifest(const Json& entries, const std::string& manifest, const std::string& shard,
                     const TensorMap& tensors) {
    const std::string where = path(manifest);
    if (!entries.is(Json::Kind::object))
      throw Error(in_file(where),
                  fmt::format("is {}, expected an object of tensors", entries.kind_name()),
                  "Save the adapter again.");
    for (const auto& [name, entry] : entries.members()) {
      const auto tensor = tensors.find(name);
      if (tensor == tensors.end())
        throw Error(in_file(where, printable(name)), fmt::format("is not in {}", shard),
                    "Copy the two files of one save into the folder.");
      if (!entry.is(Json::Kind::object))
        throw Error(in_file(where, printable(name)),
                    fmt::format("is {}, expected an object", entry.kind_name()),
                    "Save the adapter again.");
      parts_[name].push_back(part_of(name, entry, where, shard, tensor->second));
    }
    for (const auto& [name, tensor] : tensors)
      if (entries.members().size() != tensors.size() && !contains(name, shard))
        throw Error(in_file(path(shard), printable(name)), fmt::format("is not in {}", manifest),
                    "Copy the two files of one save into the folder.");
  }

  bool contains(const std::string& name, const std::string& shard) const {
    const auto found = parts_.find(name);
    return found != parts_.end() && found->second.back().file == shard;
  }

  static void require(const std::string& name, const ConfigReader& entry, std::string_view key) {
    if (entry.get(key) == nullptr)
      throw Error(in_file(entry.where(), printable(name)), fmt::format("does not say \"{}\"", key),
                  "Save the adapter again.");
  }

  static int64_t count(const std::string& name, const ConfigReader& entry, std::string_view key) {
    require(name, entry, key);
    const Json& value = *entry.get(key);
    if (!value.is(Json::Kind::integer) || value.as_int() < 0) entry.mistyped(key, value, "a count");
    return value.as_int();
  }

  static ArtPart part_of(const std::string& name, const Json& json, const std::string& where,
                         const std::string& shard, const Tensor& tensor) {
    const ConfigReader entry(json, where);
    require(name, entry, "sharded");
    ArtPart out{entry.boolean("sharded"), 1, 0, 0, false, {}, tensor, shard};
    if (!out.sharded) return out;
    out.ranks = count(name, entry, "shard_world_size");
    out.rank = count(name, entry, "shard_rank");
    const bool is_a = name.find("lora_A") != std::string::npos;
    const int64_t axis = entry.get("export_shard_dim") != nullptr
                             ? count(name, entry, "export_shard_dim")
                         : is_a ? 1
                                : 0;
    if (axis >= tensor.rank())
      throw Error(in_file(where, printable(name)),
                  fmt::format("is cut along axis {}, and the tensor is {}", axis,
                              to_string(tensor.shape())),
                  "Save the adapter again.");
    out.axis = static_cast<int>(axis);
    std::string strategy = entry.string("export_shard_strategy");
    if (strategy.empty())  // before ART said it
      strategy = entry.string("layout") == "gdn_qkv" ? "componentwise" : "uniform";
    if (strategy != "uniform" && strategy != "componentwise")
      throw Error(in_file(where, printable(name)),
                  fmt::format("is cut by the strategy \"{}\", expected uniform or componentwise",
                              printable(strategy)),
                  "A newer ART may have written it: let it export the adapter for vLLM.");
    out.componentwise = strategy == "componentwise";
    if (out.componentwise) out.components = component_sizes(name, entry, where);
    return out;
  }

  static std::vector<int64_t> component_sizes(const std::string& name, const ConfigReader& entry,
                                              const std::string& where) {
    std::vector<int64_t> out;
    if (const Json* sizes = entry.get("component_sizes", Json::Kind::array, "an array of counts"))
      for (const Json& size : sizes->items()) {
        if (!size.is(Json::Kind::integer) || size.as_int() < 0)
          entry.mistyped("component_sizes", size, "a count");
        out.push_back(size.as_int());
      }
    if (!out.empty()) return out;
    throw Error(in_file(where, printable(name)),
                "is cut componentwise, and no component_sizes say into what",
                "Save the adapter again.");
  }

  // ---- one tensor of all its parts ----

  Error fault(const std::string& name, std::string what) const {
    return {in_file(folder_, printable(name)), std::move(what),
            "Copy the files of all ranks of one save into the folder."};
  }

  Tensor join(const std::string& name, const std::vector<ArtPart>& parts) const {
    const ArtPart& first = parts.front();
    for (const ArtPart& part : parts)
      if (part.sharded != first.sharded || part.ranks != first.ranks || part.axis != first.axis ||
          part.componentwise != first.componentwise || part.components != first.components)
        throw fault(name,
                    fmt::format("is cut in another way in {} than in {}", part.file, first.file));
    if (!first.sharded) {
      if (parts.size() == 1) return first.tensor;
      throw fault(name, fmt::format("is whole in {} and again in {}", first.file, parts[1].file));
    }
    return concatenated(name, in_order(name, parts), first);
  }

  std::vector<Tensor> in_order(const std::string& name, const std::vector<ArtPart>& parts) const {
    const ArtPart& first = parts.front();
    std::map<int64_t, const ArtPart*> by_rank;
    for (const ArtPart& part : parts) {
      const auto [twin, is_new] = by_rank.try_emplace(part.rank, &part);
      if (!is_new)
        throw fault(name, fmt::format("is part {} of {} both in {} and in {}", part.rank,
                                      part.ranks, twin->second->file, part.file));
      if (part.rank >= part.ranks)
        throw fault(name, fmt::format("is part {} of {} in {}, and parts count from 0", part.rank,
                                      part.ranks, part.file));
      if (part.tensor.shape() != first.tensor.shape() ||
          part.tensor.dtype() != first.tensor.dtype())
        throw fault(name,
                    fmt::format("is {} {} in {} and {} {} in {}", dtype_name(first.tensor.dtype()),
                                to_string(first.tensor.shape()), first.file,
                                dtype_name(part.tensor.dtype()), to_string(part.tensor.shape()),
                                part.file));
    }
    std::vector<Tensor> out;
    for (const auto& [rank, part] : by_rank) {
      if (rank != static_cast<int64_t>(out.size())) break;
      out.push_back(part->tensor);
    }
    if (static_cast<int64_t>(out.size()) != first.ranks)
      throw fault(name, fmt::format("lacks part {} of {}", out.size(), first.ranks));
    return out;
  }

  // Uniform parts follow each other; of componentwise ones, the first of each, then the second.
  Tensor concatenated(const std::string& name, const std::vector<Tensor>& parts,
                      const ArtPart& how) const {
    if (!how.componentwise) return Tensor::concat(how.axis, parts);
    uint64_t sum = 0;
    for (const int64_t size : how.components) {
      if (size % how.ranks != 0)
        throw fault(name, fmt::format("has a component of {} rows, which {} ranks do not divide",
                                      size, how.ranks));
      sum = checked_add(sum, static_cast<uint64_t>(size / how.ranks)).value_or(UINT64_MAX);
    }
    if (sum != static_cast<uint64_t>(parts.front().dim(how.axis)))
      throw fault(name, fmt::format("is {} in each file, and its components are {} of each",
                                    to_string(parts.front().shape()), sum));
    std::vector<Tensor> pieces;
    int64_t at = 0;
    for (const int64_t size : how.components) {
      const int64_t own = size / how.ranks;
      for (const Tensor& part : parts) pieces.push_back(part.slice(how.axis, at, own));
      at += own;
    }
    return Tensor::concat(how.axis, pieces);
  }

  const std::string& folder_;
  const Names& listing_;
  const InputOptions& options_;
  std::map<std::string, std::vector<ArtPart>> parts_;
  Weights out_;
};

bool has_usual_weights(const Names& listing) {
  return std::any_of(listing.begin(), listing.end(), [](const std::string& name) {
    return name == "adapter_model.safetensors" || name == "adapter_model.bin" ||
           name == "adapter_model.pt" || name.ends_with(".safetensors.index.json");
  });
}

}  // namespace

std::optional<RankFile> parse_rank_file(std::string_view name) {
  if (const auto rank = verl_rank(name)) return rank;
  if (const auto rank = miles_rank(name)) return rank;
  return global_rank(name) >= 0 ? std::optional(RankFile{}) : std::nullopt;
}

RankTensorName split_rank_name(std::string_view name) {
  const size_t colon = name.find(".pt:");
  if (colon == std::string_view::npos) return {"", name};
  return {name.substr(0, colon + 3), name.substr(colon + 4)};
}

void refuse_part_of_set(const std::string& folder, const std::string& file, const Names& listing) {
  const bool is_art = std::any_of(listing.begin(), listing.end(), is_manifest);
  const auto is_of_set = [&](const std::string& name) {
    return is_art ? art_name(name).has_value() : parse_rank_file(name).has_value();
  };
  const auto files = std::count_if(listing.begin(), listing.end(), is_of_set);
  if (files < 2 || !is_of_set(file)) return;
  throw Error(in_file(join_path(folder, file)),
              fmt::format("is one of {} files that the ranks of a training wrote", files),
              "Name the folder.");
}

std::optional<Weights> open_shard_set(const std::string& folder, const Names& listing,
                                      const InputOptions& options) {
  if (has_usual_weights(listing)) return std::nullopt;
  std::vector<ArtName> shards;
  Names ranks;
  bool manifests = false;
  for (const std::string& name : listing) {
    if (auto shard = art_name(name)) shards.push_back(std::move(*shard));
    if (parse_rank_file(name)) ranks.push_back(name);
    manifests = manifests || is_manifest(name);
  }
  if (manifests && !shards.empty()) return ArtShards(folder, listing, options).open(shards);
  if (!ranks.empty()) return RankFiles(folder, std::move(ranks), options).open();
  return std::nullopt;
}

}  // namespace moelora
