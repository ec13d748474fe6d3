#include "lib/io/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/io/shard_index.h"
#include "lib/io/sniff.h"
#include "lib/io/utf8.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSafetensors = ".safetensors";
constexpr std::string_view kIndex = ".safetensors.index.json";

std::string join(const std::string& folder, const std::string& name) {
  return (fs::path(folder) / name).string();
}

std::string folder_of(const std::string& path) {
  const fs::path parent = fs::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

std::string file_name(const std::string& path) { return fs::path(path).filename().string(); }

// The first few, for a message.
std::string list_some(const std::vector<std::string>& names) {
  constexpr size_t kSome = 5;
  std::vector<std::string> shown;
  for (size_t i = 0; i < std::min(names.size(), kSome); ++i) shown.push_back(printable(names[i]));
  const std::string rest =
      names.size() > kSome ? fmt::format(" and {} more", names.size() - kSome) : "";
  return fmt::format("{}{}", fmt::join(shown, ", "), rest);
}

// The names in a folder that are no folders, sorted.
std::vector<std::string> files_in(const std::string& folder) {
  std::error_code fault;
  std::vector<std::string> out;
  for (auto it = fs::directory_iterator(folder, fault); !fault && it != fs::directory_iterator();
       it.increment(fault)) {
    std::error_code ignored;
    if (!it->is_directory(ignored)) out.push_back(it->path().filename().string());
  }
  if (fault) throw Error(folder, "cannot list the folder: " + fault.message());
  std::sort(out.begin(), out.end());
  return out;
}

std::vector<std::string> ending_in(const std::vector<std::string>& names,
                                   std::initializer_list<std::string_view> endings) {
  std::vector<std::string> out;
  std::copy_if(names.begin(), names.end(), std::back_inserter(out), [&](const std::string& name) {
    return std::any_of(endings.begin(), endings.end(),
                       [&](std::string_view ending) { return name.ends_with(ending); });
  });
  return out;
}

Weights open_single(const std::string& path) {
  Weights out;
  out.files.push_back(open_safetensors(path));
  out.tensors.swap(out.files.back().tensors);
  return out;
}

// A sharded checkpoint against its index.
class Shards {
 public:
  explicit Shards(const std::string& index_path)
      : folder_(folder_of(index_path)), index_(read_index(index_path)), names_(index_.files()) {
    out_.index_path = index_path;
    out_.warnings = index_.warnings;
  }

  Weights open() {
    check_present();
    for (const std::string& name : names_)
      out_.files.push_back(open_safetensors(join(folder_, name)));
    check_index_is_true();
    for (SafetensorsFile& file : out_.files) merge(file);
    warn_of_total_size();
    warn_of_numbers();
    warn_of_strangers();
    return std::move(out_);
  }

 private:
  static ShardIndex read_index(const std::string& path) {
    const FilePtr file = File::open(path);
    if (file->size() > kMaxHeaderBytes)
      throw Error(path, fmt::format("has {} bytes, more than the {} that are read", file->size(),
                                    kMaxHeaderBytes));
    std::string text(file->size(), '\0');
    file->read(0, text.size(), reinterpret_cast<std::byte*>(text.data()));
    return parse_shard_index(text, path);
  }

  void check_present() const {
    std::vector<std::string> missing;
    std::error_code ignored;
    for (const std::string& name : names_)
      if (!fs::exists(join(folder_, name), ignored)) missing.push_back(name);
    if (!missing.empty())
      throw Error(out_.index_path,
                  fmt::format("{} of {} shards are missing: {}", missing.size(), names_.size(),
                              list_some(missing)),
                  "Download them into the index's folder.");
  }

  void check_index_is_true() const {
    for (const auto& [tensor, name] : index_.weight_map) {
      const auto at = std::lower_bound(names_.begin(), names_.end(), name) - names_.begin();
      if (!out_.files[static_cast<size_t>(at)].tensors.contains(tensor))
        throw Error(out_.index_path + ": " + printable(tensor),
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
    throw Error(out_.index_path + ": " + printable(twin),
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
    std::vector<std::string> strangers = ending_in(files_in(folder_), {kSafetensors});
    std::erase_if(strangers, [&](const std::string& name) {
      return std::binary_search(names_.begin(), names_.end(), name);
    });
    if (!strangers.empty()) warn("does not name these files beside it: " + list_some(strangers));
  }

  std::string folder_;
  ShardIndex index_;
  std::vector<std::string> names_;    // sorted, as out_.files
  std::vector<std::string> unnamed_;  // tensors the index does not know
  Weights out_;
};

// What a folder holds, and which of it is the weights.
class Folder {
 public:
  explicit Folder(const std::string& path) : path_(path), names_(files_in(path)) {}

  Weights open(const std::vector<std::string>& stems) const {
    for (const std::string& stem : stems) {
      const bool single = has(stem, kSafetensors), sharded = has(stem, kIndex);
      if (!single && !sharded) continue;
      Weights out =
          single ? open_single(file(stem, kSafetensors)) : Shards(file(stem, kIndex)).open();
      if (single && sharded)
        out.warnings.push_back(fmt::format("{}: not read, {}{} beside it is the weights",
                                           file(stem, kIndex), stem, kSafetensors));
      return out;
    }
    return open_other(stems);
  }

 private:
  bool has(const std::string& stem, std::string_view ending) const {
    return std::binary_search(names_.begin(), names_.end(), stem + std::string(ending));
  }

  std::string file(const std::string& stem, std::string_view ending) const {
    return join(path_, stem + std::string(ending));
  }

  Weights open_other(const std::vector<std::string>& stems) const {
    const auto indexes = ending_in(names_, {kIndex});
    const auto singles = ending_in(names_, {kSafetensors});
    if (indexes.size() == 1) return Shards(join(path_, indexes[0])).open();
    if (indexes.empty() && singles.size() == 1) return open_single(join(path_, singles[0]));
    if (indexes.empty() && singles.empty()) refuse_without_weights(stems);
    if (indexes.empty() && missing_numbers(singles).empty() && is_numbered(singles[0]))
      throw Error(
          path_,
          fmt::format("holds {} shards but no index: {}", singles.size(), list_some(singles)),
          fmt::format("Download {}{} too.", stems.front(), kIndex));
    throw Error(path_,
                fmt::format("holds several weights, none of them named {}{}: {}", stems.front(),
                            kSafetensors, list_some(indexes.empty() ? singles : indexes)),
                "Give the path of the file that is meant.");
  }

  static bool is_numbered(const std::string& name) {
    return name.find("-of-") != std::string::npos;
  }

  [[noreturn]] void refuse_without_weights(const std::vector<std::string>& stems) const {
    const auto pickles = ending_in(names_, {".bin", ".pt", ".pth"});
    if (pickles.empty())
      throw Error(path_,
                  fmt::format("holds no weights, expected {}{}", stems.front(), kSafetensors));
    throw Error(path_, fmt::format("holds only pickled weights: {}", list_some(pickles)),
                resave_hint(pickles.front(), stems.front() + std::string(kSafetensors)));
  }

  std::string path_;
  std::vector<std::string> names_;  // sorted
};

}  // namespace

Weights open_weights(const std::string& path, const std::vector<std::string>& stems) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return Folder(path).open(stems);
  if (path.ends_with(".index.json")) return Shards(path).open();
  return open_single(path);
}

}  // namespace moelora
