#include "lib/adapter/adapter_search.h"

#include <fmt/core.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "lib/adapter/adapter_folder.h"
#include "lib/adapter/foreign/rank_files.h"
#include "lib/base/natural_order.h"
#include "lib/base/utf8.h"
#include "lib/io/disk/look.h"
#include "lib/io/input_watch.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;

// ---- what the name of a file says ----

enum class Part : uint8_t {
  config,
  weights,  // of the folder's adapter
  shard,    // a part of these
  other,    // weights, or a packed file, of another name
  none,     // no part of an adapter
};

bool ends_in_one(std::string_view name, std::initializer_list<std::string_view> endings) {
  return std::any_of(endings.begin(), endings.end(),
                     [&](std::string_view ending) { return name.ends_with(ending); });
}

// What trainers keep beside a checkpoint's weights under the endings of weights.
bool is_of_training(std::string_view name) {
  constexpr std::array kNames = {"training_args.bin", "optimizer.pt", "optimizer.bin",
                                 "scheduler.pt", "scaler.pt"};
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end() ||
         name.starts_with("rng_state");
}

Part part_of(std::string_view name) {
  if (name == kConfigName) return Part::config;
  for (const std::string_view usual :
       {"adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt",
        "adapters.safetensors", "adapters.npz", "pytorch_lora_weights.safetensors"})
    if (name == usual) return Part::weights;
  if (parse_rank_file(name)) return Part::shard;
  if ((name.starts_with("adapter_model") || name.starts_with("adapter_manifest-")) &&
      ends_in_one(name, {".safetensors", ".bin", ".pt", ".json"}))
    return Part::shard;
  if (is_of_training(name)) return Part::none;
  return ends_in_one(name, {".safetensors", ".bin",  ".pt",  ".pth", ".npz", ".ckpt", ".tensors",
                            ".gguf",        ".nemo", ".h5",  ".zip", ".tar", ".tgz",  ".tbz2",
                            ".txz",         ".gz",   ".bz2", ".xz",  ".zst", ".7z",   ".rar"})
             ? Part::other
             : Part::none;
}

// ---- paths that were given ----

struct Given {
  std::string path, folder;  // as given; the folder it is or lies in, "." for none
  std::optional<Part> part;  // of a file
};

// One spelling of a folder: "a/b" of "a/./b/".
std::string key_of(const std::string& folder) {
  std::string out = fs::path(folder).lexically_normal().string();
  while (out.size() > 1 && out.ends_with('/')) out.pop_back();
  return out;
}

// Nothing there, a link to itself, a name too long, or a folder that may not be entered is judged
// like an adapter, which says so: only what is known to be something else is passed over.
bool is_file(const std::string& path) {
  try {
    return is_there(path) && !is_folder(path);
  } catch (const MachineError&) {
    return false;
  }
}

Given given_of(const std::string& path) {
  const std::string name = fs::path(path).filename().string();
  // That of a config alone says which folder is meant, whether or not anything is there.
  if (name != kConfigName && !is_file(path)) return {path, path, std::nullopt};
  const std::string folder = fs::path(path).parent_path().string();
  return {path, folder.empty() ? "." : folder, part_of(name)};
}

// Which folders are an adapter by what of them is named, and how they are called then: as they were
// named, else as their files were.
std::map<std::string, std::string> named_folders(const std::vector<Given>& given) {
  std::map<std::string, std::string> out;
  std::map<std::string, int> weights;
  for (const Given& each : given)
    if (!each.part) out.try_emplace(key_of(each.folder), each.path);
  for (const Given& each : given) {
    if (!each.part) continue;
    const std::string key = key_of(each.folder);
    const bool many = each.part == Part::weights && ++weights[key] > 1;
    if (many || each.part == Part::config || each.part == Part::shard)
      out.try_emplace(key, each.folder);
  }
  return out;
}

std::string passed_over(const std::vector<std::string>& files) {
  return fmt::format("passed over, since {} no part of an adapter: {}",
                     files.size() == 1 ? "it is" : "they are", list_some(files));
}

// Files of one folder become that folder. `alone`: nothing else was named, so that something must
// be an adapter.
FoundAdapters merged(const std::vector<std::string>& paths, bool alone) {
  std::vector<Given> given;
  for (const std::string& path : paths) given.push_back(given_of(path));
  const auto folders = named_folders(given);
  FoundAdapters out;
  std::vector<std::string> none;
  std::set<std::string> seen;
  for (const Given& each : given) {
    const auto folder = folders.find(key_of(each.folder));
    const bool whole = folder != folders.end() && each.part != Part::other;
    if (each.part == Part::none) {
      none.push_back(each.path);
    } else if (seen.insert(whole ? folder->first : key_of(each.path)).second) {
      out.paths.push_back(whole ? folder->second : each.path);
    }
  }
  if (out.paths.empty() && alone)
    out.paths = std::move(none);
  else if (!none.empty())
    out.notes.push_back(passed_over(none));
  return out;
}

// ---- folders that are searched ----

struct Listing {
  std::vector<std::string> folders;  // to be entered, in the order that people expect
  bool has_adapter = false, has_weights = false;
};

class Search {
  using Identity = std::pair<dev_t, ino_t>;

 public:
  Search(Links links, const JobControl& job, FoundAdapters& out)
      : links_(links), job_(job), out_(out) {}

