#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/adapter/foreign/shard_set.h"
#include "lib/base/error.h"
#include "lib/base/tensor.h"
#include "lib/io/file.h"
#include "lib/io/json.h"

namespace moelora {

// A weights file of an adapter's folder, with lazy tensors.
struct FolderFile {
  std::string name;  // in the folder
  TensorMap tensors;
  FilePtr file = nullptr;  // null for one that was never on disk
};

// Why part of an adapter's folder could not be read.
struct ReadProblem {
  enum class Kind : uint8_t {
    no_folder,    // the path is not there or cannot be listed
    no_config,    // no adapter_config.json
    bad_config,   // not JSON, or against the strict rules
    no_weights,   // no weights file at all
    bad_weights,  // malformed safetensors, refused pickle
    wrong_kind,   // a .safetensors that is something else: a zip, a Git LFS pointer, HTML ...
    bad_shards,   // an index or shards that do not fit together
  };
  Kind kind;
  std::string file;  // in the folder; "" the folder, or the adapter's own weights
  Error error;
};

// An adapter as it lies on disk, before anything is made of its names: the one reader of a folder.
// Nothing here throws for what is wrong with an adapter; every fault becomes a problem. What
// converts throws the first (open_adapter), what validates reports them all, and a server's
// simulation takes the headers.
struct AdapterFolder {
  // Compiled once in the source file rather than in every file that uses it.
  AdapterFolder();
  AdapterFolder(const AdapterFolder&);
  AdapterFolder(AdapterFolder&&) noexcept;
  AdapterFolder& operator=(const AdapterFolder&);
  AdapterFolder& operator=(AdapterFolder&&) noexcept;
  ~AdapterFolder();

  std::string given;  // the path as the user gave it: the folder, or a weights file in it
  std::string folder;
  std::vector<std::string> listing;  // names of the folder's files, sorted
  bool has_config = false;           // adapter_config.json is there and is JSON
  Json config;
  std::vector<FolderFile> files;       // every weights file that could be opened, sorted by name
  std::string main_file;               // the adapter's weights; an index's name when sharded
  std::vector<std::string> own_files;  // those of `files` that hold the adapter's tensors
  ShardSet set = ShardSet::none;       // of the adapter's weights
  bool sharded = false, pickle = false;
  std::optional<Json> added_tokens;
  std::vector<std::string> warnings;  // of the adapter's weights (lib/io/weights.h)
  std::optional<Error> unread_index;  // of the adapter's weights, a warning too
  std::vector<ReadProblem> problems;  // config first, then weights
  std::vector<std::string> notes;     // what was passed over, for people
  // What to do where the folder holds something else than an adapter
  // (lib/adapter/foreign/found_instead.h);
  // "" where it holds one. No repair of an adapter helps then.
  std::string instead;

  bool owns(const FolderFile& file) const;

  // The adapter's own tensors, moved out of `files`.
  TensorMap take_tensors();
};

// `strays`: also every other *.safetensors of the folder, which servers read whatever its name, and
// added_tokens.json. A path that is not there may be a hub name that the local cache has.
AdapterFolder read_adapter_folder(const std::string& path, bool strays = true,
                                  const InputOptions& options = {});

inline constexpr std::string_view kConfigName = "adapter_config.json";

}  // namespace moelora
