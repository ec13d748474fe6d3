#include "lib/adapter/foreign/shard_set.h"

#include <fmt/core.h>

#include <algorithm>

#include "lib/adapter/foreign/art_shards.h"
#include "lib/adapter/foreign/rank_files.h"

namespace moelora {
namespace {

using Names = std::vector<std::string>;

bool has_usual_weights(const Names& listing) {
  return std::any_of(listing.begin(), listing.end(), [](const std::string& name) {
    return name == "adapter_model.safetensors" || name == "adapter_model.bin" ||
           name == "adapter_model.pt" || name.ends_with(".safetensors.index.json");
  });
}

}  // namespace

void refuse_part_of_set(const std::string& folder, const std::string& file, const Names& listing) {
  const bool is_art = std::any_of(listing.begin(), listing.end(), is_art_manifest);
  const auto is_of_set = [&](const std::string& name) {
    return is_art ? parse_art_shard(name).has_value() : parse_rank_file(name).has_value();
  };
  const auto files = std::count_if(listing.begin(), listing.end(), is_of_set);
  if (files < 2 || !is_of_set(file)) return;
  throw Error(in_file(join_path(folder, file)),
              fmt::format("is one of {} files that the ranks of a training wrote", files),
              "Name the folder.");
}

std::optional<OpenedSet> open_shard_set(const std::string& folder, const Names& listing,
                                        const InputOptions& options) {
  if (has_usual_weights(listing)) return std::nullopt;
  std::vector<ArtName> shards;
  Names ranks;
  bool manifests = false;
  for (const std::string& name : listing) {
    if (auto shard = parse_art_shard(name)) shards.push_back(std::move(*shard));
    if (parse_rank_file(name)) ranks.push_back(name);
    manifests = manifests || is_art_manifest(name);
  }
  if (manifests && !shards.empty())
    return OpenedSet{ShardSet::art, open_art_shards(folder, shards, listing, options)};
  if (!ranks.empty())
    return OpenedSet{ShardSet::ranks, open_rank_files(folder, std::move(ranks), options)};
  return std::nullopt;
}

}  // namespace moelora
