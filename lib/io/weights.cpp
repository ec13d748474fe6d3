#include "lib/io/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/io/folder_listing.h"
#include "lib/io/shard_index.h"
#include "lib/io/shards.h"
#include "lib/io/sniff.h"
#include "lib/io/torch_file.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

constexpr std::array<std::string_view, 2> kTorchEndings = {".bin", ".pt"};

Weights open_safetensors_alone(const std::string& path) {
  Weights out;
  out.files.push_back(open_safetensors(path));
  out.tensors.swap(out.files.back().tensors);
  return out;
}

Weights open_torch(const std::string& path, const TorchOptions& options) {
  TorchFile file = open_torch_file(path, options);
  Weights out;
  out.files.push_back({std::move(file.file), {}, {}});
  out.tensors = std::move(file.tensors);
  out.warnings = std::move(file.warnings);
  out.pickled = true;
  return out;
}

// What a folder holds, and which of it is the weights.
class Folder {
 public:
  explicit Folder(const std::string& path) : path_(path), names_(files_in(path)) {}

  Weights open(const Names& stems, const TorchOptions& torch) const {
    for (const std::string& stem : stems) {
      const bool single = has(stem, kSafetensorsEnding), sharded = has(stem, kIndexEnding);
      if (!single && !sharded) continue;
      Weights out = single ? open_safetensors_alone(file(stem, kSafetensorsEnding))
                           : open_shards(file(stem, kIndexEnding));
      if (single && sharded)
        out.warnings.push_back(fmt::format("{}: not read, {}{} beside it is the weights",
                                           file(stem, kIndexEnding), stem, kSafetensorsEnding));
      return out;
    }
    for (const std::string& stem : stems)
      for (const std::string_view ending : kTorchEndings)
        if (has(stem, ending)) return open_torch(file(stem, ending), torch);
    return open_other(stems);
  }

 private:
  bool has(const std::string& stem, std::string_view ending) const {
    return std::binary_search(names_.begin(), names_.end(), stem + std::string(ending));
  }

  std::string file(const std::string& stem, std::string_view ending) const {
    return join_path(path_, stem + std::string(ending));
  }

  Weights open_other(const Names& stems) const {
    const auto indexes = ending_in(names_, {kIndexEnding});
    const auto singles = ending_in(names_, {kSafetensorsEnding});
    if (indexes.size() == 1) return open_shards(join_path(path_, indexes[0]));
    if (indexes.empty() && singles.empty()) refuse_without_weights(stems);
    if (indexes.empty() && singles.size() == 1 && missing_numbers(singles).empty())
      return open_safetensors_alone(join_path(path_, singles[0]));
    if (indexes.empty() && is_shard(singles[0])) refuse_without_index(singles, stems);
    throw Error(in_file(path_),
                fmt::format("holds several weights, none of them named {}{}: {}", stems.front(),
                            kSafetensorsEnding, list_some(indexes.empty() ? singles : indexes)),
                "Give the path of the file that is meant.");
  }

  static bool is_shard(const std::string& name) { return name.find("-of-") != std::string::npos; }

  [[noreturn]] void refuse_without_index(const Names& shards, const Names& stems) const {
    const auto missing = missing_numbers(shards);
    throw Error(in_file(path_),
                fmt::format("holds shards but no index: {}{}", list_some(shards),
                            missing.empty() ? "" : "; missing are " + list_some(missing)),
                fmt::format("Download {}{} too.", stems.front(), kIndexEnding));
  }

  [[noreturn]] void refuse_without_weights(const Names& stems) const {
    const auto pickles = ending_in(names_, {".bin", ".pt", ".pth"});
    const std::string ending(kSafetensorsEnding);
    if (pickles.empty())
      throw Error(in_file(path_), fmt::format("{}, expected {}{}",
                                              names_.empty() ? "holds no file" : "holds no weights",
                                              fmt::join(stems, ending + " or "), ending));
    throw Error(in_file(path_),
                fmt::format("holds no {}{}, and no pickled file is named {}.bin: {}", stems.front(),
                            ending, stems.front(), list_some(pickles)),
                "Give the path of the file that is meant.");
  }

  std::string path_;
  Names names_;  // sorted
};

}  // namespace

Weights open_weights(const std::string& path, const std::vector<std::string>& stems,
                     const TorchOptions& torch) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return Folder(path).open(stems, torch);
  if (path.ends_with(".index.json")) return open_shards(path);
  if (sniff(*File::open(path)) == FileKind::zip) return open_torch(path, torch);
  return open_safetensors_alone(path);
}

}  // namespace moelora
