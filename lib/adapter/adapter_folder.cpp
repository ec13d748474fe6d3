#include "lib/adapter/adapter_folder.h"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>

#include "lib/adapter/foreign/found_instead.h"
#include "lib/adapter/foreign/shard_set.h"
#include "lib/base/source.h"
#include "lib/base/utf8.h"
#include "lib/io/disk/look.h"
#include "lib/io/file.h"
#include "lib/io/npy.h"
#include "lib/io/safetensors_header.h"
#include "lib/io/shard_index.h"
#include "lib/io/sniff.h"
#include "lib/io/weights.h"
#include "lib/model/hub_cache.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;
using Kind = ReadProblem::Kind;

// What diffusers saves; its weights say all.
constexpr std::string_view kNeedsNoConfig = "pytorch_lora_weights.safetensors";
constexpr std::string_view kAddedTokens = "added_tokens.json";

std::string name_of(const std::string& path) { return fs::path(path).filename().string(); }

class FolderReader {
 public:
  FolderReader(const std::string& path, const InputOptions& options)
      : path_(path), options_(options) {
    out_.given = path;
    std::error_code ignored;
    std::string tried;
    if (is_absent(path_))
      if (auto cached = find_hub_snapshot(path_, tried)) {
        path_ = std::move(*cached);
        out_.notes.push_back("adapter: " + path_);
      }
    out_.folder = is_folder(path_) ? path_ : fs::path(path_).parent_path().string();
    if (out_.folder.empty()) out_.folder = ".";
  }

  AdapterFolder read(bool strays) {
    if (is_absent(path_)) {
      found(Kind::no_folder, instead_of_path(path_));
      return std::move(out_);
    }
    try_to(Kind::no_folder, "", [&] { out_.listing = files_in(out_.folder); });
    if (!lists(kConfigName) && !lists(kNeedsNoConfig) && holds_something_else())
      return std::move(out_);
    read_config();
    read_weights();
    if (strays) {
      read_other_files();
      read_added_tokens();
    }
    return std::move(out_);
  }

 private:
  void found(Kind kind, FoundInstead instead) {
    out_.instead = instead.advice;
    add(kind, Error(path_, std::move(instead.what), std::move(instead.advice)));
  }

  // Of a folder without a config. A file that was named is looked at for itself.
  bool holds_something_else() {
    if (!is_folder(path_)) return false;
    auto instead = instead_in_folder(path_);
    if (!instead) return false;
    instead->what = "has no adapter_config.json; it " + instead->what;
    found(Kind::no_config, std::move(*instead));
    return true;
  }

  void add(Kind kind, Error error) { out_.problems.push_back({kind, "", std::move(error)}); }

  template <class F>
  bool try_to(Kind kind, const std::string& file, F&& step) {
    try {
      step();
      return true;
    } catch (const MachineError&) {
      throw;
    } catch (const Error& error) {
      out_.problems.push_back({kind, file, error});
      return false;
    }
  }

  bool lists(std::string_view name) const {
    return std::binary_search(out_.listing.begin(), out_.listing.end(), name);
  }

  InputPath in_folder(std::string_view name) const {
    return {out_.folder, std::string(name), options_.links};
  }

  // What the bytes of a file are; unknown, too, where it cannot be opened.
  static FileKind kind_of_file(const InputPath& path) try {
    return is_regular_file(path.path) ? sniff(*File::open(path)) : FileKind::unknown;
  } catch (const MachineError&) {
    throw;
  } catch (const Error&) {
    return FileKind::unknown;
  }

  void read_config() {
    if (!lists(kConfigName))
      return add(
          Kind::no_config,
          Error(out_.folder, "has no adapter_config.json",
                "an adapter is a folder with adapter_config.json and adapter_model.safetensors"));
    const InputPath path = in_folder(kConfigName);
    out_.has_config = try_to(Kind::bad_config, std::string(kConfigName),
                             [&] { out_.config = read_json_file(path); });
    if (out_.has_config) return;
    const FileKind kind = kind_of_file(path);  // a pointer, a page, the text of a link
    if (kind != FileKind::unknown && kind != FileKind::json)
      out_.problems.back().error =
          Error(in_file(path.path), fmt::format("is {}, not JSON", describe(kind)),
                remedy(kind, path.path));
  }

  Kind kind_of_failure() const {
    if (ending_in(out_.listing, {kIndexEnding}).size() == 1) return Kind::bad_shards;
    const auto weights = ending_in(out_.listing, {kSafetensorsEnding, ".bin", ".pt", ".pth"});
    return weights.empty() ? Kind::no_weights : Kind::bad_weights;
  }

  // Whether the bytes of the weights say that they are something else. What a pickle is named is
  // FMT003's.
  bool is_wrong_kind() const {
    const InputPath file =
        is_regular_file(path_) ? InputPath(path_) : in_folder("adapter_model.safetensors");
    for (const char* ending : {".bin", ".pt", ".pth"})
      if (file.path.ends_with(ending)) return false;
    return kind_of_file(file) != FileKind::unknown;
  }

  // A file of another kind says so; a folder without weights may hold them in another form.
  void explain_failure() {
    ReadProblem& problem = out_.problems.back();
    if (is_wrong_kind()) {
      problem.kind = Kind::wrong_kind;
      out_.instead = problem.error.hint();
      // That no config lies beside it follows.
      std::erase_if(out_.problems, [](const ReadProblem& p) { return p.kind == Kind::no_config; });
      return;
    }
    if (problem.kind != Kind::no_weights || path_ != out_.folder) return;
    const auto instead = instead_in_folder(path_);
    if (!instead) return;
    out_.instead = instead->advice;
    problem.error = Error(problem.error.location(), problem.error.text() + "; it " + instead->what,
                          instead->advice);
  }

