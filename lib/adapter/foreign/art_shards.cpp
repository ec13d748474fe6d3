#include "lib/adapter/foreign/art_shards.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <set>

#include "lib/adapter/config/config_reader.h"
#include "lib/adapter/foreign/name_parts.h"
#include "lib/base/checked.h"
#include "lib/base/utf8.h"
#include "lib/io/file.h"
#include "lib/io/json.h"
#include "lib/io/safetensors_header.h"

namespace moelora {
namespace {

constexpr std::string_view kArtStem = "adapter_model-", kArtManifest = "adapter_manifest-";

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
  ArtShards(const std::string& folder, const std::vector<std::string>& listing,
            const InputOptions& options)
      : folder_(folder), listing_(listing), options_(options) {}

  Weights open(const std::vector<ArtName>& shards) {
    check_present(shards);
    for (const ArtName& shard : shards) add(shard.suffix);
    for (const auto& [name, parts] : parts_) out_.tensors.emplace(name, join(name, parts));
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
                    std::string(kCopyAllRanks));
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
    return {in_file(folder_, printable(name)), std::move(what), std::string(kCopyOneSave)};
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
  const std::vector<std::string>& listing_;
  const InputOptions& options_;
  std::map<std::string, std::vector<ArtPart>> parts_;
  Weights out_;
};

}  // namespace

std::optional<ArtName> parse_art_shard(std::string_view name) {
  if (!take_prefix(name, kArtStem) || !name.ends_with(kSafetensorsEnding)) return std::nullopt;
  name.remove_suffix(kSafetensorsEnding.size());
  ArtName out{std::string(name), take_number(name), 0};
  if (out.number < 0 || !take_prefix(name, "-of-")) return std::nullopt;
  out.count = take_number(name);
  return name.empty() && out.count > 0 ? std::optional(out) : std::nullopt;
}

bool is_art_manifest(std::string_view name) { return name.starts_with(kArtManifest); }

Weights open_art_shards(const std::string& folder, const std::vector<ArtName>& shards,
                        const std::vector<std::string>& listing, const InputOptions& options) {
  return ArtShards(folder, listing, options).open(shards);
}

}  // namespace moelora
