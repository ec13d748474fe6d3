#include "lib/io/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/io/disk/look.h"
#include "lib/io/file.h"
#include "lib/io/safetensors_header.h"
#include "lib/io/shard_index.h"
#include "lib/io/sniff.h"
#include "lib/io/torch/torch_file.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

// ---- shards ----

std::string folder_of(const std::string& path) {
  const fs::path parent = fs::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

std::string file_name(const std::string& path) { return fs::path(path).filename().string(); }

// A sharded checkpoint against its index. Refuses an index that is malformed or lies about its
// shards; what is only odd (total_size, names of files and tensors it leaves out) becomes a
// warning.
class Shards {
 public:
  Shards(const InputPath& index, Links links)
      : folder_(folder_of(index.path)),
        links_(links),
        index_(parse_shard_index(read_text(index, kMaxHeaderBytes), index.path)),
        names_(index_.files()) {
    out_.index_path = index.path;
    out_.warnings = index_.warnings;
  }

  Weights open() {
    check_present();
    for (const std::string& name : names_)
      out_.files.push_back(open_safetensors({folder_, name, links_}));
    check_index_is_true();
    for (SafetensorsFile& file : out_.files) merge(file);
    warn_of_total_size();
    warn_of_numbers();
    warn_of_strangers();
    return std::move(out_);
  }

 private:
  void check_present() const {
    Names missing;
    for (const std::string& name : names_)
      if (is_absent(join_path(folder_, name))) missing.push_back(name);
    if (!missing.empty())
      throw Error(in_file(out_.index_path),
                  fmt::format("{} of {} shards are missing: {}", missing.size(), names_.size(),
                              list_some(missing)),
                  "Download them into the index's folder.");
  }

  void check_index_is_true() const {
    for (const auto& [tensor, name] : index_.weight_map) {
      const auto at = std::lower_bound(names_.begin(), names_.end(), name) - names_.begin();
      if (!out_.files[static_cast<size_t>(at)].tensors.contains(tensor))
        throw Error(in_file(out_.index_path, printable(tensor)),
                    fmt::format("is not in {}, where the index says it is", printable(name)));
    }
  }

  // What merge leaves behind is in two shards.
  void merge(SafetensorsFile& file) {
    const std::string name = file_name(file.file->path());
    for (const auto& [tensor, ignored] : file.tensors)
      if (!index_.weight_map.contains(tensor)) unnamed_.push_back(tensor);
    out_.tensors.merge(file.tensors);
    if (file.tensors.empty()) return;
    const std::string& twin = file.tensors.begin()->first;
    throw Error(in_file(out_.index_path, printable(twin)),
                fmt::format("stands in two shards; {} is one of them", printable(name)),
                "Readers disagree on which one counts; delete one of them.");
  }

  void warn(std::string text) { out_.warnings.push_back(out_.index_path + ": " + text); }

  void warn_of_total_size() {
    uint64_t sum = 0;
    for (const SafetensorsFile& file : out_.files)
      sum += file.file->size() - file.header.data_begin;
    if (index_.total_size && *index_.total_size != sum)
      warn(fmt::format("total_size is {}, the tensors have {} bytes", *index_.total_size, sum));
  }

  void warn_of_numbers() {
    if (const auto missing = missing_numbers(names_); !missing.empty())
      warn("names no tensor in " + list_some(missing));
  }

  void warn_of_strangers() {
    if (!unnamed_.empty())
      warn(fmt::format("{} tensors are in the shards but not in the index: {}", unnamed_.size(),
                       list_some(unnamed_)));
    Names strangers = ending_in(files_in(folder_), {kSafetensorsEnding});
    std::erase_if(strangers, [&](const std::string& name) {
      return std::binary_search(names_.begin(), names_.end(), name);
    });
    if (!strangers.empty()) warn("does not name these files beside it: " + list_some(strangers));
  }

  std::string folder_;
  Links links_;
  ShardIndex index_;
  Names names_;    // sorted, as out_.files
  Names unnamed_;  // tensors the index does not know
  Weights out_;
};

Weights open_shards(const InputPath& index, Links links) { return Shards(index, links).open(); }

// ---- one file, or a folder ----

constexpr std::array<std::string_view, 2> kTorchEndings = {".bin", ".pt"};

Weights open_safetensors_alone(const InputPath& path) {
  Weights out;
  out.files.push_back(open_safetensors(path));
  out.tensors.swap(out.files.back().tensors);
  return out;
}

Weights open_torch(const InputPath& path, const TorchOptions& options) {
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
  Folder(const std::string& path, const InputOptions& options)
      : path_(path), names_(files_in(path)), options_(options) {}

  Weights open(const Names& stems) const {
    for (const std::string& stem : stems) {
      const bool single = has(stem, kSafetensorsEnding), sharded = has(stem, kIndexEnding);
      if (!single && !sharded) continue;
      Weights out = single ? open_safetensors_alone(file(stem, kSafetensorsEnding))
                           : open_shards(file(stem, kIndexEnding), options_.links);
      if (single && sharded) check_unread_index(file(stem, kIndexEnding), stem, out);
      return out;
    }
    for (const std::string& stem : stems)
      for (const std::string_view ending : kTorchEndings)
        if (has(stem, ending)) return open_torch(file(stem, ending), {options_.ignore_zip_crc});
    return open_other(stems);
  }

 private:
  bool has(const std::string& stem, std::string_view ending) const {
    return std::binary_search(names_.begin(), names_.end(), stem + std::string(ending));
  }

  InputPath file(const std::string& stem, std::string_view ending = {}) const {
    return {path_, stem + std::string(ending), options_.links};
  }

  // Others may read the index and not the file beside it.
  void check_unread_index(const InputPath& index, const std::string& stem, Weights& out) const {
    const std::string unread =
        fmt::format("not read, {}{} beside it is the weights", stem, kSafetensorsEnding);
    try {
      open_shards(index, options_.links);
      out.warnings.push_back(fmt::format("{}: {}", index.path, unread));
    } catch (const MachineError&) {
      throw;
    } catch (const Error& error) {
      out.unread_index.emplace(error.location(), fmt::format("{} ({})", error.text(), unread),
                               "Delete the index, or get the shards that it names.");
      out.warnings.emplace_back(out.unread_index->what());
    }
  }

  Weights open_other(const Names& stems) const {
    const auto indexes = ending_in(names_, {kIndexEnding});
    const auto singles = ending_in(names_, {kSafetensorsEnding});
    if (indexes.size() == 1) return open_shards(file(indexes[0]), options_.links);
    if (indexes.empty() && singles.empty()) refuse_without_weights(stems);
    if (indexes.empty() && singles.size() == 1 && missing_numbers(singles).empty())
      return open_safetensors_alone(file(singles[0]));
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
  const InputOptions& options_;
};

}  // namespace

Weights open_weights(const std::string& path, const std::vector<std::string>& stems,
                     const InputOptions& options) {
  if (is_folder(path)) return Folder(path, options).open(stems);
  if (path.ends_with(".index.json")) return open_shards(path, options.links);
  if (sniff(*File::open(path)) == FileKind::zip) return open_torch(path, {options.ignore_zip_crc});
  return open_safetensors_alone(path);
}

}  // namespace moelora