  // mlx-lm's name, beside which it leaves checkpoints ("0000100_adapters.safetensors"), counts
  // where there is nothing under PEFT's.
  std::string stem() const {
    constexpr std::string_view kPeft = "adapter_model", kMlx = "adapters";
    const bool peft =
        std::any_of(out_.listing.begin(), out_.listing.end(),
                    [](const std::string& name) { return name.starts_with("adapter_model."); });
    const bool mlx = lists(std::string(kMlx).append(kSafetensorsEnding));
    return std::string(mlx && !peft ? kMlx : kPeft);
  }

  // mlx-lm's until it wrote safetensors.
  bool is_npz() const {
    constexpr std::string_view kMlxNpz = "adapters.npz";
    if (path_ != out_.folder) return name_of(path_) == kMlxNpz;
    return lists(kMlxNpz) && ending_in(out_.listing, {kSafetensorsEnding, ".bin", ".pt"}).empty();
  }

  Weights open_npz() const {
    Weights out;
    const FilePtr file = File::open(in_folder("adapters.npz"));
    for (auto& [name, array] : read_npz(*file)) {
      if (array.header.fortran_order)
        throw Error(in_file(file->path(), printable(name)),
                    "is in Fortran's order, which mlx.core.savez never writes",
                    "save it again with mlx.core.savez");
      out.tensors.emplace(
          name, Tensor(std::make_shared<MemorySource>(array.header.dtype, std::move(array.data),
                                                      file->path() + ": " + printable(name)),
                       array.header.shape));
    }
    out.files.push_back({file, {}, {}});
    return out;
  }

  // What the ranks of a training wrote apart, or the weights of the usual names.
  Weights open_tensors() {
    if (is_npz()) return open_npz();
    if (path_ != out_.folder) {
      refuse_part_of_set(out_.folder, name_of(path_), out_.listing);
    } else if (auto set = open_shard_set(path_, out_.listing, options_)) {
      out_.set = set->kind;
      return std::move(set->weights);
    }
    return open_weights(path_, {stem()}, options_);
  }

  void read_weights() {
    Weights weights;
    if (!try_to(kind_of_failure(), "", [&] { weights = open_tensors(); })) {
      explain_failure();
      return;
    }
    out_.sharded = !weights.index_path.empty();
    out_.main_file = name_of(out_.sharded ? weights.index_path : weights.files[0].file->path());
    out_.pickle = weights.pickled;
    out_.warnings = std::move(weights.warnings);
    out_.unread_index = std::move(weights.unread_index);
    for (const SafetensorsFile& file : weights.files) add_own(file, weights.tensors);
  }

  void add_own(const SafetensorsFile& file, TensorMap& tensors) {
    FolderFile own{name_of(file.file->path()), {}, file.file};
    if (out_.sharded) {
      for (const TensorEntry& entry : file.header.tensors)
        if (auto node = tensors.extract(std::string(entry.name)))
          own.tensors.insert(std::move(node));
    } else {
      own.tensors.swap(tensors);
    }
    out_.own_files.push_back(own.name);
    out_.files.push_back(std::move(own));
  }

  void read_other_files() {
    for (const std::string& name : ending_in(out_.listing, {kSafetensorsEnding})) {
      if (out_.owns({name, {}})) continue;
      try_to(Kind::bad_weights, name, [&] {
        SafetensorsFile file = open_safetensors(in_folder(name));
        out_.files.push_back({name, std::move(file.tensors), file.file});
      });
    }
    std::sort(out_.files.begin(), out_.files.end(),
              [](const FolderFile& a, const FolderFile& b) { return a.name < b.name; });
  }

  void read_added_tokens() {
    if (!lists(kAddedTokens)) return;
    try {  // SGLang only warns where this file is not JSON
      out_.added_tokens = read_json_file(in_folder(kAddedTokens));
    } catch (const MachineError&) {
      throw;
    } catch (const Error& error) {
      out_.notes.push_back(error.what());
    }
  }

  std::string path_;  // as given, or the cache's snapshot of that name
  const InputOptions& options_;
  AdapterFolder out_;
};

}  // namespace

AdapterFolder::AdapterFolder() = default;
AdapterFolder::AdapterFolder(const AdapterFolder&) = default;
AdapterFolder::AdapterFolder(AdapterFolder&&) noexcept = default;
AdapterFolder& AdapterFolder::operator=(const AdapterFolder&) = default;
AdapterFolder& AdapterFolder::operator=(AdapterFolder&&) noexcept = default;
AdapterFolder::~AdapterFolder() = default;

bool AdapterFolder::owns(const FolderFile& file) const {
  return std::find(own_files.begin(), own_files.end(), file.name) != own_files.end();
}

TensorMap AdapterFolder::take_tensors() {
  TensorMap out;
  for (FolderFile& file : files)
    if (owns(file) && out.empty())
      out.swap(file.tensors);
    else if (owns(file))
      out.merge(file.tensors);
  return out;
}

AdapterFolder read_adapter_folder(const std::string& path, bool strays,
                                  const InputOptions& options) {
  return FolderReader(path, options).read(strays);
}

}  // namespace moelora