  // Whether there was an adapter, or the folder was searched before.
  bool look_into(const std::string& root) {
    if (was_visited(root)) return true;
    root_ = root;
    const size_t before = out_.paths.size() + out_.unlisted.size();
    std::vector<std::string> left = {root};
    while (!left.empty()) {
      job_.check();
      const std::string folder = std::move(left.back());
      left.pop_back();
      if (!is_first_visit(folder)) continue;
      const Listing found = list(folder);
      if (found.has_adapter) out_.paths.push_back(folder);
      if (found.has_weights && !found.has_adapter) weights_.push_back(folder);
      left.insert(left.end(), found.folders.rbegin(), found.folders.rend());
    }
    return out_.paths.size() + out_.unlisted.size() > before;
  }

  void add_notes() {
    if (!linked_.empty())
      out_.notes.push_back(fmt::format("not entered, since {} out of what was named: {}",
                                       linked_.size() == 1 ? "it is a link" : "they are links",
                                       list_some(linked_)));
    if (!weights_.empty())
      out_.notes.push_back(
          fmt::format("not checked, since {} weights under no name of an adapter's: {}",
                      weights_.size() == 1 ? "it holds" : "they hold", list_some(weights_)));
  }

 private:
  // By what the folder is, whatever the links on the way: to resolve a path is a system call for
  // each folder above, which takes minutes of a tree that is a thousand folders deep.
  bool is_first_visit(const std::string& folder) {
    const auto identity = identity_of(folder);
    return !identity || seen_.insert(*identity).second;
  }

  bool was_visited(const std::string& folder) const {
    const auto identity = identity_of(folder);
    return identity && seen_.count(*identity) != 0;
  }

  static std::optional<Identity> identity_of(const std::string& folder) {
    struct stat s {};
    if (stat(folder.c_str(), &s) != 0) return std::nullopt;
    return Identity{s.st_dev, s.st_ino};
  }

  Listing list(const std::string& folder) {
    Listing out;
    std::vector<std::string> names;
    if (!looked(folder, [&] { names = names_in(folder); })) return out;
    for (const std::string& name : names) {
      const std::string path =
          folder == "." && !name.starts_with('-') ? name : join_path(folder, name);
      looked(path, [&] {
        if (!is_folder(path))
          add_file(name, out);
        else if (!name.starts_with('.') && may_enter(path))
          out.folders.push_back(path);
      });
    }
    std::sort(out.folders.begin(), out.folders.end(), comes_before);
    return out;
  }

  // What cannot be looked at is kept with the reason, and is no fault of the whole search.
  template <class F>
  bool looked(const std::string& path, F&& look) {
    const InputWatch own;
    try {
      look();
      return true;
    } catch (const Error& error) {
      if (path == root_) throw;
      out_.unlisted.emplace_back(path, error);
      return false;
    }
  }

  static void add_file(const std::string& name, Listing& out) {
    const Part part = part_of(name);
    out.has_adapter =
        out.has_adapter || part == Part::config || part == Part::weights || part == Part::shard;
    out.has_weights = out.has_weights || (part == Part::other && name.ends_with(".safetensors"));
  }

  bool may_enter(const std::string& path) {
    if (links_ == Links::all) return true;
    std::error_code fault;
    const fs::file_type type = fs::symlink_status(path, fault).type();
    if (fault) throw Error(in_file(path), "cannot be looked at: " + system_text(fault.value()));
    if (type != fs::file_type::symlink) return true;
    if (leads_out(path)) linked_.push_back(path);
    return false;
  }

  // What a link within the root leads to is found without it.
  bool leads_out(const std::string& path) const {
    std::error_code fault;
    const fs::path root = fs::canonical(root_, fault), target = fs::canonical(path, fault);
    const fs::path relative = target.lexically_relative(root);
    return fault || relative.empty() || *relative.begin() == "..";
  }

  const Links links_;
  const JobControl& job_;
  FoundAdapters& out_;
  std::string root_;
  std::set<Identity> seen_;
  std::vector<std::string> linked_, weights_;
};

// Files that were given are merged among themselves; a folder stands where it was given.
FoundAdapters searched(const std::vector<std::string>& given, Links links, const JobControl& job) {
  FoundAdapters out;
  Search search(links, job, out);
  std::vector<std::string> files, empty;
  for (const std::string& path : given)
    if (!is_folder(path))
      files.push_back(path);
    else if (!search.look_into(path))
      empty.push_back(path);
  search.add_notes();
  if (!files.empty()) {
    FoundAdapters more = merged(files, out.paths.empty());
    std::set<std::string> seen;
    for (const std::string& path : out.paths) seen.insert(key_of(path));
    for (std::string& path : more.paths) {
      const Given file = given_of(path);
      if (file.part == Part::weights && seen.count(key_of(file.folder)) != 0) continue;
      if (seen.insert(key_of(path)).second) out.paths.push_back(std::move(path));
    }
    out.notes.insert(out.notes.end(), more.notes.begin(), more.notes.end());
  }
  if (out.paths.empty() && out.unlisted.empty())
    throw Error(in_file(list_some(empty)),
                fmt::format("{} no adapter: no adapter_config.json and no adapter_model.*, in it "
                            "or in the folders below{}",
                            empty.size() == 1 ? "holds" : "hold",
                            out.notes.empty() ? "" : " (" + out.notes.front() + ")"),
                "name a folder that holds some; to check a single file, name it");
  if (!empty.empty()) out.notes.push_back("no adapter in or below " + list_some(empty));
  return out;
}

}  // namespace

FoundAdapters find_adapters(const std::vector<std::string>& given, bool recursive, Links links,
                            const JobControl& job) {
  return recursive ? searched(given, links, job) : merged(given, true);
}

}  // namespace moelora
