#include "lib/io/shards.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/io/folder_listing.h"
#include "lib/io/shard_index.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

std::string folder_of(const std::string& path) {
  const fs::path parent = fs::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

std::string file_name(const std::string& path) { return fs::path(path).filename().string(); }

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
      out_.files.push_back(open_safetensors(join_path(folder_, name)));
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
    Names missing;
    std::error_code ignored;
    for (const std::string& name : names_)
      if (!fs::exists(join_path(folder_, name), ignored)) missing.push_back(name);
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
  ShardIndex index_;
  Names names_;    // sorted, as out_.files
  Names unnamed_;  // tensors the index does not know
  Weights out_;
};

}  // namespace

Weights open_shards(const std::string& index_path) { return Shards(index_path).open(); }

}  // namespace moelora
